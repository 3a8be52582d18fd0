"""Prototype matching networks: Wang, Girshick, Hebert & Hariharan, "Low-shot learning from imaginary data", 2018."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from augforge.classifiers.context import (
    ContextEmbedding,
    ReadingOrder,
    build_context,
    check_context,
    fit_context,
    fitted_context,
)
from augforge.classifiers.weighted import as_rows, class_means, cosines, like_query
from augforge.types import Bank, Examples, Family


@dataclass
class PrototypeMatching:
    """Class means of contextual embeddings, to which the query attends (Wang et al. 2018).

    Support rows are embedded in the context of the whole support by a bi-LSTM, as in matching networks; every class
    is then collapsed to the weighted mean of its embedded rows; the query's attention-LSTM reads these class means
    instead of the rows; and P(k | x) is the softmax over k of `scale` cos(f(x), mean_k).
    So a class with more rows, real or made, has no more votes. Scores are log P.

    `fit` trains the embedding on base episodes with cross-entropy. Without `full_context`
    f and g are the identity, and `fit` does nothing. Each row is read by the bi-LSTM once, whatever its weight over
    0; weights count in the means.

    Differs from the paper: that the query's LSTM attends to class means is our reading of its text, which gives no
    equations for it; the temperature and weights are additions; the bi-LSTM reads rows in an order of their content
    (`order`, see `context`).
    """

    family: ClassVar[Family] = "neighbours"

    scale: float = 10.0  # what cosines are multiplied by, > 0
    full_context: bool = True  # whether embeddings read the whole support
    context_steps: int = 5  # steps of the query's LSTM, >= 1
    order: ReadingOrder = "content"  # in which the support's LSTM reads rows: by their content, or as given
    train_steps: int = 500  # of Adam, on 8 base episodes each, >= 1
    train_rate: float = 1e-3  # learning rate of Adam, > 0
    train_way: int = 5  # classes of an episode in training, >= 2
    train_shot: int = 5  # support rows of a class in training, >= 1
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
        fit_context(self, base, rng, "pmn")
        return self

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Log probabilities [q, way] of queries [q, d], or [b, q, way] for b episodes.

        Raises InputError for full context before `fit`, and for rows that do not go together.
        """
        rows = as_rows(support, query)
        if not self.full_context:
            means, f = class_means(rows.x, rows.member), rows.query
        else:
            context = fitted_context(self, rows.x, "pmn")
            means, f = context(rows.x, rows.weight > 0, rows.query, self.order, rows.member)
        return like_query(torch.log_softmax(self.scale * cosines(f, means), -1), query)
