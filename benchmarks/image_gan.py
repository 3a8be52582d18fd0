"""What an image-conditional GAN is worth on characters that it never saw.

    python benchmarks/image_gan.py FOLDER --task omniglot-alphabet --representation DIR cnn --shot 1,5 --draws 3
    python benchmarks/image_gan.py FOLDER --task omniglot-alphabet --representation DIR quality
    python benchmarks/image_gan.py FOLDER --task omniglot-alphabet --sheet sheet.png

FOLDER is what `augforge fit image-gan` left. "cnn" is DAGAN's own comparison with the control that it lacked: a plain
CNN trained from scratch on real + classical + GAN against real + classical alone, on the same classes, support rows,
steps and test rows. "quality" gives, for pictures made of one picture of each novel class, Fréchet and kernel
distance, precision, recall, density and coverage against the other real ones, beside those of classical augmentation
of the same parents to the same count, of half of each and of other real rows; how diverse classes are; and how near
made pictures lie to the pictures that were trained on. `--part val` looks at validation classes: what is chosen is
chosen there.
`--record` adds rows to results/image_gan.jsonl.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import RESULTS, append
from torch import Tensor

from augforge import chance
from augforge.episodes.named_tasks import open_task
from augforge.generators.classical import Classical
from augforge.generators.shared.gan.pictures import net_pictures
from augforge.generators.shared.gan.validation import write_sheet
from augforge.imagine import more_of_each
from augforge.measure.plain_cnn import CnnOptions
from augforge.measure.usefulness import ALL, MADE, REAL, REAL_CLASSICAL, TrainingSet, balanced, train_network
from augforge.metrics.by_class import by_class
from augforge.metrics.coverage import density_coverage, precision_recall
from augforge.metrics.diversity import diversity
from augforge.metrics.frechet import frechet_distance
from augforge.metrics.kid import kid
from augforge.metrics.memorisation import memorisation
from augforge.parts.saving import load_part, open_part, part_digest
from augforge.statistics import class_interval
from augforge.types import Examples

_COPIES = 4  # of a made or real picture beside its parent, in the sheet


def drawn(bank: Any, classes: int, shot: int, seed: int) -> tuple[Examples, Examples, Tensor]:
    """`shot` support rows of some classes, all other rows of those, and the classes' ids [classes]."""
    order = torch.argsort(
        chance.uniform(chance.row_keys(seed, "classes", torch.arange(len(bank.classes)))), stable=True
    )
    chosen = order[:classes].sort().values if classes else torch.arange(len(bank.classes))
    support, query = [], []
    for label in chosen.tolist():
        rows = (bank.y == label).nonzero()[:, 0]
        rows = rows[torch.argsort(chance.uniform(chance.row_keys(seed, f"rows {label}", rows)), stable=True)]
        support.append(rows[:shot])
        query.append(rows[shot:])
    return bank.examples(torch.cat(support), chosen), bank.examples(torch.cat(query), chosen), chosen


def made_of(part: Any, support: Examples, each: int, seed: int) -> Examples:
    """`each` pictures of every class of a support, in its type."""
    classes = int(support.y.max()) + 1
    want = more_of_each(classes, each)
    keys = torch.cat([chance.row_keys(seed, str(label), torch.arange(each)) for label in range(classes)])
    return part.synthesize(support, want, keys)


def cnn_arms(part: Any, support: Examples, options: argparse.Namespace, seed: int) -> dict[str, TrainingSet]:
    """What the CNN is trained on. Made rows of a class weigh `--share` times what its real ones do together."""
    made = made_of(part, support, options.made, seed)
    plain, fake = Examples(support.x, support.y), Examples(made.x, made.y)
    shot = len(plain) // (int(plain.y.max()) + 1)
    weight = torch.cat([torch.full((len(plain),), 1 / shot), torch.full((len(fake),), options.share / options.made)])
    return {
        REAL: TrainingSet(plain),
        REAL_CLASSICAL: TrainingSet(plain, "strokes"),
        ALL: TrainingSet(replace(plain + fake, weight=weight), "strokes"),
        MADE: TrainingSet(balanced(fake, plain), "strokes"),
    }


