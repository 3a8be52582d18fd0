"""Unlabelled rows as weighted examples: soft k-means from the support's means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.types import Examples, InputError


@dataclass(frozen=True)
class PoolOptions:
    """How unlabelled rows are labelled and weighted. Raises InputError for settings out of range."""

    share: float = 2.0  # how many real rows of each class the pool weighs, on average over classes, > 0
    temperature: float = 10.0  # what cosines are multiplied by, > 0
    support_weight: float = 2.0  # how many rows of the pool a support row is in the means, > 0
    rounds: int = 10  # of k-means, at least 1
    background: float | None = None  # cosine of the cluster of rows of no class, -1 to 1; None: all rows have a class

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


def with_pool(support: Examples, pool: Tensor, options: PoolOptions | None = None) -> Examples:
    """The support [n, d], and behind it the rows of a pool [m, d] with the labels that were found for them.

    Soft k-means (Ren et al., "Meta-learning for semi-supervised few-shot classification", ICLR 2018, section 3.1.1).
    The mean of class k begins as that of its support rows; then, `rounds` times,

        p_jk = softmax_k(temperature cos(x_j, mean_k))                                                    (Equation 4)
        mean_k = (support_weight sum_i w_i [y_i = k] x_i + sum_j p_jk x_j) / (the sum of these weights)   (Equation 3)

    over support rows i of weight w_i and rows j of the pool. Row j is labelled argmax_k p_jk and weighs max_k p_jk,
    times one factor for all rows: with it the pool weighs `share` real rows a class together, `share` times as many
    as there are classes, and no row more than its confidence. The support comes back as it was, with its weights.

    With a `background`, p has one more column, a cluster of logit temperature times background for rows that are of
    none of the classes; a row weighs what is left of it: the better it fits the background, the less.

    Nothing is drawn, and the order of rows matters to rounding alone. Differs from the paper: rows are brought to
    length 1, centred on the mean of all rows of both sets and compared by cosines, not by squared distances; there are
    ten rounds, not one, and support rows weigh twice; the labels that come out are hard and weighted, for any
    classifier that counts weights; the background has a logit of its own where section 3.1.2 has a cluster at the
    origin with a learnt length scale (here 0 is the origin). Raises InputError for rows that are no features or do not
    go together, and for a class 0..way-1 without a support row of positive weight.
    """
    options = options or PoolOptions()
    x, member = _checked(support, pool)
    pool = pool.to(x)
    if not len(pool):
        return support
    rows, unlabelled = _centred(x, pool, member)
    p = _memberships(rows, unlabelled, member, options)
    confidence, labels = p.max(1)
    factor = min(1.0, options.share * member.shape[1] / float(confidence.sum()))
    found = Examples(pool, labels.to(support.y), weight=(factor * confidence).to(x))
    return Examples(x, support.y, support.parent, support.weight) + found


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


def _memberships(rows: Tensor, unlabelled: Tensor, member: Tensor, options: PoolOptions) -> Tensor:
    """How much of each row [m, d] belongs to each class, [m, way]; with a background a row's sum is below 1."""
    labelled = options.support_weight * member
    means = labelled.T @ rows
    p = _assigned(unlabelled, means, options)
    for _ in range(options.rounds):
        means = labelled.T @ rows + p.T @ unlabelled  # a length is no matter to a cosine
        p = _assigned(unlabelled, means, options)
    return p


def _assigned(unlabelled: Tensor, means: Tensor, options: PoolOptions) -> Tensor:
    logits = options.temperature * unlabelled @ F.normalize(means, dim=1).T
    if options.background is None:
        return torch.softmax(logits, 1)
    background = torch.full_like(logits[:, :1], options.temperature * options.background)
    return torch.softmax(torch.cat([logits, background], 1), 1)[:, :-1]
