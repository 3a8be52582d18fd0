"""Parts that choose by validation classes, and parts that are trained: what `fit` of each is handed.

One that chooses finds settings, a gate, or when to stop by validation classes; one that trains goes on for long,
keeps checkpoints, and looks at those classes on the way. All others are never shown them.
"""

from __future__ import annotations

from typing import Any

import torch

from augforge.training.loop import Run
from augforge.types import Bank


def chooses(part: Any) -> bool:
    """Whether a part says that its `fit` takes validation classes, by a class variable `chooses = True`."""
    return bool(getattr(part, "chooses", False))


def trains(part: Any) -> bool:
    """Whether a part says that its `fit` takes validation classes and a `Run`, by a class variable `trains = True`."""
    return bool(getattr(part, "trains", False))


def sees_validation(part: Any) -> bool:
    """Whether the `fit` of a part is handed validation classes."""
    return chooses(part) or trains(part)


def learn(part: Any, base: Bank, rng: torch.Generator, val: Bank | None, run: Run | None = None) -> Any:
    """The fitted part: `part.fit(base, rng)`, with `val` where it chooses, and with `val` and `run` where it trains.

    `val` is a bank of validation classes, or None where there are none that may be seen; `run` is how to train, None
    for on the CPU with no folder.
    """
    if trains(part):
        return part.fit(base, rng, val, Run() if run is None else run)
    return part.fit(base, rng, val) if chooses(part) else part.fit(base, rng)
