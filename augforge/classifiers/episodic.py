"""Training a classifier's own layers on episodes of base features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from augforge.episodes import draw_episodes
from augforge.types import Bank, Episode, Examples, InputError

_BATCH = 8  # episodes in a step


@dataclass(frozen=True)
class Episodes:
    """`steps` steps of Adam at `rate`, on 8 episodes each: `way` classes with `shot` support and `n_query` queries."""

    steps: int
    rate: float
    way: int
    shot: int
    n_query: int = 5


def train(net: nn.Module, scores: Callable[[Examples, Tensor], Tensor], base: Bank, x: Tensor, plan: Episodes,
          seed: int) -> None:  # fmt: skip
    """Train `net` in place, down the cross-entropy of `scores` on queries of base episodes.

    `x` [n, d] are the rows of `base`; the episodes are a function of `seed`. Raises InputError where the base
    classes are too few or too small for an episode, and where the loss is not finite.
    """
    labels = torch.arange(plan.way)
    support_y = labels.repeat_interleave(plan.shot).expand(_BATCH, -1).to(x.device)
    query_y = labels.repeat_interleave(plan.n_query).expand(_BATCH, -1).to(x.device)
    optimiser = torch.optim.Adam(net.parameters(), plan.rate)
    for step in range(plan.steps):
        episodes = draw_episodes(base.y.cpu(), way=plan.way, shot=plan.shot, n_query=plan.n_query, trials=_BATCH,
                                 seed=seed, start=step * _BATCH)  # fmt: skip
        support, query = _rows(episodes, x)
        with torch.enable_grad():
            found = scores(Examples(support, support_y), query)
            loss = F.cross_entropy(found.flatten(0, 1), query_y.flatten())
        if not bool(torch.isfinite(loss)):
            raise InputError(f"training on base episodes failed: the loss is {float(loss)} at step {step}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _rows(episodes: list[Episode], x: Tensor) -> tuple[Tensor, Tensor]:
    """The features of support and queries, class by class: [b, way * shot, d] and [b, way * n_query, d]."""
    support = torch.stack([episode.support.flatten() for episode in episodes])
    query = torch.stack([episode.query.flatten() for episode in episodes])
    return x[support.to(x.device)], x[query.to(x.device)]
