"""Confusion of classes over many episodes, and what it says of each class.

Predictions are positions among an episode's classes; here they are put together by the classes of the bank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
