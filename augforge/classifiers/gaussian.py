"""A Gaussian posterior for every class: the two-covariance model (Brümmer & de Villiers, "The speaker partitioning
problem", Odyssey 2010; Ioffe, "Probabilistic linear discriminant analysis", ECCV 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from augforge.classifiers.adaptation import adapted
from augforge.classifiers.base_statistics import base_rows, check_positive, check_range, fitted
from augforge.classifiers.feature_transforms import centre_of, transformed
from augforge.classifiers.two_covariance import TwoCovariance, check_enough, gather, learn
from augforge.classifiers.weighted import as_rows, class_means, like_query
from augforge.types import Bank, Examples, Family, InputError


@dataclass
class Gaussian:
    """The class of highest posterior predictive likelihood under the two-covariance model.

    Class means are N(m, S_b) and rows are N(mean of the class, S_w), with m, S_b and S_w from base features. After
    one linear map, learnt by `fit`, S_w is the identity and S_b is diagonal, psi; a class with weight N and mean z in
    those coordinates then has, in each of them,
        posterior of its mean  N(N psi z / (s + N psi), v),  v = s psi / (s + N psi),
        predictive             N(N psi z / (s + N psi), s + v),
    and the score is the logarithm of the predictive density of the transformed query. s is 1 where `spread` is "base".
    S_w itself is adapted by the support's scatter about its class means (`adaptation.adapted`), beside which it counts
    as `within_rows` rows. Where `spread` is "class" it is the spread of the class's own rows, real and made, round the
    prior guess 1: s = (prior_count + sum_i w_i (z_i - z)^2) / (prior_count + max(N - 1, 0)), as an inverse gamma in
    each coordinate.

    `transform` is applied to rows first: "sqrt" is sign(x) sqrt|x|, "centred-l2" takes the mean of the base features
    away and divides by the length, and "both" does one after the other. psi is drawn towards its mean, as few base
    classes leave most of it 0 and the rest too large; `mean_shrinkage` None takes the amount from Chen et al.,
    "Shrinkage algorithms for MMSE covariance estimation", 2010, equation 23. Everything is closed form.

    Differs from the papers: S_b is the covariance of base class means, less what S_w adds to it; a class's spread is
    read along the coordinates of the map only, as a full covariance needs more rows than there are.
    """

    family: ClassVar[Family] = "gaussian"

    transform: Literal["raw", "sqrt", "centred-l2", "both"] = "both"  # of all rows, before the model
    shrinkage: float = 0.1  # how far S_w is drawn towards a sphere, 0..1
    mean_shrinkage: float | None = None  # how far psi is drawn towards its mean, 0..1; None: by the data
    between_scale: float = 1.0  # multiplies psi, > 0
    spread: Literal["base", "class"] = "base"  # whose spread s is: that of base classes, or of the class's own rows
    prior_count: float = 20.0  # rows that the guess of a class's own spread counts as, > 0
    within_rows: float = 300.0  # rows that S_w counts as beside the support's own scatter, >= 0; 0: it stays
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
        check_range(self, "within_rows", 0)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn m [d], the map [d, d] and psi [d] from base features.

        Raises InputError for pictures, for fewer than two classes, and where no class has two rows.
        """
        x = base_rows(base, "gaussian").to(torch.float32)
        self.centre_ = centre_of(x, self.transform)
        found = gather(transformed(x, self.transform, self.centre_), base.y, exact=True)
        check_enough(found, "gaussian")
        model = TwoCovariance(self.transform, x.shape[1], x.shape[1], len(found.counts)).to(x.device)
        learn(model, found, found.within(), self.shrinkage, self.mean_shrinkage)
        self.mean_, self.map_, self.psi_ = model.mean, model.map, self.between_scale * model.psi
        self.log_volume_ = torch.linalg.slogdet(model.map.to(torch.float64)).logabsdet.reshape(1).to(torch.float32)
        return self

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of queries [q, d], or [b, q, way] for b episodes; higher is likelier.

        Raises InputError before `fit`, and for rows that do not go together.
        """
        rows = as_rows(support, query)
        log_volume = self._ready()
        known, z = (self._mapped(self._transformed(x)) for x in (rows.x, rows.query))
        turned = adapted(fitted(self.psi_, z, "gaussian"), known, rows.member, self.within_rows)
        mean, variance = self._predictive(turned.rows(known), rows.member, turned.psi)  # [b, way, d] both
        precision, z = 1 / variance, turned.rows(z)
        # sum_j (z_j - mean_j)^2 / variance_j, in two products
        squares = precision @ z.square().mT - 2 * (precision * mean) @ z.mT  # [b, way, q]
        of_class = (precision * mean.square() + variance.log()).sum(-1) + z.shape[-1] * math.log(2 * math.pi)
        return like_query(log_volume.to(z) + turned.log_volume - (squares + of_class[..., None]).mT / 2, query)

    def _ready(self) -> Tensor:
        """The fitted logarithm of the map's volume."""
        if self.log_volume_ is None:
            raise InputError("gaussian is not fitted yet; expected fit(base, rng) or a folder that it was saved in")
        return self.log_volume_

    def _predictive(self, x: Tensor, member: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [b, way, d] of each class's predictive density, for rows [b, n, d] in the coordinates."""
        counts, z = member.sum(1)[..., None], class_means(x, member)
        spread: Tensor | float = 1.0
        if self.spread == "class":
            scatter = member.mT @ x.square() - counts * z.square()
            spread = (self.prior_count + scatter.clamp(min=0)) / (self.prior_count + (counts - 1).clamp(min=0))
        pull = counts * psi / (spread + counts * psi)
        return pull * z, spread + spread * psi / (spread + counts * psi)

    def _mapped(self, x: Tensor) -> Tensor:
        """Transformed rows [b, n, d] in the coordinates in which both covariances are diagonal."""
        return (x - fitted(self.mean_, x, "gaussian")) @ fitted(self.map_, x, "gaussian")

    def _transformed(self, x: Tensor) -> Tensor:
        """Rows [..., d] as `transform` says."""
        return transformed(x, self.transform, fitted(self.centre_, x, "gaussian"))
