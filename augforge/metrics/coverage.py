"""Whether made rows lie where real ones do, and whether they are everywhere that real ones are.

Precision and recall: Kynkäänniemi, Karras, Laine, Lehtinen and Aila, "Improved precision and recall metric for
assessing generative models", NeurIPS 2019. Density and coverage: Naeem, Oh, Uh, Choi and Yoo, "Reliable fidelity and
diversity metrics for generative models", ICML 2020. All four draw a ball round each row that reaches its k-th nearest
other row of the same set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import reduce
from torch import Tensor

from augforge.metrics.rows import checked, distance_blocks, neighbour_squares
from augforge.types import InputError

# A row at the very rim of a ball counts as inside, whatever the rounding of distances that come from products.
_RIM = 1e-12


@dataclass(frozen=True)
class PrecisionRecall:
    """Two shares, each 0 to 1."""

    precision: float  # of made rows that are inside some ball of real rows
    recall: float  # of real rows that are inside some ball of made rows


@dataclass(frozen=True)
class DensityCoverage:
    """What balls round real rows hold."""

    density: float  # mean number of real balls that a made row is in, over k; may be above 1
    coverage: float  # share of real rows whose ball holds a made row, 0 to 1


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> PrecisionRecall:
    """Precision and recall of `made` [m, d] for `real` [n, d]; the paper uses k = 3 and 50,000 rows of each.

    Raises InputError for rows of different width, numbers that are not finite and k below 1, and TooFewRows for fewer
    than k + 1 rows of either.
    """
    real, made = _rows(real, made, k, {"real": k + 1, "made": k + 1}, "precision and recall")
    rim = _rim(real, made)
    in_real = _inside(made, real, neighbour_squares(real, k) + rim)
    in_made = _inside(real, made, neighbour_squares(made, k) + rim)
    return PrecisionRecall(_share(in_real > 0), _share(in_made > 0))


def density_coverage(real: Tensor, made: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage of `made` [m, d] for `real` [n, d]; the paper uses k = 5.

    A set measured against another draw of itself has density 1 and, with as many rows, coverage
    1 - C(m, k) / C(2 m, k), about 1 - 2^-k. Raises InputError for rows of different width, numbers that are not finite
    and k below 1, and TooFewRows for fewer than k + 1 real rows or no made one.
    """
    real, made = _rows(real, made, k, {"real": k + 1, "made": 1}, "density and coverage")
    radius = neighbour_squares(real, k) + _rim(real, made)
    density = float(_inside(made, real, radius).to(torch.float64).mean()) / k
    nearest = torch.cat([squares.amin(1) for _, squares in distance_blocks(real, made)])
    return DensityCoverage(density, _share(nearest <= radius))


def _rows(real: Tensor, made: Tensor, k: int, least: dict[str, int], metric: str) -> list[Tensor]:
    """Both sets in float64 with the mean of the real rows taken away, which moves no distance but rounds it less."""
    if k < 1:
        raise InputError(f"k={k} was given; expected a neighbour of at least 1")
    real, made = checked({"real": real, "made": made}, least, f"{metric} with k={k}")
    mean = reduce(real, "n d -> d", "mean")
    return [real - mean, made - mean]


def _rim(real: Tensor, made: Tensor) -> float:
    """What squared distances may be off by."""
    return _RIM * float(torch.stack([x.square().sum(1).max() for x in (real, made)]).max())


def _inside(x: Tensor, centres: Tensor, squares: Tensor) -> Tensor:
    """In how many balls round `centres` [n, d] with the squared radii [n] each row of `x` [m, d] lies: [m] int64."""
    return torch.cat([(block <= squares).sum(1) for _, block in distance_blocks(x, centres)])


def _share(true: Tensor) -> float:
    return float(true.to(torch.float64).mean())
