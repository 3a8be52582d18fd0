"""Whether made rows are copies of the rows that a generator was trained on or was shown.

The distance of a made row to the nearest training row is compared with that of real rows which were held out, as in
Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect data-copying in generative models", AISTATS 2020.
Differs from the paper: ratios with bootstrap intervals rather than one rank test.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augforge import chance
from augforge.metrics.rows import checked, nearest_distances
from augforge.types import InputError

RESAMPLES = 1000
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Ratio:
    """A ratio and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest training row, of made rows over those of held-out real rows."""

    mean: Ratio  # below 1 where made rows lie nearer
    median: Ratio
    nearer: float  # share of made rows nearer than `percentile` % of held-out rows; percentile / 100 without copies
    percentile: float


def memorisation(
    train: Tensor,
    made: Tensor,
    held_out: Tensor,
    percentile: float = 5.0,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Memorisation:
    """How near `made` [m, d] and `held_out` [h, d] are to `train` [n, d].

    The intervals are over made and held-out rows drawn with replacement, for these training rows; the draws are a
    function of `seed`. Raises InputError for rows of different width, numbers that are not finite, a percentile
    outside 0 to 100, fewer than 1 resample, and where every held-out row is a training row; TooFewRows for no
    training row or fewer than 2 others.
    """
    if not 0 < percentile < 100 or resamples < 1:
        raise InputError(f"percentile={percentile} and resamples={resamples} were given; expected a percentile "
                         "between 0 and 100 and at least 1 resample")  # fmt: skip
    sets = {"training": train, "made": made, "held-out": held_out}
    train, made, held_out = checked(sets, {"training": 1, "made": 2, "held-out": 2}, "memorisation")
    mean = train.mean(0)  # taken away it moves no distance, but rounds it less
    near, usual = (nearest_distances(x - mean, train - mean).cpu() for x in (made, held_out))
    if not bool(usual.any()):
        raise InputError(f"each of the {len(usual)} held-out rows is a training row too; expected rows held out")
    drawn = _summaries(near, seed, "made", resamples) / _summaries(usual, seed, "held-out", resamples)
    values = _summary(near[None])[0] / _summary(usual[None])[0]
    ratios = [_interval(float(value), draws) for value, draws in zip(values, drawn.T, strict=True)]
    limit = torch.quantile(usual, percentile / 100)
    return Memorisation(ratios[0], ratios[1], float((near < limit).to(torch.float64).mean()), percentile)


def _summary(distances: Tensor) -> Tensor:
    """Mean and median [b, 2] of distances [b, n]."""
    return torch.stack([distances.mean(1), distances.quantile(0.5, dim=1)], 1)


def _summaries(distances: Tensor, seed: int, purpose: str, resamples: int) -> Tensor:
    """Mean and median [resamples, 2] of `distances` [n] drawn with replacement."""
    n = len(distances)
    keys = chance.row_keys(seed, f"memorisation {purpose}", torch.arange(resamples))
    parts = keys.split(max(1, _CELLS_AT_ONCE // n))
    return torch.cat([_summary(distances[(chance.uniform64(part, (n,)) * n).long()]) for part in parts])


def _interval(value: float, draws: Tensor) -> Ratio:
    """The value with the 2.5 and 97.5 percentile of those of its draws [b] that are finite."""
    draws = draws[draws.isfinite()]
    if not len(draws):
        return Ratio(value, float("-inf"), float("inf"))
    return Ratio(value, float(draws.quantile(0.025)), float(draws.quantile(0.975)))
