"""Gradient descent with momentum on the layers of many episodes at once, as `cosine` and `mlp` train theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from augforge.classifiers.base_statistics import check_positive, check_range
from augforge.types import InputError

_NOTHING = 1e-10  # an eigenvalue below this share of the largest is rounding


class Descending(Protocol):
    """The settings of a descent: `steps` of size `rate`, with `momentum` (0..1) and weight `decay`."""

    steps: int
    rate: float
    momentum: float
    decay: float


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
