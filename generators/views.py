"""Views of a picture as examples: a random crop at the picture's own size, mirrored half of the time.

The crops are those of `--views crops`, drawn: a part of the area with the picture's proportions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge import chance
from augforge.generators.shared.support import choose_parents
from augforge.networks.pixels import LARGEST_LETTER, check_levels
from augforge.types import Bank, Examples, InputError, Space


@dataclass
class Views:
    """Crops of a real picture, resized to its size and mirrored half of the time, one parent each.

    `area` is the least and the largest share of the picture that a crop shows, each above 0 and at most 1. `flip` is
    how often it is mirrored, 0 to 1; without it 0.5, and 0 for letters (grey, at most 32 px a side). Nothing is learnt.
    Raises InputError for settings out of range.
    """

    space: ClassVar[Space] = "image"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    area: tuple[float, float] = (0.5, 1.0)
    flip: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        low, high = self.area
        self.area = (low, high)
        if not 0 < low <= high <= 1:
            raise InputError(f"area={low},{high} was given; expected two shares above 0 and at most 1, the least first")
        if self.flip is not None and not 0 <= self.flip <= 1:
            raise InputError(f"flip={self.flip} was given; expected a number from 0 to 1")

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Nothing is learnt."""
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """A view of one of the support pictures of class `want[i]`, by `keys[i]` alone.

        Takes pictures [m, c, h, w] (uint8 or floating) or a list of them; gives the same kind, on the same device.
        Raises InputError where a wanted class has no support row, the support holds features, or floats that are not
        in [0, 1].
        """
        check_levels(support.x, "picture {} of the support")
        if any(x.ndim != 3 or not (x.dtype == torch.uint8 or x.is_floating_point()) for x in support.x):
            raise InputError("the support holds no pictures [c, h, w], uint8 or floating; views are made of pictures")
        parent = choose_parents(support.y, want, keys)
        drawn = chance.uniform64(chance.fork(keys.cpu(), "views"), (4,)).tolist()
        made = [self._view(support.x[row], *u) for row, u in zip(parent.tolist(), drawn, strict=True)]
        if isinstance(support.x, list):
            return Examples(made, want, parent)
        return Examples(torch.stack(made) if made else support.x[:0].clone(), want, parent)

    def _view(self, picture: Tensor, area: float, down: float, right: float, mirrored: float) -> Tensor:
        """A view of a picture [c, h, w] by four numbers in [0, 1)."""
        low, high = self.area
        root, whole = (low + (high - low) * area) ** 0.5, picture.shape[1:]
        height, width = (max(1, round(side * root)) for side in whole)
        top, left = int(down * (whole[0] - height + 1)), int(right * (whole[1] - width + 1))
        seen = picture[None, :, top : top + height, left : left + width]
        if (height, width) != tuple(whole):
            exact = seen if seen.dtype == torch.float64 else seen.float()
            large = F.interpolate(exact, tuple(whole), mode="bilinear", align_corners=False)
            seen = large.round().to(torch.uint8) if seen.dtype == torch.uint8 else large.to(seen.dtype)
        letter = picture.shape[0] == 1 and max(whole) <= LARGEST_LETTER  # which has no mirror image
        flip = self.flip if self.flip is not None else 0.0 if letter else 0.5
        return (seen.flip(3) if mirrored < flip else seen.clone())[0]
