"""A Gaussian posterior for every class: the two-covariance model (Brümmer & de Villiers, "The speaker partitioning
problem", Odyssey 2010; Ioffe, "Probabilistic linear discriminant analysis", ECCV 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.base_statistics import (
    base_mean,
    base_rows,
    base_statistics,
    check_positive,
    check_range,
    fitted,
    shrunk,
)
from augforge.classifiers.weighted import Rows, as_given, as_rows, class_means
from augforge.types import Bank, Examples, InputError


@dataclass
class Gaussian:
    """The class of highest posterior predictive likelihood under the two-covariance model.

    Class means are N(m, S_b) and rows are N(mean of the class, S_w), with m, S_b and S_w from base features. After
    one linear map, learnt by `fit`, S_w is the identity and S_b is diagonal, psi; a class with weight N and mean z in
    those coordinates then has, in each of them,
        posterior of its mean  N(N psi z / (s + N psi), v),  v = s psi / (s + N psi),
        predictive             N(N psi z / (s + N psi), s + v),
    and the score is the logarithm of the predictive density of the transformed query. s is 1 where `spread` is
    "base". Where it is "class" it is the spread of the class's own rows, real and made, round the prior guess 1:
    s = (prior_count + sum_i w_i (z_i - z)^2) / (prior_count + max(N - 1, 0)), as an inverse gamma in each coordinate.

    `transform` is applied to rows first: "sqrt" is sign(x) sqrt|x|, "centred-l2" takes the mean of the base features
    away and divides by the length, and "both" does one after the other. `shrinkage` (0..1) draws S_w towards a sphere,
    `mean_shrinkage` (0..1) draws psi towards its mean, as few base classes leave most of it 0 and the rest too large
    (None: by as much as Chen et al., "Shrinkage algorithms for MMSE covariance estimation", 2010, equation 23 says),
    and `between_scale` multiplies psi. Everything is closed form.

    Differs from the papers: S_b is the covariance of base class means, less what S_w adds to it; a class's spread is
    read along the coordinates of the map only, as a full covariance needs more rows than there are.
    """

    transform: Literal["raw", "sqrt", "centred-l2", "both"] = "both"
    shrinkage: float = 0.1
    mean_shrinkage: float | None = None
    between_scale: float = 1.0
    spread: Literal["base", "class"] = "base"
    prior_count: float = 20.0
    centre_: Tensor | None = field(default=None, init=False, repr=False)
    mean_: Tensor | None = field(default=None, init=False, repr=False)
    map_: Tensor | None = field(default=None, init=False, repr=False)
    psi_: Tensor | None = field(default=None, init=False, repr=False)
    log_volume_: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_range(self, "shrinkage", 0, 1)
        if self.mean_shrinkage is not None:
            check_range(self, "mean_shrinkage", 0, 1)
        check_positive(self, "between_scale")
        check_positive(self, "prior_count")

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn m [d], the map [d, d] and psi [d] from base features.

        Raises InputError for pictures, for fewer than two classes, and where no class has two rows.
        """
        x = base_rows(base, "gaussian").to(torch.float32)
        self.centre_ = base_mean(_root(x)) if self.transform == "both" else base_mean(x)
        x = self._transformed(x)
        found = base_statistics(x, base.y, "gaussian")
        if len(found.counts) < 2:
            raise InputError("gaussian learns how classes differ; expected at least 2 base classes with rows, found 1")
        mean = found.means.mean(0)
        within = shrunk(found.within, self.shrinkage)
        apart = found.means - mean
        between = apart.T @ apart / (len(apart) - 1)
        values, vectors = torch.linalg.eigh(within)
        if not float(values[0]) > 1e-12 * float(values[-1]):
            raise InputError("gaussian: the base features do not spread in every direction; expected shrinkage over 0")
        whiten = vectors / values.sqrt()
        # Means of n rows scatter by S_w / n more than class means do; S_w is the identity here.
        excess = float((1 / found.counts).mean())
        whitened = whiten.T @ between @ whiten
        psi, turn = torch.linalg.eigh(whitened)
        psi = (psi - excess).clamp(min=0)
        amount = _oracle_shrinkage(psi, len(apart) - 1) if self.mean_shrinkage is None else self.mean_shrinkage
        psi = (1 - amount) * psi + amount * psi.mean()
        self.mean_ = mean.to(torch.float32)
        self.map_ = (whiten @ turn).to(torch.float32)
        self.psi_ = (self.between_scale * psi).to(torch.float32)
        self.log_volume_ = -values.log().sum().div(2).reshape(1).to(torch.float32)
        return self

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of queries [q, d], or [b, q, way] for b episodes; higher is likelier.

        Raises InputError before `fit`, and for rows that do not go together.
        """
        rows = as_rows(support, query)
        rows = Rows(self._mapped(rows.x), self._mapped(rows.query), rows.member)
        mean, variance = self._predictive(rows)  # [b, way, d] both
        precision = 1 / variance
        z = rows.query
        # sum_j (z_j - mean_j)^2 / variance_j, in two products
        squares = precision @ z.square().mT - 2 * (precision * mean) @ z.mT  # [b, way, q]
        of_class = (precision * mean.square() + variance.log()).sum(-1) + z.shape[-1] * math.log(2 * math.pi)
        assert self.log_volume_ is not None
        return as_given(self.log_volume_.to(z) - (squares + of_class[..., None]).mT / 2, query)

    def _predictive(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean and variance [b, way, d] of each class's predictive density, for mapped rows."""
        z, counts = class_means(rows.x, rows.member), rows.counts[..., None]
        psi = fitted(self.psi_, z, "gaussian")
        spread: Tensor | float = 1.0
        if self.spread == "class":
            scatter = rows.member.mT @ rows.x.square() - counts * z.square()
            spread = (self.prior_count + scatter.clamp(min=0)) / (self.prior_count + (counts - 1).clamp(min=0))
        pull = counts * psi / (spread + counts * psi)
        return pull * z, spread + spread * psi / (spread + counts * psi)

    def _mapped(self, x: Tensor) -> Tensor:
        """Rows [b, n, d] in the coordinates in which both covariances are diagonal."""
        x = self._transformed(x)
        return (x - fitted(self.mean_, x, "gaussian")) @ fitted(self.map_, x, "gaussian")

    def _transformed(self, x: Tensor) -> Tensor:
        """Rows [..., d] as `transform` says."""
        if self.transform in ("sqrt", "both"):
            x = _root(x)
        if self.transform in ("centred-l2", "both"):
            x = F.normalize(x - fitted(self.centre_, x, "gaussian"), dim=-1)
        return x


def _oracle_shrinkage(values: Tensor, free: int) -> float:
    """How far to draw a covariance with eigenvalues [d] from `free` degrees of freedom towards a sphere, 0..1."""
    d, trace, squares = len(values), float(values.sum()), float(values.square().sum())
    apart = (free + 1 - 2 / d) * (squares - trace**2 / d)
    return 1.0 if apart <= 0 else min(1.0, ((1 - 2 / d) * squares + trace**2) / apart)


def _root(x: Tensor) -> Tensor:
    """sign(x) sqrt|x|, [..., d]; its slope at 0, which is infinite, is taken as 0."""
    there = x != 0
    return torch.where(there, x.sign() * torch.where(there, x.abs(), 1).sqrt(), 0)
