"""Predictions of classifiers on many episodes: in batches, and by the fast path where a classifier has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from augforge.bench.accuracy import Outcome, in_top, softmax_top
from augforge.bench.fast_prototypes import CHUNK, Prepared, prepare, prototype_scores
from augforge.bench.features import Features
from augforge.bench.made_rows import Weigher
from augforge.bench.place import HERE, Place
from augforge.classifiers.prototype import Prototype
from augforge.episodes.batch import MadeRows, RowMaker, Trials
from augforge.types import Classifier, Examples, InputError

_NUMBERS_AT_ONCE = 4_000_000  # of support and queries in a batch of episodes, about 16 MB
TOP = 5


class Scorer(Protocol):
    """What scores queries against a support set: a classifier, or a synthesizer with scores of its own."""

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [b, q, way] of queries [b, q, d] for each class of the support; higher is likelier."""
        ...


def is_fast(classifier: Classifier, features: Features, trials: Trials) -> bool:
    """Whether `fast_prototypes` does what this classifier does on real rows alone."""
    own = type(classifier) is Prototype and classifier.distance == "squared-euclidean"
    plain = trials.rows.query.shape[1] == trials.way <= TOP and bool((trials.rows.support >= 0).all())
    x = features.support.x
    same = features.support is features.query and x.dtype == torch.float32 and x.device.type == "cpu"
    return own and plain and same and features.support.weight is None


def prepared(features: Features) -> Prepared:
    """The features of the support rows, ready for the fast path."""
    return prepare(features.support.x)


def predict_fast(ready: Prepared, trials: Trials, temperature: float = 1.0) -> Outcome:
    """The nearest prototype of every query; for episodes of at most five classes."""
    found = []
    for start in range(0, len(trials), CHUNK):
        scores = prototype_scores(ready, trials.part(start, start + CHUNK).rows).flatten(1, 2).numpy()  # [b, m, way]
        predicted = scores.argmax(2).astype(np.uint16)
        sure = softmax_top(2 * scores / temperature)  # they are half of Prototype's, less what all classes share
        found.append(Outcome(predicted, np.ones_like(predicted, dtype=bool), sure))
    return _concatenate(found)


def predict(
    classifiers: Sequence[Scorer],
    features: Features,
    trials: Trials,
    made: RowMaker | None,
    constant: bool,
    weighers: Sequence[Weigher] | None = None,
    place: Place = HERE,
) -> list[Outcome]:
    """The outcome of each classifier on the same episodes with the same made rows, made once, batch by batch.

    With `weighers`, one for each classifier, it is these that say what made rows weigh.
    `constant` keeps the total weight of a class at its number of real rows, in which made rows count as they weigh.
    An episode all of whose made rows weigh nothing counts as if nothing were made. Raises InputError where a score
    is not a number.
    """
    per_episode = trials.rows.support[0].numel() + trials.rows.query[0].numel()
    with torch.no_grad():
        first = made(0, trials.part(0, 1))[0].shape[1:3].numel() if made is not None else 0
    step = max(1, _NUMBERS_AT_ONCE // ((per_episode + first) * features.support.x.shape[1]))
    batches = [(start, start + step) for start in range(0, len(trials), step)]
    job = _Batches(tuple(classifiers), features, trials, made, constant, None if weighers is None else tuple(weighers))
    parts = list(place.each(_of_batch, job, batches))
    return [_concatenate(list(outcomes)) for outcomes in zip(*parts, strict=True)]


@dataclass(frozen=True, eq=False)
class _Batches:
    """What all batches of a prediction share, as `predict` is given it."""

    classifiers: tuple[Scorer, ...]
    features: Features
    trials: Trials
    made: RowMaker | None
    constant: bool
    weighers: tuple[Weigher, ...] | None


@torch.no_grad()
def _of_batch(job: _Batches, batch: tuple[int, int]) -> list[Outcome]:
    """The outcome of each classifier on the episodes of a batch, from its first to, not including, its last."""
    part = job.trials.part(*batch)
    rows = None if job.made is None else job.made(batch[0], part)
    if rows is None or job.weighers is None:
        return _of_part(job.classifiers, job.features, part, rows, job.constant)
    pairs = zip(job.classifiers, job.weighers, strict=True)
    return [_of_part([one], job.features, part, weigh(rows, part), job.constant)[0] for one, weigh in pairs]


def _of_part(
    classifiers: Sequence[Scorer], features: Features, part: Trials, made: MadeRows | None, constant: bool
) -> list[Outcome]:
    """The outcomes of a batch of episodes; those with made rows that weigh something apart from those without."""
    if made is not None and made[1] is not None:
        x, weight = made[0], made[1]
        counts = (weight != 0).flatten(1).any(1)  # [b]
        if not bool(counts.all()):
            return _of_both(classifiers, features, part, (x, weight, counts), constant)
    support = _support(features, part, made, constant)
    query = features.query.x[part.rows.query.flatten(1)]
    return [_outcome(classifier, support, query, part.target) for classifier in classifiers]


def _of_both(
    classifiers: Sequence[Scorer], features: Features, part: Trials, made: tuple[Tensor, Tensor, Tensor], constant: bool
) -> list[Outcome]:
    """As `_of_part`, for made rows, their weights, and whether those of each episode count [b]."""
    x, weight, counts = made
    with_rows, without = counts.nonzero()[:, 0], (~counts).nonzero()[:, 0]
    found = [_of_part(classifiers, features, part.take(without), None, constant)]
    if len(with_rows):
        rows = x[with_rows], weight[with_rows]
        found.append(_of_part(classifiers, features, part.take(with_rows), rows, constant))
    back = torch.cat([without, with_rows]).argsort().numpy()
    both = [_concatenate(list(outcomes)) for outcomes in zip(*found, strict=True)]
    return [Outcome(one.predicted[back], one.in_top5[back], one.confidence[back]) for one in both]


def _support(features: Features, part: Trials, made: MadeRows | None, constant: bool) -> Examples:
    """Real rows and made ones of b episodes, class by class: x [b, way * (shot + made), d]."""
    rows = part.rows.support  # [b, way, shot]
    b, way, _ = rows.shape
    x, real = features.support.x[rows.clamp(min=0)], rows >= 0
    weight = real.to(torch.float32)
    if made is not None:
        given = torch.ones(made[0].shape[:3]) if made[1] is None else made[1]
        x = torch.cat([x, made[0].to(x.dtype)], 2)
        weight = torch.cat([weight, given], 2)
        if constant:
            each = real.sum(2, keepdim=True).float()  # [b, way, 1]
            weight = weight * (each / (each + given.sum(2, keepdim=True)))
    plain = bool((weight == 1).all())
    labels = torch.arange(way, device=x.device).repeat_interleave(x.shape[2]).expand(b, -1)
    return Examples(x.flatten(1, 2), labels, weight=None if plain else weight.flatten(1).to(x.device))


def _outcome(scorer: Scorer, support: Examples, query: Tensor, target: Tensor) -> Outcome:
    scores = scorer.scores(support, query).float().cpu().numpy()  # [b, m, way]
    if np.isnan(scores).any():
        raise InputError(f"{type(scorer).__name__} gave a score that is not a number; are the features finite?")
    top = in_top(scores, target.numpy(), TOP)
    return Outcome(scores.argmax(2).astype(np.uint16), top, softmax_top(scores))


def _concatenate(outcomes: list[Outcome]) -> Outcome:
    columns = zip(*(vars(outcome).values() for outcome in outcomes), strict=True)
    return Outcome(*map(np.concatenate, columns))
