"""A metric class by class, with the classes that have too few rows for it named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from augforge.metrics.rows import TooFewRows
from augforge.types import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class ByClass(Generic[T]):
    """A metric by class id."""

    values: dict[int, T]
    too_few: dict[int, str]  # for each class with too few rows the sentence that says so


def by_class(metric: Callable[..., T], sets: Sequence[tuple[Tensor, Tensor]]) -> ByClass[T]:
    """`metric(x_1, x_2, ...)` for each class, where x_i are the rows of that class of the i-th set.

    A set is its rows [n, d] and their class ids [n] int64. Every class of any set is measured, in ascending order:
    `by_class(kid, [(real, real_y), (made, made_y)])`. Raises InputError for labels that do not go with their rows, and
    what the metric raises, but for TooFewRows.
    """
    for i, (x, y) in enumerate(sets):
        if y.shape != x.shape[:1]:
            raise InputError(f"set {i} has {len(x)} rows and labels {list(y.shape)}; expected one label for each row")
    found: ByClass[T] = ByClass({}, {})
    labels = torch.cat([y for _, y in sets]).unique()
    rows = [_rows_of(y, labels) for _, y in sets]
    for i, label in enumerate(labels.tolist()):
        try:
            found.values[label] = metric(*(x[own[i]] for (x, _), own in zip(sets, rows, strict=True)))
        except TooFewRows as error:
            found.too_few[label] = str(error)
    return found


def _rows_of(y: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The rows of each of the ascending `labels` [k] among `y` [n]; a device is waited for once, not k times."""
    place = torch.searchsorted(labels, y)
    counts = torch.bincount(place, minlength=len(labels)).tolist()
    return torch.argsort(place, stable=True).split(counts)
