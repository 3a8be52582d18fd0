"""The filter of what is no example of anything: blank, saturated or noisy pictures, and features out of range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from augforge.curate.looks import Looks, as_pictures, looks_of
from augforge.types import Examples

BLANK, SATURATED, NOISE, OUT_OF_RANGE = "blank", "saturated", "noise", "out of range"
LEAST_CONTRAST = 2.5  # grey levels of 0 to 255: the standard deviation of what is not blank
MOST_EXTREME = 0.9  # share of samples at 0 or 255, where those of the usual picture are not
USUAL_EXTREME = 0.5  # share of the usual picture from which on black and white are what these pictures are made of
LEAST_GRAIN = 0.35  # correlation of neighbouring pixels, below which there is nothing but noise
_LENGTHS = 2.0  # times the longest real row, or less than the shortest by it: out of range


@dataclass(frozen=True)
class SoundPictures:
    """Rejects pictures that are blank, saturated, noise, or that hold numbers out of 0 to 1 (float ones).

    `black_and_white` where real pictures are of such pixels anyway, so that saturation says nothing.
    """

    reasons: ClassVar[tuple[str, ...]] = (OUT_OF_RANGE, BLANK, SATURATED, NOISE)

    black_and_white: bool = False

    def margins(self, part: Any, support: Examples, made: Examples) -> Tensor:
        """How far each picture is from each limit: [n, 4] float64."""
        outside = [row.is_floating_point() and not bool(((row >= 0) & (row <= 1)).all()) for row in made.x]
        found = self.margins_of(looks_of(as_pictures(made.x)))
        found[torch.tensor(outside, dtype=torch.bool), 0] = -1.0
        return found

    def margins_of(self, looks: Looks) -> Tensor:
        """The same of pictures that were looked at, none of which is out of range."""
        extreme = np.full(len(looks), np.inf) if self.black_and_white else MOST_EXTREME - looks.extreme
        columns = (np.ones(len(looks)), looks.contrast - LEAST_CONTRAST, extreme, looks.grain - LEAST_GRAIN)
        return torch.from_numpy(np.stack(columns, 1).astype(np.float64))

    def for_class(self, name: str) -> Self:
        """Itself: it compares with nothing."""
        return self


def sound_pictures(looks: Looks) -> SoundPictures:
    """The filter for pictures made from real ones with these looks."""
    return SoundPictures(bool(len(looks)) and float(np.median(looks.extreme)) > USUAL_EXTREME)


@dataclass(frozen=True)
class SoundFeatures:
    """Rejects rows that are not finite, or whose lengths are not between `shortest` and `longest`."""

    reasons: ClassVar[tuple[str, ...]] = (OUT_OF_RANGE,)

    shortest: float
    longest: float

    def margins(self, part: Any, support: Examples, made: Examples) -> Tensor:
        """How far the length of each row is within both limits: [n, 1] float64; below 0 where it is not finite."""
        length = torch.as_tensor(made.x).cpu().double().norm(dim=1)
        return torch.minimum(length - self.shortest, self.longest - length).nan_to_num(-1.0, neginf=-1.0)[:, None]

    def for_class(self, name: str) -> Self:
        """Itself: the range is that of all classes."""
        return self


def sound_features(real: Tensor) -> SoundFeatures:
    """The filter by real features [m, d]: half as long as the shortest to twice as long as the longest is in range."""
    length = real.double().norm(dim=1)
    return SoundFeatures(float(length.min()) / _LENGTHS, float(length.max()) * _LENGTHS)
