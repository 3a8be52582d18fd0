"""The kernel distance: the squared maximum mean discrepancy with a cubic kernel.

Bińkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018, where the features are those of an
Inception network and the distance is called KID. Unlike the Fréchet distance its expectation does not depend on the
number of rows: it is near 0 for two draws of one distribution, and half of the time below 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augforge import chance
from augforge.metrics.rows import checked
from augforge.types import InputError

_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class SubsetKid:
    """The kernel distance over subsets."""

    mean: float
    spread: float  # standard deviation
    subsets: int  # how many
    size: int  # rows of each


def kid(real: Tensor, made: Tensor) -> float:
    """The unbiased estimate of the squared discrepancy of `real` [n, d] and `made` [m, d], over all pairs of rows.

    The kernel is (x . y / d + 1)^3. Raises InputError for rows of different width, numbers that are not finite, and
    TooFewRows for fewer than 2.
    """
    real, made = checked({"real": real, "made": made}, 2, "the kernel distance")
    return float(_unbiased(real, made))


def kid_over_subsets(real: Tensor, made: Tensor, size: int = 100, subsets: int = 100, seed: int = 0) -> SubsetKid:
    """The mean and the spread of the estimate over `subsets` draws of `size` rows of each, without replacement.

    The published comparisons use subsets of 1,000. Which rows are drawn is a function of `seed`. Raises what `kid`
    raises, TooFewRows for fewer rows than `size`, and InputError for a size below 2 or no subset.
    """
    if size < 2 or subsets < 1:
        raise InputError(f"{subsets} subsets of {size} rows were asked for; expected at least 1 of at least 2 rows")
    real, made = checked({"real": real, "made": made}, size, f"the kernel distance of subsets of {size} rows")
    real_keys, made_keys = (chance.row_keys(seed, f"kid {side}", torch.arange(subsets)) for side in ("real", "made"))
    found = []
    for real_key, made_key in zip(real_keys.split(1), made_keys.split(1), strict=True):
        rows, made_rows = _drawn(len(real), size, real_key), _drawn(len(made), size, made_key)
        found.append(_unbiased(real[rows.to(real.device)], made[made_rows.to(made.device)]))
    values = torch.stack(found).cpu()  # a device is waited for once
    return SubsetKid(float(values.mean()), float(values.std(correction=0)), subsets, size)


def _drawn(n: int, size: int, key: Tensor) -> Tensor:
    """`size` of n rows without replacement, for one key [1]."""
    return torch.argsort(chance.uniform64(key, (n,))[0], stable=True)[:size]


def _unbiased(real: Tensor, made: Tensor) -> Tensor:
    """Equation 4 of the paper: the pairs of a row with itself are left out."""
    n, m = len(real), len(made)
    among_real = (_kernel_sum(real, real) - _own_sum(real)) / (n * (n - 1))
    among_made = (_kernel_sum(made, made) - _own_sum(made)) / (m * (m - 1))
    return among_real + among_made - 2 * _kernel_sum(real, made) / (n * m)


def _kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the kernel over all pairs of rows of `a` [n, d] and `b` [m, d]."""
    total, one = a.new_zeros(()), a.new_ones(1, 1)
    for left in a.split(_ROWS_AT_ONCE):
        for right in b.split(_ROWS_AT_ONCE):
            total += torch.addmm(one, left, right.mT, alpha=1 / a.shape[1]).pow_(3).sum()  # one block in memory
    return total


def _own_sum(x: Tensor) -> Tensor:
    """The sum of the kernel of each row of `x` [n, d] with itself."""
    return (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()
