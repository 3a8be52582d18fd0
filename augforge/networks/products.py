"""Products of rows and matrices in which a row's bits depend on that row and the matrix alone.

A matrix library adds up in another order for another number of rows, for another memory layout and, where few columns
come out, for another place of the row among its neighbours: MKL on an AMD EPYC does so for 2 to 10 columns in float32,
for odd numbers of columns in float64, and for factors stored by columns (all seen with 8, 16 and 64 rows). A place in
the tile made no difference, under any setting tried (`MKL_CBWR`, `ATEN_CPU_CAPABILITY`), where the number of rows and
both sizes of the matrix are multiples of 16, nor in convolutions of a fixed number of pictures; the layout of the
matrix still did in float64. So all that makes rows multiplies through this module: rows go in tiles of a fixed number,
sizes are filled up with zeros, which change no sum, and matrices lie row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

MULTIPLE = 16  # sizes of a product are filled up to multiples of this
TILE_ROWS = 64  # rows multiplied at a time on a CPU: each takes no longer than among many
DEVICE_ROWS = 512  # rows on other devices, which are idle with few
_MATMULS = {torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__}


def row_product(x: Tensor, matrix: Tensor) -> Tensor:
    """x [n, k] times a matrix [k, m] of its dtype: [n, m]; no bit of a row depends on the other rows."""
    whole = _filled(matrix)
    k, m = len(whole) - len(matrix), matrix.shape[1]
    return whole_tiles(lambda tile: tile @ whole, F.pad(x, (0, k)) if k else x)[:, :m]


def in_tiles(
    network: Callable[..., Tensor], *rows: Tensor, size: int = TILE_ROWS, device_size: int = DEVICE_ROWS
) -> Tensor:
    """`network` on rows [n, ...], always as many at a time, so that no bit of a row depends on the other rows.

    A tile has `size` rows (a multiple of 16) on a CPU and at least `device_size` elsewhere, where few rows leave a
    device idle and too many fill its memory; the last one is filled up with copies of its last row. Inside, `F.linear`
    and products with a matrix [k, m] have sizes that are multiples of 16. All else in the network must work row by row,
    as convolutions and elementwise functions do.
    """
    with _Filled():
        return whole_tiles(network, *rows, size=size, device_size=device_size)


def whole_tiles(
    network: Callable[..., Tensor], *rows: Tensor, size: int = TILE_ROWS, device_size: int = DEVICE_ROWS
) -> Tensor:
    """`in_tiles` for a network whose products have sizes that are multiples of 16 already: none is filled up.

    torch's fast attention works in here, and not in `in_tiles`.
    """
    size = size if rows[0].device.type == "cpu" else max(size, device_size)
    n = len(rows[0])
    short = -n % size if n else size
    padded = [torch.cat([part, _spare(part, short)]) if short else part for part in rows]
    tiles = zip(*(part.contiguous().split(size) for part in padded), strict=True)
    return torch.cat([network(*tile) for tile in tiles])[:n]


def _spare(rows: Tensor, count: int) -> Tensor:
    """Copies of the last row that fill up a tile: a row of zeros may be no valid input, and have gradients of NaN."""
    last = rows[-1:].detach() if len(rows) else rows.new_zeros(1, *rows.shape[1:])
    return last.expand(count, *rows.shape[1:])


class _Filled(TorchFunctionMode):
    """Fills up the sizes of linear layers and of products with a matrix while it is entered."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func`, or what stands for it."""
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        if func in _MATMULS and args[1].ndim == 2:
            return _linear(args[0], args[1].mT)
        return func(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear of x [..., k], a weight [m, k] and a bias [m], with both sizes filled up: [..., m]."""
    whole = _filled(weight)
    if whole.shape == weight.shape:
        return F.linear(input, whole, bias)
    more, m = whole.shape[1] - weight.shape[1], len(weight)
    return F.linear(F.pad(input, (0, more)), whole, None if bias is None else F.pad(bias, (0, len(whole) - m)))[..., :m]


def _filled(matrix: Tensor) -> Tensor:
    """A matrix [k, m] row by row in memory, with zeros behind its rows and columns, up to multiples of 16."""
    rows, columns = (-size % MULTIPLE for size in matrix.shape)
    return (F.pad(matrix, (0, columns, 0, rows)) if rows or columns else matrix).contiguous()
