"""What `auto` chooses and gains, and what each of its candidates does: the source of its prior, and its test.

    python benchmarks/auto.py --data-root DIR --set caltech [--pool 8] [--trials 60]

Each episode has up to 20 classes of the set, whose groups of near-copies are on one side. All arms see the same
queries on the same views: the plain classifiers (logistic regression as `predict` has it, and nearest means, on
`photos`), every candidate of `auto`, and `auto` itself, which chooses by the support alone. Rows go to
results/auto.jsonl: accuracies, gains over the best plain classifier of these episodes with 95 % intervals over
episodes, how often each candidate was chosen, and the gain that auto said it expected. `tuned` says whether the set had
a part in PRIOR; those that had none are held out.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pool import deal
from record import append, commit
from torch import Tensor

from augforge.auto.candidates import Candidate, candidates
from augforge.auto.choice import Shown, beside, choose, open_classifier
from augforge.data.banks import AnyBank, take_rows
from augforge.data.selection import Selection
from augforge.data.source import open_source
from augforge.machine import machine, versions
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions
from augforge.statistics import episode_interval
from augforge.types import Examples

# The source, its split, which of its classes, how many pictures of each, the near-copies, and whether PRIOR saw it.
SETS: dict[str, tuple[str, str, slice, int, str, bool]] = {
    "caltech": ("caltech101_small.tar", "all", slice(0, 20), 15, "", True),
    "faces": ("orl_faces.npz", "all", slice(0, 20), 10, "", True),
    "cifar": ("cifar-fs.zip", "val", slice(0, 16), 15, "", True),
    "signs": ("gtsrb_small.tar", "all", slice(0, 43, 3), 20, r"/(\d{5})_", False),
    "caltech-other": ("caltech101_small.tar", "all", slice(20, 40), 15, "", False),
    "dogs": ("dogs_vs_cats_small_s160.tar", "train", slice(0, 2), 40, "", False),
}
MOST = {"caltech": 30, "caltech-other": 30, "signs": 60, "dogs": 100}  # of each class, before the first are taken
NETWORKS = ("photos", "photos-lite2")
QUERIES, WAY = 5, 20  # of each class, and classes, at most


def main() -> None:
    """Measure, append, and show the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--set", dest="name", choices=tuple(SETS), required=True)
    parser.add_argument("--pool", type=int, default=0, help="unlabelled pictures of each class of an episode")
    parser.add_argument("--unequal", action="store_true", help="each class draws its shots from 1 to the number")
    parser.add_argument("--views", default="crops-4")
    parser.add_argument("--shots", default="1,2,5,10,20")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("build/auto"))
    given = parser.parse_args()
    command = "python benchmarks/auto.py " + " ".join(sys.argv[1:]).replace(str(given.data_root), "DIR")
    facts = {"command": command, "commit": commit(), "seed": given.seed, "date": time.strftime("%Y-%m-%d"),
             "machine": machine(), "versions": versions()}  # fmt: skip
    bank = pictures(given.name, given.data_root)
    x = {name: embed_bank(open_part(name, None, "representation"), bank, BankOptions(views=given.views), given.cache).x
         for name in NETWORKS}  # fmt: skip
    groups = SETS[given.name][4]
    near = [re.search(groups, bank.name(i))[1] if groups else str(i) for i in range(len(bank))]  # type: ignore[index]
    about = {"set": given.name, "tuned": SETS[given.name][5], "pool": given.pool, "unequal": given.unequal,
             "views": given.views}  # fmt: skip
    for shot in map(int, given.shots.split(",")):
        drawn = [episode(bank, near, shot, given, np.random.default_rng((given.seed, i))) for i in range(given.trials)]
        found = [one for one in drawn if one is not None]
        if len(found) < given.trials // 2:
            break
        append("auto", [about | {"shot": shot} | measured(x, found, given) | facts])


def pictures(name: str, root: Path) -> AnyBank:
    """The pictures of a set: the first of each class, or as evenly as can be from its groups."""
    file, split, classes, each, groups, _ = SETS[name]
    banks = open_source(str(root / file), None, Selection(MOST.get(name)))
    bank = banks[split] if split in banks else next(iter(banks.values()))
    bank = bank.only(bank.classes[classes])
    rows: list[int] = []
    for k in range(len(bank.classes)):
        own, tracks = bank.rows_of(k).tolist(), dict[str, list[int]]()
        for row in own:
            tracks.setdefault(re.search(groups, bank.name(row))[1] if groups else "", []).append(row)  # type: ignore[index]
        of_track = max(1, each // len(tracks))
        rows += [row for track in tracks.values() for row in track[:of_track]][:each]
    return take_rows(bank, torch.tensor(rows))  # type: ignore[type-var]


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


def measured(x: dict[str, Tensor], episodes: list[Rows], given: argparse.Namespace) -> dict[str, Any]:
    """What each arm gets right, and what it gains."""
    options = candidates("photographs", NETWORKS)
    plain = (options[0], Candidate("plain", NETWORKS[:1], "prototype"))
    arms = [*options, plain[1], *(replace(one, pool=True) for one in options if given.pool)]
    got: dict[str, list[float]] = {}
    chosen: Counter[str] = Counter()
    expected, begun = [], time.process_time()
    for support, labels, pool, query, target in episodes:
        unlabelled = {name: rows[pool] for name, rows in x.items()} if len(pool) else {}
        shown = Shown({name: rows[support] for name, rows in x.items()}, labels, unlabelled)
        asked = {name: rows[query] for name, rows in x.items()}
        choice = choose(shown, options, given.seed)
        right = {one.words(): _right(one, shown.support(one), asked, target) for one in arms}
        right["auto"] = _right(choice.candidate, choice.support, asked, target)
        chosen[choice.candidate.words()] += 1
        expected.append(choice.best.mean)
        for name, value in right.items():
            got.setdefault(name, []).append(100 * value)
    values = {name: np.array(found) for name, found in got.items()}
    best = values[max((one.words() for one in plain), key=lambda name: values[name].mean())]
    gains = {name: episode_interval(found - best) for name, found in values.items()}
    return {
        "way": int(np.median([int(one[1].max()) + 1 for one in episodes])), "episodes": len(episodes),
        "accuracy": {name: round(float(found.mean()), 2) for name, found in values.items()},
        "gain": {name: [round(n, 2) for n in (gain.value, gain.low, gain.high)] for name, gain in gains.items()},
        "chosen": dict(chosen), "expected": round(float(np.mean(expected)), 2),
        "cpu_seconds": round((time.process_time() - begun) / len(episodes), 2),
    }  # fmt: skip


def _right(one: Candidate, support: Examples, asked: dict[str, Tensor], target: Tensor) -> float:
    """The share of queries that a candidate names right."""
    scores = open_classifier(one).scores(support, beside(asked, one.networks))
    return float((scores.argmax(1) == target).double().mean())


if __name__ == "__main__":
    main()
