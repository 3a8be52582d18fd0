"""Nearest-prototype episodes on a bank of features, many times as fast as one by one.

The same predictions as `augforge.classifiers.prototype.Prototype` with its squared Euclidean distance on real rows of
weight 1: the class of the largest q.p - ||p||^2 / 2, since ||q||^2 is the same for every class.

The time goes into fetching rows from memory, so the work is ordered for the cache: all queries of one class in a chunk
of episodes one after the other, whose rows then stay in the second-level cache, in blocks small enough to be multiplied
before they leave it. docs/decisions/0008-prototype-episodes.md says what else was tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch import Tensor

from augforge.episodes.batch import Stacked

CHUNK = 2048  # episodes at a time: their prototypes and scores stay in memory
BLOCK = 100_000  # query numbers at a time, about 0.4 MB
_SEEN = 1024  # rows, at least, that say where the features lie
_FAR = 4.0  # squared length of the mean, in parts of the spread round it, from which it is taken away


@dataclass(frozen=True, eq=False)
class Prepared:
    """The features of a bank made ready: `x` [n, d] float32, less their mean (that of every so-manieth row) where it is
    far from 0; `half` [n] is ||x||^2 / 2. Distances do not change by that, and without a large common offset they keep
    their digits.
    """

    x: Tensor
    half: Tensor


def prepare(x: Tensor) -> Prepared:
    """Make features [n, d] float32 on the CPU ready; done once for all episodes on them."""
    mean = reduce(x[:: max(1, len(x) // _SEEN)], "n d -> d", "mean")
    half = _half(x)
    offset = float(mean @ mean) / 2
    if offset > _FAR * (float(half.mean()) - offset):
        x = x - mean
        half = _half(x)
    return Prepared(x.contiguous(), half)


def _half(x: Tensor) -> Tensor:
    """||x||^2 / 2 of every row: [n, d] -> [n]."""
    return torch.linalg.vector_norm(x, dim=1).square_().mul_(0.5)


def prototype_scores(bank: Prepared, episodes: Stacked) -> Tensor:
    """q.p - ||p||^2 / 2 for every query and class, [n, way, q, way] float32: -||q - p||^2 / 2 but for ||q||^2 / 2."""
    n, way, q = episodes.query.shape
    scores = torch.empty(n, way, q, way)
    for start in range(0, n, CHUNK):
        part = _chunk(episodes, start)
        found, order = _score_chunk(bank, part)
        flat = np.empty_like(found)
        flat[order] = found
        scores[start : start + CHUNK] = torch.from_numpy(flat.reshape(-1, way, q, way))
    return scores


def prototype_predictions(bank: Prepared, episodes: Stacked) -> np.ndarray:
    """The predicted position in `classes` of every query: [n, way, q] uint8. An episode has at most 255 classes."""
    n, way, q = episodes.query.shape
    predicted = np.empty((n, way, q), np.uint8)
    for start in range(0, n, CHUNK):
        part = _chunk(episodes, start)
        found, order = _score_chunk(bank, part)
        best = np.empty((len(found), q), np.uint8)
        best[order] = found.argmax(-1)
        predicted[start : start + CHUNK] = best.reshape(-1, way, q)
    return predicted


def _chunk(episodes: Stacked, start: int) -> Stacked:
    end = start + CHUNK
    return Stacked(episodes.classes[start:end], episodes.support[start:end], episodes.query[start:end])


def _score_chunk(bank: Prepared, episodes: Stacked) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores [n * way, q, way] of the queries of every (episode, class), class by class, and that order [n * way]."""
    n, way, q = episodes.query.shape
    classes = episodes.classes.reshape(-1).numpy().astype(np.uint16)  # 16 bits are sorted in linear time
    order = np.argsort(classes, kind="stable")  # [n * way]; classes that share 16 bits only share the cache
    episode = order // way
    rows = episodes.query.reshape(n * way, q).numpy().take(order, 0)
    support = episodes.support
    if support.shape[2] == 1:
        table, wanted = bank.x.numpy(), support[:, :, 0].numpy().take(episode, 0)  # [n * way, way] rows of the bank
        half = bank.half.numpy().take(wanted)
    else:
        means = F.embedding_bag(rearrange(support, "n c s -> (n c) s"), bank.x, mode="mean")
        table, wanted = rearrange(means, "(n c) d -> n (c d)", c=way).numpy(), episode[:, None]  # [n * way, 1] episodes
        half = _half(means).view(n, way).numpy().take(episode, 0)
    scores = _multiply(bank.x, rows, table, wanted, way)
    scores -= half[:, None]
    return scores, order


def _multiply(
    x: Tensor, rows: NDArray[np.int64], table: NDArray[np.float32], wanted: NDArray[np.int64], way: int
) -> NDArray[np.float32]:
    """q.p for each line of `rows` [m, q] of `x` and of `wanted` [m, k] rows of `table`: [m, q, way].

    k rows of the table are `way` prototypes. The two buffers are filled in place, block by block; a new block of memory
    for each would cost more than the product.
    """
    m, q, d = *rows.shape, x.shape[1]
    k, block = wanted.shape[1], max(1, BLOCK // (q * d))
    blocks = -(-m // block)
    spare = ((0, blocks * block - m), (0, 0))  # what fills the last block up is multiplied for nothing
    rows, wanted = (np.pad(index, spare).reshape(blocks, -1) for index in (rows, wanted))
    scores = torch.empty(blocks * block, q, way)
    queries, prototypes = torch.empty(block, q, d), torch.empty(block, way, d)
    fill_queries, fill_prototypes = queries.view(block * q, d).numpy(), prototypes.view(block * k, -1).numpy()
    features, transposed = x.numpy(), prototypes.transpose(1, 2)
    for of_queries, of_table, out in zip(rows, wanted, scores.split(block), strict=True):
        features.take(of_queries, 0, fill_queries, "clip")
        table.take(of_table, 0, fill_prototypes, "clip")
        torch.bmm(queries, transposed, out=out)
    return scores[:m].numpy()
