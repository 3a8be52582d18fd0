"""Gradient descent on the layers of many episodes at once, and the span of the support rows, where such layers live.

A layer's gradient is a sum of support rows, so with an L2 penalty, or started there, it never leaves their span.
Five rows of 640 features need five coordinates, not 640.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from augforge.classifiers.base_statistics import check_positive, check_range, symmetric_eigen
from augforge.types import InputError

_NOTHING = 1e-10  # an eigenvalue below this share of the largest is rounding


class Descending(Protocol):
    """The settings of a descent."""

    steps: int  # >= 0
    rate: float  # step size, > 0
    momentum: float  # 0..1
    decay: float  # weight of the squared layers, >= 0


def check_descent(part: Descending) -> None:
    """Raise InputError for settings out of range."""
    if part.steps < 0:
        raise InputError(f"steps={part.steps} was given; expected at least 0")
    check_positive(part, "rate")
    check_range(part, "momentum", 0, 1)
    check_range(part, "decay", 0)


def descend(
    layers: Sequence[Tensor], slope: Callable[[list[Tensor], int], Sequence[Tensor]], part: Descending
) -> list[Tensor]:
    """The layers [b, ...] after the steps of `part`; `slope(layers, step)` is the gradient of each."""
    now, speed = list(layers), [torch.zeros_like(layer) for layer in layers]
    for step in range(part.steps):
        speed = [part.momentum * v + g for v, g in zip(speed, slope(now, step), strict=True)]
        now = [layer - part.rate * v for layer, v in zip(now, speed, strict=True)]
    return now


@dataclass(frozen=True)
class Span:
    """The support rows' span, with r = min(n, d) axes."""

    basis: Tensor  # [b, d, r], orthonormal
    z: Tensor  # [b, n, r], the rows' coordinates
    squares: Tensor  # [b, r], the sums of squares of the weighted coordinates, which are uncorrelated


def span(x: Tensor, weight: Tensor) -> Span:
    """The principal axes of weighted rows: x [b, n, d], weight [b, n] -> Span, in the dtype of `x`.

    Rows of weight 0 do not count. An axis along which no row lies is a column of zeros.
    """
    root = weight.sqrt()[..., None]
    scaled = x * root
    if x.shape[1] <= x.shape[2]:
        values, vectors = symmetric_eigen(scaled @ scaled.mT)  # [b, n], [b, n, n]
        there = values > _NOTHING * values[:, -1:].clamp(min=1e-300)
        inverse = torch.where(there, values.clamp(min=1e-300).rsqrt(), 0)
        basis = scaled.mT @ (vectors * inverse[:, None, :])
    else:
        values, basis = symmetric_eigen(scaled.mT @ scaled)
        there = values > _NOTHING * values[:, -1:].clamp(min=1e-300)
        basis = basis * there[:, None, :]
    return Span(basis, x @ basis, torch.where(there, values, 0))
