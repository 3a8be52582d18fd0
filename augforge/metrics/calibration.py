"""Calibration of confidences: Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017.

A module of its own because it is a metric of predictions: pure, and of use to anyone who has confidences.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

BINS = 15  # of equal width, as in the paper's tables


def expected_calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """How far confidences are from accuracies, 0..1: the paper's equation 3, sum_m |B_m| / n |acc(B_m) - conf(B_m)|.

    `confidence` [n] in 0..1 is the probability of the class that was predicted, and `right` [n] says whether it was
    right. Bin m of `bins` of equal width holds the confidences in ((m - 1) / bins, m / bins]; 0 is in the first.
    Few rows in a bin make the error larger than it is: with n rows of a calibrated classifier that is right half of
    the time it is about 0.4 sqrt(bins / n). Raises ValueError for no rows, lengths that
    differ and numbers outside 0..1.
    """
    c, hit = np.asarray(confidence, np.float64).reshape(-1), np.asarray(right, np.float64).reshape(-1)
    if not len(c) or c.shape != hit.shape:
        raise ValueError(
            f"there are {len(c)} confidences and {len(hit)} outcomes; expected as many of each, at least 1"
        )
    if not bool(((c >= 0) & (c <= 1 + 1e-6)).all()):
        raise ValueError("a confidence is outside of 0..1; expected the probability of the class that was predicted")
    places = np.clip(np.ceil(c * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(places, hit - c, minlength=bins)  # |B_m| (acc - conf)
    return float(np.abs(gap).sum() / len(c))
