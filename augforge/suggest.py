"""Which unlabelled pictures are most worth a label next: those that stand for most of a pool that nothing stands for.

At a few labels a class, rules of uncertainty choose worse than chance, since a classifier of one picture is sure of the
wrong things (Hacohen et al., "Active learning on a budget: opposite strategies suit high and low budgets", ICML 2022).
Typical pictures that cover the pool choose better.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.pool import centred_rows
from augforge.data.banks import AnyBank, FeatureBank
from augforge.predict import PRIOR, features_of
from augforge.types import Examples, InputError, Representation

# Points of accuracy for each unit of coverage, weighted by doubt, that a label adds: about the mean of 10-way episodes
# of 20 classes of Caltech-101, 22 traffic signs and the validation classes of CIFAR-FS at 1 and 2 shots (45 to 280).
_POINTS = 170.0


@dataclass(frozen=True)
class Suggestion:
    """A picture of the pool that is worth a label."""

    row: int  # of the pool
    name: str
    gain: float  # points of accuracy that its label is expected to add to those before it; half or twice are usual


def suggest(
    bank: AnyBank, pool: AnyBank, representation: Representation | None = None, views: str = "none", count: int = 10
) -> list[Suggestion]:
    """The `count` rows of a pool that are most worth a label, the most worth first; fewer where it has fewer.

    `bank` is what is labelled so far. Pictures are embedded, the mean over `views`, as `make_predictor` does it.
    Raises InputError as `make_predictor` and for a count below 1.
    """
    if representation is None and not isinstance(pool, FeatureBank):
        raise InputError(f"the pool {pool.origin!r} holds pictures, and the support features; expected features")
    support = Examples(features_of(bank, representation, views), bank.y, weight=getattr(bank, "weight", None))
    found = suggest_rows(support, features_of(pool, representation, views), count)
    return [Suggestion(row, pool.name(row), gain) for row, gain in found]


@torch.no_grad()
def suggest_rows(support: Examples, pool: Tensor, count: int = 10) -> list[tuple[int, float]]:
    """(row, expected gain in points) of the rows of a pool [m, d] that cover most of it, beside the support [n, d].

    Greedy facility location (Wei, Iyer & Bilmes, "Submodularity in data subset selection and active learning", ICML
    2015): a row j is covered as far as the cosine with the nearest labelled row goes, of rows of length 1 that are
    centred on the mean of all; each choice i is the row that adds most, sum_j max(0, cos(x_j, x_i) - cover_j). The
    gain that is expected of it counts what it adds as far as logistic regression on the support is in doubt of row j.
    Nothing is drawn. Raises InputError for rows that do not go together and a count below 1.
    """
    if count < 1:
        raise InputError(f"count={count} was given; expected at least 1")
    labelled, rows = centred_rows(support, pool)
    if not len(rows):
        return []
    way = int(support.y.max()) + 1
    scores = Logistic(100.0, "l2").scores(support, pool).to(torch.float64)
    doubt = 1 - torch.softmax(scores / PRIOR, 1).amax(1) if way > 1 else rows.new_zeros(len(rows))
    cosine = rows @ rows.T
    cover = (rows @ labelled.T).amax(1)
    found: list[tuple[int, float]] = []
    left = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    for _ in range(min(count, len(rows))):
        added = (cosine - cover[:, None]).clamp(min=0)  # [m, m]: of each row, by each choice
        row = int(torch.where(left, added.sum(0), -1.0).argmax())
        found.append((row, _POINTS * float((added[:, row] * doubt).mean())))
        cover = torch.maximum(cover, cosine[:, row])
        left[row] = False
    return found
