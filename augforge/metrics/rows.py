"""What every metric does first: check its rows, and walk through distances in blocks so that memory stays small."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from augforge.types import InputError

_CELLS_AT_ONCE = 4_000_000  # distances held at a time: 32 MB in float64
_ROWS_AT_ONCE = 4096


class TooFewRows(InputError):
    """A metric is not defined for so few rows; `by_class` reports it and goes on."""


def checked(sets: dict[str, Tensor], least: int | dict[str, int], metric: str) -> list[Tensor]:
    """The sets of rows, name -> [n, d], as float64 and in their order.

    `least` is how many rows each needs, one number or one by name. Raises TooFewRows for fewer, and InputError for
    what is no table of rows, for sets of different width, and for values that are not finite.
    """
    for name, x in sets.items():
        if x.ndim != 2:
            raise InputError(f"the {name} rows have the shape {list(x.shape)}; {metric} expects features [n, d]")
    (first, like), *others = sets.items()
    for name, x in others:
        if x.shape[1] != like.shape[1]:
            raise InputError(f"the {name} rows are {x.shape[1]} numbers wide and the {first} rows {like.shape[1]}; "
                             f"{metric} expects both in one representation")  # fmt: skip
    finite = torch.stack([x.isfinite().all() for x in sets.values()])
    if not bool(finite.all()):  # once for all sets, since a device must be waited for
        name, x = list(sets.items())[int(finite.int().argmin())]
        bad = (~x.isfinite()).any(1).nonzero()
        raise InputError(f"the {name} row {int(bad[0])} holds a number that is not finite; {metric} expects none")
    for name, x in sets.items():
        need = least if isinstance(least, int) else least[name]
        if len(x) < need:
            there = f"is 1 {name} row" if len(x) == 1 else f"are {len(x)} {name} rows"
            raise TooFewRows(f"there {there}; {metric} needs at least {need}")
    return [x.to(torch.float64) for x in sets.values()]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances [..., n, m] between rows of `a` [..., n, d] and `b` [..., m, d], at least 0."""
    products = a @ b.transpose(-1, -2)
    sizes = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]  # [..., n, m]
    return (sizes - 2 * products).clamp(min=0)


def distance_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances between `a` [n, d] and `b` [m, d], some rows of `a` at a time: (their slice, [rows, m])."""
    step = max(1, _CELLS_AT_ONCE // max(1, len(b)))
    for start in range(0, len(a), step):
        rows = slice(start, min(start + step, len(a)))
        yield rows, squared_distances(a[rows], b)


def nearest_distances(a: Tensor, b: Tensor) -> Tensor:
    """The distance [n] of each row of `a` [n, d] to the nearest of `b` [m, d]; exactly 0 for equal rows."""
    nearest = torch.cat([squares.argmin(1) for _, squares in distance_blocks(a, b)])
    parts = zip(a.split(_ROWS_AT_ONCE), nearest.split(_ROWS_AT_ONCE), strict=True)
    return torch.cat([(x - b[rows]).square().sum(1).sqrt() for x, rows in parts])


def neighbour_squares(x: Tensor, k: int) -> Tensor:
    """The squared distance [n] of each row of `x` [n, d] to its k-th nearest other row; n is above k."""
    found = []
    for rows, squares in distance_blocks(x, x):
        own = torch.arange(rows.start, rows.stop, device=x.device)
        squares[torch.arange(len(own), device=x.device), own] = torch.inf
        found.append(squares.kthvalue(k, dim=1).values)
    return torch.cat(found)
