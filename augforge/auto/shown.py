"""What there is to choose by: features of the support by each network, of what is made of it, and of a pool."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from augforge.auto.candidates import MADE, Candidate
from augforge.classifiers.pool import PoolOptions, with_pool
from augforge.imagine import usual_share, weight_of_each
from augforge.types import Examples


@dataclass(frozen=True, eq=False)
class Shown:
    """Features [n, d] of the support by each network, labels [n], and those of the pool.

    `made` are features [n, m, d] of m rows that were made of each row of the support, by method and network. `group`
    [n] are numbers of near-copies, which are held out together. "" is the network of given features.
    """

    x: Mapping[str, Tensor]
    y: Tensor
    pool: Mapping[str, Tensor] = field(default_factory=dict)
    group: Tensor | None = None
    made: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)

    def take(self, rows: Tensor, y: Tensor) -> Shown:
        """Some rows, with other labels: both [k]. The pool stays."""
        x = {name: part[rows] for name, part in self.x.items()}
        made = {name: part[rows] for name, part in self.made.items()}
        return Shown(x, y, self.pool, None if self.group is None else self.group[rows], made)

    def support(self, candidate: Candidate) -> Examples:
        """The support as a candidate sees it: real rows, and behind them what is made of each in turn.

        What is made of a class is about MADE rows, which weigh one real row together.
        """
        real = Examples(beside(self.x, candidate.networks), self.y)
        if not candidate.made:
            return real
        counts = torch.bincount(self.y)
        made = self.made[candidate.made, candidate.networks[0]]
        made = made[:, : max(1, MADE // int(counts.max()))]
        each = weight_of_each(usual_share("discriminative", counts, pictures=True), counts, counts * made.shape[1])
        labels = self.y.repeat_interleave(made.shape[1])
        return real + Examples(made.flatten(0, 1), labels, weight=each.to(made)[labels])

    def with_pool(self, candidate: Candidate) -> tuple[Examples, float]:
        """The support as a candidate sees it with the pool behind it, and how far that is believed, 0..1.

        The pool is labelled by the real rows alone.
        """
        real = Examples(beside(self.x, candidate.networks), self.y)
        pool = beside(self.pool, candidate.networks)
        near = shorter(torch.cat([torch.as_tensor(real.x), pool]))
        found = with_pool(Examples(near[: len(self.y)], self.y), near[len(self.y) :])
        assert found.weight is not None
        weight = found.weight[len(self.y) :]
        most = PoolOptions().share * len(self.y.unique())
        rows = Examples(pool, found.y[len(self.y) :], weight=weight)
        return self.support(replace(candidate, pool=False)) + rows, min(1.0, float(weight.sum()) / most)


def beside(x: Mapping[str, Tensor], networks: Sequence[str]) -> Tensor:
    """The features [n, d_1 + ... + d_k] of several networks as `Joined` has them, whose rows have length 1 together
    where each network's are means of unit rows.
    """
    if len(networks) < 2:
        return x[networks[0] if networks else ""]
    return torch.cat([x[name] for name in networks], 1) / math.sqrt(len(networks))


def shorter(x: Tensor) -> Tensor:
    """Rows [n, d] in n coordinates where that is fewer, with the same lengths and angles, to rounding.

    Classifiers that read nothing else answer the same, several times as fast.
    """
    if len(x) >= x.shape[1]:
        return x
    wide = x.to(torch.float64)
    values, axes = torch.linalg.eigh(wide @ wide.T)
    return (axes * values.clamp(min=0).sqrt()).to(x.dtype)
