"""Pictures made by an image-conditional GAN before prototypes and matching networks, in paired episodes of one group.

    python benchmarks/image_gan_episodes.py FOLDER --task omniglot-alphabet --representation DIR --record

The episodes are of one shot, within one alphabet. Every support row has `--made` rows made of it, embedded, which
together weigh `--share` times what the real one does, as in `augforge bench --share`; without it twenty rows weigh as
twenty and drown the real one. The share was chosen on validation classes (`--part val`). Arms: nothing, classical
augmentation, the GAN, the GAN without noise, which makes one and the same picture of a parent, and half of the share
for each of classical and GAN; gains over nothing, classical and the GAN without noise, with intervals over alphabets
drawn anew, since classes of one episode gain at each other's cost. Rows go to results/image_gan_episodes.jsonl.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from data_sets import RESULTS, append
from torch import Tensor

from augforge import chance
from augforge.classifiers.matching import Matching
from augforge.classifiers.prototype import Prototype
from augforge.episodes import draw_within_groups
from augforge.episodes.named_tasks import open_task
from augforge.generators.classical import Classical
from augforge.parts.saving import load_part, part_digest
from augforge.statistics import class_interval
from augforge.types import Episode, Examples

_ROWS_AT_ONCE = 256
_QUIET = "image-gan, noise 0"


def without_noise(part: Any) -> Any:
    """The same GAN with its latents cut off at next to nothing."""
    quiet = copy.copy(part)
    quiet.truncation = 1e-30
    return quiet


def made_features(part: Any, bank: Any, representation: Any, each: int, rows: Tensor) -> Tensor:
    """The embeddings [n, each, d] of pictures made of some rows [n] of a bank."""
    found = []
    for some in rows.split(_ROWS_AT_ONCE):
        support = Examples(bank.examples(some).x, torch.arange(len(some)))
        index = some.repeat_interleave(each) * each + torch.arange(each).repeat(len(some))
        made = part.synthesize(support, support.y.repeat_interleave(each), chance.row_keys(0, "episodes", index))
        found.append(representation.embed(made.x))
    return torch.cat(found).unflatten(0, (-1, each))


def hits(classifier: Any, x: Tensor, made: Tensor | None, episodes: list[Episode], share: float) -> Tensor:
    """The percentage right [episodes, way] of each class's queries, from features x [n, d] and made [n, each, d]."""
    found = []
    for episode in episodes:
        rows, y = episode.support[:, 0], torch.arange(len(episode.support))
        support = Examples(x[rows], y)
        if made is not None:
            more = made[rows]  # [way, each, d]
            weight = torch.full((more.shape[0] * more.shape[1],), share / more.shape[1])
            support = support + Examples(more.flatten(0, 1), y.repeat_interleave(more.shape[1]), weight=weight)
        named = classifier.scores(support, x[episode.query.flatten()]).argmax(1).unflatten(0, episode.query.shape)
        found.append(100.0 * (named == y[:, None]).float().mean(1))
    return torch.stack(found)


def measured(part: Any, bank: Any, representation: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each classifier and arm."""
    names = bank.groups["alphabet"]
    number = {name: i for i, name in enumerate(sorted(set(names)))}
    group = torch.tensor([number[name] for name in names])
    episodes = draw_within_groups(bank.y, group, (options.way, 1, options.query), options.trials, options.seed)
    x = representation.embed(bank.examples(torch.arange(len(bank.y))).x)
    used = torch.cat([episode.support[:, 0] for episode in episodes]).unique()
    made: dict[str, Tensor] = {}
    makers = {"classical": Classical(preset="handwriting"), "image-gan": part, _QUIET: without_noise(part)}
    for name, maker in makers.items():
        found = made_features(maker, bank, representation, options.made, used)
        made[name] = torch.zeros(len(x), *found.shape[1:]).index_copy(0, used, found)
    made["classical + image-gan"] = torch.cat([made["classical"], made["image-gan"]], 1)
    clusters = torch.stack([group[episode.support[:, 0]] for episode in episodes]).numpy()  # as `augforge bench` does
    rows = []
    for name, classifier in (("prototype", Prototype()), ("matching", Matching())):
        right = {arm: hits(classifier, x, made.get(arm), episodes, options.share) for arm in ("nothing", *made)}
        for arm, found in right.items():
            row: dict[str, Any] = {"classifier": name, "arm": arm, "accuracy": round(float(found.mean()), 2)}
            for over, label in (("nothing", "nothing"), ("classical", "classical"), (_QUIET, "no_noise")):
                gain = class_interval((found - right[over]).numpy(), clusters)
                row[f"gain_over_{label}"] = [round(value, 2) for value in (gain.value, gain.low, gain.high)]
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    """Measure, print, and record where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", default="omniglot-alphabet")
    parser.add_argument("--part", default="novel", choices=("novel", "val"))
    parser.add_argument("--representation", type=Path, required=True)
    parser.add_argument("--way", type=int, default=20)
    parser.add_argument("--query", type=int, default=10)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--made", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = open_task(options.task, options.data_root)
    part = load_part(options.folder)
    bank = task.novel if options.part == "novel" else task.val
    rows = measured(part, bank, load_part(options.representation, "representation"), options)
    if options.record:
        facts = {name: getattr(options, name) for name in ("task", "part", "way", "query", "trials", "made", "share")}
        append(RESULTS / "image_gan_episodes.jsonl", rows, facts | {"generator": part_digest(part)})


if __name__ == "__main__":
    main()
