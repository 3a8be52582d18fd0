"""Near-duplicates: all pairs of rows whose cosine is at least a threshold, exactly, without n x m x d products.

Rows are turned to the principal axes of both sets. With the first p of them, a_p and b_p, and the lengths of what is
left, r_a and r_b, the Cauchy-Schwarz inequality gives cos(a, b) <= a_p b_p + r_a r_b: one product of p + 1 numbers a
pair rules nearly all pairs out, and what is left is multiplied in full. No pair is missed; p is chosen on a sample so
that the whole takes the least time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from augforge.types import InputError

_AXES = (32, 64, 96, 128, 192, 256, 384)  # how many to try
_ROWS, _COLUMNS = 1024, 4096  # of a block: 16 MB of products
_SAMPLE = 2048  # rows that show how much p axes rule out
_OF_AXES = 8192  # rows that the axes come from
_FULL_COST = 40.0  # of a full product of two single rows, in products of as many columns of a block
_SLACK = 1e-4  # of the bound, for rounding
_PAIRS_AT_ONCE = 8192


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows: places `first` [p] and `second` [p] int64, in this order, and their `cosine` [p] float64."""

    first: Tensor
    second: Tensor
    cosine: Tensor

    def __len__(self) -> int:
        """How many there are."""
        return len(self.first)


def near_pairs(a: Tensor, b: Tensor | None = None, least: float = 0.95) -> Pairs:
    """All pairs of a row of `a` [n, d] and one of `b` [m, d] whose cosine is `least` or more, 0 < least <= 1.

    Without `b` the pairs i < j of rows of `a`. Rows of length 0 are near to nothing. Raises InputError for what is no
    table of finite numbers, other widths, and a `least` out of range. Rows within 1e-6 of `least` may be on either
    side.
    """
    other = a if b is None else b
    for x in (a, other):
        if x.ndim != 2 or x.shape[1] != a.shape[1]:
            raise InputError(f"rows of the shapes {list(a.shape)} and {list(other.shape)} were given; expected [n, d] "
                             "and [m, d]")  # fmt: skip
        if not bool(x.isfinite().all()):
            raise InputError("a row holds a number that is not finite; expected none")
    if not 0 < least <= 1:
        raise InputError(f"least={least} was given; expected a cosine above 0, at most 1")
    left = F.normalize(a.float(), dim=1)
    right = left if b is None else F.normalize(b.float(), dim=1)
    if not len(left) or not len(right):
        empty = torch.zeros(0, dtype=torch.int64)
        return Pairs(empty, empty, torch.zeros(0, dtype=torch.float64))
    short = _shortened(left, right, least)
    found, cosines = [], []
    for pairs in _candidates(*short, least - _SLACK, same=b is None):
        for some in pairs.split(_PAIRS_AT_ONCE):
            cosine = (left[some[:, 0]] * right[some[:, 1]]).sum(1, dtype=torch.float64)
            near = cosine >= least
            found.append(some[near])
            cosines.append(cosine[near])
    rows = torch.cat([torch.zeros(0, 2, dtype=torch.int64), *found])
    order = torch.argsort(rows[:, 0] * len(right) + rows[:, 1])
    rows, cosine = rows[order], torch.cat([torch.zeros(0, dtype=torch.float64), *cosines])[order]
    return Pairs(rows[:, 0].contiguous(), rows[:, 1].contiguous(), cosine)


def _shortened(a: Tensor, b: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Rows [n, p + 1] and [m, p + 1] whose products bound the cosines of rows of length 1 from above.

    They are the rows themselves where nothing shorter would save time.
    """
    width = a.shape[1]
    tried = [p for p in _AXES if p <= width // 2]
    if not tried or len(a) * len(b) < _SAMPLE**2:
        return a, b
    some = torch.cat([_spread(a, _OF_AXES // 2), _spread(b, _OF_AXES // 2)])
    axes = torch.linalg.eigh(some.T @ some)[1].flip(1)[:, : tried[-1]].contiguous()  # [d, p], the largest first
    turned = a @ axes, b @ axes
    x, y = (_spread(side, _SAMPLE) for side in turned)
    costs = {width: float(width)}
    for p in tried:
        bound = _with_rest(x, p) @ _with_rest(y, p).T
        share = float((bound >= least - _SLACK).float().mean())
        costs[p] = p + 1 + share * _FULL_COST * width
    best = min(costs, key=lambda p: costs[p])
    return (a, b) if best == width else (_with_rest(turned[0], best), _with_rest(turned[1], best))


def _spread(x: Tensor, count: int) -> Tensor:
    """At most `count` rows from all over x [n, d]."""
    return x if len(x) <= count else x[torch.linspace(0, len(x) - 1, count).long()]


def _with_rest(turned: Tensor, p: int) -> Tensor:
    """The first p columns of rows [n, q], and the length of what is left of a row of length 1: [n, p + 1]."""
    kept = turned[:, :p]
    rest = (1 - kept.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
    return torch.cat([kept, rest], 1)


def _candidates(a: Tensor, b: Tensor, least: float, same: bool) -> list[Tensor]:
    """The pairs [p, 2] of rows whose product is `least` or more, block by block; with `same` those above the diagonal.

    One pass finds the rows of a block that have such a product at all, since most have none.
    """
    out = torch.empty(_ROWS, _COLUMNS)
    found = []
    for top in range(0, len(a), _ROWS):
        rows = a[top : top + _ROWS]
        for start in range((top // _COLUMNS) * _COLUMNS if same else 0, len(b), _COLUMNS):
            columns = b[start : start + _COLUMNS]
            block = torch.mm(rows, columns.T, out=out[: len(rows), : len(columns)]) if (
                len(rows), len(columns)) == (_ROWS, _COLUMNS) else rows @ columns.T  # fmt: skip
            hit = (block.amax(1) >= least).nonzero()[:, 0]
            if not len(hit):
                continue
            place, column = (block[hit] >= least).nonzero(as_tuple=True)
            pairs = torch.stack([hit[place] + top, column + start], 1)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]] if same else pairs)
    return found
