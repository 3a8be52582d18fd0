"""The filter by the classes of a source in a representation: a row is of its class, or nearer to another, or far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from augforge.curate.filters import FAR, NEARER
from augforge.types import Examples, InputError

_QUANTILE = 0.99  # of the distances of real rows to the rest of their class: as far as a made row may be


@dataclass(frozen=True, eq=False)
class ByClasses:
    """The classes of a source in a representation, in which every row is centred at the source's mean and has length 1.

    `mean` [d] is that of the source, `means` [k, d] those of its classes after that (not finite where a class has no
    row), `far` the distance to the mean of its class that a row may have, None where no class has two rows. `classes`
    [k] are their names, where they are known by name; rows are all of class number `own`, or of that of their label.
    """

    reasons: ClassVar[tuple[str, ...]] = (NEARER, FAR)

    representation: Any
    mean: Tensor
    means: Tensor
    far: float | None
    classes: tuple[str, ...] = ()
    own: int | None = None

    def margins(self, part: Any, support: Examples, made: Examples) -> Tensor:
        """How much nearer a row is to its own class than to any other, and than it may be: [n, 2]."""
        x = _centred(embedded(self.representation, made.x), self.mean)
        away = distances(x, self.means)  # [n, k]
        label = made.y.cpu() if self.own is None else torch.full((len(made),), self.own)
        own = away.gather(1, label[:, None])[:, 0]
        other = away.scatter(1, label[:, None], torch.inf).amin(1)
        margin = torch.full_like(own, torch.inf) if self.far is None else self.far - own
        return torch.stack([other - own, margin], 1)

    def for_class(self, name: str) -> Self:
        """For rows of the class `name`; raises InputError where the source has no row of it."""
        own = self.classes.index(name) if name in self.classes else -1
        if own < 0 or not bool(self.means[own].isfinite().all()):
            raise InputError(f"class {name!r} has no picture that can be read; --reject needs at least 1 of it")
        return replace(self, own=own)


def by_classes(representation: Any, x: Tensor, y: Tensor, classes: Sequence[str]) -> ByClasses:
    """The filter by the real rows of a source: their embeddings `x` [n, d] and classes `y` [n].

    A made row may be as far from its class as the 99th percentile of what real rows are from the mean of the others
    of their class. Raises InputError where there are neither two classes nor two rows of one, as nothing could be
    rejected then.
    """
    mean = reduce(x.double(), "n d -> d", "mean").float()
    x, y = _centred(x, mean).double(), y.cpu()
    counts = torch.bincount(y, minlength=len(classes))
    sums = torch.zeros(len(classes), x.shape[1], dtype=torch.float64).index_add(0, y, x)
    means = torch.where(counts[:, None] > 0, sums / counts[:, None], torch.inf)
    paired = counts[y] > 1
    far = None
    if bool(paired.any()):
        others = (sums[y] - x)[paired] / (counts[y] - 1)[paired][:, None]  # [m, d] means without the row itself
        far = float(torch.quantile((x[paired] - others).norm(dim=1), _QUANTILE))
    if far is None and int((counts > 0).sum()) < 2:
        raise InputError("--reject by a representation compares classes; expected two classes, or two rows of one")
    return ByClasses(representation, mean, means.float(), far, tuple(classes))


def embedded(representation: Any, x: Tensor | list[Tensor]) -> Tensor:
    """Pictures [n, c, h, w], or a list of them, as features [n, d] float32 on the CPU; grey goes beside colour."""
    if isinstance(x, list):
        channels = max((len(picture) for picture in x), default=0)
        x = [picture.expand(channels, -1, -1) if len(picture) == 1 else picture for picture in x]
    return representation.embed(x).float().cpu()


def _centred(x: Tensor, mean: Tensor) -> Tensor:
    """Embeddings [n, d] minus the mean [d], at length 1."""
    return F.normalize(x.float() - mean, dim=1)


def distances(x: Tensor, means: Tensor) -> Tensor:
    """Euclidean distances [n, k] of rows [n, d] to means [k, d]; infinite for a mean that is not finite."""
    known = means.isfinite().all(1)
    # The default takes matrix products for many rows, whose rounding is far coarser.
    away = torch.cdist(x, means.nan_to_num(0, 0, 0), compute_mode="donot_use_mm_for_euclid_dist")
    return away.masked_fill(~known, torch.inf)
