"""The second control: real rows repeated to the same count.

Whatever it gains comes from the number of rows and their balance, not from anything new in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from augforge.data.banks import check_numbers
from augforge.generators.shared.support import choose_parents
from augforge.types import Bank, Examples, Space


@dataclass
class Copies:
    """Each made row is a copy of one support row of its class."""

    space: ClassVar[Space] = "any"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Nothing is learnt."""
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Copy pictures [m, c, h, w], a list of them, or features [m, d]; the row is chosen by `keys[i]`.

        Raises InputError where a wanted class has no support row.
        """
        if isinstance(support.x, Tensor) and support.x.ndim == 2:
            check_numbers(support.x, "the support")
        parent = choose_parents(support.y, want, keys)
        x = support.take(parent).x
        return Examples([picture.clone() for picture in x] if isinstance(x, list) else x, want, parent)
