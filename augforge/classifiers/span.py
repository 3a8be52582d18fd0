"""The span of the support rows: where a linear layer that is trained on them lives, whatever the features' size.

A layer's gradient is a sum of support rows, so with an L2 penalty, or started there, it never leaves their span.
Five rows of 640 features need five coordinates, not 640.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_NOTHING = 1e-10  # an eigenvalue below this share of the largest is rounding


@dataclass(frozen=True)
class Span:
    """An orthonormal basis `basis` [b, d, r] of the support rows' span, their coordinates `z` [b, n, r], and the
    sums of squares `squares` [b, r] of the weighted coordinates, which are uncorrelated. r = min(n, d).
    """

    basis: Tensor
    z: Tensor
    squares: Tensor


def span(x: Tensor, weight: Tensor) -> Span:
    """The principal axes of weighted rows: x [b, n, d], weight [b, n] -> Span, in the dtype of `x`.

    Rows of weight 0 have no say. An axis along which no row lies is a column of zeros.
    """
    root = weight.sqrt()[..., None]
    scaled = x * root
    if x.shape[1] <= x.shape[2]:
        values, vectors = torch.linalg.eigh(scaled @ scaled.mT)  # [b, n], [b, n, n]
        there = values > _NOTHING * values[:, -1:].clamp(min=1e-300)
        inverse = torch.where(there, values.clamp(min=1e-300).rsqrt(), 0)
        basis = scaled.mT @ (vectors * inverse[:, None, :])
    else:
        values, basis = torch.linalg.eigh(scaled.mT @ scaled)
        there = values > _NOTHING * values[:, -1:].clamp(min=1e-300)
        basis = basis * there[:, None, :]
    return Span(basis, x @ basis, torch.where(there, values, 0))
