"""Nearest-prototype episodes on a bank of features, many times as fast as one by one.

The same predictions as `augforge.classifiers.prototype.Prototype` with its squared Euclidean distance on real rows of
weight 1: the class of the largest q.p - ||p||^2 / 2, since ||q||^2 is the same for every class.

The time goes into fetching query rows from memory, so the work is ordered for the cache: all queries of one class in
a chunk of episodes one after the other, whose rows then stay in the second-level cache, in blocks small enough to
be multiplied before they leave it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

_CHUNK = 2048  # episodes at a time: their prototypes and scores stay in memory
_BLOCK = 100_000  # query numbers at a time, about 0.4 MB
_FAR = 4.0  # squared length of the mean, in parts of the spread round it, from which it is taken away


@dataclass(frozen=True, eq=False)
class Stacked:
    """n episodes of one form: `classes` [n, way], `support` [n, way, shot] and `query` [n, way, q], all int64."""

    classes: Tensor
    support: Tensor
    query: Tensor


@dataclass(frozen=True, eq=False)
class Prepared:
    """The features of a bank made ready: `x` [n, d] float32, less their mean where it is far from 0; `half` [n] is
    ||x||^2 / 2. Distances do not change by that, and without a large common offset they keep their digits.
    """

    x: Tensor
    half: Tensor


def prepare(x: Tensor) -> Prepared:
    """Make features [n, d] float32 on the CPU ready; done once for all episodes on them."""
    mean = reduce(x, "n d -> d", "mean")
    half = torch.linalg.vector_norm(x, dim=1).square_().mul_(0.5)
    offset = float(mean @ mean) / 2
    if offset > _FAR * (float(half.mean()) - offset):
        x = x - mean
        half = torch.linalg.vector_norm(x, dim=1).square_().mul_(0.5)
    return Prepared(x.contiguous(), half)


def prototype_scores(bank: Prepared, episodes: Stacked) -> Tensor:
    """q.p - ||p||^2 / 2 for every query and class, [n, way, q, way] float32: -||q - p||^2 / 2 but for ||q||^2 / 2."""
    n, way, q = episodes.query.shape
    scores = torch.empty(n, way, q, way)
    for start in range(0, n, _CHUNK):
        part = _chunk(episodes, start)
        found, order = _score_chunk(bank, part)
        flat = torch.empty_like(found)
        flat[order] = found
        scores[start : start + _CHUNK] = rearrange(flat, "(n c) p q -> n c q p", c=way)
    return scores


def prototype_predictions(bank: Prepared, episodes: Stacked) -> np.ndarray:
    """The predicted position in `classes` of every query: [n, way, q] uint8. An episode has at most 255 classes."""
    n, way, q = episodes.query.shape
    predicted = np.empty((n, way, q), np.uint8)
    for start in range(0, n, _CHUNK):
        part = _chunk(episodes, start)
        found, order = _score_chunk(bank, part)
        best = np.empty((len(found), q), np.uint8)
        best[order.numpy()] = found.numpy().argmax(1)
        predicted[start : start + _CHUNK] = best.reshape(-1, way, q)
    return predicted


def _chunk(episodes: Stacked, start: int) -> Stacked:
    end = start + _CHUNK
    return Stacked(episodes.classes[start:end], episodes.support[start:end], episodes.query[start:end])


def _score_chunk(bank: Prepared, episodes: Stacked) -> tuple[Tensor, Tensor]:
    """Scores [n * way, way, q] of the queries of every (episode, class), class by class, and that order [n * way]."""
    n, way, q = episodes.query.shape
    order = torch.argsort(episodes.classes.reshape(-1), stable=True)  # [n * way]
    episode = torch.div(order, way, rounding_mode="floor")
    rows = episodes.query.reshape(n * way, q)[order]
    support = episodes.support
    if support.shape[2] == 1:
        table, wanted = bank.x, support[episode, :, 0]  # [n * way, way] rows of the bank
        half = bank.half[wanted]
    else:
        means = F.embedding_bag(rearrange(support, "n c s -> (n c) s"), bank.x, mode="mean")
        lengths = torch.linalg.vector_norm(means, dim=1).square_().mul_(0.5)
        table, wanted = rearrange(means, "(n c) d -> n (c d)", c=way), episode[:, None]  # [n * way, 1] episodes
        half = lengths.view(n, way)[episode]
    scores = _multiply(bank.x, rows, table, wanted, way)
    return scores.sub_(half[:, :, None]), order


def _multiply(x: Tensor, rows: Tensor, table: Tensor, wanted: Tensor, way: int) -> Tensor:
    """p.q for each line of `rows` [m, q] of `x` and of `wanted` [m, k] rows of `table`: [m, way, q].

    k rows of the table are `way` prototypes. The two buffers are filled in place, block by block; a new block of memory
    for each would cost more than the product.
    """
    m, q, d = *rows.shape, x.shape[1]
    k, block = wanted.shape[1], max(1, _BLOCK // (q * d))
    scores = torch.empty(m, way, q)
    queries, prototypes = torch.empty(block, q, d), torch.empty(block, way, d)
    fill, transposed = queries.view(block * q, d).numpy(), queries.transpose(1, 2)
    fill_prototypes = prototypes.view(block * k, -1).numpy()
    features, source = x.numpy(), table.numpy()
    flat, flat_wanted = rows.reshape(-1).numpy(), wanted.reshape(-1).numpy()
    whole = m - m % block
    for i in range(0, whole, block):
        np.take(features, flat[i * q : (i + block) * q], 0, out=fill, mode="clip")
        np.take(source, flat_wanted[i * k : (i + block) * k], 0, out=fill_prototypes, mode="clip")
        torch.bmm(prototypes, transposed, out=scores[i : i + block])
    rest = m - whole
    if rest:
        np.take(features, flat[whole * q :], 0, out=fill[: rest * q], mode="clip")
        np.take(source, flat_wanted[whole * k :], 0, out=fill_prototypes[: rest * k], mode="clip")
        torch.bmm(prototypes[:rest], transposed[:rest], out=scores[whole:])
    return scores
