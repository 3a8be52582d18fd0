"""Feature mixing: rows made by adding and subtracting real ones, with nothing learnt.

mixup: Zhang, Cisse, Dauphin & Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018.
SMOTE: Chawla, Bowyer, Hall & Kegelmeyer, "SMOTE: synthetic minority over-sampling technique", JAIR 16, 2002.
Extrapolation: DeVries & Taylor, "Dataset augmentation in feature space", ICLR workshop 2017.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.base_statistics import base_rows, check_range
from augforge.generators.shared.support import (
    choose_parents,
    feature_rows,
    like_support,
    nearest_means,
    not_fitted,
    other_rows,
)
from augforge.types import Bank, Examples, InputError, Space

How = Literal["mixup", "smote", "extrapolate", "base"]
_TRIES = 32  # each is good with a probability of at least a half


@dataclass
class Mixing:
    """Rows made of two real rows: mixup, SMOTE, extrapolation, or a difference within a base class.

    A made row is x_i + noise_scale * step, where x_i is a row of its class (its parent), and the step is by `how`
        mixup        (1 - l) (x_j - x_i), l = max(b, 1 - b), b ~ Beta(alpha, alpha)
        smote        u (x_j - x_i), u uniform over [0, 1)
        extrapolate  degree (x_i - x_j)
        base         b_1 - b_2, two of the `kept` rows of one of the `base_classes` nearest base classes.
    x_j is another row of the class: any for mixup, one of the `neighbours` nearest for SMOTE and extrapolation.

    Where a class has one row, SMOTE and extrapolation have nothing to work with and make copies. mixup then mixes
    with one of the `kept` rows of one of the `base_classes` nearest base classes (by the distance of x_i to their
    means). Labels are what is wanted and nothing else: of the paper's label l y_i + (1 - l) y_j only the first part
    concerns an episode's classes, so such a row has the weight l, by which its cross-entropy is multiplied in the
    paper as well; rows mixed within a class have the weight 1. All rows of a class together have the usual share
    beside real ones (`imagine.weighed`), in these proportions.

    Differs from the papers: l is at least a half, so that a row is nearest to its own class; SMOTE draws u once for a
    row, as its text has it, and not for every number, as its pseudo-code has it; alpha is at most 1.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = False
    one_class: ClassVar[bool] = True
    relative_weights: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    how: How = "mixup"  # what is added to a row
    alpha: float = 1.0  # of the Beta distribution of mixup, 0.05..1
    degree: float = 0.5  # how far extrapolation goes, >= 0
    neighbours: int = 5  # nearest rows of the class that SMOTE and extrapolation choose among, >= 1
    base_classes: int = 5  # nearest base classes that a row may borrow from, >= 1
    kept: int = 32  # rows kept of each base class, >= 1
    noise_scale: float = 1.0  # multiplies the step, >= 0; 0 makes copies
    means_: Tensor | None = field(default=None, init=False, repr=False)  # [c, d]
    rows_: Tensor | None = field(default=None, init=False, repr=False)  # [c, kept, d]
    counts_: Tensor | None = field(default=None, init=False, repr=False)  # [c], how many of `rows_` there are

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_range(self, "alpha", 0.05, 1)
        for name in ("degree", "noise_scale"):
            check_range(self, name, 0)
        for name in ("neighbours", "base_classes", "kept"):
            check_range(self, name, 1)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Keep the means [c, d] of the base classes and up to `kept` rows of each, chosen by `rng`: [c, kept, d].

        For SMOTE and extrapolation nothing is kept.
        """
        if self.how in ("smote", "extrapolate"):
            return self
        x = base_rows(base, "mixing").to(torch.float32)
        shuffle = torch.randperm(len(x), generator=rng, device=rng.device).to(x.device)
        _, y = torch.unique(base.y.to(x.device), return_inverse=True)
        order = shuffle[torch.argsort(y[shuffle], stable=True)]  # rows of class 0 in a random order, then of class 1
        y, x, counts = y[order], x[order], torch.bincount(y)
        place = torch.arange(len(x), device=x.device) - (torch.cumsum(counts, 0) - counts)[y]
        self.rows_ = x.new_zeros(len(counts), min(self.kept, int(counts.max())), x.shape[1])
        first = place < self.kept
        self.rows_[y[first], place[first]] = x[first]
        sums = x.new_zeros(len(counts), x.shape[1], dtype=torch.float64).index_add_(0, y, x.to(torch.float64))
        self.means_ = (sums / counts[:, None]).to(torch.float32)
        self.counts_ = counts.clamp(max=self.kept)
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Mix rows of features [m, d]; mixup gives weights [n].

        Raises InputError for pictures, where a wanted class has no support row, and where base rows are needed before
        `fit`.
        """
        x = feature_rows(support, "mixing")
        parent = choose_parents(support.y, want, keys)
        if not len(want):
            return Examples(like_support(x[:0], support), want, parent)
        step, weight = self._step(x, support.y, parent, keys)
        made = x[parent] + self.noise_scale * step
        return Examples(like_support(made, support), want, parent, weight)

    def _step(self, x: Tensor, y: Tensor, parent: Tensor, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """Steps [n, d] from the rows `parent` [n] of a support `x` [m, d], `y` [m], and the weights [n] of mixup."""
        if self.how == "base":
            first, second = self._base_pair(x[parent], keys)
            return first - second, None
        near = None if self.how == "mixup" else self.neighbours
        other = other_rows(x, y, parent, near, chance.fork(keys, "other"))
        if self.how == "smote":
            return chance.uniform(chance.fork(keys, "gap"))[:, None] * (x[other] - x[parent]), None
        if self.how == "extrapolate":
            return self.degree * (x[parent] - x[other]), None
        partner, alone = x[other], other == parent
        if bool(alone.any()):
            partner[alone] = self._base_pair(x[parent[alone]], keys[alone])[0]
        share = 1 - symmetric_beta(chance.fork(keys, "share"), self.alpha)
        share = torch.minimum(share, 1 - share)  # of the other row
        weight = torch.where(alone, 1 - self.noise_scale * share, 1.0).clamp(min=0)
        return share[:, None] * (partner - x[parent]), weight

    def _base_pair(self, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Two different rows of a base class near each row of `x` [n, d], as [n, d] each; alike where it has one."""
        means, rows, counts = self._ready(x)
        near = nearest_means(x, means, min(self.base_classes, len(means)))
        chosen = near.gather(1, chance.choice(chance.fork(keys, "class"), near.shape[1])[:, None])[:, 0]
        count = counts[chosen]
        first = chance.choice(chance.fork(keys, "first"), count)
        second = chance.choice(chance.fork(keys, "second"), (count - 1).clamp(min=1))
        second = torch.where(count > 1, second + (second >= first).to(second.dtype), first)
        return rows[chosen, first], rows[chosen, second]

    def _ready(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means, kept rows and their counts, like rows `x`; InputError before `fit`, and for another width."""
        if self.means_ is None or self.rows_ is None or self.counts_ is None:
            raise not_fitted("mixing")
        if self.means_.shape[1] != x.shape[1]:
            raise InputError(f"mixing was fitted on {self.means_.shape[1]} features; these rows have {x.shape[1]}")
        return self.means_.to(x), self.rows_.to(x), self.counts_.to(x.device)


def symmetric_beta(keys: Tensor, alpha: float) -> Tensor:
    """Numbers [n] float32 from Beta(alpha, alpha), with alpha from 0.05 to 1, one for each key.

    Jöhnk (1964): u^(1/alpha) / (u^(1/alpha) + v^(1/alpha)) for the first of a row of pairs with a sum of at most 1.
    """
    if alpha == 1:
        return chance.uniform(keys)
    pairs = chance.uniform64(keys, (_TRIES, 2)).clamp(min=2.0**-53) ** (1 / alpha)
    total = pairs.sum(-1)  # [n, tries]
    good = (total <= 1).to(torch.int8).argmax(1, keepdim=True)
    return (pairs[..., 0].gather(1, good) / total.gather(1, good))[:, 0].to(torch.float32)
