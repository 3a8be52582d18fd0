"""S_w adapted by what a support itself shows of the spread within classes, as a full matrix.

The within-class covariance of base classes is the mode of an inverse Wishart prior that counts as `rows` rows; with the
scatter A of the support about its class means, of f degrees of freedom, S = (rows S_w + A) / (rows + f) (Gelman et al.,
"Bayesian Data Analysis", 3rd edition, section 3.6). The two covariances are then made diagonal anew, so that all that
works coordinate by coordinate goes on to. A module of its own because classifiers and synthesizers share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MOST = 128  # coordinates that are turned: those in which class means differ most; an eigenproblem of more takes long


@dataclass(frozen=True)
class Adapted:
    """New coordinates for each of b episodes."""

    psi: Tensor  # [b, 1, r], the between-class variances
    turn: Tensor | None  # [b, m, m], of the last m coordinates; None: all stay

    def rows(self, z: Tensor) -> Tensor:
        """Rows [b, n, r], or [n, r] that all episodes share, in the new coordinates: [b, n, r]."""
        if self.turn is None:
            return z
        kept = z.shape[-1] - self.turn.shape[-1]
        turned = z[..., kept:] @ self.turn
        return torch.cat([z[..., :kept].expand(*turned.shape[:-1], kept), turned], -1) if kept else turned

    @property
    def log_volume(self) -> Tensor:
        """The logarithm [b, 1, 1] of how much the map of rows widens volumes."""
        if self.turn is None:
            return self.psi.new_zeros(len(self.psi), 1, 1)
        return torch.linalg.slogdet(self.turn).logabsdet[:, None, None]


def adapted(psi: Tensor, x: Tensor, member: Tensor, rows: float) -> Adapted:
    """Coordinates in which S is the identity and S_b diagonal, for support rows `x` [b, n, r] in those of S_w.

    `psi` [r] is S_b there. `member` [b, n, way] is the weight of each row in its class. A class of total weight N has N
    - 1 degrees of freedom, and one of at most 1 says nothing; where all are such, or `rows` is 0, everything stays.
    """
    free = (member.sum(1) - 1).clamp(min=0)  # [b, way]
    shared = psi.to(x).expand(len(x), 1, -1)
    if rows == 0 or not bool((free > 0).any()):
        return Adapted(shared, None)
    m = min(_MOST, x.shape[-1])
    counted = member * (free > 0)[:, None].to(member)
    means = (member / member.sum(1, keepdim=True)).mT @ x[..., -m:]  # [b, way, m]
    near = member @ means / member.sum(-1, keepdim=True).clamp(min=1e-30)
    apart = x[..., -m:] - near
    scatter = (apart * counted.sum(-1, keepdim=True)).mT @ apart  # [b, m, m]
    total = rows + free.sum(1)[:, None, None]
    within = (scatter + rows * torch.eye(m, dtype=x.dtype, device=x.device)) / total
    root = torch.linalg.cholesky(within)
    half = torch.linalg.solve_triangular(root, psi.to(x)[-m:].sqrt().diag().expand_as(root), upper=False)
    values, vectors = torch.linalg.eigh(half @ half.mT)
    turn = torch.linalg.solve_triangular(root.mT, vectors, upper=True)
    return Adapted(torch.cat([shared[..., :-m], values.clamp(min=0)[:, None]], -1), turn)
