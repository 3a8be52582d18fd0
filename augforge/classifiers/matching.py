"""Matching networks: Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra, "Matching networks for one shot learning",
NeurIPS 2016.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.context import (
    ContextEmbedding,
    ReadingOrder,
    build_context,
    check_context,
    fit_context,
    fitted_context,
)
from augforge.classifiers.weighted import as_rows, like_query
from augforge.types import Bank, Examples, Family


@dataclass
class Matching:
    """Attention over the support rows (Vinyals et al. 2016).

    P(y | x, S) = sum_i a(x, x_i) y_i (equation 1) with a the softmax over i of `scale` cos(f(x), g(x_i)) (section
    2.1.1); scores are log P. `scale` is one over the temperature: with 1, as published, the softmax over cosines is
    nearly flat and training goes badly. The weight of a row multiplies its attention.

    With `full_context` f and g read the whole support (section 2.1.2 and appendix A), and `fit` trains them on base
    episodes with cross-entropy; without, f and g are the identity and `fit` does nothing. With it each row is read
    once, whatever its weight over 0.

    Differs from the paper: the temperature and weights; the support's bi-LSTM reads rows in an order of their
    content, not as given (`order`, see `context`); `unit_query` False leaves f(x) at its own length, as some public
    implementations do.
    """

    family: ClassVar[Family] = "neighbours"

    scale: float = 10.0  # what cosines are multiplied by, > 0
    full_context: bool = False  # whether embeddings read the whole support
    context_steps: int = 5  # steps of the query's LSTM, >= 1
    order: ReadingOrder = "content"  # in which the support's LSTM reads rows: by their content, or as given
    unit_query: bool = True  # whether queries are brought to length 1
    train_steps: int = 500  # of Adam, on 8 base episodes each, >= 1
    train_rate: float = 1e-3  # learning rate of Adam, > 0
    train_way: int = 5  # classes of an episode in training, >= 2
    train_shot: int = 1  # support rows of a class in training, >= 1
    context_: ContextEmbedding | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_context(self)

    @property
    def counts_weights(self) -> bool:
        """With `full_context` the LSTM reads each row once, whatever its weight."""
        return not self.full_context

    def build(self, facts: dict[str, int]) -> None:
        """Make the context embedding empty, for rows of facts["features"] numbers."""
        build_context(self, facts)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """With `full_context`, train the embedding on episodes of base features; otherwise there is nothing to learn.

        Raises InputError for pictures, and for base classes too few or too small for an episode.
        """
        fit_context(self, base, rng, "matching")
        return self

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Log probabilities [q, way] of queries [q, d], or [b, q, way] for b episodes.

        Raises InputError for full context before `fit`, and for rows that do not go together.
        """
        rows = as_rows(support, query)
        x, f = rows.x, rows.query
        if self.full_context:
            x, f = fitted_context(self, x, "matching")(x, rows.weight > 0, f, self.order)
        if self.unit_query:
            f = F.normalize(f, dim=-1)
        likeness = self.scale * (F.normalize(x, dim=-1) @ f.mT).mT  # [b, q, n]
        # log sum_i w_i exp(l_i) [y_i = k] - log sum_i w_i exp(l_i), with the largest l taken out
        there = rows.weight[:, None] > 0
        largest = likeness.masked_fill(~there, -torch.inf).amax(-1, keepdim=True).detach()
        attention = torch.where(there, likeness - largest, -torch.inf).exp()
        votes = attention @ rows.member  # [b, q, way]
        logs = votes.clamp(min=torch.finfo(votes.dtype).tiny).log()
        return like_query(logs - votes.sum(-1, keepdim=True).log(), query)