def by_cnn(part: Any, bank: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Accuracies and paired gains of a CNN trained from scratch, over draws of classes and support rows."""
    rows = []
    judge = train_network(CnnOptions(steps=options.steps, batch_size=options.batch))
    facts = {name: getattr(options, name) for name in ("classes", "draws", "steps", "batch", "made", "share")}
    for shot in map(int, options.shot.split(",")):
        right: dict[str, list[Tensor]] = {name: [] for name in options.arms.split(",")}
        clusters = []
        for draw in range(options.draws):
            support, query, ids = drawn(bank, options.classes, shot, draw)
            arms = cnn_arms(part, support, options, draw)
            for name, found in right.items():
                found.append(100.0 * (judge(arms[name], query.x, draw).argmax(1) == query.y))
                print(f"draw {draw}, {shot} shots, {name}: {float(found[-1].mean()):.2f}", flush=True)
            clusters.append(ids[query.y])
        rows += cnn_rows(right, torch.cat(clusters), {"judge": "cnn", "shot": shot, **facts})
    return rows


def cnn_rows(right: dict[str, list[Tensor]], clusters: Tensor, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each arm: accuracy, and the paired gain over real + classical with its interval over classes."""
    hits, rows = {name: torch.cat(found) for name, found in right.items()}, []
    for name, found in hits.items():
        by_draw = [round(float(each.mean()), 2) for each in right[name]]
        row = facts | {"arm": name, "accuracy": round(float(found.mean()), 2), "accuracy_by_draw": by_draw}
        if REAL_CLASSICAL in hits and name != REAL_CLASSICAL:
            gain = class_interval((found - hits[REAL_CLASSICAL])[:, None].numpy(), clusters[:, None].numpy())
            row |= {
                "gain_over_real_classical": round(gain.value, 2),
                "gain_ci95": [round(gain.low, 2), round(gain.high, 2)],
            }
        rows.append(row)
        print(row, flush=True)
    return rows


def by_quality(part: Any, task: Any, bank: Any, representation: Any) -> list[dict[str, Any]]:
    """Distances, coverage, diversity and memorisation, of made, classical and other real rows alike."""
    support, others, ids = drawn(bank, 0, 1, 0)
    # Half of the real rows stand where made ones stand, the other half is compared with.
    rest = torch.arange(len(others)) % 2 == 0
    real, held_out = others.take(rest), others.take(~rest)
    each = len(held_out) // len(ids)
    made = made_of(part, support, each, 0)
    classical = made_of(Classical(preset="handwriting"), support, each, 0)
    sets = {"image-gan": made, "classical": classical, "half of each": alternating(made, classical),
            "other real rows": held_out}  # fmt: skip
    features = representation.embed(real.x)
    train_rows = torch.arange(0, len(task.base.y), 4)
    train = representation.embed(task.base.examples(train_rows).x)
    found = []
    for name, rows in sets.items():
        x = representation.embed(rows.x)
        spread = by_class(diversity, [(features, real.y), (x, rows.y)]).values.values()
        near = memorisation(train, x, features)
        row = {
            "metric": "quality", "set": name, "rows": len(x), "real_rows": len(features), "width": x.shape[1],
            "frechet": frechet_distance(features, x), "kid": kid(features, x),
            **vars(precision_recall(features, x)), **vars(density_coverage(features, x)),
            "diversity_within_class": float(np.median([each.ratio for each in spread])),
            "memorisation": near.median.value, "memorisation_ci95": [near.median.low, near.median.high],
        }  # fmt: skip
        found.append(row)
        print(row, flush=True)
    return found


def alternating(a: Examples, b: Examples) -> Examples:
    """The even rows of `a` and the odd ones of `b`, which have the same labels."""
    even = torch.arange(0, len(a), 2)
    odd = torch.arange(1, len(b), 2)
    return Examples(torch.cat([a.x[even], b.x[odd]]), torch.cat([a.y[even], b.y[odd]]))


def sheet(part: Any, bank: Any, path: Path) -> None:
    """Rows of a parent, what is made of it, and other real pictures of its class."""
    support, others, ids = drawn(bank, 12, 1, 3)
    made = made_of(part, support, 2 * _COPIES, 3)
    first = torch.stack([(others.y == label).nonzero()[:_COPIES, 0] for label in range(len(ids))])  # [classes, copies]
    parts = [net_pictures(Examples(x, torch.zeros(len(x))), 0, part.facts_, "sheet")
             for x in (support.x, made.x, others.x[first.flatten()])]  # fmt: skip
    rows = [x.unflatten(0, (len(ids), -1)) for x in parts]
    write_sheet(torch.cat(rows, 1), str(path))


def main() -> None:
    """Measure, print, and record where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", nargs="?", choices=("cnn", "quality"))
    parser.add_argument("--task", default="glyphs")
    parser.add_argument("--part", default="novel", choices=("novel", "val"))
    parser.add_argument("--representation", default="conv4-glyphs")
    parser.add_argument("--shot", default="1,5")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--made", type=int, default=20)
    parser.add_argument("--share", type=float, default=1.0, help="weight of all made rows of a class; real ones have 1")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--arms", default=f"{REAL_CLASSICAL},{ALL}")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = open_task(options.task, options.data_root)
    bank = task.novel if options.part == "novel" else task.val
    part = load_part(options.folder) if options.folder.is_dir() else open_part(str(options.folder))
    if options.sheet is not None:
        sheet(part, bank, options.sheet)
    rows = []
    if options.what == "cnn":
        rows = by_cnn(part, bank, options)
    elif options.what == "quality":
        name = options.representation
        opened = (
            load_part(Path(name), "representation") if Path(name).is_dir() else open_part(name, None, "representation")
        )
        rows = [row | {"representation": name} for row in by_quality(part, task, bank, opened)]
    if options.record:
        facts = {"task": options.task, "part": options.part, "generator": part_digest(part)}
        finite = [{k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))} for row in rows]
        append(RESULTS / "image_gan.jsonl", finite, facts)


if __name__ == "__main__":
    main()
