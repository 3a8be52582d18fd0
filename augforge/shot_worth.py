"""Shot-worth: how many real shots, with nothing made, give the accuracy that a recipe has.

The number that a user wants to know, who can make rows for nothing or collect real ones for money.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


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
