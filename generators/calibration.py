"""Distribution calibration: Yang, Liu & Xu, "Free lunch for few-shot learning: distribution calibration", ICLR 2021."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.base_statistics import base_rows, check_positive, check_range, symmetric_eigen
from augforge.generators.shared.support import choose_parents, feature_rows, like_support, nearest_means, not_fitted
from augforge.networks.products import row_product
from augforge.types import Bank, Examples, InputError, Space

_SPARE = 8  # more directions than are kept, so that those kept are found well
_ROUNDS = 4
_ROWS_AT_ONCE = 8192


@dataclass
class Calibration:
    """Draws from a Gaussian whose mean and covariance are borrowed from the nearest base classes (Yang et al. 2021).

    Each support row x has a Gaussian of its own (equations 3 to 6):
        t = x^power                                      Tukey's ladder; sign(x) |x|^power where x is negative
        N = the `k` base classes whose mean is nearest to t
        mean = (sum over N of mean_i + t) / (k + 1)
        covariance = sum over N of covariance_i / k + alpha.
    Base rows are not transformed, as published. `alpha_on` says where alpha is added: "full", to every number of the
    covariance, which is what the published code does and moves a row by one number in all coordinates alike, or
    "diagonal", the equation as one would read it.

    The paper's classifier sees transformed support rows, these draws and transformed queries. What is made here lies
    among the features that are given, so there are two ways to the published draws. `given` "raw": base and support
    are untransformed, and draws are raised to 1 / power, with their sign; nothing is lost by that, and a classifier
    that takes sign(x) |x|^power of all rows first, as `gaussian` does with transform=sqrt, sees the published draws.
    `given` "powered": all features were raised to `power` beforehand, so support and draws stay as they are, any
    classifier will do, and base rows are raised to 1 / power in `fit`. The control for the transform alone is then
    `nothing` on the same features. A power of 1 leaves base and support in one space; it is what to use on features
    that were normalised with "power", whose length is lost.

    alpha is in units of the features, as in the paper: on rows of length 1 0.21 drowns everything.

    The draws of a pair of keys (`chance.in_pairs`) have one support row and opposite noise.

    A base class's covariance is kept as its `rank` strongest directions, and what they leave as a sphere of the same
    trace: [c, rank, d] numbers in `factors_`, and exact where a class has at most `rank` + 1 rows or d is at most
    `rank`. Base classes of one row are left out.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = True
    one_class: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    power: float = 0.5  # of Tukey's ladder, > 0; 1: rows stay as they are
    k: int = 2  # base classes that a row borrows from, >= 1
    alpha: float = 0.21  # added to the covariance, >= 0
    alpha_on: Literal["full", "diagonal"] = "full"  # where alpha is added: to every number, or to the diagonal
    given: Literal["raw", "powered"] = "raw"  # whether features were raised to `power` beforehand
    rank: int = 64  # directions kept of a base class's covariance, >= 1
    noise_scale: float = 1.0  # multiplies the deviations from the borrowed mean, >= 0
    means_: Tensor | None = field(default=None, init=False, repr=False)  # [c, d]
    factors_: Tensor | None = field(default=None, init=False, repr=False)  # [c, rank, d]
    rest_: Tensor | None = field(default=None, init=False, repr=False)  # [c], variance outside of the directions

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_positive(self, "power")
        for name in ("alpha", "noise_scale"):
            check_range(self, name, 0)
        for name in ("k", "rank"):
            check_range(self, name, 1)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn the mean and covariance of every base class; `rng` starts the search for the directions.

        Raises InputError where fewer than `k` base classes have two rows.
        """
        x = base_rows(base, "calibration").to(torch.float32)
        if self.given == "powered":
            x = signed_power(x, 1 / self.power)
        order = torch.argsort(base.y.to(x.device), stable=True)
        groups = [rows for rows in order.split(torch.bincount(base.y).tolist()) if len(rows) > 1]
        if len(groups) < self.k:
            raise InputError(
                f"calibration with k={self.k} needs that many base classes of at least 2 rows; there are {len(groups)}"
            )
        d = x.shape[1]
        width = min(d, self.rank + _SPARE)
        start = torch.randn(d, width, generator=rng, device=rng.device, dtype=torch.float64).to(x.device)
        self.means_ = x.new_zeros(len(groups), d)
        self.factors_ = x.new_zeros(len(groups), min(d, self.rank), d)
        self.rest_ = x.new_zeros(len(groups))
        for c, rows in enumerate(groups):
            part = x[rows].to(torch.float64)
            self.means_[c] = part.mean(0)
            self.factors_[c], self.rest_[c] = low_rank(part - part.mean(0), start, self.rank)
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Draw rows for features [m, d], each from the Gaussian of one support row.

        Raises InputError for pictures, where a wanted class has no support row, and before `fit`.
        """
        x = feature_rows(support, "calibration")
        parent = choose_parents(support.y, want, chance.pair_of(keys))
        means, _, _ = self._ready(x)
        if not len(want):
            return Examples(like_support(x[:0], support), want, parent)
        used, back = torch.unique(parent, return_inverse=True)
        powered = x[used] if self.given == "powered" else signed_power(x[used], self.power)
        near = nearest_means(powered, means.to(x.device), self.k)  # [used, k]
        mean = (means.to(x)[near].sum(1) + powered) / (self.k + 1)
        parts = zip(back.split(_ROWS_AT_ONCE), keys.split(_ROWS_AT_ONCE), strict=True)
        apart = ((i, self._deviation(x, near[i], chosen).to(x)) for i, chosen in parts)
        made = torch.cat([mean[i] + self.noise_scale * deviation for i, deviation in apart])
        if self.given == "raw":
            made = signed_power(made, 1 / self.power)
        return Examples(like_support(made, support), want, parent)

    def _ready(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means, factors and rests of the base classes; InputError before `fit`, and for rows `x` of another width."""
        if self.means_ is None or self.factors_ is None or self.rest_ is None:
            raise not_fitted("calibration")
        if self.means_.shape[1] != x.shape[1]:
            raise InputError(f"calibration was fitted on {self.means_.shape[1]} features; these have {x.shape[1]}")
        return self.means_, self.factors_, self.rest_

    def _deviation(self, x: Tensor, near: Tensor, keys: Tensor) -> Tensor:
        """Deviations [n, d] float32 for features like `x`, with the covariance of base classes `near` [n, k]."""
        _, factors, rests = self._ready(x)
        n, (_, rank, d) = len(near), factors.shape
        normal = chance.paired_noise(keys, "directions", (self.k, rank)).flatten(0, 1).to(torch.float64)
        moved = torch.empty(n * self.k, d, dtype=torch.float64, device=near.device)
        order = torch.argsort(near.flatten(), stable=True)
        classes, counts = torch.unique(near, return_counts=True)
        for c, rows in zip(classes.tolist(), order.split(counts.tolist()), strict=True):
            moved[rows] = row_product(normal[rows], factors[c].to(near.device, torch.float64))
        deviation = (moved.view(n, self.k, d).sum(1) / self.k**0.5).to(torch.float32)
        sphere = rests.to(near.device)[near].mean(1)
        if self.alpha_on == "diagonal":
            sphere = sphere + self.alpha
        else:
            deviation = deviation + self.alpha**0.5 * chance.paired_noise(keys, "alpha")[:, None]
        if bool((sphere > 0).any()):
            deviation = deviation + sphere.sqrt()[:, None] * chance.paired_noise(keys, "sphere", (d,))
        return deviation


def signed_power(x: Tensor, power: float) -> Tensor:
    """sign(x) |x|^power, the same shape; x itself where the power is 1."""
    return x if power == 1 else x.sign() * x.abs() ** power


def low_rank(apart: Tensor, start: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The covariance S [d, d] of centred rows `apart` [n, d] as F^T F + rest I: F [min(d, rank), d], and rest [].

    F holds the strongest directions, found by subspace iteration from `start` [d, width] (Halko, Martinsson & Tropp,
    "Finding structure with randomness", 2011, algorithm 4.4); the traces of S and of its approximation agree.
    """
    basis = torch.linalg.qr(start).Q
    if basis.shape[1] < len(basis):
        for _ in range(_ROUNDS):
            basis = torch.linalg.qr(apart.T @ (apart @ basis)).Q
    inside = apart @ basis / (len(apart) - 1) ** 0.5  # [n, width]
    values, vectors = symmetric_eigen(inside.T @ inside)
    kept = min(len(basis), rank)
    values = values[-kept:].clamp(min=0)
    factor = (basis @ vectors[:, -kept:] * values.sqrt()).T
    trace = apart.square().sum() / (len(apart) - 1)
    rest = (trace - values.sum()).clamp(min=0) / apart.shape[1]
    return factor, torch.where(rest * apart.shape[1] > 1e-9 * trace, rest, 0.0)
