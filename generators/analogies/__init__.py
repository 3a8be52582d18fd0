"""Analogies: Hariharan & Girshick, "Low-shot visual recognition by shrinking and hallucinating features", ICCV 2017."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from augforge import chance
from augforge.classifiers.base_statistics import base_rows, check_positive, check_range
from augforge.generators.analogies.training import (
    AnalogyNet,
    TrainingSettings,
    centroids_of,
    mine,
    train_classifier,
    train_generator,
)
from augforge.generators.shared.support import choose_parents, feature_rows, like_support, not_fitted
from augforge.networks.layers import built
from augforge.networks.products import in_tiles
from augforge.types import Bank, Examples, InputError, Space

_ROWS_AT_ONCE = 8192


@dataclass
class Analogies:
    """A support row changed as the rows of a base class change, by a learnt analogy (Hariharan & Girshick 2017).

    A made row is G([x, c_1, c_2]) (section 4): x is a support row, c_1 and c_2 are two centroids of one base class,
    all chosen by the row's key, each equally likely. G has three fully connected layers.

    `fit` puts the rows of each base class in clusters. For each two centroids a_1, a_2 of a class, the two centroids
    b_1, b_2 of another class are sought whose difference has the highest cosine with a_1 - a_2, and kept if it is above
    0. G learns on such quadruplets to minimise
        `error_weight` mean((G([a_1, b_1, b_2]) - a_2)^2) + cross-entropy(W G + bias, a),
    where W is a linear classifier of the base classes. `history` is the log of the last `fit`.

    Differs from the paper: W is trained here on base features, as their backbone's last layer is not at hand; the
    other class is the best of `partners` that are drawn for each class; features are divided by their root mean
    square in all of this; Adam in place of SGD; made numbers are at least 0 where all base features are; fewer than
    100 centroids where a class has fewer than 1,000 rows.

    The chance in a row is its choice of a class and two centroids; without their difference, at a `noise_scale` of 0,
    G is asked for no change, which is the control.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = True
    one_class: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    centroids: int = 100  # clusters of a base class at most, >= 2
    rows_each: int = 10  # rows of a cluster, >= 1; a class has 2 clusters at least
    partners: int = 2  # other classes that are searched for the partners of a class, >= 1
    hidden: int = 512  # width of G's layers, >= 1
    steps: int = 800  # of Adam, >= 1
    batch: int = 256  # quadruplets in a step, >= 1
    lr: float = 3e-3  # learning rate of Adam, > 0, falling along a cosine
    error_weight: float = 10.0  # weight of the squared error beside the cross-entropy, >= 0
    noise_scale: float = 1.0  # multiplies c_2 - c_1 when rows are made, >= 0
    centroids_: Tensor | None = field(default=None, init=False, repr=False)  # [m, d], class by class
    counts_: Tensor | None = field(default=None, init=False, repr=False)  # [c], centroids of each class
    scale_: Tensor | None = field(default=None, init=False, repr=False)  # the root mean square of base features
    lowest_: Tensor | None = field(default=None, init=False, repr=False)  # the least value of a made number
    net_: nn.Module | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_positive(self, "lr")
        check_range(self, "noise_scale", 0)
        check_range(self, "error_weight", 0)
        check_range(self, "centroids", 2)
        for name in ("rows_each", "partners", "hidden", "steps", "batch"):
            check_range(self, name, 1)
        self.history: list[dict[str, Any]] = []

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty network for rows of facts["features"] numbers."""
        self.facts_ = dict(facts)
        self.net_ = built(lambda: AnalogyNet(facts["features"], facts["hidden"])).requires_grad_(False)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn centroids and G from base features.

        Raises InputError where fewer than two base classes have two rows, and where no analogy is found.
        """
        x = base_rows(base, "analogies").to(torch.float32)
        _, y = torch.unique(base.y.to(x.device), return_inverse=True)
        sizes = torch.bincount(y)
        several = (sizes > 1).nonzero()[:, 0]
        if len(several) < 2:
            raise InputError(f"analogies need 2 base classes of at least 2 rows; there are {len(several)}")
        self.facts_ = {"features": x.shape[1], "hidden": self.hidden}
        self.scale_ = x.square().mean().sqrt().clamp(min=1e-12)
        self.lowest_ = x.new_tensor(0.0 if bool((x >= 0).all()) else -math.inf)
        x = x / self.scale_
        groups = dict(enumerate(torch.argsort(y, stable=True).split(sizes.tolist())))
        parts = [centroids_of(x[groups[c]], self._clusters(len(groups[c])), rng) for c in several.tolist()]
        counts = torch.tensor([len(part) for part in parts], device=x.device)
        centres = torch.cat(parts)
        quadruplets = mine(centres, counts, self.partners, rng)
        if not len(quadruplets):
            raise InputError("analogies found no two pairs of base rows that differ alike; expected other features")
        settings = TrainingSettings(self.steps, self.batch, self.lr, self.error_weight, float(self.lowest_))
        classifier = train_classifier(x, y, settings, rng)
        net = built(lambda: AnalogyNet(x.shape[1], self.hidden), rng).to(x.device)
        assert isinstance(net, AnalogyNet)
        owner = several.repeat_interleave(counts)
        self.history = train_generator(net, quadruplets, centres, owner, classifier, settings, rng)
        self.net_ = net.requires_grad_(False)
        self.centroids_, self.counts_ = centres, counts
        return self

    def _clusters(self, rows: int) -> int:
        """How many clusters a class of `rows` rows has."""
        return min(rows, self.centroids, max(2, rows // self.rows_each))

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Complete an analogy for features [m, d]: one row of the support, two centroids of one base class.

        Raises InputError for pictures, where a wanted class has no support row, and before `fit`.
        """
        x = feature_rows(support, "analogies")
        parent = choose_parents(support.y, want, keys)
        self._ready(x)
        if not len(want):
            return Examples(like_support(x[:0], support), want, parent)
        parts = zip(parent.split(_ROWS_AT_ONCE), keys.split(_ROWS_AT_ONCE), strict=True)
        made = torch.cat([self._complete(x[rows], chosen) for rows, chosen in parts])
        return Examples(like_support(made, support), want, parent)

    def _ready(self, x: Tensor) -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
        """The network, the centroids and counts, the size and the least value of features, on the device of rows `x`.

        InputError before `fit`, and for rows of another width.
        """
        found = (self.centroids_, self.counts_, self.scale_, self.lowest_)
        centroids, counts, scale, lowest = (None if one is None else one.to(x.device) for one in found)
        if self.net_ is None or centroids is None or counts is None or scale is None or lowest is None:
            raise not_fitted("analogies")
        if centroids.shape[1] != x.shape[1]:
            raise InputError(f"analogies was fitted on {centroids.shape[1]} features; these have {x.shape[1]}")
        return self.net_, centroids, counts, scale, lowest

    def _complete(self, x: Tensor, keys: Tensor) -> Tensor:
        """G([x, c_1, c_2]) [n, d] float32, computed in float64."""
        net, centroids, counts, scale, lowest = self._ready(x)
        first, second = (centroids.to(torch.float64)[rows] for rows in two_of_a_class(counts, keys))
        scale = scale.to(torch.float64)
        second = first + self.noise_scale * (second - first)
        made = in_tiles(net, x.to(torch.float64) / scale, first, second) * scale
        return made.to(torch.float32).clamp(min=lowest)


def two_of_a_class(counts: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Two different rows of one class for each key, [n] each; classes of `counts` [c] rows lie one after another."""
    counts = counts.to(keys.device)
    chosen = chance.choice(chance.fork(keys, "class"), len(counts))
    start, count = (torch.cumsum(counts, 0) - counts)[chosen], counts[chosen]
    first = chance.choice(chance.fork(keys, "first"), count)
    second = chance.choice(chance.fork(keys, "second"), count - 1)
    return start + first, start + second + (second >= first).to(second.dtype)
