"""Unlabelled rows as weighted examples: soft k-means from the support's means, believed as far as others agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.logistic import Logistic
from augforge.metrics.calibration import fitted_temperature
from augforge.types import Examples, InputError

# Chosen on 20 classes of Caltech-101, 22 traffic signs and the validation classes of CIFAR-FS
# (docs/decisions/0016-pool.md).
_SECOND = Logistic(C=100.0, normalise="l2")  # the second opinion
_TEMPERATURE, _TEMPERATURE_ROWS = 0.36, 5.0  # of its scores; predict.PRIOR says how they were found
_OVERLAP, _OVERLAP_STEP = 0.35, 0.07  # the overlap at which the pool counts half, and what moves z by one
_LEAST, _MOST = -2.5, 1.5  # z by overlap alone
_EVEN = 0.4, 0.8  # evenness at which the pool begins to count, and counts in full
_FOLDS = 5
_SPREAD = 0.1  # nats of spread that are added, so that few alike differences prove little


@dataclass(frozen=True)
class PoolOptions:
    """How unlabelled rows are labelled and weighted. Raises InputError for settings out of range."""

    share: float = 2.0  # how many real rows the pool's rows of a class weigh together, at most, > 0
    temperature: float = 20.0  # what cosines are multiplied by, > 0
    support_weight: float = 2.0  # how many rows of the pool a support row is in the means, > 0
    rounds: int = 10  # of k-means, at least 1
    background: float | None = 0.25  # cosine of the cluster of rows of no class, -1 to 1; None: all rows have a class
    checked: bool = True  # rows count as far as logistic regression agrees, and all as far as the pool is believed

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("share", "temperature", "support_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}={value} was given; expected a number above 0")
        if self.rounds < 1:
            raise InputError(f"rounds={self.rounds} was given; expected at least 1")
        if self.background is not None and not -1 <= self.background <= 1:
            raise InputError(f"background={self.background} was given; expected None, or a cosine of -1 to 1")


@dataclass(frozen=True)
class PoolLabels:
    """What was found for m rows of a pool."""

    y: Tensor  # [m] int64, the class of each row
    confidence: Tensor  # [m] that it is of this class, 0..1
    weight: Tensor  # [m] in real rows: confidence times trust times one factor for all rows of its class
    trust: float  # how far the pool is believed, 0..1
    overlap: float  # cosine of a class's mean with the nearest other one, averaged over classes, -1..1
    evenness: float  # exp(entropy of the classes' shares of the pool) / way, above 0, 1: all alike
    helped: float  # nats that a held-out support row gains by the pool, on average; nan where none was held out


def with_pool(support: Examples, pool: Tensor, options: PoolOptions | None = None) -> Examples:
    """The support [n, d], and behind it the rows of a pool [m, d] with the labels that `label_pool` found for them.

    The support comes back as it was, with its weights; without a row in the pool it is the support itself. Raises
    InputError as `label_pool`.
    """
    if not len(pool):
        _checked(support, pool)
        return support
    found = label_pool(support, pool, options)
    x = torch.as_tensor(support.x)
    rows = Examples(pool.to(x), found.y.to(support.y), weight=found.weight.to(x))
    return Examples(x, support.y, support.parent, support.weight) + rows


def centred_rows(support: Examples, pool: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a support [n, d] and a pool [m, d] in float64, of length 1 and centred on the mean of all of them.

    Raises InputError as `label_pool`.
    """
    x, member = _checked(support, pool)
    return _centred(x, pool.to(x), member)


def nearest_rows(support: Examples, pool: Tensor) -> Tensor:
    """The rows of a pool [m, d] for each class 0..way-1 of a support, the nearest to its mean first: [way, m] int64."""
    x = F.normalize(torch.as_tensor(support.x), dim=1)
    means = torch.stack([x[support.y == k].mean(0) for k in range(int(support.y.max()) + 1)])
    cosine = F.normalize(means, dim=1) @ F.normalize(pool.to(x), dim=1).T
    return cosine.argsort(dim=1, descending=True, stable=True)


