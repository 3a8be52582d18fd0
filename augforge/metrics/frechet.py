"""The Fréchet distance between two sets of features, each taken as a Gaussian.

Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter, "GANs trained by a two time-scale update rule converge to a
local Nash equilibrium", NIPS 2017. It is called FID where the features are those of one Inception network, and only
there: name the representation beside the number. With few rows it says more about their number than about
pictures: two draws of 20 rows from one Gaussian of 512 dimensions are 899 apart, and 132 with 1,000 rows.
"""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor

from augforge.metrics.rows import checked

ROWS_PER_DIMENSION = 10
_LARGE = 512  # from this width on, eigenvalues of the square are four times as fast as singular values


def enough_rows(n: int, d: int) -> bool:
    """Whether `n` rows of `d` numbers, the fewer of the two sets, are enough for the distance to mean something."""
    return n >= ROWS_PER_DIMENSION * d


def frechet_distance(real: Tensor, made: Tensor) -> float:
    """|m_r - m_g|^2 + tr(C_r + C_g - 2 (C_r C_g)^(1/2)) of `real` [n, d] and `made` [m, d], at least 0.

    Means m and covariances C (divided by n - 1) in float64. With C_r = A^T A and C_g = B^T B the trace of the root is
    the sum of the singular values of A B^T, which has no more rows and columns than there are rows or dimensions.
    Raises InputError for rows of different width, numbers that are not finite, and TooFewRows for fewer than 2.
    Whether the value can be trusted is `enough_rows(min(n, m), d)`.
    """
    real, made = checked({"real": real, "made": made}, 2, "the Fréchet distance")
    mean_real, mean_made = reduce(real, "n d -> d", "mean"), reduce(made, "m d -> d", "mean")
    a = (real - mean_real) / (len(real) - 1) ** 0.5
    b = (made - mean_made) / (len(made) - 1) ** 0.5
    root = _nuclear_norm(_factor(a) @ _factor(b).mT)
    apart = (mean_real - mean_made).square().sum()
    value = apart + a.square().sum() + b.square().sum() - 2 * root
    return max(0.0, float(value))


def _nuclear_norm(product: Tensor) -> Tensor:
    """The sum of the singular values of a matrix [k, l].

    Of a large one by eigenvalues of its square, which leave singular values below 1e-8 of the largest uncertain.
    """
    if min(product.shape) < _LARGE:
        return torch.linalg.svdvals(product).sum()
    square = product @ product.mT if product.shape[0] <= product.shape[1] else product.mT @ product
    return torch.linalg.eigvalsh(square).clamp(min=0).sqrt().sum()


def _factor(x: Tensor) -> Tensor:
    """A matrix F [min(n, d), d] with F^T F = x^T x for x [n, d]."""
    if len(x) <= x.shape[1]:
        return x
    scatter = x.mT @ x
    lower, failed = torch.linalg.cholesky_ex(scatter)
    if not int(failed):
        return lower.mT
    values, vectors = torch.linalg.eigh(scatter)  # singular, as where a feature is always 0
    return values.clamp(min=0).sqrt()[:, None] * vectors.mT
