"""Calibration of confidences: Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

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


def fitted_temperature(scores: Tensor, labels: Tensor, prior: float = 1.0, weight: float = 0.0) -> float:
    """The temperature T whose softmax(scores / T) has the least negative log-likelihood (the paper's section 4.2).

    `scores` [n, way] and `labels` [n]; log T is pulled towards that of `prior` as if by `weight` rows of whose loss a
    change by a factor of e would make one more nat. Between 1/1000 and 1,000. Raises ValueError for no rows and no
    weight.
    """
    from scipy.optimize import minimize_scalar  # half a second to import, so only where it is needed

    if not len(scores) and not weight:
        raise ValueError("there are no scores and no prior to find a temperature from")
    rows = scores.detach().double().cpu()

    def loss(log: float) -> float:
        likelihood = torch.log_softmax(rows / float(np.exp(log)), 1).gather(1, labels.cpu()[:, None])
        return float(-likelihood.sum()) + weight * (log - float(np.log(prior))) ** 2

    limit = float(np.log(1000))
    return float(np.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x))
