"""What a pool of unlabelled pictures gains over plain logistic regression, beside other ways to use one.

    python benchmarks/pool.py --data-root DIR [--set NAME] [--shots 1,2,5,10,20] [--rivals]

Every picture is embedded with `photos`, views crops-4, once. Each episode has 10 classes whose groups of near-copies
are dealt out to support, pool and queries, so that no group is on two sides; a pool has 30 rows of each class, or as
many as there are, or, with distractors, half as many of each class and of ten other classes. The classes are not those
that the defaults of `PoolOptions` were chosen on. All arms are logistic regression as `predict` uses it (C = 100, rows
of length 1): alone; behind `with_pool`; and with `--rivals` behind soft k-means that is believed (`checked=False`);
behind five rounds of self-training from there; behind label spreading (scikit-learn's, 8 neighbours); and with the
pool's true labels. Rows go to results/pool.jsonl: gains with their 95 % intervals over episodes, and how many labels
were found rightly.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from record import append, facts
from sklearn.semi_supervised import LabelSpreading
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.pool import PoolOptions, label_pool
from augforge.data.banks import FeatureBank
from augforge.data.selection import Selection
from augforge.data.source import open_source
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions
from augforge.statistics import episode_interval
from augforge.types import Examples, InputError

LOGISTIC = Logistic(C=100.0, normalise="l2")
QUERIES, POOL = 8, 30  # of each class, at most
BELIEVED = PoolOptions(temperature=10.0, background=None, checked=False)


@dataclass(frozen=True)
class Data:
    """Where pictures come from, and which of their classes are reported on: all others were chosen on."""

    source: str
    split: str
    embedded: int  # classes, the first ones
    most: int  # pictures of each class
    reported: slice  # of these classes
    group: str = ""  # what keeps near-copies together


SETS = {
    "caltech101_small": Data("caltech101_small.tar", "all", 40, 30, slice(20, 40)),
    "gtsrb_small": Data("gtsrb_small.tar", "all", 43, 60, slice(1, 43, 2), r"(.*)_"),
    "cifar-fs": Data("cifar-fs", "train", 30, 70, slice(0, 30)),
}


def main() -> None:
    """Measure, append, and show the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--set", dest="sets", action="append", choices=tuple(SETS))
    parser.add_argument("--way", type=int, default=10)
    parser.add_argument("--shots", default="1,2,5,10,20")
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("build/photographs"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    how = facts(given.seed)
    for name in given.sets or SETS:
        bank, near = embedded(SETS[name], given)
        for distractors in (False, True):
            for shot in map(int, given.shots.split(",")):
                row = measured(bank, near, (given.way, shot, distractors), given)
                append("pool", [{"set": name, "way": given.way, "distractors": distractors, **row, **how}])


def embedded(data: Data, given: argparse.Namespace) -> tuple[FeatureBank, list[str]]:
    """The features of the classes that are reported on, and the group of every row."""
    source = str(given.data_root / data.source) if data.source.endswith(".tar") else data.source
    bank = open_source(source, given.data_root, Selection(data.most))[data.split]
    bank = bank.only(bank.classes[: data.embedded])
    options = BankOptions(views="crops-4", precision="float32")
    features = embed_bank(open_part("photos", None, "representation"), bank, options, given.cache)
    features = features.only(features.classes[data.reported])
    names = [features.name(i) for i in range(len(features))]
    return features, [re.search(data.group, name)[1] if data.group else name for name in names]  # type: ignore[index]


def measured(
    bank: FeatureBank, near: list[str], form: tuple[int, int, bool], given: argparse.Namespace
) -> dict[str, object]:
    """The mean of every arm and of its gain with an interval; `form` is way, shot and whether there are distractors."""
    _, shot, _ = form
    least = int(bank.counts().min())
    pool = min(POOL, 40 - shot if len(set(near)) < len(bank) else max(5, least - QUERIES - shot))
    arms: dict[str, list[float]] = {}
    for i in range(given.episodes):
        rng = np.random.default_rng((given.seed, shot, i))
        for arm, value in answers(bank, episode(bank, near, form, pool, rng), given.rivals).items():
            arms.setdefault(arm, []).append(100 * value)
    plain = np.array(arms["plain"])
    row: dict[str, object] = {"shot": shot, "pool": pool, "episodes": given.episodes, "plain": plain.mean()}
    for arm, values in arms.items():
        if arm in ("labels_right", "trust"):
            row[arm] = float(np.mean(values))
        elif arm != "plain":
            gain = episode_interval(np.array(values) - plain)
            row |= {arm: gain.value, f"{arm}_ci95": [gain.low, gain.high]}
    return row


def answers(bank: FeatureBank, rows: tuple[Tensor, Tensor, Tensor], rivals: bool) -> dict[str, float]:
    """The share of right answers of every arm, for rows of the support [way, shot], the pool and the queries."""
    support_rows, pool_rows, query = rows
    classes = bank.y[support_rows[:, 0]]
    support, asked = bank.examples(support_rows.flatten(), classes), bank.examples(query, classes)
    pool = bank.x[pool_rows]
    truth = (bank.y[pool_rows][:, None] == classes).to(torch.int8)
    known, truth = truth.any(1), truth.argmax(1)
    found = label_pool(support, pool)
    pooled = support + Examples(pool, found.y, weight=found.weight.to(pool))
    arms = {
        "plain": right(support, asked),
        "gain": right(pooled, asked),
        "labels_right": float((found.y == truth)[known].double().mean()),
        "trust": found.trust,
    }
    return arms | (_rivals(support, pool, asked, (truth, known.double())) if rivals else {})


def _rivals(support: Examples, pool: Tensor, asked: Examples, truth: tuple[Tensor, Tensor]) -> dict[str, float]:
    believed = label_pool(support, pool, BELIEVED)
    training = believed.y, believed.confidence
    for _ in range(5):
        scores = LOGISTIC.scores(weighted(support, pool, *training), pool)
        confidence, y = torch.softmax(scores.double() / 0.36, 1).max(1)
        training = y, confidence
    return {
        "k_means": right(weighted(support, pool, believed.y, believed.confidence), asked),
        "self_training": right(weighted(support, pool, *training), asked),
        "spreading": right(weighted(support, pool, *spread(support, pool)), asked),
        "true_labels": right(weighted(support, pool, *truth), asked),
    }


def spread(support: Examples, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and confidences by label spreading (Zhou et al., NIPS 2003) on 8 neighbours, centred rows of length 1."""
    x = F.normalize(torch.cat([torch.as_tensor(support.x), pool]), dim=1)
    x = F.normalize(x - x.mean(0), dim=1).numpy()
    y = np.concatenate([support.y.numpy(), np.full(len(pool), -1)])
    fitted = LabelSpreading(kernel="knn", n_neighbors=8, alpha=0.5, max_iter=100).fit(x, y)
    p = torch.from_numpy(np.nan_to_num(fitted.label_distributions_[len(support) :]))
    confidence, labels = p.max(1)
    return labels, confidence


def weighted(support: Examples, pool: Tensor, y: Tensor, confidence: Tensor, share: float = 2.0) -> Examples:
    """The support and a pool that weighs `share` rows of each class together, on average over classes."""
    factor = min(1.0, share * (int(support.y.max()) + 1) / max(1e-9, float(confidence.sum())))
    return Examples(support.x, support.y) + Examples(pool, y, weight=(factor * confidence).to(pool))


def right(support: Examples, asked: Examples) -> float:
    """The share of right answers."""
    scores = LOGISTIC.scores(support, torch.as_tensor(asked.x))
    return float((scores.argmax(1) == asked.y).double().mean())


def episode(
    bank: FeatureBank, near: list[str], form: tuple[int, int, bool], pool: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the support [way, shot], the pool [m] and the queries [q]; raises InputError for too few classes."""
    way, shot, distractors = form
    dealt = [deal(bank.rows_of(int(k)).numpy(), near, (shot, pool), rng) for k in rng.permutation(len(bank.classes))]
    enough = [rows for rows in dealt if rows is not None]
    if len(enough) < way * (1 + distractors):
        raise InputError(f"{len(enough)} classes have rows enough; expected {way * (1 + distractors)}")
    chosen, others = enough[:way], enough[way : 2 * way] if distractors else []
    each = pool // 2 if distractors else pool
    unlabelled = [rows[:each] for _, rows, _ in [*chosen, *others]]
    support = torch.tensor(np.stack([rows[:shot] for rows, _, _ in chosen]))
    query = torch.tensor(np.concatenate([rows for _, _, rows in chosen]))
    return support, torch.tensor(np.concatenate(unlabelled)), query


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
