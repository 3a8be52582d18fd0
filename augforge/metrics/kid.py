"""The kernel distance: the squared maximum mean discrepancy with a cubic kernel.

Bińkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018, where the features are those of an
Inception network and the distance is called KID. Unlike the Fréchet distance its expectation does not depend on the
number of rows: it is near 0 for two draws of one distribution, and half of the time below 0.

That holds for rows that were drawn independently. Where a set has so many rows of each class, as data sets do, two of
its rows are less often of one class than two rows of different sets are, and the estimate is too low: real rows of 2
classes, 5 of each, are far below 0 from other real ones. `kid_of_classes` is unbiased there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augforge import chance
from augforge.metrics.rows import TooFewRows, checked
from augforge.types import InputError

_ROWS_AT_ONCE = 512
_CELLS_AT_ONCE = 1 << 20  # of kernels within classes


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


def kid_of_classes(real: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> float:
    """The unbiased estimate for sets that have so many rows of each class: (rows [n, d], their class ids [n]) each.

    Equation 4 of the paper for mixtures of classes with the shares that they have in `made`: the mean over pairs of
    rows of two classes, and within a class over pairs of different rows, weighted by the product of the shares. Raises
    what `kid` raises, and TooFewRows for a class that has fewer than 2 rows in one of the sets.
    """
    x, made_x = checked({"real": real[0], "made": made[0]}, 2, "the kernel distance")
    labels = torch.cat([real[1], made[1]]).unique()
    places = [torch.searchsorted(labels, y) for y in (real[1], made[1])]
    counts = [torch.bincount(place, minlength=len(labels)) for place in places]
    for name, count in zip(("real", "made"), counts, strict=True):
        if int(count.min()) < 2:
            label = int(labels[int(count.argmin())])
            raise TooFewRows(f"class {label} has {int(count.min())} {name} rows; the kernel distance needs at least 2")
    share = counts[1].to(torch.float64) / len(made_x)  # [k]
    weights = [(share / count)[place].to(x) for count, place in zip(counts, places, strict=True)]
    within = [_within_classes(rows, place, share) for rows, place in zip((x, made_x), places, strict=True)]
    across = _kernel_sum(x, made_x, *weights)
    both = _kernel_sum(x, x, weights[0], weights[0]) + _kernel_sum(made_x, made_x, weights[1], weights[1])
    return float(both + within[0] + within[1] - 2 * across)


def _within_classes(x: Tensor, place: Tensor, share: Tensor) -> Tensor:
    """What pairs of different rows have over all pairs of a class, weighted by the squared shares [k]; x is [n, d]."""
    total, counts = x.new_zeros(()), torch.bincount(place, minlength=len(share))
    order, starts = torch.argsort(place, stable=True), counts.cumsum(0) - counts
    for n in counts.unique().tolist():  # classes of one size together
        alike = (counts == n).nonzero()[:, 0]
        for some in alike.split(max(1, _CELLS_AT_ONCE // n**2)):
            rows = x[order[starts[some][:, None] + torch.arange(n, device=order.device)]]  # [classes, n, d]
            kernel = (rows @ rows.mT / x.shape[1] + 1).pow(3)
            every, own = kernel.sum((1, 2)), kernel.diagonal(dim1=1, dim2=2).sum(1)
            total += (share[some].to(x) ** 2 * ((every - own) / (n * (n - 1)) - every / n**2)).sum()
    return total


def kid_spread_of_classes(
    real: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor], size: int = 100, subsets: int = 100, seed: int = 0
) -> SubsetKid:
    """The mean and the spread of `kid_of_classes` over draws of as many rows of each class, without replacement.

    A draw has about `size` rows, and at most half of those of any class. Which rows are drawn is a function of `seed`.
    Raises what `kid_of_classes` raises, and TooFewRows for a class that has fewer than 4 rows in one of the sets, of
    which two draws are hardly different.
    """
    fewest = min(int(torch.unique(y, return_counts=True)[1].min()) for _, y in (real, made) if len(y))
    if fewest < 4:
        raise TooFewRows(f"a class has {fewest} rows; the spread of the kernel distance needs at least 4")
    classes = len(made[1].unique())
    each = max(2, min(fewest // 2, size // classes))
    subsets = subsets if each * classes <= 4 * size else min(subsets, 10)
    keys = [chance.row_keys(seed, f"kid {side}", torch.arange(subsets)) for side in ("real", "made")]
    found = []
    for pair in zip(*(column.split(1) for column in keys), strict=True):
        some = [_of_each(y, each, key) for (_, y), key in zip((real, made), pair, strict=True)]
        found.append(kid_of_classes(*((x[rows], y[rows]) for (x, y), rows in zip((real, made), some, strict=True))))
    values = torch.tensor(found, dtype=torch.float64)
    return SubsetKid(float(values.mean()), float(values.std(correction=0)), subsets, each * classes)


def _of_each(y: Tensor, each: int, key: Tensor) -> Tensor:
    """`each` rows of every class among labels `y` [n], for one key [1]."""
    place = torch.unique(y.cpu(), return_inverse=True)[1]
    order = torch.argsort(place + chance.uniform64(key, (len(y),))[0], stable=True)
    counts = torch.bincount(place)
    within = torch.arange(len(y)) - (counts.cumsum(0) - counts)[place[order]]
    return order[within < each].to(y.device)


def _drawn(n: int, size: int, key: Tensor) -> Tensor:
    """`size` of n rows without replacement, for one key [1]."""
    return torch.argsort(chance.uniform64(key, (n,))[0], stable=True)[:size]


def _unbiased(real: Tensor, made: Tensor) -> Tensor:
    """Equation 4 of the paper: the pairs of a row with itself are left out."""
    n, m = len(real), len(made)
    among_real = (_kernel_sum(real, real) - _own_sum(real)) / (n * (n - 1))
    among_made = (_kernel_sum(made, made) - _own_sum(made)) / (m * (m - 1))
    return among_real + among_made - 2 * _kernel_sum(real, made) / (n * m)


def _kernel_sum(a: Tensor, b: Tensor, left_weight: Tensor | None = None, right_weight: Tensor | None = None) -> Tensor:
    """The sum of the kernel over all pairs of rows of `a` [n, d] and `b` [m, d], weighted by [n] and [m] if given."""
    total, one = a.new_zeros(()), a.new_ones(1, 1)
    left_weight = a.new_ones(len(a)) if left_weight is None else left_weight
    right_weight = b.new_ones(len(b)) if right_weight is None else right_weight
    for left, of_left in zip(a.split(_ROWS_AT_ONCE), left_weight.split(_ROWS_AT_ONCE), strict=True):
        for right, of_right in zip(b.split(_ROWS_AT_ONCE), right_weight.split(_ROWS_AT_ONCE), strict=True):
            kernel = torch.addmm(one, left, right.mT, alpha=1 / a.shape[1]).pow_(3)  # one block in memory
            total += of_left @ kernel @ of_right
    return total


def _own_sum(x: Tensor) -> Tensor:
    """The sum of the kernel of each row of `x` [n, d] with itself."""
    return (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()
