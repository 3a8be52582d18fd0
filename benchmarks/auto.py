"""What `auto` chooses and gains, and what each of its candidates does: the source of its prior, and its test.

    python benchmarks/auto.py --data-root DIR --set caltech [--pool 8] [--trials 60]

Each episode has up to 20 classes of the set, whose groups of near-copies are on one side. All arms see the same
queries on the same views: the plain classifiers (logistic regression as `predict` has it, and nearest means), every
candidate of `auto`, and `auto` itself, which chooses by the support alone. With --rivals there are methods that `auto`
leaves out. Rows go to results/auto.jsonl: accuracies, gains over the best plain classifier of these episodes with 95 %
intervals over episodes, the gain over the best single method, how often each candidate was chosen, and the gain that
auto said it expected. `tuned` says whether the set had a part in PRIOR; those that had none are held out.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pool import deal
from record import append, facts
from safetensors.torch import load_file, save_file
from torch import Tensor

from augforge import chance
from augforge.auto.candidates import LETTERS, Candidate, Kind, candidates, with_means
from augforge.auto.choice import Shown, beside, choose, open_classifier
from augforge.auto.run import embedded_networks, look, pool_views
from augforge.data.banks import AnyBank, take_rows
from augforge.data.selection import Selection
from augforge.data.source import open_source
from augforge.generators.support_gaussian import SupportGaussian
from augforge.representations.bank import data_digest
from augforge.statistics import episode_interval
from augforge.types import Examples


class Set(NamedTuple):
    """A source, its split, which of its classes, how many pictures of each, and whether PRIOR saw it."""

    source: str
    split: str
    classes: slice
    each: int
    tuned: bool
    near: str = ""  # what names of near-copies have in common
    most: int | None = None  # of each class, before the first are taken
    kind: Kind = "photographs"


SETS = {
    "caltech": Set("caltech101_small.tar", "all", slice(0, 20), 10, True, most=30),
    "faces": Set("orl_faces.npz", "all", slice(0, 20), 10, True),
    "cifar": Set("cifar-fs.zip", "val", slice(0, 16), 25, True),
    "signs": Set("gtsrb_small.tar", "all", slice(0, 43, 3), 20, False, r"/(\d{5})_", 60),
    "dogs": Set("dogs_vs_cats_small_s160.tar", "train", slice(0, 2), 25, False, most=100),
    "letters": Set("glyphs", "val", slice(0, 40), 15, True, kind="letters"),
    "letters-other": Set("glyphs", "test", slice(0, 40), 15, False, kind="letters"),
    "characters": Set("omniglot", "test", slice(0, 40), 15, False, kind="letters"),
}
NETWORKS = {"photographs": ("photos-parts", "photos-lite2-parts"), "letters": (LETTERS,)}
VIEWS = {"photographs": "crops-4", "letters": "none"}
QUERIES, WAY = 5, 20  # of each class, and classes, at most


def main() -> None:
    """Measure, append, and show the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--set", dest="name", choices=tuple(SETS), required=True)
    parser.add_argument("--pool", type=int, default=0, help="unlabelled pictures of each class of an episode")
    parser.add_argument("--unequal", action="store_true", help="each class draws its shots from 1 to the number")
    parser.add_argument("--rivals", action="store_true", help="what auto leaves out, too")
    parser.add_argument("--shots", default="1,2,5,10,20")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("build/auto"))
    given = parser.parse_args()
    how = facts(given.seed)
    about = SETS[given.name]
    bank = pictures(about, given.data_root)
    options = candidates(about.kind, NETWORKS[about.kind])
    whole = embedded(bank, options, VIEWS[about.kind], given.cache)
    single = whole
    if given.pool and pool_views(VIEWS[about.kind]) != VIEWS[about.kind]:
        single = embedded(bank, options, pool_views(VIEWS[about.kind]), given.cache)
    near = [re.search(about.near, bank.name(i))[1] if about.near else str(i) for i in range(len(bank))]  # type: ignore[index]
    row = {"set": given.name, "tuned": about.tuned, "pool": given.pool, "unequal": given.unequal,
           "views": VIEWS[about.kind]}  # fmt: skip
    for shot in map(int, given.shots.split(",")):
        drawn = [episode(bank, near, shot, given, np.random.default_rng((given.seed, i))) for i in range(given.trials)]
        found = [one for one in drawn if one is not None]
        if len(found) < given.trials // 2:
            break
        append("auto", [row | {"shot": shot} | measured((whole, single), options, found, given) | how])


