"""What every classifier needs first: rows in batch form, weighted class means, and distances.

One episode and a batch of them go the same way: one episode is a batch of one. Every function here keeps the
episodes apart, and every sum over support rows carries their weights, so that a row of weight 2 counts as two copies
of it and a row of weight 0 as none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.data.banks import check_numbers
from augforge.types import Examples, InputError

_SHORTEST = 1e-12  # a row shorter than this has no direction

Distance = Literal["squared-euclidean", "cosine", "mahalanobis"]


@dataclass(frozen=True)
class Rows:
    """The rows of b episodes, in float32, or float64 where they were given so: bfloat16 has too few bits to sum."""

    x: Tensor  # support rows [b, n, d]
    query: Tensor  # [b, q, d]
    member: Tensor  # [b, n, way], the weight of a row where the class is its own, and 0 elsewhere

    @property
    def way(self) -> int:
        """How many classes there are."""
        return self.member.shape[-1]

    @property
    def weight(self) -> Tensor:
        """The weight of every row, [b, n]."""
        return self.member.sum(-1)

    @property
    def counts(self) -> Tensor:
        """The total weight of every class, [b, way]."""
        return self.member.sum(1)

    def needs_grad(self) -> bool:
        """Whether someone wants derivatives with respect to the rows, the weights or the queries."""
        tensors = (self.x, self.query, self.member)
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def as_rows(support: Examples, query: Tensor) -> Rows:
    """Support rows [n, d] or [b, n, d] and queries [q, d] or [b, q, d] as a batch of episodes.

    Rows of weight 0 are padding: their `x` must be finite, and their label may be -1. Raises InputError for what are
    no features, rows that are not finite or beyond 1e15, where shapes do not go together, and where a class 0..way-1
    has no row of positive weight.
    """
    x, y, weight = support.x, support.y, support.weight
    if isinstance(x, list) or x.ndim not in (2, 3) or not x.is_floating_point():
        found = "a list" if isinstance(x, list) else f"{x.dtype} {list(x.shape)}"
        raise InputError(
            f"the support rows are {found}; a classifier takes features [n, d], or [b, n, d] for b episodes"
        )
    if query.ndim != x.ndim or query.shape[-1] != x.shape[-1] or query.shape[:-2] != x.shape[:-2]:
        raise InputError(f"the queries are {list(query.shape)}, which does not go with a support of {list(x.shape)}")
    if x.ndim == 2:
        x, y, query = x[None], y[None], query[None]
        weight = None if weight is None else weight[None]
    if y.numel() == 0:
        raise InputError("the support has no rows; expected at least one of each class")
    if not any(part.requires_grad for part in (x, query)):  # in a training the losses tell
        check_numbers(x, "the support")
        check_numbers(query, "the queries")
    dtype = torch.float64 if torch.float64 in (x.dtype, query.dtype) else torch.float32
    way, least = _checked_way(y, None if weight is None else weight.detach().to(y.device))
    if not least >= 0:
        raise InputError("a support row has a negative weight, or one that is no number; expected at least 0")
    if way is None:
        raise InputError("a class has no support row of positive weight; expected at least one of each class 0..way-1")
    member = (y[..., None] == torch.arange(way, device=y.device)).to(x.device, dtype)
    if weight is not None:
        member = member * weight[..., None].to(member)
    return Rows(x.to(dtype), query.to(dtype), member)


def _checked_way(y: Tensor, weight: Tensor | None) -> tuple[int | None, float]:
    """How many classes labels [b, n] have - None where one of an episode has no row of positive weight - and the least
    weight. All that is asked of a device is asked at once.
    """
    counted = y >= 0 if weight is None else (y >= 0) & (weight > 0)
    n = y.shape[1]  # no more classes than that can have a row; the last place is for rows that do not count
    place = torch.where(counted, y, n).clamp(max=n)
    present = torch.zeros(len(y), n + 1, dtype=torch.int64, device=y.device).scatter_(1, place, 1)[:, :n].sum(1)
    facts = [y.max().double(), present.min().double(), y.new_zeros((), dtype=torch.float64)]
    if weight is not None:
        facts[2] = weight.min().double()
    highest, fewest, least = torch.stack(facts).tolist()
    return (int(highest) + 1 if 0 <= highest < fewest else None), least


def like_query(scores: Tensor, query: Tensor) -> Tensor:
    """Scores [b, q, way] in the shape and dtype of the queries that were given: [q, way] for one episode.

    Of float16 queries they are float32: squared distances go beyond what float16 holds.
    """
    dtype = torch.float32 if query.dtype == torch.float16 else query.dtype
    return (scores if query.ndim == 3 else scores[0]).to(dtype)


def class_means(x: Tensor, member: Tensor) -> Tensor:
    """The weighted mean of every class: x [b, n, d], member [b, n, way] -> [b, way, d]."""
    share = member / member.sum(1, keepdim=True)
    return share.mT @ x


def squared_lengths(x: Tensor) -> Tensor:
    """||x||^2 of every row: [b, n, d] -> [b, n]."""
    if x.requires_grad and torch.is_grad_enabled():
        return x.square().sum(-1)
    return torch.linalg.vector_norm(x, dim=-1).square()  # one pass, with no copy of x


def squared_distances(query: Tensor, points: Tensor) -> Tensor:
    """||q - p||^2 of every pair: [b, q, d], [b, p, d] -> [b, q, p], by one product.

    The points are shifted by their mean m first: ||q||^2 + ||p||^2 - 2 q.p would cancel far from the origin. With
    ||q - m||^2 + ||p - m||^2 - 2 (q - m).(p - m) only the first term can still, which is the same for every p, so
    that ranks and softmax keep their digits; a distance of nearly 0 may come out a little below it.
    """
    centre = points.mean(1, keepdim=True)  # [b, 1, d]
    both = torch.cat([points - centre, centre], 1)  # [b, p + 1, d]: one product with the queries for both
    with_query, with_centre = both @ query.mT, both @ centre.mT  # [b, p + 1, q] is twice as fast as its transpose
    lengths = squared_lengths(both)[..., None]
    of_query = squared_lengths(query)[:, None] - 2 * with_query[:, -1:] + lengths[:, -1:]  # [b, 1, q]
    of_points = (lengths + 2 * with_centre)[:, :-1]  # [b, p, 1]
    return (of_query + of_points - 2 * with_query[:, :-1]).mT.contiguous()


def along(query: Tensor, points: Tensor) -> Tensor:
    """p . q / ||q|| of every pair: [b, q, d], [b, p, d] -> [b, q, p]; 0 for a query of zeros."""
    lengths = squared_lengths(query)[:, None].clamp(min=_SHORTEST**2).sqrt()  # [b, 1, q]
    return (points @ query.mT / lengths).mT.contiguous()


def cosines(query: Tensor, points: Tensor) -> Tensor:
    """The cosine of every pair: [b, q, d], [b, p, d] -> [b, q, p]; 0 for a row of zeros."""
    return along(query, F.normalize(points, dim=-1, eps=_SHORTEST))
