"""Whether the support of an episode can be of the domain that the statistics were learnt on: tested before they count.

In the coordinates of a two-covariance model a row of a new class is N(0, 1 + psi), so the mean of z^2 / (1 + psi) over
coordinates is about 1 for base classes, a little else for classes that the backbone never saw, and something else
altogether for rows of another domain, or of another backbone. What held-out classes show of it is the yardstick. A
module of its own because `posterior` and `hallucinator` share it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from augforge.classifiers.two_covariance import TwoCovariance
from augforge.classifiers.weighted import as_rows, class_means
from augforge.types import Examples

_FREE = 3.0  # standard deviations of classes that the mean of a support may be off
_SMALLEST = 0.05  # deviation of classes, in natural logarithms


def strangeness(models: Sequence[TwoCovariance], x: Tensor) -> Tensor:
    """How far out rows [..., d] lie, [...]: log mean z^2 / (1 + psi), the mean over models."""
    found = [(model.mapped(x).square() / (1 + model.psi.to(x))).mean(-1).clamp(min=1e-12).log() for model in models]
    return torch.stack(found).mean(0)


def domain_of(held_out: Sequence[tuple[Sequence[TwoCovariance], Tensor, Tensor]]) -> Tensor:
    """The mean and the deviation [2] over held-out classes of how far out their rows lie.

    Each fold gives models that do not know the classes, their rows [n, d] and labels [n].
    """
    means = []
    for models, x, y in held_out:
        ids, place = torch.unique(y, return_inverse=True)
        with torch.no_grad():
            sums = torch.zeros(len(ids), device=x.device).index_add(0, place, strangeness(models, x))
        means.append(sums / torch.bincount(place))
    known = torch.cat(means)
    return torch.stack([known.mean(), known.std(correction=min(1, len(known) - 1)).clamp(min=_SMALLEST)]).cpu()


def in_domain(domain: Tensor, models: Sequence[TwoCovariance], support: Examples, query: Tensor) -> Tensor:
    """How much to trust the statistics for each episode, [b] in 0..1: 1 for a support as held-out classes are, and
    smoothly 0 for one that lies out of all that was seen.

    The mean over classes may be off by three deviations of classes; beyond, trust falls as a Gaussian does.
    """
    rows = as_rows(support, query)
    with torch.no_grad():
        far = class_means(strangeness(models, rows.x)[..., None], rows.member).mean((1, 2))  # [b]
    mean, deviation = domain.to(far)
    return torch.exp(-(((far - mean).abs() / deviation - _FREE).clamp(min=0).square()) / 2)
