"""How a bank of features is made, as options that a recipe, a table and a command share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from augforge.types import InputError

Normalise = Literal["none", "l2", "centred-l2", "power"]
NORMALISATIONS = ("none", "l2", "centred-l2", "power")


@dataclass(frozen=True)
class BankOptions:
    """How a bank of features is made.

    Views are averaged. "flip" is 2 of them; "flip-shift" 10: flipped or not, five places a sixteenth of the side apart,
    with the border repeated; "flip-shift-wide" 18: four corners twice as far too, with the picture mirrored at its
    border, as in training. "crops" is 8, of features at unit length: the picture, its mirror image and six fixed crops
    of 0.55 to 0.9 of its area, half of them mirrored; "crops-4" has two of the crops. Any other name is that of a
    callable given to `embed_bank`.
    """

    normalise: Normalise = "none"  # none, l2, centred-l2 (minus the base mean, then l2) or power (square root, then l2)
    views: str = "none"  # none, flip, flip-shift, flip-shift-wide, crops, crops-4 or another name
    n_views: int = 10  # of another name, beside the picture itself; at least 1
    sides: Literal["both", "support", "query"] = "both"  # rows of an episode with averaged features; others have none
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the hardware multiplies it

    def __post_init__(self) -> None:
        """Raise InputError for an unknown normalisation or a number of views below 1."""
        if self.normalise not in NORMALISATIONS:
            raise InputError(f"normalise={self.normalise!r} was given; expected one of {', '.join(NORMALISATIONS)}")
        if self.n_views < 1:
            raise InputError(f"n_views={self.n_views} was given; expected at least 1")