def pictures(about: Set, root: Path) -> AnyBank:
    """The pictures of a set: the first of each class, or as evenly as can be from its groups."""
    path = root / about.source
    banks = open_source(str(path) if path.exists() else about.source, root, Selection(about.most))
    bank = banks[about.split] if about.split in banks else next(iter(banks.values()))
    bank = bank.only(bank.classes[about.classes])
    rows: list[int] = []
    for k in range(len(bank.classes)):
        own, groups = bank.rows_of(k).tolist(), dict[str, list[int]]()
        for row in own:
            groups.setdefault(re.search(about.near, bank.name(row))[1] if about.near else "", []).append(row)  # type: ignore[index]
        of_group = max(1, about.each // len(groups))
        rows += [row for group in groups.values() for row in group[:of_group]][: about.each]
    return take_rows(bank, torch.tensor(rows))  # type: ignore[type-var]


def embedded(bank: AnyBank, options: tuple[Candidate, ...], views: str, cache: Path) -> Shown:
    """The features of all pictures by each network, and of what is made of them, kept in a folder."""
    path = cache / f"{data_digest(bank)}-{views}-{len(bank)}.safetensors"
    if not path.exists():
        found = look(bank, None, options, views)
        cache.mkdir(parents=True, exist_ok=True)
        tensors = {f"x {name}": found.x[name].contiguous() for name in embedded_networks(options)}
        save_file(tensors | {f"{by} {name}": rows for (by, name), rows in found.made.items()}, path)
    kept = {tuple(name.split(" ")): rows for name, rows in load_file(path).items()}
    x = {name: rows for (by, name), rows in kept.items() if by == "x"}
    made = {(by, name): rows for (by, name), rows in kept.items() if by != "x"}
    return Shown(with_means(x), bank.y, made=made)


Rows = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def episode(
    bank: AnyBank, near: list[str], shot: int, given: argparse.Namespace, rng: np.random.Generator
) -> Rows | None:
    """Rows and labels of the support, rows of the pool, rows and labels of the queries; None for too few classes."""
    chosen = []
    for k in rng.permutation(len(bank.classes)):
        dealt = deal(bank.rows_of(int(k)).numpy(), near, (shot, given.pool), rng)
        if dealt is not None and len(chosen) < WAY:
            chosen.append(dealt)
    if len(chosen) < min(5, len(bank.classes)):
        return None
    counts = rng.integers(1, shot + 1, len(chosen)) if given.unequal else [shot] * len(chosen)
    support = [rows[:n] for (rows, _, _), n in zip(chosen, counts, strict=True)]
    query = [rows[:QUERIES] for _, _, rows in chosen]
    return (
        torch.tensor(np.concatenate(support)), _labels(support),
        torch.tensor(np.concatenate([pool[: given.pool] for _, pool, _ in chosen])).long(),
        torch.tensor(np.concatenate(query)), _labels(query),
    )  # fmt: skip


def _labels(rows: list[np.ndarray]) -> Tensor:
    return torch.arange(len(rows)).repeat_interleave(torch.tensor([len(part) for part in rows]))


def measured(
    shown: tuple[Shown, Shown], options: tuple[Candidate, ...], episodes: list[Rows], given: argparse.Namespace
) -> dict[str, Any]:
    """What each arm gets right, and what it gains; `shown` are all rows, and all as rows of a pool are seen."""
    plain = (options[0], replace(options[0], classifier="prototype", settings={}))
    arms = [*options, *(one for one in plain[1:] if one.words() not in {each.words() for each in options})]
    arms += [replace(one, pool=True) for one in options if given.pool]
    got: dict[str, list[float]] = {}
    chosen: Counter[str] = Counter()
    expected, seconds = [], 0.0
    for support, labels, pool, query, target in episodes:
        seen = shown[0].take(support, labels)
        if len(pool):
            seen = replace(seen, pool={name: rows[pool] for name, rows in shown[1].x.items()})
        asked = {name: rows[query] for name, rows in shown[0].x.items()}
        begun = time.process_time()
        choice = choose(seen, options, given.seed)
        seconds += time.process_time() - begun
        right = {one.words(): _right(one, seen.with_pool(one)[0] if one.pool else seen.support(one), asked, target)
                 for one in arms}  # fmt: skip
        right["auto"] = _right(choice.candidate, choice.support, asked, target)
        if given.rivals:
            known = seen.support(options[0])
            right["support-gaussian"] = _right(options[0], known + _gaussian(known), asked, target)
        chosen[choice.candidate.words()] += 1
        expected.append(choice.best.mean)
        for name, value in right.items():
            got.setdefault(name, []).append(100 * value)
    values = {name: np.array(found) for name, found in got.items()}
    best = values[max((one.words() for one in plain), key=lambda name: values[name].mean())]
    single = max((name for name in values if name != "auto"), key=lambda name: values[name].mean())
    gains = {name: _interval(found - best) for name, found in values.items()}
    return {
        "way": int(np.median([int(one[1].max()) + 1 for one in episodes])), "episodes": len(episodes),
        "accuracy": {name: round(float(found.mean()), 2) for name, found in values.items()},
        "gain": gains, "best": single, "over_best": _interval(values["auto"] - values[single]),
        "chosen": dict(chosen), "expected": round(float(np.mean(expected)), 2),
        "cpu_seconds": round(seconds / len(episodes), 2),
    }  # fmt: skip


def _interval(gains: np.ndarray) -> list[float]:
    found = episode_interval(gains)
    return [round(n, 2) for n in (found.value, found.low, found.high)]


def _gaussian(known: Examples) -> Examples:
    """Twenty rows of each class drawn round the class means."""
    want = torch.arange(int(known.y.max()) + 1).repeat_interleave(20)
    return SupportGaussian().synthesize(known, want, chance.pair_keys(0, "auto", torch.arange(len(want))))


def _right(one: Candidate, support: Examples, asked: dict[str, Tensor], target: Tensor) -> float:
    """The share of queries that a candidate names right."""
    scores = open_classifier(one).scores(support, beside(asked, one.networks))
    return float((scores.argmax(1) == target).double().mean())


if __name__ == "__main__":
    main()
