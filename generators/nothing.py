"""The first control: no synthesis at all. Every gain is measured against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from augforge.types import Bank, Examples, Space


@dataclass
class Nothing:
    """Makes no rows, whatever is wanted: the one synthesizer that does not return what it was asked for."""

    space: ClassVar[Space] = "any"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 0

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Nothing is learnt."""
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """No rows of the support's kind: `x` [0, ...], `y` [0], `parent` [0]."""
        return Examples(support.x[:0], want[:0], want[:0])
