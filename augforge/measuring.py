"""Predictions of classifiers on many episodes: in batches, and by the fast path where a classifier has one."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augforge.bench_features import Features
from augforge.classifiers.prototype import Prototype
from augforge.confusion import in_top
from augforge.making_rows import Rows
from augforge.prototype_episodes import Prepared, prepare, prototype_predictions
from augforge.trials import Trials
from augforge.types import Classifier, Examples, InputError

_NUMBERS_AT_ONCE = 4_000_000  # of support and queries in a batch of episodes, about 16 MB
TOP = 5


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of n episodes: `predicted` [n, m] positions, and `in_top5` [n, m], whether the true class was there."""

    predicted: NDArray[np.uint16]
    in_top5: NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write to a file that appears whole or not at all."""
        partial = path.with_name(path.name + ".partial.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(partial, predicted=self.predicted, in_top5=self.in_top5)
        partial.replace(path)


def load_outcome(path: Path, shape: tuple[int, ...]) -> Outcome | None:
    """What `save` wrote; None where it is absent, damaged or not of this shape [n, m]."""
    try:
        with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
            found = Outcome(file["predicted"], file["in_top5"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return found if found.predicted.shape == found.in_top5.shape == shape else None


def is_fast(classifier: Classifier, features: Features, trials: Trials) -> bool:
    """Whether `prototype_episodes` does what this classifier does on real rows alone."""
    own = type(classifier) is Prototype and classifier.distance == "squared-euclidean"
    plain = trials.rows.query.shape[1] == trials.way <= TOP and bool((trials.rows.support >= 0).all())
    same = features.support is features.query and features.support.x.dtype == torch.float32
    return own and plain and same and features.support.weight is None


def prepared(features: Features) -> Prepared:
    """The features of the judged part, ready for the fast path."""
    return prepare(features.support.x)


def predict_fast(ready: Prepared, trials: Trials) -> Outcome:
    """The nearest prototype of every query; for episodes of at most five classes."""
    n = len(trials)
    predicted = prototype_predictions(ready, trials.rows).reshape(n, -1).astype(np.uint16)
    return Outcome(predicted, np.ones_like(predicted, dtype=bool))


def predict(
    classifiers: Sequence[Classifier], features: Features, trials: Trials, made: Rows | None, constant: bool
) -> list[Outcome]:
    """The outcome of each classifier on the same episodes with the same made rows, made once.

    `constant` keeps the total weight of a class at its number of real rows. Raises InputError where a score is not a
    number.
    """
    found: list[list[Outcome]] = [[] for _ in classifiers]
    n, start = len(trials), 0
    per_episode = trials.rows.support[0].numel() + trials.rows.query[0].numel()
    first = made(0, trials.part(0, 1)).shape[1:3].numel() if made is not None else 0
    step = max(1, _NUMBERS_AT_ONCE // ((per_episode + first) * features.support.x.shape[1]))
    with torch.no_grad():
        for start in range(0, n, step):
            part = trials.part(start, start + step)
            support = _support(features, part, None if made is None else made(start, part), constant)
            query = features.query.x[part.rows.query.flatten(1)]
            for classifier, outcomes in zip(classifiers, found, strict=True):
                outcomes.append(_outcome(classifier, support, query, part.target))
    return [_joined(outcomes) for outcomes in found]


def _support(features: Features, part: Trials, made: Tensor | None, constant: bool) -> Examples:
    """Real rows and made ones of b episodes, class by class: x [b, way * (shot + made), d]."""
    rows = part.rows.support  # [b, way, shot]
    b, way, _ = rows.shape
    x, real = features.support.x[rows.clamp(min=0)], rows >= 0
    weight = real.to(torch.float32)
    if made is not None:
        x = torch.cat([x, made.to(x.dtype)], 2)
        each = real.sum(2, keepdim=True).float()  # [b, way, 1]
        weight = torch.cat([weight, torch.ones(made.shape[:3])], 2)
        if constant:
            weight = weight * (each / (each + made.shape[2]))
    plain = bool((weight == 1).all())
    labels = torch.arange(way).repeat_interleave(x.shape[2]).expand(b, -1)
    return Examples(x.flatten(1, 2), labels, weight=None if plain else weight.flatten(1))


def _outcome(classifier: Classifier, support: Examples, query: Tensor, target: Tensor) -> Outcome:
    scores = classifier.scores(support, query).float().cpu().numpy()  # [b, m, way]
    if np.isnan(scores).any():
        raise InputError(f"{type(classifier).__name__} gave a score that is not a number; are the features finite?")
    return Outcome(scores.argmax(2).astype(np.uint16), in_top(scores, target.numpy(), TOP))


def _joined(outcomes: list[Outcome]) -> Outcome:
    predicted = np.concatenate([outcome.predicted for outcome in outcomes])
    return Outcome(predicted, np.concatenate([outcome.in_top5 for outcome in outcomes]))
