"""How `matching` and `pmn` learn and use a full context embedding: their settings, fitting, and what is fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from augforge.classifiers.base_statistics import base_rows, check_positive, check_range
from augforge.classifiers.context import ContextEmbedding, empty, like_input, start
from augforge.classifiers.episodic import Episodes, train
from augforge.types import Bank, Examples, InputError


class Contextual(Protocol):
    """What a classifier with a context embedding has: its settings, and `context_` and `facts_` once it is fitted."""

    scale: float
    full_context: bool
    context_steps: int
    train_steps: int
    train_rate: float
    train_way: int
    train_shot: int
    context_: ContextEmbedding | None
    facts_: dict[str, int] | None

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Log probabilities [b, q, way] of queries [b, q, d]."""
        ...


def check_context(part: Contextual) -> None:
    """Raise InputError for settings out of range."""
    check_positive(part, "scale")
    check_positive(part, "train_rate")
    for name in ("context_steps", "train_steps", "train_shot"):
        check_range(part, name, 1)
    check_range(part, "train_way", 2)


def build_context(part: Contextual, facts: dict[str, int]) -> ContextEmbedding:
    """Give `part` an empty context embedding for rows of facts["features"] numbers, and return it."""
    part.facts_ = dict(facts)
    part.context_ = empty(facts["features"], part.context_steps)
    return part.context_


def fit_context(part: Contextual, base: Bank, rng: torch.Generator, who: str) -> None:
    """With `full_context`, train the embedding of `part` on episodes of base features; otherwise do nothing.

    Raises InputError, naming `who`, for pictures, and for base classes too few or too small for an episode.
    """
    if not part.full_context:
        return
    x = base_rows(base, who).to(torch.float32)
    context = build_context(part, {"features": x.shape[1]})
    seed = int(torch.randint(1 << 62, (1,), generator=rng, device=rng.device))
    start(context, seed)
    context.to(x.device)
    plan = Episodes(part.train_steps, part.train_rate, part.train_way, part.train_shot)
    train(context, part.scores, base, x, plan, seed)


def fitted_context(part: Contextual, x: Tensor, who: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The fitted embedding as a function on tensors like rows `x` [b, n, d]; InputError where there is none for d."""
    if part.context_ is None or part.facts_ is None:
        raise InputError(f"{who} is not fitted yet; expected fit(base, rng) or a folder that it was saved in")
    if part.facts_["features"] != x.shape[-1]:
        raise InputError(f"{who} was fitted on {part.facts_['features']} features; these have {x.shape[-1]}")
    return like_input(part.context_, x)
