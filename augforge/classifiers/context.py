"""Full context embeddings: rows that know the rest of their support set (Vinyals et al. 2016, appendix A).

Plain modules on tensors in batch form, and how `matching` and `pmn`, which use them, train them on base episodes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from augforge import chance
from augforge.classifiers.base_statistics import base_rows, check_positive, check_range
from augforge.classifiers.weighted import class_means
from augforge.episodes import draw_episodes
from augforge.types import Bank, Episode, Examples, InputError

ReadingOrder = Literal["content", "given"]
_EPISODES_A_STEP, _QUERIES = 8, 5


class ContextEmbedding(nn.Module):
    """g(x_i, S), a bidirectional LSTM over the support, and f(x, S), an LSTM of `steps` steps with attention.

    `features` is d, the size of a row, and of both LSTMs' states.
    """

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.support = nn.LSTM(features, features, batch_first=True, bidirectional=True)
        self.query = nn.LSTMCell(2 * features, features)

    def embed_support(self, x: Tensor, there: Tensor, order: ReadingOrder = "content") -> Tensor:
        """g [b, n, d] of support rows x [b, n, d]; rows that are not `there` [b, n] (bool) do not count.

        g(x_i, S) = forward state + backward state + x_i (appendix A.2). An LSTM reads its rows in some order. As a
        support is a set, "content" reads them by their length along a fixed direction, so that g is the same however
        they are given; padding is read last. "given" reads them as they come.
        """
        places = torch.where(there, _content(x) if order == "content" else 0, torch.inf)
        places = torch.argsort(places, dim=1, stable=True)  # [b, n]
        index = places[..., None].expand_as(x)
        lengths = there.sum(1).cpu()
        packed = pack_padded_sequence(x.gather(1, index), lengths, batch_first=True, enforce_sorted=False)
        with warnings.catch_warnings():  # weights that were moved are in several pieces, which costs CUDA a copy
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous")
            states, _ = pad_packed_sequence(self.support(packed)[0], batch_first=True, total_length=x.shape[1])
        both = states[..., : x.shape[2]] + states[..., x.shape[2] :]
        return x + torch.zeros_like(x).scatter(1, index, both)

    def embed_query(self, x: Tensor, memory: Tensor, there: Tensor) -> Tensor:
        """f [b, q, d] of queries x [b, q, d] that attend to `memory` [b, m, d] where it is `there` [b, m].

        Equations 3 to 6: h^_k, c_k = LSTM(x, [h_{k-1}, r_{k-1}], c_{k-1}); h_k = h^_k + x;
        r_k = sum_i softmax_i(h_k . g_i) g_i. As in the public code of the field the LSTM's input is [x, r] and its
        state starts at h_0 = x, c_0 = 0, with r read from h before each step.
        """
        b, q, d = x.shape
        absent = ~there[:, None]
        state, cell = x, torch.zeros_like(x)
        for _ in range(self.steps):
            attention = torch.softmax((state @ memory.mT).masked_fill(absent, -torch.inf), -1)
            given = torch.cat([x, attention @ memory], -1).reshape(b * q, 2 * d)
            state, cell = self.query(given, (state.reshape(b * q, d), cell.reshape(b * q, d)))
            state, cell = state.reshape(b, q, d) + x, cell.reshape(b, q, d)
        return state

    def forward(
        self, x: Tensor, there: Tensor, query: Tensor, order: ReadingOrder = "content", member: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What queries [b, q, d] attend to, and f [b, q, d]: g of the support rows [b, n, d], or, where their weighted
        `member`ship [b, n, way] is given, the mean of g for each class [b, way, d].
        """
        memory = self.embed_support(x, there, order)
        if member is not None:
            memory, there = class_means(memory, member), there.new_ones(len(x), member.shape[-1])
        return memory, self.embed_query(query, memory, there)


def empty(features: int, steps: int) -> ContextEmbedding:
    """A context embedding whose numbers are all 0: torch's own start would draw from the global generator."""
    with torch.device("meta"):
        net = ContextEmbedding(features, steps)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    return net


def start(net: nn.Module, key: int) -> None:
    """Fill a network's parameters in place from a key: uniform within 1 / sqrt(state size), as LSTMs are started."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            size = parameter.shape[0] // 4 if parameter.ndim else 1
            keys = chance.row_keys(key, name, torch.arange(parameter.shape[0]))
            parameter.copy_((2 * chance.uniform(keys, tuple(parameter.shape[1:])) - 1) / size**0.5)


def like_input(net: nn.Module, x: Tensor) -> Callable[..., tuple[Tensor, Tensor]]:
    """The network as a function on tensors of the dtype and device of `x`; gradients still reach its parameters."""
    first = next(net.parameters())
    if first.dtype == x.dtype and first.device == x.device:
        return net
    moved = {name: parameter.to(x) for name, parameter in net.named_parameters()}
    return lambda *given: torch.func.functional_call(net, moved, given)


def _content(x: Tensor) -> Tensor:
    """The length of rows [b, n, d] along a direction that only d decides: [b, n], without derivatives."""
    direction = chance.normal(chance.row_keys(0, "context order", torch.arange(x.shape[-1])))
    return x.detach().to(torch.float64) @ direction.to(x.device, torch.float64)


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
    training = EpisodicTraining(part.train_steps, part.train_rate, part.train_way, part.train_shot)
    train(context, part.scores, base, x, training, seed)


def fitted_context(part: Contextual, x: Tensor, who: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The fitted embedding as a function on tensors like rows `x` [b, n, d]; InputError where there is none for d."""
    if part.context_ is None or part.facts_ is None:
        raise InputError(f"{who} is not fitted yet; expected fit(base, rng) or a folder that it was saved in")
    if part.facts_["features"] != x.shape[-1]:
        raise InputError(f"{who} was fitted on {part.facts_['features']} features; these have {x.shape[-1]}")
    return like_input(part.context_, x)


@dataclass(frozen=True)
class EpisodicTraining:
    """How layers are trained on episodes of base features, 8 of them in a step."""

    steps: int  # of Adam
    rate: float  # its learning rate
    way: int  # classes of an episode
    shot: int  # support rows of each class; there are 5 queries of each


def train(
    net: nn.Module, scores: Callable[[Examples, Tensor], Tensor], base: Bank, x: Tensor, training: EpisodicTraining,
    seed: int,
) -> None:  # fmt: skip
    """Train `net` in place, down the cross-entropy of `scores` on queries of base episodes.

    `x` [n, d] are the rows of `base`; the episodes are a function of `seed`. Raises InputError where the base
    classes are too few or too small for an episode, and where the loss is not finite.
    """
    labels = torch.arange(training.way)
    support_y = labels.repeat_interleave(training.shot).expand(_EPISODES_A_STEP, -1).to(x.device)
    query_y = labels.repeat_interleave(_QUERIES).expand(_EPISODES_A_STEP, -1).to(x.device)
    optimiser = torch.optim.Adam(net.parameters(), training.rate)
    for step in range(training.steps):
        episodes = draw_episodes(
            base.y.cpu(), way=training.way, shot=training.shot, n_query=_QUERIES, trials=_EPISODES_A_STEP,
            seed=seed, start=step * _EPISODES_A_STEP,
        )  # fmt: skip
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
