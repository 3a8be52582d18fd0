"""Which support row a made row comes from: shared by every method that starts from one real example."""

from __future__ import annotations

import torch
from torch import Tensor

from augforge import chance
from augforge.types import InputError


def choose_parents(y: Tensor, want: Tensor, keys: Tensor) -> Tensor:
    """A support row [n] of class `want[i]` for each wanted row, chosen by `keys[i]` alone, each equally likely.

    `y` [m] are the labels of the support. Raises InputError where a wanted class has no support row.
    """
    if not len(want):
        return torch.empty(0, dtype=torch.int64, device=want.device)
    classes = int(max(int(y.max()) if len(y) else -1, int(want.max()))) + 1
    counts = torch.bincount(y, minlength=classes)
    missing = want[counts[want] == 0]
    if len(missing):
        raise InputError(f"class {int(missing[0])} is wanted but has no support row, and at least 1 is needed")
    rows_by_class = torch.argsort(y, stable=True)  # rows of class 0, then of class 1, ...
    starts = torch.cumsum(counts, 0) - counts
    return rows_by_class[starts[want] + chance.choice(chance.fork(keys, "parent"), counts[want])]
