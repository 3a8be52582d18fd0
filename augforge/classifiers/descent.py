"""Gradient descent with momentum on the layers of many episodes at once, as `cosine` and `mlp` train theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from augforge.classifiers.base_statistics import check_positive, check_range
from augforge.types import InputError


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
