"""What predictions on many episodes say: confusion of classes, precision and recall of each, worth in real shots.

Predictions are positions among an episode's classes; here they are put together by the classes of the bank.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of n episodes `predicted` [n, m], positions, and `in_top5` [n, m], whether the true class was among them.

    `confidence` [n, m] is the probability of the class that was predicted: the softmax of the scores.
    """

    predicted: NDArray[np.uint16]
    in_top5: NDArray[np.bool_]
    confidence: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write to a file that appears whole or not at all."""
        partial = path.with_name(path.name + ".partial.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(partial, **vars(self))
        partial.replace(path)


def load_outcome(path: Path, shape: tuple[int, ...]) -> Outcome | None:
    """What `save` wrote; None where it is absent, damaged or not of this shape [n, m]."""
    try:
        with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
            found = Outcome(file["predicted"], file["in_top5"], file["confidence"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return found if all(column.shape == shape for column in vars(found).values()) else None


def softmax_top(scores: NDArray) -> NDArray[np.float32]:
    """The highest of the softmax of scores: [..., way] -> [...]."""
    apart = scores.astype(np.float64) - scores.max(-1, keepdims=True)
    return (1 / np.exp(apart).sum(-1)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ByClass:
    """Of each class that was asked about: its id, how many queries it had, and precision, recall and F1 in [0, 1].

    All are arrays [k]. Precision is 0 for a class that was never predicted, and F1 is 0 where precision and recall are.
    """

    classes: NDArray[np.int64]
    queries: NDArray[np.int64]
    precision: Array
    recall: Array
    f1: Array

    @property
    def macro_f1(self) -> float:
        """The plain mean of F1 over the classes."""
        return float(self.f1.mean())


def confusion(classes: NDArray, target: NDArray, predicted: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts [k, k], true class by predicted class, and the k class ids they are of, ascending.

    `classes` [n, way] are the classes of n episodes; `target` and `predicted` [n, m] are positions among them.
    """
    ids, place = np.unique(classes, return_inverse=True)
    place = place.reshape(classes.shape)
    true = np.take_along_axis(place, np.asarray(target, np.int64), 1)  # [n, m]
    said = np.take_along_axis(place, np.asarray(predicted, np.int64), 1)
    counts = np.bincount((true * len(ids) + said).reshape(-1), minlength=len(ids) ** 2)
    return counts.reshape(len(ids), len(ids)), ids


def by_class(counts: NDArray[np.int64], ids: NDArray[np.int64]) -> ByClass:
    """Precision, recall and F1 of each class of a confusion [k, k] that has queries, one against the rest."""
    hits, queries, said = np.diag(counts).astype(np.float64), counts.sum(1), counts.sum(0)
    precision = np.divide(hits, said, out=np.zeros_like(hits), where=said > 0)
    recall = np.divide(hits, queries, out=np.zeros_like(hits), where=queries > 0)
    both = queries + said
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    asked = queries > 0
    return ByClass(ids[asked], queries[asked], precision[asked], recall[asked], f1[asked])


def in_top(scores: NDArray, target: NDArray, k: int) -> NDArray[np.bool_]:
    """Whether the true class is among the `k` highest scores: scores [..., way], target [...] -> [...].

    Of equal scores the class that comes first is the higher, as in argmax.
    """
    place = np.asarray(target)[..., None]
    own = np.take_along_axis(scores, place, -1)
    earlier = (scores == own) & (np.arange(scores.shape[-1]) < place)
    return ((scores > own) | earlier).sum(-1) < k


@dataclass(frozen=True)
class Worth:
    """So many shots, with a 95 % interval. 0 stands for less than the fewest shots measured, infinity for more than
    the most, `fewest` and `most`.
    """

    value: float
    low: float
    high: float
    fewest: float
    most: float

    def words(self) -> str:
        """As a person reads it: "6.9 (5.8 to 8.1)", "more than 20", "less than 1 (less than 1 to 1.2)"."""
        if self.low == self.value == self.high:
            return self._word(self.value)
        return f"{self._word(self.value)} ({self._word(self.low)} to {self._word(self.high)})"

    def _word(self, shots: float) -> str:
        if shots == 0:
            return f"less than {self.fewest:g}"
        return f"more than {self.most:g}" if np.isinf(shots) else f"{shots:.1f}"


def shots_for(accuracy: ArrayLike, shots: ArrayLike, curve: ArrayLike) -> Array:
    """The shots at which a curve reaches each accuracy: accuracy [b], shots [s] ascending, curve [b, s] -> [b].

    The curve is made monotone by its running maximum and is straight between its points over log(shots), as learning
    curves nearly are. The fewest shots that reach the accuracy count. 0 below the curve, infinity above it.
    """
    wanted, places = np.asarray(accuracy, np.float64), np.log(np.asarray(shots, np.float64))
    rising = np.maximum.accumulate(np.asarray(curve, np.float64), axis=1)  # [b, s]
    reached = rising >= wanted[:, None]
    right = np.where(reached.any(1), reached.argmax(1), len(places))
    inside = (right > 0) & (right < len(places))
    at = np.where(inside, right, min(1, len(places) - 1))
    line = np.arange(len(wanted))
    low, high = rising[line, np.maximum(at - 1, 0)], rising[line, at]
    part = np.divide(wanted - low, high - low, out=np.ones_like(wanted), where=high > low).clip(0, 1)
    between = np.exp(places[np.maximum(at - 1, 0)] + part * (places[at] - places[np.maximum(at - 1, 0)]))
    ends = np.where(right == 0, np.where(wanted == rising[:, 0], np.exp(places[0]), 0.0), np.inf)
    return np.where(inside, between, ends)


def shot_worth(accuracy: float, draws: ArrayLike, shots: ArrayLike, curve: ArrayLike, curve_draws: ArrayLike) -> Worth:
    """What an accuracy is worth on the curve [s] of the best plain recipe, with an interval from bootstrap draws.

    `draws` [b] are of the accuracy and `curve_draws` [b, s] of the curve, in the same resamples, so that what
    moves both, such as easy classes, cancels. The interval is from the 2.5 to the 97.5 percentile.
    """
    value = float(shots_for([accuracy], shots, np.asarray(curve)[None])[0])
    found = np.sort(shots_for(draws, shots, curve_draws))
    last = len(found) - 1
    low, high = float(found[int(np.floor(0.025 * last))]), float(found[int(np.ceil(0.975 * last))])
    known = np.asarray(shots, np.float64)
    return Worth(value, low, high, float(known.min()), float(known.max()))
