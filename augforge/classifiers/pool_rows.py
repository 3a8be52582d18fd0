"""A pool of unlabelled rows as a synthesizer: what it gives are real rows, with the labels that were found for them.

`PoolRows` gives those of `label_pool`, and `Retrieved` is its control: the rows that lie nearest to a class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from augforge.classifiers.pool import label_pool, nearest_rows
from augforge.types import Bank, Examples, InputError


@dataclass
class PoolRows:
    """Rows of a pool with the labels and weights of `label_pool`, the most confident of each class first.

    Where fewer rows of a class are found than are wanted, the others are its support rows and weigh nothing.
    `transductive` only says that the queries are in the pool too, which whoever draws episodes sees to.
    """

    transductive: bool = False

    space: ClassVar[Literal["feature"]] = "feature"
    x_: Tensor | None = field(init=False, default=None, repr=False)  # [m, d] the pool

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Keep the rows of `base`, a bank of features, as the pool; its labels are not read."""
        return self.over(_features(base))

    def over(self, x: Tensor) -> Self:
        """The same, with the rows x [m, d] as its pool."""
        self.x_ = x
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Row i is of class want[i]: the j-th of its class in `want` is the j-th most confident row that was found."""
        return chosen_rows(support, _known(self.x_), want)


@dataclass
class Retrieved:
    """The rows of a pool that lie nearest to a class: by the cosine with the mean of its support rows, length 1.

    The control of `PoolRows` and of generators: as many real pictures, found without a word on what the others are.
    """

    space: ClassVar[Literal["feature"]] = "feature"
    x_: Tensor | None = field(init=False, default=None, repr=False)  # [m, d] the pool

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Keep the rows of `base`, a bank of features, as the pool; its labels are not read."""
        return self.over(_features(base))

    def over(self, x: Tensor) -> Self:
        """The same, with the rows x [m, d] as its pool."""
        self.x_ = x
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Row i is of class want[i]: the j-th of its class in `want` is the j-th nearest row, round and round."""
        pool = _known(self.x_)
        rows = nearest_rows(support, pool)[want, _places(want) % len(pool)]
        return Examples(pool[rows], want, torch.full_like(want, -1))


def chosen_rows(support: Examples, pool: Tensor, want: Tensor) -> Examples:
    """Rows of a pool [m, d] as wanted [n]: class by class the most confident first, then support rows of weight 0."""
    found = label_pool(support, pool)
    x = torch.as_tensor(support.x)
    place, rows, weight = _places(want), x.new_zeros(len(want), x.shape[1]), x.new_zeros(len(want))
    for k in torch.unique(want).tolist():
        own = (found.y == k).nonzero()[:, 0]
        own = own[found.confidence[own].argsort(descending=True, stable=True)]
        asked = (want == k).nonzero()[:, 0]
        there, beyond = asked[place[asked] < len(own)], asked[place[asked] >= len(own)]
        rows[there] = pool[own[place[there]]].to(x)
        weight[there] = found.weight[own[place[there]]].to(x)
        rows[beyond] = x[support.y == k][0]
    return Examples(rows, want, torch.full_like(want, -1), weight)


def _places(want: Tensor) -> Tensor:
    """How many rows of the same class are before each row of `want` [n]."""
    place = torch.zeros_like(want)
    for k in torch.unique(want):
        mine = want == k
        place[mine] = torch.arange(int(mine.sum()), device=want.device)
    return place


def _features(base: Bank) -> Tensor:
    x = getattr(base, "x", None)
    if not isinstance(x, Tensor):
        raise InputError("a pool of pictures was given; expected a bank of features")
    return x


def _known(x: Tensor | None) -> Tensor:
    if x is None or not len(x):
        raise InputError("there is no pool; expected `over` with at least 1 row")
    return x
