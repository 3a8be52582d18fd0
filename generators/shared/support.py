"""The support of a method: checked rows, which row a made one comes from, and which rows and base classes are near."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augforge import chance
from augforge.data.banks import check_numbers
from augforge.generators.shared.neighbours import nearest_of_class
from augforge.networks.products import row_product
from augforge.types import Examples, InputError


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


def feature_rows(support: Examples, who: str) -> Tensor:
    """The features [m, d] of a support in float32 or wider; raises InputError, naming `who`, for pictures, and for a
    row that is not finite or beyond 1e15.
    """
    if not isinstance(support.x, Tensor) or support.x.ndim != 2 or not support.x.is_floating_point():
        raise InputError(f"{who} makes features; expected floats [m, d], and this support holds something else")
    check_numbers(support.x, "the support")
    return support.x.to(torch.promote_types(support.x.dtype, torch.float32))


def not_fitted(who: str) -> InputError:
    """The error for a part named `who` that is used before `fit`."""
    return InputError(f"{who} is not fitted yet; expected fit(base, rng) or a folder that `augforge fit` made")


def checked_rows(support: Examples, features: int, who: str) -> Tensor:
    """The rows of a support [m, d] in float32; InputError for pictures, where `who` was fitted on others than
    `features` numbers, and for a row that is not finite or beyond 1e15.
    """
    if isinstance(support.x, list) or support.x.ndim != 2:
        raise InputError(f"{who} makes features; these rows are pictures")
    if support.x.shape[1] != features:
        raise InputError(f"{who} was fitted on {features} features; these rows have {support.x.shape[1]}")
    check_numbers(support.x, "the support")
    return support.x.to(torch.float32)


def like_support(made: Tensor, support: Examples) -> Tensor:
    """Made rows in the dtype of the support's, within what it holds."""
    assert isinstance(support.x, Tensor)
    return in_range(made, support.x.dtype)


def in_range(made: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows in another dtype; what is beyond the largest number of float16 becomes that number, not infinite."""
    if dtype == torch.float16:
        made = made.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    return made.to(dtype)


def nearest_means(x: Tensor, means: Tensor, k: int) -> Tensor:
    """The `k` rows of `means` [c, d] that are nearest to each row of `x` [n, d] by Euclidean distance: [n, k] int64.

    In float64, and no row's choice depends on which rows come together.
    """
    x, means = x.detach().to(torch.float64), means.to(torch.float64)
    return (means.square().sum(1) - 2 * row_product(x, means.T)).topk(k, largest=False).indices


def other_rows(x: Tensor, y: Tensor, parent: Tensor, near: int | None, keys: Tensor) -> Tensor:
    """Another row [n] of its class for each row `parent` [n] of a support, chosen by `keys` [n], each equally likely.

    `x` [m, d] and `y` [m] are the support. The choice is among all other rows, or the `near` nearest of them (of
    equally near ones those that come first). Where a class has one row, the other is that row itself.
    """
    counts = torch.bincount(y)
    order = torch.argsort(y, stable=True)  # rows of class 0, then of class 1, ...
    starts = torch.cumsum(counts, 0) - counts
    others = counts[y[parent]] - 1
    if near is None:
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        chosen = starts[y[parent]] + chance.choice(keys, others.clamp(min=1))
        chosen = chosen + (chosen >= place[parent]).to(chosen.dtype)  # all but the parent itself
        return torch.where(others > 0, order[chosen.clamp(max=len(order) - 1)], parent)
    used, back = torch.unique(parent, return_inverse=True)
    ranked = nearest_of_class(x, y, used, max(1, min(near, int(counts.max()) - 1)))
    chosen = ranked[back, chance.choice(keys, others.clamp(min=1, max=near))]
    return torch.where(others > 0, chosen, parent)


def whole_numbers(part: Any, name: str) -> tuple[int, ...]:
    """A text setting such as "1,5" as numbers; raises InputError where it is not whole numbers of at least 1."""
    words = str(getattr(part, name)).split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"{name}={getattr(part, name)!r} was given; expected whole numbers with commas, as 1,5")
    return tuple(map(int, words))
