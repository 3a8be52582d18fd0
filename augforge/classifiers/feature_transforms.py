"""What is done to features before a model reads them, and undone after it made some."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Transform = Literal["raw", "sqrt", "centred-l2", "both"]
TRANSFORMS: tuple[Transform, ...] = ("raw", "sqrt", "centred-l2", "both")
_ROWS_AT_ONCE = 2048


def transformed(x: Tensor, transform: Transform, centre: Tensor) -> Tensor:
    """Rows [..., d]: sign(x) sqrt|x| for "sqrt", less the centre and at length 1 for "centred-l2", or both in turn."""
    if transform in ("sqrt", "both"):
        x = signed_root(x)
    if transform not in ("centred-l2", "both"):
        return x
    apart = x - centre
    if apart.requires_grad:
        return F.normalize(apart, dim=-1)
    return apart.div_(apart.norm(dim=-1, keepdim=True).clamp_(min=1e-12))  # the same without another copy


def lengths(x: Tensor, transform: Transform, centre: Tensor) -> Tensor:
    """The length [n, 1] that `transformed` takes from each of rows [n, d], 1 where it takes none."""
    if transform in ("raw", "sqrt"):
        return torch.ones_like(x[:, :1])
    return ((signed_root(x) if transform == "both" else x) - centre).norm(dim=-1, keepdim=True)


def restored(x: Tensor, transform: Transform, centre: Tensor, length: Tensor) -> Tensor:
    """The inverse of `transformed` for rows [n, d], with the `length` [n, 1] that was taken from each."""
    if transform in ("centred-l2", "both"):
        x = centre + x * length
    return x * x.abs() if transform in ("sqrt", "both") else x


def signed_root(x: Tensor) -> Tensor:
    """sign(x) sqrt|x|, [..., d]; its slope at 0, which is infinite, is taken as 0."""
    if not (x.requires_grad and torch.is_grad_enabled()):
        return x.abs().sqrt_().copysign_(x)  # the same in a third of the time
    there = x != 0
    return torch.where(there, x.sign() * torch.where(there, x.abs(), 1).sqrt(), 0)


def centre_of(x: Tensor, transform: Transform) -> Tensor:
    """What a transform takes away from rows: the mean [d] of those of base classes [n, d]; zeros for none."""
    if transform in ("raw", "sqrt"):
        return torch.zeros(x.shape[1], device=x.device)
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for rows in x.split(_ROWS_AT_ONCE):
        total += (signed_root(rows) if transform == "both" else rows).sum(0).to(torch.float64)
    return (total / len(x)).to(torch.float32)
