"""Filters by likeness: copies of real rows, near-duplicates of them, and near-duplicates among made rows.

Pictures are compared by their thumbnails, 16 x 16 grey levels around their mean, and features around the mean of the
real rows: by the cosine of both, in whole numbers for pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from augforge.curate.looks import as_pictures, directions, thumbnail
from augforge.types import Examples

COPY = "copy of a real row"
SAME_PICTURE = 0.99  # cosine of thumbnails from which on two are one picture, coded or exposed in another way
SAME_ROW = 0.999  # of features, around the mean of the real ones


@dataclass(frozen=True, eq=False)
class Copies:
    """Rejects what is a real row again: pictures by `thumbnails` [m, 256] of the real ones, of length 1; features by
    real rows [m, d] of length 1 around `mean` [d].

    A mirrored, turned or cut picture is no copy here: that is what augmentation makes. Rounding moves no verdict but
    within 1e-5 of the limit, where a row is looked at alone.
    """

    reasons: ClassVar[tuple[str, ...]] = (COPY,)

    real: Tensor
    mean: Tensor | None = None
    limit: float = SAME_PICTURE

    def margins(self, part: Any, support: Examples, made: Examples) -> Tensor:
        """The limit less the cosine with the nearest real row: [n, 1]."""
        rows = _directions_of(made.x, self.mean)
        near = torch.full((len(rows),), -1.0, dtype=torch.float64)
        if len(self.real) and len(rows):
            found = (rows @ self.real.T).max(1)
            near = (rows * self.real[found.indices]).sum(1, dtype=torch.float64)
        return (self.limit - near)[:, None]

    def for_class(self, name: str) -> Self:
        """Itself: rows are compared with those of all classes."""
        return self


def copies_of(real: Tensor | list[Tensor], limit: float | None = None) -> Copies:
    """The filter by real pictures [m, c, h, w], or a list of them, or by features [m, d]."""
    if isinstance(real, Tensor) and real.ndim == 2:
        mean = real.float().mean(0)
        return Copies(_directions_of(real, mean), mean, SAME_ROW if limit is None else limit)
    return Copies(_directions_of(real, None), None, SAME_PICTURE if limit is None else limit)


def _directions_of(x: Tensor | list[Tensor], mean: Tensor | None) -> Tensor:
    """Pictures as thumbnails around 0, or features around a mean, at length 1: [n, k] float32."""
    if mean is not None:
        return F.normalize(torch.as_tensor(x).float().cpu() - mean, dim=1)
    pictures = as_pictures(x)
    return directions(np.stack([thumbnail(one) for one in pictures]) if pictures else np.zeros((0, 16, 16), np.uint8))


@dataclass(eq=False)
class Distinct:
    """Takes rows one after another that differ from those it took before, by the same comparison as `Copies`.

    `mean` [d] is that of real features; None for pictures.
    """

    limit: float = SAME_PICTURE
    mean: Tensor | None = None
    taken: list[Tensor] = field(default_factory=list)

    def takes(self, row: Tensor) -> bool:
        """Whether a picture [c, h, w], or a row of features [d], is unlike all that were taken; it then is one of
        them.
        """
        found = _directions_of(row[None], self.mean)[0]
        if any(float((found * other).sum(dtype=torch.float64)) >= self.limit for other in self.taken):
            return False
        self.taken.append(found)
        return True
