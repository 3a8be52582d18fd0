"""Draws from a Gaussian round each class mean, with one covariance of the support's own rows: no base classes needed.

One covariance for all classes is that of linear discriminant analysis (Wang et al., "A hard-to-beat baseline for
training-free CLIP-based adaptation", ICLR 2024); a support has few rows, so it is drawn far towards a sphere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.base_statistics import check_range
from augforge.classifiers.own_support import support_trust
from augforge.generators.shared.support import choose_parents, feature_rows, like_support
from augforge.imagine import usual_share, weight_of_each
from augforge.networks.products import row_product
from augforge.types import Bank, Examples, Space

_TRIED = 8  # rows made of a class to test them by


@dataclass
class SupportGaussian:
    """Draws round class means with the covariance of the support's own rows, trusted as far as held-out rows gain.

    A row is mean_k + scale e with e ~ N(0, (1 - shrinkage) S + shrinkage tr(S)/d I), where S is the scatter of support
    rows about their class means, pooled over classes, over its n - way degrees of freedom. Rows of a pair of keys have
    opposite noise. Those of a class weigh what is usual before logistic regression, times the trust that the support's
    own held-out rows give them (`own_support.support_trust`): nothing where these do not gain, and where every class
    has one row, which says nothing of a spread. Nothing is learnt from base classes.
    """

    space: ClassVar[Space] = "feature"
    tested_on_support: ClassVar[bool] = True

    shrinkage: float = 0.5  # how far S is drawn towards a sphere, 0..1
    scale: float = 1.0  # multiplies the noise, >= 0; 0 makes class means
    made: int = 20  # rows of a class that together have the weight that was tested, >= 1

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_range(self, "shrinkage", 0, 1)
        check_range(self, "scale", 0)
        check_range(self, "made", 1)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Nothing is learnt."""
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Draw features [n, d] of the wanted classes, each with its weight, for a support [m, d] of all classes.

        Raises InputError for pictures, and where a wanted class has no support row.
        """
        x = feature_rows(support, "support-gaussian")
        choose_parents(support.y, want, keys)  # which raises for a class without support
        none = torch.full_like(want, -1)
        if not len(want):
            return Examples(like_support(x[:0], support), want, none, x.new_zeros(0))
        trust = support_trust(Examples(x, support.y, weight=support.weight), self._tried)
        weight = trust * self._usual(support.y, self.made)[want]
        return Examples(like_support(self._draws(x, support.y, want, keys), support), want, none, weight)

    def _tried(self, support: Examples) -> Examples:
        """Eight rows of each class of a support, at the weight that is to be tested."""
        way = int(support.y.max()) + 1
        want = torch.arange(way, device=support.y.device).repeat_interleave(_TRIED)
        keys = chance.pair_keys(0, "support-gaussian", torch.arange(len(want))).to(want.device)
        made = self._draws(torch.as_tensor(support.x), support.y, want, keys)
        return Examples(made, want, weight=self._usual(support.y, _TRIED)[want])

    def _usual(self, y: Tensor, made: int) -> Tensor:
        """The weight [way] of each of so many made rows of a class beside the real ones of labels `y` [m]."""
        real = torch.bincount(y).float()
        return weight_of_each(usual_share("discriminative", real), real, torch.tensor(float(made)))

    def _draws(self, x: Tensor, y: Tensor, want: Tensor, keys: Tensor) -> Tensor:
        """Rows [n, d] round the class means of rows [m, d]; the means themselves where no class has two rows."""
        counts = torch.bincount(y)
        means = x.new_zeros(len(counts), x.shape[1], dtype=torch.float64).index_add_(0, y, x.double())
        means = means / counts.clamp(min=1)[:, None]
        free = int((counts - 1).clamp(min=0).sum())
        centre = means[want].to(x.dtype)
        if not free:
            return centre
        apart = (x.double() - means[y]) / math.sqrt(free)  # the rows whose squares sum up to S
        size = float(apart.square().sum()) / x.shape[1]
        noise = row_product(chance.paired_noise(keys, "rows", (len(x),)).to(x), apart.to(x.dtype))
        sphere = chance.paired_noise(keys, "sphere", (x.shape[1],)).to(x)
        noise = math.sqrt(1 - self.shrinkage) * noise + math.sqrt(self.shrinkage * size) * sphere
        return centre + self.scale * noise
