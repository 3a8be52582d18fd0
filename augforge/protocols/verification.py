"""Verification: are two pictures of the same person? Pairs, the ROC curve, and numbers with intervals over people.

The threshold that accuracy is measured at is found on other people (validation classes), never on those of the result.
All curves are of scores where higher is more alike, and "same" is said from the threshold on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import reduce
from torch import Tensor
from torch.nn.functional import cosine_similarity

from augforge import chance
from augforge.data.banks import FeatureBank
from augforge.types import InputError

Similarity = Literal["cosine", "euclidean"]
Interval = tuple[float, float]
_MOST_ROWS = 5000  # of which there are 12.5 million pairs


@dataclass(frozen=True)
class VerificationPairs:
    """Pairs of rows: `first` [m], `second` [m] int64, and `same` [m] bool, whether they are of one class."""

    first: Tensor
    second: Tensor
    same: Tensor


@dataclass(frozen=True)
class Roc:
    """A ROC curve: `fpr` and `tpr` [..., k] float64 from 0 to 1, and the score `threshold` [k] of each point.

    Point i says "same" for scores of at least threshold[i]; the first threshold is infinite.
    """

    fpr: Tensor
    tpr: Tensor
    threshold: Tensor


@dataclass(frozen=True)
class Verification:
    """How well people are distinguished; rates and accuracy are in 0..1, `*_ci95` over people by bootstrap.

    `threshold` was found on the validation people, where it gave `val_accuracy`.
    """

    curve: Roc
    auc: float
    auc_ci95: Interval
    equal_error_rate: float
    equal_error_rate_ci95: Interval
    accuracy: float
    accuracy_ci95: Interval
    threshold: float
    val_accuracy: float
    people: int
    pairs: int


def verify(
    novel: FeatureBank,
    val: FeatureBank,
    *,
    n_pairs: int | None = None,
    similarity: Similarity = "cosine",
    seed: int = 0,
    resamples: int = 1000,
) -> Verification:
    """Verify the people of `novel`, with the threshold found on the people of `val`.

    `n_pairs` same and as many different pairs are drawn from each bank; None takes every same pair, and as many
    different ones. Intervals are percentiles of `resamples` bootstrap samples of the novel people; the threshold is
    kept. Raises InputError where a class is in both banks and where a bank lacks the pairs.
    """
    both = sorted(set(novel.classes) & set(val.classes))
    if both:
        raise InputError(
            f"{both[0]!r} is among the people to verify and those to find the threshold on; expected others"
        )
    pairs, val_pairs = draw_pairs(novel.y, n_pairs, seed), draw_pairs(val.y, n_pairs, seed)
    scores = pair_scores(novel.x, pairs, similarity).cpu()
    val_scores = pair_scores(val.x, val_pairs, similarity).cpu()
    threshold = best_threshold(val_scores, val_pairs.same)
    curve, right = roc(scores, pairs.same), accuracy(scores, pairs.same, threshold)
    weight = people_weights(pairs, novel.y, resamples, seed)
    curves = roc(scores, pairs.same, weight)  # one for each sample of people
    return Verification(
        curve=curve,
        auc=float(auc(curve)),
        auc_ci95=_interval(auc(curves)),
        equal_error_rate=float(equal_error_rate(curve)),
        equal_error_rate_ci95=_interval(equal_error_rate(curves)),
        accuracy=float(right),
        accuracy_ci95=_interval(accuracy(scores, pairs.same, threshold, weight)),
        threshold=threshold,
        val_accuracy=float(accuracy(val_scores, val_pairs.same, threshold)),
        people=len(torch.unique(novel.y)),
        pairs=len(pairs.same),
    )


def _interval(found: Tensor) -> Interval:
    """The 2.5 and 97.5 % points of `found` [r]."""
    low, high = torch.quantile(found, torch.tensor([0.025, 0.975], dtype=found.dtype)).tolist()
    return low, high


def draw_pairs(y: Tensor, n: int | None = None, seed: int = 0) -> VerificationPairs:
    """`n` same and `n` different pairs of rows with labels `y` [rows], none twice: a pure function of (y, n, seed).

    They are drawn evenly from all pairs; None takes every same pair, and as many different ones or all there are.
    Raises InputError where there are not as many, and for more than 5,000 rows, whose pairs are too many to list.
    """
    if len(y) > _MOST_ROWS:
        raise InputError(f"pairs of {len(y)} rows were asked for; expected at most {_MOST_ROWS} rows")
    first, second = torch.triu_indices(len(y), len(y), offset=1)
    alike = y.cpu()[first] == y.cpu()[second]
    chosen = []
    for name, kind in (("same", alike), ("different", ~alike)):
        there = kind.nonzero(as_tuple=True)[0]
        wanted = min(int(alike.sum()), len(there)) if n is None else n
        if not 1 <= wanted <= len(there):
            raise InputError(f"{wanted} {name} pairs were asked for; there are {len(there)}, and at least 1 is needed")
        keys = chance.integers(chance.row_keys(seed, f"{name} pairs", there), 1)[:, 0]
        chosen.append(there[torch.argsort(keys, stable=True)[:wanted]].sort().values)
    places = torch.cat(chosen)
    return VerificationPairs(first[places], second[places], alike[places])


def pair_scores(x: Tensor, pairs: VerificationPairs, similarity: Similarity = "cosine") -> Tensor:
    """How alike the rows of each pair are, [m]: the cosine, or minus the squared Euclidean distance, of `x` [n, d]."""
    a, b = x[pairs.first.to(x.device)], x[pairs.second.to(x.device)]
    if similarity == "cosine":
        return cosine_similarity(a, b)
    return -reduce((a - b) ** 2, "m d -> m", "sum")


def roc(scores: Tensor, same: Tensor, weight: Tensor | None = None) -> Roc:
    """The ROC curve of `scores` [m] for pairs that are the `same` [m]; equal scores are one step of it.

    With `weight` [..., m] there is a curve for each line of weights. Raises InputError where a score is not a number,
    or where the pairs are all the same or all different.
    """
    if bool(torch.isnan(scores).any()) or bool(same.all()) or not bool(same.any()):
        raise InputError(
            f"a ROC curve needs scores that are numbers, of same and different pairs; got {len(same)} pairs"
        )
    order = torch.argsort(scores, descending=True, stable=True)
    ordered, alike = scores[order], same[order]
    last = torch.ones_like(alike)
    last[:-1] = ordered[:-1] != ordered[1:]
    weight = torch.ones(len(scores)) if weight is None else weight
    w = weight.to(scores.device, torch.float64)[..., order]
    rates = []
    for kind in (~alike, alike):
        counted = torch.cumsum(w * kind, -1)
        rate = counted[..., last] / counted[..., -1:]  # [..., k - 1]
        rates.append(torch.cat([torch.zeros_like(rate[..., :1]), rate], -1))
    threshold = torch.cat([torch.full_like(ordered[:1], math.inf), ordered[last]])
    return Roc(rates[0], rates[1], threshold)


def auc(curve: Roc) -> Tensor:
    """The area under a curve, [...] in 0..1: the chance that a same pair scores above a different one, ties as half."""
    return torch.trapezoid(curve.tpr, curve.fpr, dim=-1)


def equal_error_rate(curve: Roc) -> Tensor:
    """Where as many same pairs are refused as different ones are accepted, [...] in 0..1, between points by line."""
    gap = curve.fpr - (1 - curve.tpr)  # rises from -1 to 1
    after = (gap >= 0).to(torch.int8).argmax(-1, keepdim=True)
    low, high = gap.gather(-1, after - 1), gap.gather(-1, after)
    share = -low / (high - low)
    fpr = torch.lerp(curve.fpr.gather(-1, after - 1), curve.fpr.gather(-1, after), share)
    return fpr.squeeze(-1)


def best_threshold(scores: Tensor, same: Tensor) -> float:
    """The threshold of the highest accuracy, midway between two scores; the highest one where several are as good."""
    curve = roc(scores, same)
    n_same, n = int(same.sum()), len(same)
    right = curve.tpr * n_same + (1 - curve.fpr) * (n - n_same)  # [k]
    best = int(torch.argmax(right.round()))  # whole numbers, so that equal ones are equal
    points = curve.threshold.tolist()
    points = [points[1] + 1, *points[1:], points[-1] - 1]
    return (points[best] + points[best + 1]) / 2


def accuracy(scores: Tensor, same: Tensor, threshold: float, weight: Tensor | None = None) -> Tensor:
    """The share of pairs that are right at a threshold, [...] in 0..1; `weight` [..., m] counts the pairs."""
    right = ((scores >= threshold) == same).to(torch.float64)
    weight = torch.ones_like(right) if weight is None else weight.to(right)
    return (weight * right).sum(-1) / weight.sum(-1)  # [..., m] -> [...]


def people_weights(pairs: VerificationPairs, y: Tensor, resamples: int, seed: int = 0) -> Tensor:
    """How often each pair counts when people are drawn with replacement: [r, m] float64, r at most `resamples`.

    A same pair counts as often as its person was drawn, a different one the product of both. Two copies of a person
    make no pair. Samples without a same or a different pair are left out. Raises InputError where all are.
    """
    people, person = torch.unique(y.cpu(), return_inverse=True)
    keys = chance.row_keys(seed, "people", torch.arange(resamples * len(people)))
    drawn = chance.choice(keys, len(people)).reshape(resamples, len(people))  # [r * people] -> [r, people]
    times = torch.zeros(resamples, len(people), dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
    first, second = times[:, person[pairs.first]], times[:, person[pairs.second]]  # [r, m]
    weight = torch.where(pairs.same, first, first * second)
    usable = (weight[:, pairs.same].sum(1) > 0) & (weight[:, ~pairs.same].sum(1) > 0)
    if not bool(usable.any()):
        raise InputError(f"an interval over {len(people)} people cannot be made; expected more people or resamples")
    return weight[usable]
