"""Parts that choose by validation classes: settings, a gate, when to stop. All others are never shown those classes."""

from __future__ import annotations

from typing import Any

import torch

from augforge.types import Bank


def chooses(part: Any) -> bool:
    """Whether a part says that its `fit` takes validation classes, by a class variable `chooses = True`."""
    return bool(getattr(part, "chooses", False))


def learn(part: Any, base: Bank, rng: torch.Generator, val: Bank | None) -> Any:
    """`part.fit(base, rng, val)` for a part that chooses, and `part.fit(base, rng)` for any other: the fitted part.

    `val` is a bank of validation classes, or None where there are none that may be seen.
    """
    return part.fit(base, rng, val) if chooses(part) else part.fit(base, rng)
