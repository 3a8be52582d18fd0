"""The third control: real rows plus Gaussian noise, with nothing learnt about any class.

On features the noise has the pooled within-class covariance of the base classes; on pictures it is white.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from einops import rearrange
from torch import Tensor

from augforge import chance
from augforge.classifiers.base_statistics import symmetric_eigen
from augforge.data.banks import check_numbers
from augforge.generators.shared.support import choose_parents, in_range, not_fitted
from augforge.networks.pixels import check_levels
from augforge.networks.products import row_product
from augforge.types import Bank, Examples, InputError, NothingToLearn, Space

_ROWS_AT_ONCE = 8192


@dataclass
class Noise:
    """Each made row is one support row of its class plus noise; pictures need no `fit`.

    Features of a pair of keys (`chance.in_pairs`) have opposite noise.
    """

    space: ClassVar[Space] = "any"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    scale: float = 1.0  # multiplies the noise, >= 0; on features 1 is the spread of base classes; 0 makes copies
    pixel_deviation: float = 0.05  # standard deviation on pictures, in parts of the full range, >= 0
    factor_: Tensor | None = field(default=None, init=False, repr=False)  # [d, d], a square root of the covariance

    def __post_init__(self) -> None:
        """Raise InputError for a negative size of noise."""
        for name in ("scale", "pixel_deviation"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} was given; expected a number of at least 0")

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Pool the within-class covariance of a feature bank; on pictures nothing is learnt.

        Raises InputError where no base class has two rows.
        """
        if base.space == "image":
            return self
        sums, scatter, counts = torch.zeros(0), torch.zeros(0), torch.bincount(base.y, minlength=len(base.classes))
        for rows in torch.arange(len(base.y)).split(_ROWS_AT_ONCE):
            x = torch.as_tensor(base.examples(rows).x).to(torch.float64)
            if not len(sums):
                sums = torch.zeros(len(base.classes), x.shape[1], dtype=torch.float64, device=x.device)
                scatter = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
            sums.index_add_(0, base.y[rows].to(x.device), x)
            scatter += x.T @ x
        counts = counts.to(sums.device)
        free = int((counts - 1).clamp(min=0).sum())
        if not free:
            if not len(base.y):
                raise NothingToLearn("noise learns from base features; there are none")
            raise InputError("noise needs a base class with at least 2 rows to learn their spread; every class has 1")
        means = sums / counts.clamp(min=1)[:, None]
        covariance = (scatter - (means.T * counts) @ means) / free
        values, vectors = symmetric_eigen(covariance)
        self.factor_ = (vectors * values.clamp(min=0).sqrt()).to(torch.float32).contiguous()
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Add noise to pictures [m, c, h, w] (uint8 or floating), a list of them, or features [m, d].

        Raises InputError where a wanted class has no support row, for features before `fit`, and for pictures of
        floats that are not in [0, 1].
        """
        if isinstance(support.x, list) or support.x.ndim == 4:
            check_levels(support.x, "picture {} of the support")
        elif support.x.ndim == 2:
            check_numbers(support.x, "the support")
        parent = choose_parents(support.y, want, keys)
        x = support.take(parent).x
        if isinstance(x, Tensor) and x.ndim == 2:
            return Examples(self._features(x, keys), want, parent)
        noise_keys = chance.fork(keys, "noise")
        if isinstance(x, list):
            made = [self._pixels(p[None], k[None])[0] for p, k in zip(x, noise_keys, strict=True)]
            return Examples(made, want, parent)
        return Examples(self._pixels(x, noise_keys), want, parent)

    def _pixels(self, pictures: Tensor, keys: Tensor) -> Tensor:
        """White noise on [n, c, h, w], kept within the range of its type."""
        _, channels, height, width = pictures.shape
        whole = 255 if pictures.dtype == torch.uint8 else 1
        noise = rearrange(chance.normal(keys, (height, width, channels)), "n h w c -> n c h w").to(pictures.device)
        noisy = pictures.to(torch.float32) + noise * (whole * self.scale * self.pixel_deviation)
        noisy = noisy.clamp(0, whole)
        return (noisy.round() if whole == 255 else noisy).to(pictures.dtype)

    def _features(self, x: Tensor, keys: Tensor) -> Tensor:
        """Noise of the pooled covariance on [n, d], opposite for a pair of keys; no row depends on its batch."""
        factor = self._ready(x)
        normal = chance.paired_noise(keys, "noise", (x.shape[1],)).to(x.device)
        noise = row_product(normal, self.scale * factor.to(x.device).T)
        return in_range(x + noise, x.dtype)

    def _ready(self, x: Tensor) -> Tensor:
        """The fitted factor; InputError before `fit`, and for rows `x` of another width."""
        if self.factor_ is None:
            raise not_fitted("noise on features")
        if self.factor_.shape[0] != x.shape[1]:
            raise InputError(f"noise was fitted on {self.factor_.shape[0]} features; these rows have {x.shape[1]}")
        return self.factor_
