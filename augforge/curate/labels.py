"""Suspicious labels: rows that a classifier which never saw them would rather give to another class.

Logistic regression on the other folds says of each row how likely its label and all others are, as in confident
learning (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021).
Differs from the paper: one limit of the log odds for all classes in place of counts of confident rows; and a second
round is trained without the suspects of the first, so that wrong labels do not vouch for each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.logistic import Logistic
from augforge.types import Examples

FOLDS, ROUNDS = 5, 2
LEAST_ODDS = 1.0  # natural logarithm: another class is 2.7 times as likely
_FEW = 2000  # rows up to which two divisions into folds are averaged
_CLASSIFIER = Logistic(C=100.0, normalise="l2")


@dataclass(frozen=True)
class Labels:
    """Of n rows: `other` [n] int64, the likeliest class but that of the label; and the log `odds` [n] of it over that
    of the label, -inf for a row that cannot be tested because it is the only one of its class.
    """

    other: Tensor
    odds: Tensor

    @property
    def suspect(self) -> Tensor:
        """Which rows are suspicious, bool [n]."""
        return self.odds > LEAST_ODDS


def check_labels(x: Tensor, y: Tensor, seed: int = 0) -> Labels:
    """How the labels `y` [n] fit features `x` [n, d]; the folds are a function of `seed`.

    All odds are -inf where there are fewer than two classes, or none has two rows.
    """
    present, label = torch.unique(y, return_inverse=True)
    counts = torch.bincount(label, minlength=len(present))
    tested = counts[label] > 1
    odds, other = torch.full((len(y),), -torch.inf), y.clone()
    if len(present) < 2 or not bool(tested.any()):
        return Labels(other, odds)
    kept = torch.ones(len(y), dtype=torch.bool)
    repeats = 2 if len(y) <= _FEW else 1
    for round_ in range(ROUNDS):
        scores = torch.zeros(len(y), len(present))
        for repeat in range(repeats):
            scores += _held_out(x, label, kept, _folds(label, counts, seed, round_ * repeats + repeat)) / repeats
        own = scores.gather(1, label[:, None])[:, 0]
        best = scores.scatter(1, label[:, None], -torch.inf).max(1)
        odds = torch.where(tested, best.values - own, -torch.inf)
        other = torch.where(tested, present[best.indices], y)
        kept = _kept(odds, label, counts)
    return Labels(other, odds)


def _folds(label: Tensor, counts: Tensor, seed: int, number: int) -> Tensor:
    """The fold [n] of each row: those of a class are dealt in random order; -1, never held out, where it is alone."""
    keys = chance.fork(chance.row_keys(seed, "folds of labels", torch.arange(len(label))), f"division {number}")
    rank = _ranks(chance.uniform64(keys), label, counts)
    fold = (rank + label) % FOLDS  # not all classes begin with the same fold
    return torch.where(counts[label] > 1, fold, -1)


def _held_out(x: Tensor, label: Tensor, kept: Tensor, folds: Tensor) -> Tensor:
    """The log probability [n, k] of each class for each row, from the rows of other folds that are kept."""
    way = int(label.max()) + 1
    found = torch.zeros(len(label), way)
    for fold in range(FOLDS):
        asked = folds == fold
        if not bool(asked.any()):
            continue
        shown = kept & ~asked
        lacking = torch.bincount(label[shown], minlength=way) == 0
        shown |= lacking[label] & ~asked  # rather a suspicious row than none
        scores = _CLASSIFIER.scores(Examples(x[shown].float(), label[shown]), x[asked].float())
        found[asked] = torch.log_softmax(scores.float(), 1)
    return found


def _kept(odds: Tensor, label: Tensor, counts: Tensor) -> Tensor:
    """The rows that another class does not seem likelier for, and the better half of each class whatever it seems."""
    kept = odds <= 0
    return kept | (_ranks(odds, label, counts) < (counts[label] + 1) // 2)


def _ranks(values: Tensor, label: Tensor, counts: Tensor) -> Tensor:
    """The place [n] of each row among those of its class, by ascending values [n]."""
    order = torch.argsort(values, stable=True)
    order = order[torch.argsort(label[order], stable=True)]
    rank = torch.empty_like(label)
    rank[order] = torch.arange(len(label)) - (torch.cumsum(counts, 0) - counts)[label[order]]
    return rank