@torch.no_grad()
def label_pool(support: Examples, pool: Tensor, options: PoolOptions | None = None) -> PoolLabels:
    """A label, a confidence and a weight for every row of a pool [m, d], from a support [n, d].

    Soft k-means (Ren et al., "Meta-learning for semi-supervised few-shot classification", ICLR 2018, section 3.1.1).
    The mean of class k begins as that of its support rows; then, `rounds` times,

        p_jk = softmax_k(temperature cos(x_j, mean_k))                                                    (Equation 4)
        mean_k = (support_weight sum_i w_i [y_i = k] x_i + sum_j p_jk x_j) / (the sum of these weights)   (Equation 3)

    over support rows i of weight w_i and rows j of the pool. With a `background`, p has one more column, a cluster of
    logit temperature times background for rows that are of none of the classes.

    `checked`, the confidence of row j is max_k p_jk q_jk, that of its label: q are the probabilities of logistic
    regression on the support alone, so that a row counts as far as both name the same class. The whole pool is
    believed by trust = e Phi(z + t). z falls with the overlap of the clusters: where class means look alike, the rows
    are grouped by something else than classes. It is (0.35 - overlap) / 0.07, between -2.5 and 1.5. e rises from 0 to 1
    as the evenness of the classes' shares goes from 0.4 to 0.8: a pool that seems to be of a few classes is none of
    theirs.
    t is 0 at one row a class; from two on support rows are held out in five folds and named by logistic regression
    with the pool and without it, each at the temperature that suits it, and t is how many standard errors they gain in
    log-likelihood. Unchecked, the confidence is max_k p_jk and the trust 1.

    A row weighs its confidence times trust times one factor for all rows of its class, at most 1: with it they weigh
    trust times `share` real rows together, so that no class is drowned by another one's pool.

    Nothing is drawn, and the order of rows matters to rounding alone. Differs from the paper: rows are brought to
    length 1, centred on the mean of all rows of both sets and compared by cosines, not by squared distances; there are
    ten rounds, not one, and support rows weigh twice; the labels that come out are hard and weighted, for any
    classifier that counts weights; the background has a logit of its own where section 3.1.2 has a cluster at the
    origin with a learnt length scale (here 0 is the origin); and nothing there asks whether the pool is believed.
    Raises InputError for rows that are no features or do not go together, and for a class 0..way-1 without a support
    row of positive weight.
    """
    options = options or PoolOptions()
    x, member = _checked(support, pool)
    pool, way = pool.to(x), member.shape[1]
    p, overlap = _soft_k_means(x, pool, member, options)
    sizes = p.sum(0)
    evenness = float(torch.distributions.Categorical(sizes / sizes.sum()).entropy().exp()) / way
    if not options.checked or way == 1:
        confidence, y = p.max(1)
        weight = _weights(confidence, y, way, options.share)
        return PoolLabels(y, confidence, weight, 1.0, overlap, evenness, math.nan)
    confidence, y = (p * _probabilities(_SECOND.scores(support, pool))).max(1)
    z = min(_MOST, max(_LEAST, (_OVERLAP - overlap) / _OVERLAP_STEP))
    gains = _held_out_gains(support, pool, member, options)
    helped = float(gains.mean()) if len(gains) else math.nan
    if len(gains):
        z += helped / math.sqrt((float(gains.var(correction=0)) + _SPREAD**2) / len(gains))
    low, high = _EVEN
    trust = min(1.0, max(0.0, (evenness - low) / (high - low))) * 0.5 * (1 + math.erf(z / math.sqrt(2)))
    weight = trust * _weights(confidence, y, way, options.share)
    return PoolLabels(y, confidence, weight, trust, overlap, evenness, helped)


def weights_of(found: PoolLabels, rows: Tensor, way: int, options: PoolOptions | None = None) -> Tensor:
    """The weights [m] that some of the rows of a pool have where the others are left out: rows [m] int64."""
    share = (options or PoolOptions()).share
    return found.trust * _weights(found.confidence[rows], found.y[rows], way, share)


def _weights(confidence: Tensor, y: Tensor, way: int, share: float) -> Tensor:
    """Weights [m] of a pool that is believed in full: those of a class are `share` together, or its confidences."""
    total = confidence.new_zeros(way).index_add(0, y, confidence)
    return confidence * (share / total.clamp(min=share))[y]


def _probabilities(scores: Tensor) -> Tensor:
    return torch.softmax(scores.to(torch.float64) / _TEMPERATURE, 1)


def _held_out_gains(support: Examples, pool: Tensor, member: Tensor, options: PoolOptions) -> Tensor:
    """The log-likelihood that the pool adds to each held-out support row, [rows held out], in nats.

    A fold holds out every fifth row of each class (each row of a class of five or fewer), never the only one.
    """
    x, y = torch.as_tensor(support.x), support.y
    place = held_out_places(x, y, member)
    none = x.new_zeros(0, member.shape[1])
    plain, pooled, labels = [none], [none], [y[:0]]
    for fold in range(min(_FOLDS, int(place.max()) + 1)):
        out = (place >= 0) & (place % _FOLDS == fold)
        known, asked = support.take(~out), x[out]
        scores = _SECOND.scores(known, torch.cat([pool, asked]))
        p, _ = _soft_k_means(x[~out], pool, member[~out], options)
        confidence, found = (p * _probabilities(scores[: len(pool)])).max(1)
        weight = _weights(confidence, found, member.shape[1], options.share).to(x)
        more = Examples(known.x, known.y, weight=known.weight) + Examples(pool, found.to(y), weight=weight)
        plain.append(scores[len(pool) :])
        pooled.append(_SECOND.scores(more, asked))
        labels.append(y[out])
    target = torch.cat(labels)
    return log_likelihood(torch.cat(pooled), target) - log_likelihood(torch.cat(plain), target)


