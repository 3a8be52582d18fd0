"""A small network with dropout on bottleneck features, trained on the support of each episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.descent import check_descent, descend, span
from augforge.classifiers.weighted import as_rows, like_query
from augforge.types import Bank, Examples, InputError


class _Layers(NamedTuple):
    """The layers of b networks: [b, r, h], [b, 1, h], [b, h, way], [b, 1, way]."""

    first: Tensor
    first_bias: Tensor
    last: Tensor
    last_bias: Tensor


@dataclass
class Mlp:
    """One hidden layer with ReLU and dropout (Srivastava et al., "Dropout", JMLR 2014), trained on the support.

    Rows are centred on the support's mean and divided by their root mean square length. The first layer starts at
    random, from `seed` alone, the last at 0, so that no class is preferred; gradient descent with momentum goes down
    the weighted mean cross-entropy plus `decay` / 2 times the squared distance of the weights to
    their start. The scores are the logits with all units on. Each episode of a batch has its own network, and all
    start alike; the steps are in the span of its support.

    Differs from the paper: a step leaves out the same hidden units for every row (one thinned network a step), so
    that neither the order of the rows nor a copy of a row in place of a weight matters.
    """

    hidden: int = 256  # hidden units, >= 1
    dropout: float = 0.5  # share of hidden units left out of a step, 0 to below 1
    steps: int = 100  # of gradient descent, >= 0
    rate: float = 0.1  # step size, > 0
    momentum: float = 0.9  # 0..1
    decay: float = 0.001  # weight of the squared distance to the start, >= 0
    seed: int = 0  # of the first layer's start and of dropout

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        if self.hidden < 1:
            raise InputError(f"hidden={self.hidden} was given; expected at least 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout} was given; expected a number from 0 to below 1")
        check_descent(self)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn nothing: every episode trains its own network."""
        return self

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of queries [q, d], or [b, q, way] for b episodes; higher is likelier.

        Raises InputError for rows that do not go together.
        """
        rows = as_rows(support, query)
        weight = rows.weight[..., None]
        total = weight.sum(1, keepdim=True)
        mean = (weight * rows.x).sum(1, keepdim=True) / total
        x = rows.x - mean
        size = ((weight * x.square()).sum((1, 2), keepdim=True) / total).clamp(min=1e-24).sqrt()
        x = x / size
        start = self._start(x)
        if rows.needs_grad():  # an eigenvector has no derivative where eigenvalues meet
            trained = self._train(x, rows.member, start)
        else:
            axes = span(x, rows.weight)
            inside = axes.basis.mT @ start.first  # [b, r, h]
            found = self._train(axes.z, rows.member, start._replace(first=inside))
            trained = found._replace(first=start.first + axes.basis @ (found.first - inside))
        return like_query(_logits((rows.query - mean) / size, trained, 1.0), query)

    def _start(self, x: Tensor) -> _Layers:
        """The layers [1, ...] that every episode starts with, for rows `x` [b, n, d] of length about 1."""
        keys = chance.row_keys(self.seed, "mlp", torch.arange(x.shape[-1]))
        first = chance.normal(keys, (self.hidden,)).to(x)[None] * (2 / self.hidden) ** 0.5
        zero = x.new_zeros(1)
        return _Layers(first, zero.expand(1, 1, self.hidden), zero.expand(1, self.hidden, 1), zero.expand(1, 1, 1))

    def _train(self, x: Tensor, member: Tensor, start: _Layers) -> _Layers:
        """The layers after training on rows [b, n, r] and their membership [b, n, way]."""
        total = member.sum((1, 2), keepdim=True)
        b, way = len(x), member.shape[-1]
        start = _Layers(*(layer.expand(b, -1, -1) for layer in start))
        start = start._replace(last=start.last.expand(-1, -1, way), last_bias=start.last_bias.expand(-1, -1, way))
        kept = self._kept(x)

        def slope(layers: list[Tensor], step: int) -> list[Tensor]:
            found = _slope(x, member / total, _Layers(*layers), kept[step])
            return [g + self.decay * (now - was) for g, now, was in zip(found, layers, start, strict=True)]

        return _Layers(*descend(start, slope, self))

    def _kept(self, x: Tensor) -> Tensor:
        """What each hidden unit is multiplied by at each step: [steps, hidden], 0 or 1 / (1 - dropout)."""
        keys = chance.row_keys(self.seed, "mlp dropout", torch.arange(self.steps))
        return (chance.uniform(keys, (self.hidden,)) >= self.dropout).to(x) / (1 - self.dropout)


def _logits(x: Tensor, layers: _Layers, kept: Tensor | float) -> Tensor:
    """[b, n, r] -> [b, n, way]."""
    return (x @ layers.first + layers.first_bias).relu() * kept @ layers.last + layers.last_bias


def _slope(x: Tensor, share: Tensor, layers: _Layers, kept: Tensor) -> _Layers:
    """The gradient of the mean cross-entropy of rows [b, n, r], each with its share of the weight [b, n, way]."""
    before = x @ layers.first + layers.first_bias
    after = before.relu() * kept
    wrong = share.sum(-1, keepdim=True) * torch.softmax(after @ layers.last + layers.last_bias, -1) - share
    back = (wrong @ layers.last.mT) * kept * (before > 0)
    return _Layers(x.mT @ back, back.sum(1, keepdim=True), after.mT @ wrong, wrong.sum(1, keepdim=True))
