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
    """`values` by class id, and for each class with too few rows the sentence that says so, in `too_few`."""

    values: dict[int, T]
    too_few: dict[int, str]


def by_class(metric: Callable[..., T], sets: Sequence[tuple[Tensor, Tensor]]) -> ByClass[T]:
    """`metric(x_1, x_2, ...)` for each class, where x_i are the rows of that class of the i-th set.

    A set is its rows [n, d] and their class ids [n] int64. Every class of any set is looked at, in ascending order:
    `by_class(kid, [(real, real_y), (made, made_y)])`. Raises InputError for labels that do not go with their rows, and
    what the metric raises, but for TooFewRows.
    """
    for i, (x, y) in enumerate(sets):
        if y.shape != x.shape[:1]:
            raise InputError(f"set {i} has {len(x)} rows and labels {list(y.shape)}; expected one label for each row")
    found: ByClass[T] = ByClass({}, {})
    for label in torch.cat([y for _, y in sets]).unique().tolist():
        try:
            found.values[label] = metric(*(x[y == label] for x, y in sets))
        except TooFewRows as error:
            found.too_few[label] = str(error)
    return found
