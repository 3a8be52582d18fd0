"""What a table of episodes can say: means, paired gains, intervals, tests, confusion and what made rows are worth.

Pure functions on numpy arrays; what is drawn is drawn from `augforge.chance`, so that the same numbers give the
same intervals.

**Two sources of chance.** Episodes are drawn with replacement from a fixed, often small set of novel classes. An
interval over episodes therefore says only how a longer run on *these* classes would come out; it shrinks to nothing
as episodes are added (Lafargue et al., "Oops, I sampled it again", arXiv 2409.02850, 2024). What a reader wants to
know is how it would come out on *other* classes. So every gain has both intervals, and the verdict reads the one
over classes.

**Classes resampled.** Let the K classes be drawn with replacement, class c coming up m_c times. Three weights of an
episode t of `way` classes suggest themselves. The product of its m_c is the bootstrap of a U-statistic, but nearly
all episodes then weigh nothing (all 20 classes of an episode are drawn with probability 0.63^20 = 1e-4). The mean of
its m_c never degenerates, but its spread is `way` times too small: a class that is worth a in every episode moves
the mean accuracy by way * a / K and the weighted mean by a / K. We take the product to first order,
1 + sum_c (m_c - 1), which is Hájek's projection (Hoeffding 1948): right in size, never degenerate, and linear, so
that the variance over infinitely many resamples has a closed form, (1/n^2) sum_c T_c^2 with T_c the sum of the
residuals of the episodes that hold c. That counts the chance of each episode's own draw `way` times, once for each
of its classes; we count it once, as the polyadic form of the dyadic-robust variance does (Aronow, Samii & Assenova,
Political Analysis 23, 2015). See `class_variance`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from augforge import chance

Array = NDArray[np.float64]
RESAMPLES = 2000
_CELLS_AT_ONCE = 4_000_000  # counts drawn at a time, so that they stay small beside the results


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval: `value`, `low`, `high`, its standard error `error`, and `p`, the two-sided
    probability of a value at least as far from 0 were the truth 0.
    """

    value: float
    low: float
    high: float
    error: float
    p: float


def episode_interval(values: ArrayLike) -> Interval:
    """Mean of `values` [n] over episodes with Student's interval: what the field reports as ±.

    It holds for these classes only. With one episode the interval is all numbers.
    """
    v = np.asarray(values, np.float64)
    error = float(v.std(ddof=1) / np.sqrt(len(v))) if len(v) > 1 else float("inf")
    return _student(float(v.mean()), error, len(v) - 1)


def wilson_interval(right: ArrayLike) -> Interval:
    """The share of right answers among `right` [n] of 0 and 1, with Wilson's interval (JASA 22, 1927).

    For answers that are independent of each other. It stays within 0..1, and has a width where all are right.
    """
    from scipy import stats  # a second to import, so only where an interval is made

    v = np.asarray(right, np.float64)
    found = stats.binomtest(round(float(v.sum())), len(v)).proportion_ci(0.95, "wilson")
    error = (found.high - found.low) / (2 * stats.norm.ppf(0.975))
    return Interval(float(v.mean()), float(found.low), float(found.high), float(error), 0.0 if found.low > 0 else 1.0)


def cluster_interval(values: ArrayLike, clusters: ArrayLike) -> Interval:
    """Mean of `values` [m] with Student's interval where `clusters` [m], ids, are drawn anew, each with all its values.

    For queries that come up in many episodes the cluster is the picture, or the group of near-copies that it is in:
    more episodes of the same pictures do not make the interval smaller. The variance is the sum over clusters of the
    squared sums of their residuals, over m^2, times k / (k - 1) (Liang & Zeger, Biometrika 73, 1986). With one cluster
    the interval is all numbers.
    """
    v = np.asarray(values, np.float64).reshape(-1)
    place = np.unique(np.asarray(clusters).reshape(-1), return_inverse=True)[1].reshape(-1)
    k = int(place.max()) + 1
    if k < 2:
        return _student(float(v.mean()), float("inf"), 0)
    sums = np.bincount(place, v - v.mean(), minlength=k)
    return _student(float(v.mean()), float(np.sqrt((sums**2).sum() * k / (k - 1))) / len(v), k - 1)


