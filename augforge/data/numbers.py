"""Which numbers features may be: finite ones, of a size whose squares can be summed in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from augforge.types import InputError

LARGEST = 1e15


def check_numbers(x: Tensor, what: str) -> None:
    """Raise InputError naming the first row of features `x` [..., n, d] that is not finite or beyond 1e15.

    `what` ends the words "row 3 of ...".
    """
    if not x.is_floating_point() or not x.numel():
        return
    low, high = torch.aminmax(x.detach())
    if bool((low >= -LARGEST) & (high <= LARGEST)):  # one pass; NaN is in no range
        return
    rows = x.detach().reshape(-1, x.shape[-1])
    bad = ~(rows.abs() <= LARGEST)
    row = int(bad.any(1).nonzero()[0])
    value = float(rows[row][bad[row]][0])
    raise InputError(
        f"row {row % max(1, x.shape[-2]) if x.ndim > 1 else row} of {what} holds {value:g}; expected finite numbers of "
        f"at most {LARGEST:g} in size, so scale or leave out what is beyond"
    )
