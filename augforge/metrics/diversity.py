"""How far made rows are from each other, against how far real rows are: the alarm for a collapsed generator."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from augforge.metrics.rows import TooFewRows, checked, distance_blocks


@dataclass(frozen=True)
class Diversity:
    """Mean distances between two rows of a set."""

    made: float
    real: float
    ratio: float  # made / real, about 1 at best


def mean_distance(x: Tensor) -> float:
    """The mean Euclidean distance between two different rows of `x` [n, d]; TooFewRows for fewer than 2."""
    return _mean_distance(*checked({"given": x}, 2, "the mean distance"))


def _mean_distance(x: Tensor) -> float:
    x = x - x.mean(0)  # moves no distance, but rounds it less
    total = x.new_zeros(())
    for rows, squares in distance_blocks(x, x):
        squares.diagonal(offset=rows.start).zero_()
        total += squares.sqrt().sum()
    return float(total) / (len(x) * (len(x) - 1))


def diversity(real: Tensor, made: Tensor) -> Diversity:
    """The mean distance between two rows of `made` [m, d] over that of `real` [n, d].

    Over all classes together it hardly sees a collapse, for classes lie apart whatever happens within them: use
    `by_class(diversity, ...)` beside it. Raises InputError for rows of different width and numbers that are not finite,
    TooFewRows for fewer than 2 rows, and where all real rows are alike.
    """
    real, made = checked({"real": real, "made": made}, 2, "diversity")
    among_made, among_real = _mean_distance(made), _mean_distance(real)
    if among_real == 0:
        raise TooFewRows(f"all {len(real)} real rows are alike; diversity needs at least 2 that differ")
    return Diversity(among_made, among_real, among_made / among_real)
