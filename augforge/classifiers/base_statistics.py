"""What the base classes say about features: their mean, how classes lie, and how rows spread within a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from augforge.types import Bank, InputError, NothingToLearn

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class BaseStatistics:
    """Of base features, in float64, for the classes that have rows."""

    means: Tensor  # [c, d]
    counts: Tensor  # [c], rows of each class
    within: Tensor  # [d, d], the covariance of rows round their class's mean, pooled over classes


def check_features(base: Bank, who: str) -> None:
    """Raise InputError, naming `who`, for base classes that are pictures, and NothingToLearn for none."""
    if base.space != "feature":
        raise InputError(f"{who} learns from features; the base classes are pictures, so embed them first")
    if not len(base.y):
        raise NothingToLearn(f"{who} learns from base features; there are none")


def base_rows(base: Bank, who: str, rows: Tensor | None = None) -> Tensor:
    """All features [n, d] of a base bank, or those of `rows` [n], in its dtype; raises as `check_features`."""
    check_features(base, who)
    x = base.examples(torch.arange(len(base.y)) if rows is None else rows).x
    assert isinstance(x, Tensor)
    return x


def base_mean(x: Tensor) -> Tensor:
    """The mean of all rows: [n, d] -> [d] float32, added up in float64."""
    return x.mean(0, dtype=torch.float64).to(torch.float32)


def base_statistics(x: Tensor, y: Tensor, who: str) -> BaseStatistics:
    """The statistics of rows `x` [n, d] of classes `y` [n]; raises InputError where no class has two rows."""
    ids, y = torch.unique(y.to(x.device), return_inverse=True)
    counts = torch.bincount(y).to(torch.float64)
    free = float((counts - 1).sum())
    if not len(y):
        raise NothingToLearn(f"{who} learns from base features; there are none")
    if free < 1:
        raise InputError(f"{who} needs a base class with at least 2 rows to learn their spread; every class has 1")
    means = torch.zeros(len(ids), x.shape[1], dtype=torch.float64, device=x.device)
    for rows in torch.arange(len(y)).split(_ROWS_AT_ONCE):
        means.index_add_(0, y[rows], x[rows].to(torch.float64))
    means /= counts[:, None]
    within = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for rows in torch.arange(len(y)).split(_ROWS_AT_ONCE):
        apart = x[rows].to(torch.float64) - means[y[rows]]
        within.addmm_(apart.T, apart)
    return BaseStatistics(means, counts, within / free)


def shrunk(covariance: Tensor, amount: float) -> Tensor:
    """(1 - amount) S + amount tr(S)/d I: [d, d] -> [d, d], S shrunk towards a sphere of the same size."""
    size = covariance.diagonal().mean()
    sphere = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device) * size
    return (1 - amount) * covariance + amount * sphere


def whitening(covariance: Tensor, who: str) -> Tensor:
    """A map W [d, d] with W^T S W = I, so that ||(a - b) W|| is Mahalanobis' distance; InputError if S is singular."""
    values, vectors = symmetric_eigen(covariance)
    if not float(values[0]) > 1e-12 * float(values[-1]):
        raise InputError(f"{who}: the base features do not spread in every direction; expected shrinkage over 0")
    return vectors / values.sqrt()


def learn_whitening(base: Bank, shrinkage: float, who: str) -> Tensor:
    """The whitening map [d, d] float32 of the shrunk pooled within-class covariance of base features."""
    found = base_statistics(base_rows(base, who), base.y, who)
    return whitening(shrunk(found.within, shrinkage), who).to(torch.float32).contiguous()  # row by row, as when loaded


def fitted(tensor: Tensor | None, x: Tensor, who: str) -> Tensor:
    """A fitted tensor [d, ...] on the device and in the dtype of `x` [..., d]; InputError where it is not there."""
    if tensor is None:
        raise InputError(f"{who} is not fitted yet; expected fit(base, rng) or a folder that it was saved in")
    if tensor.shape[0] != x.shape[-1]:
        raise InputError(f"{who} was fitted on {tensor.shape[0]} features; these rows have {x.shape[-1]}")
    return tensor.to(x)


def check_range(part: Any, name: str, low: float, high: float = float("inf")) -> None:
    """Raise InputError where a setting of a part is not a number within low..high."""
    value = getattr(part, name)
    if not low <= value <= high:
        expected = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise InputError(f"{name}={value!r} was given; expected a number {expected}")


def check_positive(part: Any, name: str) -> None:
    """Raise InputError where a setting of a part is not a positive number."""
    value = getattr(part, name)
    if not 0 < value < float("inf"):
        raise InputError(f"{name}={value!r} was given; expected a positive number")


def symmetric_eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues [..., d] and eigenvectors [..., d, d] of a symmetric matrix [..., d, d], in its dtype.

    The library's driver does not converge for some matrices with many equal eigenvalues, as where hundreds of features
    are constant. They are then parted by 1e-13 of the mean in float64, which is below what float32 holds. Raises
    InputError where that fails too.
    """
    try:
        return torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:
        wide = matrix.to(torch.float64)
    d = wide.shape[-1]
    size = wide.diagonal(dim1=-2, dim2=-1).abs().mean(-1)[..., None]  # [..., 1]
    apart = 1e-13 * size * torch.arange(1, d + 1, device=wide.device, dtype=wide.dtype) / d
    try:
        values, vectors = torch.linalg.eigh(wide + torch.diag_embed(apart))
    except torch.linalg.LinAlgError as error:
        raise InputError(f"the covariance of {d} features has no eigenvalues that can be computed; expected features "
                         "of like size, without constant ones") from error  # fmt: skip
    return values.to(matrix.dtype), vectors.to(matrix.dtype)