def episode_bootstrap(values: ArrayLike, key: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 2.5 and 97.5 percentile of the mean of `values` [n] over episodes drawn with replacement (Efron 1979)."""
    v = np.asarray(values, np.float64)
    means = episode_draws(v[:, None], key, resamples)[:, 0]
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def episode_draws(values: ArrayLike, key: int, resamples: int = RESAMPLES) -> Array:
    """Means [resamples, k] of `values` [n, k] over n episodes drawn with replacement, the same draws for every k."""
    v = np.asarray(values, np.float64)
    return 1.0 / len(v) * _multiplicities(len(v), key, "episodes", resamples, v)


def _multiplicities(n: int, key: int, purpose: str, resamples: int, columns: Array) -> Array:
    """How often each of n is drawn, times `columns` [n, k]: [resamples, k], a few resamples at a time."""
    keys = chance.row_keys(key, purpose, torch.arange(resamples))
    out = np.empty((resamples, columns.shape[1]))
    step = max(1, _CELLS_AT_ONCE // n)
    for start in range(0, resamples, step):
        part = keys[start : start + step]
        drawn = (chance.uniform64(part, (n,)) * n).to(torch.int64)  # [b, n]
        counts = torch.zeros(len(part), n, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones((), dtype=torch.float64).expand_as(drawn))
        out[start : start + step] = counts.numpy() @ columns
    return out


def class_interval(values: ArrayLike, classes: ArrayLike) -> Interval:
    """Mean of `values` [n, way], one for each class of each episode, with the 95 % interval over classes.

    `classes` [n, way] are class ids, or ids of larger clusters such as alphabets. Student's t with as many degrees of
    freedom as there are clusters, less one. With one cluster the interval is all numbers.
    """
    v, c = np.asarray(values, np.float64), np.asarray(classes)
    variance = class_variance(v, c)
    return _student(float(v.mean()), float(np.sqrt(variance)), len(np.unique(c)) - 1)


def class_variance(values: ArrayLike, classes: ArrayLike) -> float:
    """Variance of the mean of `values` [n, way] when episodes and classes `classes` [n, way] are drawn anew.

    The sum of the episodes' part, sum_t e_t^2 / n^2, and the classes' part, taken as zero where it is negative:
    ``f * (sum_c T_c^2 - sum_c (1 - n_c / n) sum_{t holds c} e_t^2) / n^2`` with e_t the residual of an episode, T_c
    their sum over the n_c episodes that hold c, and f = K (K - 1) / (K - w)^2, w the mean number of clusters of an
    episode. The subtracted term is the expectation of the first where classes do not matter, and f undoes the
    centring: every class is measured against episodes made of the K - 1 others. Both are exact for a gain that
    is a sum over the classes of an episode, drawn evenly.

    That estimate is noisy where an episode holds many of the clusters, so the classes' part is never taken as less
    than another: 1 / K times the variance over clusters of the mean gain on a cluster's own queries, less what of it
    comes from the episodes. This one leaves out that a class also moves the queries of others that are taken for it.
    Where an episode holds more than a third of the clusters the first hardly tells them apart and is left out; the
    second is then taken four times, as if each class moved others' queries by as much as its own and with the same
    sign, which is the most that is to be feared.
    """
    v, c = np.asarray(values, np.float64), np.asarray(classes)
    n, residual = len(v), v.mean(1) - v.mean()
    episodes = float((residual**2).sum()) / n**2 * n / max(1, n - 1)
    clusters, holds = _incidence(c)  # [n, k]
    k, w = len(clusters), float(holds.sum(1).mean())
    if k < 2:
        return float("inf")
    own = _own_query_part(v, c)
    if w > k / 3:
        return episodes + 4 * own
    share = holds.mean(0)  # [k]
    expected = ((1 - share) * (holds.T @ residual**2)).sum()
    raw = float(((holds.T @ residual) ** 2).sum() - expected) / n**2
    return episodes + max(own, raw * k * (k - 1) / (k - w) ** 2)


def _incidence(classes: NDArray) -> tuple[NDArray, Array]:
    """The clusters that occur [k], and whether episode t holds each, [n, k] as 0.0 or 1.0."""
    clusters, place = np.unique(classes, return_inverse=True)
    holds = np.zeros((len(classes), len(clusters)))
    np.put_along_axis(holds, place.reshape(classes.shape), 1.0, axis=1)
    return clusters, holds


def _own_query_part(values: Array, classes: NDArray) -> float:
    """The classes' part of the variance from the gain on each cluster's own queries, at least 0."""
    _, place = np.unique(classes, return_inverse=True)
    place = place.reshape(-1)
    count = np.bincount(place).astype(np.float64)
    mean = np.bincount(place, values.reshape(-1)) / count
    scatter = np.bincount(place, (values.reshape(-1) - mean[place]) ** 2)
    noise = (scatter / np.maximum(count - 1, 1) / count).mean()
    return max(0.0, float(mean.var(ddof=1) - noise)) / len(mean)


def class_draws(values: ArrayLike, classes: ArrayLike, key: int, resamples: int = RESAMPLES) -> Array:
    """Bootstrap means [resamples, k] of `values` [n, way, k] with episodes and classes `classes` [n, way] resampled.

    Each is the mean plus two independent parts: the mean over episodes drawn with replacement, and the first-order
    change when classes are drawn with replacement (see the module), rescaled so that its variance is the classes'
    part of `class_variance` (as Rao & Wu, JASA 83, 1988, rescale theirs). All k see the same draws, as do calls with
    the same key and the same classes.
    """
    v, c = np.asarray(values, np.float64), np.asarray(classes)
    n, means = len(v), v.mean(1)  # [n, k]
    residual = means - means.mean(0)
    clusters, holds = _incidence(c)
    drawn = episode_draws(means, key, resamples)
    if len(clusters) < 2:
        return drawn
    totals = holds.T @ residual / n  # [clusters, k]
    totals -= totals.mean(0)
    whole = np.array([class_variance(v[..., i], c) for i in range(v.shape[2])])
    wanted = np.maximum(0.0, whole - (residual**2).sum(0) / n / max(1, n - 1))
    plain = (totals**2).sum(0)  # the variance of sum_c (m_c - 1) totals_c: multinomial, and the totals sum to 0
    scale = np.sqrt(np.divide(wanted, plain, out=np.zeros_like(wanted), where=plain > 0))
    return drawn + _multiplicities(len(clusters), key, "classes", resamples, totals * scale)


def _student(value: float, error: float, free: int) -> Interval:
    if free < 1 or not np.isfinite(error):
        return Interval(value, float("-inf"), float("inf"), float("inf"), 1.0)
    if error == 0:
        return Interval(value, value, value, 0.0, 1.0 if value == 0 else 0.0)
    from scipy.special import stdtr, stdtrit  # 0.6 s to import, so only where an interval is made

    reach = float(stdtrit(free, 0.975)) * error
    return Interval(value, value - reach, value + reach, error, 2 * float(stdtr(free, -abs(value) / error)))


def holm(p: ArrayLike) -> Array:
    """P values [k] adjusted for k tests by Holm's steps (Scandinavian Journal of Statistics 6, 1979): [k].

    Calling those under 0.05 gives a false alarm anywhere among the k in at most 5 % of tables, whatever the
    dependence between the tests.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted


def verdicts(gains: list[Interval], level: float = 0.05) -> list[str]:
    """ "helps", "hurts" or "no evidence" for each gain of a table, with at most 5 % false alarms in the whole table.

    The gains should be those of `class_interval`. An interval that leaves out 0 can still have "no evidence" beside
    it: it is an interval for one row, and the verdict is for all of them (`adjusted`).
    """
    words = {1.0: "helps", -1.0: "hurts"}
    pairs = zip(gains, adjusted(gains), strict=True)
    return [words.get(float(np.sign(g.value)), "no evidence") if p < level else "no evidence" for g, p in pairs]


def adjusted(gains: list[Interval]) -> Array:
    """The p values of the gains of a table after `holm`: [k].

    A gain that is 0 in every episode, as that of copies under a mean, is 1 and is not counted among the tests: it can
    give no false alarm.
    """
    found = np.ones(len(gains))
    counted = [i for i, gain in enumerate(gains) if gain.error > 0 or gain.value != 0]
    found[counted] = holm([gains[i].p for i in counted])
    return found


def win_rate(gain: ArrayLike) -> float:
    """The part of episodes with a positive gain [n], a tie counted as half: 0.5 where nothing changes."""
    g = np.asarray(gain, np.float64)
    return float((g > 0).mean() + (g == 0).mean() / 2)