def held_out_places(x: Tensor, y: Tensor, member: Tensor) -> Tensor:
    """The number [n] of each row in its class, -1 for the only one of weight; it does not follow their order.

    Rows [n, d] have labels [n] and weights [n, way] where a class is their own.
    """
    unit = F.normalize(x.to(torch.float64), dim=1)
    order = torch.argsort(unit @ unit.mean(0))
    place, counts = torch.full_like(y, -1), member.sum(1).to(y.device) > 0
    for k in range(member.shape[1]):
        own = order[((y == k) & counts)[order]]
        if len(own) > 1:
            place[own] = torch.arange(len(own), device=y.device)
    return place


def log_likelihood(scores: Tensor, y: Tensor) -> Tensor:
    """The log-likelihood [n], in nats, of labels [n] at the temperature that suits the scores [n, way]."""
    if not len(y):
        return scores.new_zeros(0)
    temperature = fitted_temperature(scores, y, _TEMPERATURE, _TEMPERATURE_ROWS)
    return torch.log_softmax(scores.to(torch.float64) / temperature, 1).gather(1, y[:, None])[:, 0]


def _checked(support: Examples, pool: Tensor) -> tuple[Tensor, Tensor]:
    """The support's rows [n, d], and their weights [n, way] in float64 where a class is their own."""
    x, y = support.x, support.y
    if isinstance(x, list) or x.ndim != 2 or not x.is_floating_point():
        raise InputError("the support holds no features [n, d]; expected embedded pictures")
    if pool.ndim != 2 or pool.shape[1] != x.shape[1] or not pool.is_floating_point():
        raise InputError(
            f"the pool has rows of {pool.dtype} {list(pool.shape)}, and the support {list(x.shape)}; expected features "
            "that the same network made"
        )
    if not (bool(torch.isfinite(x).all()) and bool(torch.isfinite(pool).all())):
        raise InputError("a row of the support or the pool holds what is no number; expected finite features")
    weight = torch.ones(len(y)) if support.weight is None else support.weight
    way = int(y.max()) + 1 if len(y) else 0
    member = (y[:, None] == torch.arange(way, device=y.device)).to(x.device, torch.float64)
    member = member * weight.to(member)[:, None]
    if not way or not bool((member.sum(0) > 0).all()):
        raise InputError("a class has no support row of positive weight; expected at least one of each class 0..way-1")
    return x, member


def _centred(x: Tensor, pool: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets of rows in float64: at length 1, less the mean of all of them, at length 1 again."""
    rows, unlabelled = (F.normalize(part.to(torch.float64), dim=1) for part in (x, pool))
    weight = member.sum(1)
    centre = (weight @ rows + unlabelled.sum(0)) / (weight.sum() + len(unlabelled))
    return F.normalize(rows - centre, dim=1), F.normalize(unlabelled - centre, dim=1)


def _soft_k_means(x: Tensor, pool: Tensor, member: Tensor, options: PoolOptions) -> tuple[Tensor, float]:
    """How much of each row of the pool belongs to each class, [m, way], and the overlap.

    With a background a row's sum is below 1.
    """
    rows, unlabelled = _centred(x, pool, member)
    labelled = (options.support_weight * member).T @ rows  # [way, d]
    means = labelled
    for _ in range(options.rounds):
        means = labelled + _assigned(unlabelled, means, options).T @ unlabelled  # a length is no matter to a cosine
    p = _assigned(unlabelled, means, options)
    unit = F.normalize(means, dim=1)
    alike = (unit @ unit.T).fill_diagonal_(-1.0)
    return p, float(alike.max(1).values.mean())


def _assigned(unlabelled: Tensor, means: Tensor, options: PoolOptions) -> Tensor:
    logits = options.temperature * unlabelled @ F.normalize(means, dim=1).T
    if options.background is None:
        return torch.softmax(logits, 1)
    background = torch.full_like(logits[:, :1], options.temperature * options.background)
    return torch.softmax(torch.cat([logits, background], 1), 1)[:, :-1]
