"""The eigenvalues of covariances, where the library fails on some that it should not."""

from __future__ import annotations

import torch
from torch import Tensor

from augforge.types import InputError


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
