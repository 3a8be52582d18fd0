"""What a pool of unlabelled pictures gains over plain logistic regression, on a file of features.

    python benchmarks/pool.py FEATURES.safetensors [--group-by REGEX] [--shots 1,2,5,10] [--episodes 40] [--pool 20]

Each episode has `--way` classes whose groups of near-copies are dealt out to support, pool and queries, so that no
group is on two sides. Both arms are logistic regression as `predict` uses it (C = 100, rows of length 1), on the same
rows: alone, and behind `with_pool`. With `--distractors` half of the pool is of as many other classes. Rows go to
results/pool.jsonl: accuracy, the gain with its 95 % interval over episodes, and how many labels were found rightly.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch
from record import append, commit
from torch import Tensor

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.pool import PoolOptions, with_pool
from augforge.data.banks import FeatureBank
from augforge.data.source import open_source
from augforge.machine import machine, versions
from augforge.statistics import episode_interval
from augforge.types import Examples, InputError

LOGISTIC = Logistic(C=100.0, normalise="l2")
QUERIES = 8  # of each class, at most


def main() -> None:
    """Measure, append, and show the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("--set", default=None, help="what the rows call the data set")
    parser.add_argument("--group-by", default="")
    parser.add_argument("--way", type=int, default=10)
    parser.add_argument("--shots", default="1,2,5,10")
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--pool", type=int, default=20, help="unlabelled rows for each class of an episode")
    parser.add_argument("--distractors", action="store_true")
    parser.add_argument("--share", type=float, default=2.0)
    parser.add_argument("--background", type=float, default=PoolOptions.background)
    parser.add_argument("--unchecked", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    bank = open_source(given.features)["all"]
    if not isinstance(bank, FeatureBank):
        raise InputError(f"{str(given.features)!r} holds pictures; expected features")
    options = PoolOptions(share=given.share, background=given.background, checked=not given.unchecked)
    command = "python benchmarks/pool.py " + " ".join(sys.argv[1:]).replace(str(given.features), "FEATURES")
    facts = {"command": command, "commit": commit(), "seed": given.seed, "date": time.strftime("%Y-%m-%d"),
             "machine": machine(), "versions": versions()}  # fmt: skip
    about = {"set": given.set or given.features.stem, "way": given.way, "pool": given.pool,
             "distractors": given.distractors, "background": given.background, "share": given.share,
             "checked": not given.unchecked}  # fmt: skip
    for shot in map(int, given.shots.split(",")):
        found = np.array([
            accuracies(bank, episode(bank, given, shot, np.random.default_rng((given.seed, i))), options)
            for i in range(given.episodes)
        ])  # fmt: skip
        plain, pooled, labels = 100 * found.T
        gain = episode_interval(pooled - plain)
        row = {"shot": shot, "episodes": given.episodes, "plain": plain.mean(), "pooled": pooled.mean(),
               "gain": gain.value, "ci95": [gain.low, gain.high],
               "labels_right": labels.mean()}  # fmt: skip
        append("pool", [about | row | facts])


def accuracies(
    bank: FeatureBank, rows: tuple[Tensor, Tensor, Tensor], options: PoolOptions
) -> tuple[float, float, float]:
    """The shares of right answers without the pool and with it, and of right labels among its rows of these classes.

    `rows` are those of the support [way, shot], the pool [m] and the queries [q].
    """
    support_rows, pool, query = rows
    classes = bank.y[support_rows[:, 0]]
    support = bank.examples(support_rows.flatten(), classes)
    asked = bank.examples(query, classes)
    pooled = with_pool(support, bank.x[pool], options)
    known = torch.isin(bank.y[pool], classes)
    right = (classes[pooled.y[len(support) :]] == bank.y[pool])[known].double().mean()
    return _right(support, asked), _right(pooled, asked), float(right)


def _right(support: Examples, asked: Examples) -> float:
    scores = LOGISTIC.scores(support, torch.as_tensor(asked.x))
    return float((scores.argmax(1) == asked.y).double().mean())


def episode(
    bank: FeatureBank, given: argparse.Namespace, shot: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the support [way, shot], the pool [m] and the queries [q]; raises InputError for too few classes."""
    near = [re.search(given.group_by, bank.name(i))[1] if given.group_by else str(i) for i in range(len(bank))]  # type: ignore[index]
    most = max(map(int, given.shots.split(",")))  # the same pool and queries for all numbers of shots
    dealt = [deal(bank.rows_of(int(k)).numpy(), near, (most, given.pool), rng)
             for k in rng.permutation(len(bank.classes))]  # fmt: skip
    enough = [rows for rows in dealt if rows is not None]
    if len(enough) < given.way * (1 + given.distractors):
        raise InputError(f"{len(enough)} classes have rows enough; expected {given.way * (1 + given.distractors)}")
    chosen, others = enough[: given.way], enough[given.way : 2 * given.way]
    each = given.pool // 2 if given.distractors else given.pool
    pool = [pool[:each] for _, pool, _ in chosen]
    if given.distractors:
        pool += [pool[:each] for _, pool, _ in others]
    support = torch.tensor(np.stack([rows[:shot] for rows, _, _ in chosen]))
    return support, torch.tensor(np.concatenate(pool)), torch.tensor(np.concatenate([rows for _, _, rows in chosen]))


def deal(
    rows: np.ndarray, near: list[str], wanted: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Rows of a class for support, pool and queries, no group on two sides; None where there are too few.

    Groups go in a random order to the pool until it has rows enough; a half of the others, or as many as it takes, is
    the support's, and the rest is asked.
    """
    groups: dict[str, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(near[row], []).append(row)
    names = sorted(groups)
    left = [groups[names[i]] for i in rng.permutation(len(names))]
    pool, support = [], []
    while left and len(pool) < wanted[1]:
        pool += left.pop()
    half = len(left) // 2
    while left and (len(support) < wanted[0] or len(left) > half):
        support += left.pop()
    query = [row for group in left for row in group]
    if len(pool) < wanted[1] or len(support) < wanted[0] or not query:
        return None
    return rng.permutation(support), rng.permutation(pool), rng.permutation(query)[:QUERIES]


if __name__ == "__main__":
    main()
