"""Whether what is made of a support helps on that support: rows are held out, and named with and without it.

There may be no base classes to test a method on, or only some of another domain; the support itself is always there. It
is too small to choose by, but enough to notice what does harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.pool import held_out_places, log_likelihood
from augforge.types import Examples

_READER = Logistic(C=100.0, normalise="l2")  # as `predict` reads rows
_FOLDS = 5
_MOST_ROWS, _MOST_CLASSES = 5, 40  # of a class, and of a support: more tell little more, and take long
_SPREAD = 0.02  # nats of spread that are added, so that few alike differences prove little


@torch.no_grad()
def support_trust(support: Examples, made_of: Callable[[Examples], Examples]) -> float:
    """How far to trust what is made of a support [n, d], 0..1, by what its own held-out rows gain.

    `made_of` takes a support and gives made rows of its classes, equally many each time, with the weights to try them
    at. Rows are held out in five folds (each row of a class of five or fewer, never the only one) and named by logistic
    regression on the others alone, and on these and what is made of them, each at the temperature that suits it. With a
    mean gain in log-likelihood of z standard errors the trust is erf(z / sqrt 2), the chance of a smaller gain where
    there is none; 0 where it is negative, and where fewer than two classes have two rows. Nothing is drawn. Up to 5
    rows of up to 40 classes are used.
    """
    x, y, weight = _few(support)
    if not len(y) or int(y.max()) == 0:
        return 0.0
    place = held_out_places(x, y, (y[:, None] == torch.arange(int(y.max()) + 1, device=y.device)).double())
    folds = [(place >= 0) & (place % _FOLDS == fold) for fold in range(min(_FOLDS, int(place.max()) + 1))]
    made = [made_of(Examples(x[~out], y[~out], weight=weight[~out])) for out in folds]
    known = Examples(x.expand(len(folds), *x.shape), y.expand(len(folds), -1),
                     weight=torch.stack([torch.where(out, 0.0, weight) for out in folds]))  # fmt: skip
    more = Examples(
        torch.cat([torch.as_tensor(known.x), torch.stack([torch.as_tensor(rows.x) for rows in made]).to(x)], 1),
        torch.cat([known.y, torch.stack([rows.y for rows in made])], 1),
        weight=torch.cat([torch.as_tensor(known.weight), torch.stack([_weight(rows) for rows in made]).to(weight)], 1),
    )
    held_out = torch.stack(folds)
    plain, better = (
        log_likelihood(_READER.scores(shown, torch.as_tensor(known.x))[held_out], known.y[held_out])
        for shown in (known, more)
    )
    gains = better - plain
    z = float(gains.mean()) / math.sqrt((float(gains.var(correction=0)) + _SPREAD**2) / len(gains))
    return math.erf(max(0.0, z) / math.sqrt(2))


def _weight(rows: Examples) -> Tensor:
    return torch.ones(len(rows), device=rows.y.device) if rows.weight is None else rows.weight


def _few(support: Examples) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [m, d], labels and weights [m] of the first 5 rows of the first 40 classes that have two, numbered anew."""
    counted = _weight(support) > 0
    counts = torch.bincount(support.y[counted])
    rows = [((support.y == k) & counted).nonzero()[:_MOST_ROWS, 0] for k in (counts > 1).nonzero()[:_MOST_CLASSES, 0]]
    place = torch.cat([support.y.new_zeros(0), *rows])
    some = support.take(place)
    labels = torch.unique(some.y, return_inverse=True)[1]
    return torch.as_tensor(some.x).float(), labels, _weight(some).float()
