"""Baseline++: Chen, Liu, Kira, Wang & Huang, "A closer look at few-shot classification", ICLR 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.base_statistics import check_positive
from augforge.classifiers.descent import check_descent, descend, span
from augforge.classifiers.weighted import as_rows, class_means, cosines, like_query
from augforge.types import Bank, Examples


@dataclass
class CosineClassifier:
    """A layer of cosines trained on the support (Chen et al. 2019, section 3.2, Baseline++).

    The score of class k is `scale` cos(x, W_k). W starts at the class means of the rows, brought to length 1, and
    follows gradient descent with momentum on the weighted mean cross-entropy of the support plus `decay` ||W||^2 / 2.
    Each episode of a batch has its own W; the steps are in the span of its support.

    Differs from the paper: W starts at the class means and not at random, and a step sees the whole support and not
    four rows, so that nothing is left to chance.
    """

    scale: float = 10.0  # what cosines are multiplied by, > 0
    steps: int = 50  # of gradient descent, >= 0
    rate: float = 0.1  # step size, > 0
    momentum: float = 0.9  # 0..1
    decay: float = 0.001  # weight of ||W||^2 / 2, >= 0

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_positive(self, "scale")
        check_descent(self)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn nothing: every episode trains its own layer."""
        return self

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of queries [q, d], or [b, q, way] for b episodes; higher is likelier.

        Raises InputError for rows that do not go together.
        """
        rows = as_rows(support, query)
        x = F.normalize(rows.x, dim=-1)
        if rows.needs_grad():  # an eigenvector has no derivative where eigenvalues meet
            return like_query(self.scale * cosines(rows.query, self._train(x, rows.member)), query)
        axes = span(x, rows.weight)
        layer = self._train(axes.z, rows.member) @ axes.basis.mT
        return like_query(self.scale * cosines(rows.query, layer), query)

    def _train(self, x: Tensor, member: Tensor) -> Tensor:
        """The layer [b, way, r] trained on rows of length 1 [b, n, r], with its gradient written out."""
        weight = member.sum(-1, keepdim=True)
        total = weight.sum(1, keepdim=True)

        def slope(layers: list[Tensor], step: int) -> list[Tensor]:
            [layer] = layers
            length = torch.linalg.vector_norm(layer, dim=-1, keepdim=True).clamp(min=1e-12)
            unit = layer / length
            cosine = x @ unit.mT  # [b, n, way]
            wrong = self.scale * (weight * torch.softmax(self.scale * cosine, -1) - member) / total
            # d cos(x, W_k) / d W_k = (x - cos(x, W_k) W_k / ||W_k||) / ||W_k||
            gradient = (wrong.mT @ x - (wrong * cosine).sum(1)[..., None] * unit) / length
            return [gradient + self.decay * layer]

        [layer] = descend([F.normalize(class_means(x, member), dim=-1)], slope, self)
        return layer
