"""Parts that choose by validation classes, and parts that are trained: what `fit` of each is handed.

One that chooses finds settings, a gate, or when to stop by validation classes; one that trains goes on for long,
keeps checkpoints, and looks at those classes on the way. All others are never shown them.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import time
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from augforge.data.banks import AnyBank
from augforge.data.selection import at_most
from augforge.parts import catalog, saving
from augforge.training.loop import Run
from augforge.types import Bank, Part, capabilities

P = TypeVar("P", bound=Part)
_TRIED_ROWS, _TRIED_STEPS, _TRIED_SECONDS = 4, 10, 2.0  # rows of each class; steps, and the time after which 2 will do


def sees_validation(part: Part | type[Part]) -> bool:
    """Whether the `fit` of a part is handed validation classes."""
    says = capabilities(part)
    return says.chooses or says.trains


def learn(part: P, base: Bank, rng: torch.Generator, val: Bank | None, run: Run | None = None) -> P:
    """The fitted part: `part.fit(base, rng)`, with `val` where it chooses, and with `val` and `run` where it trains.

    What a part is handed it says by `chooses` and `trains` (`Capabilities`). `val` is a bank of validation classes, or
    None where there are none that may be seen; `run` is how to train, None for on the CPU with no folder.
    """
    says, fit = capabilities(part), cast(Any, part.fit)
    if says.trains:
        return fit(base, rng, val, Run() if run is None else run)
    return fit(base, rng, val) if says.chooses else fit(base, rng)


def training_time(part: Part, base: AnyBank, seed: int, run: Run) -> float | None:
    """About how many seconds the steps of a part that trains will take here; None where that is not known.

    Some steps are taken by a copy, on a few rows of `base`, for 2 seconds at least 2 and at most 10 of them; what they
    cost does not depend on how many rows there are. Raises what `fit` raises before its first step.
    """
    steps = getattr(part, "steps", None)
    if not isinstance(steps, int):
        return None
    clock: list[float] = []

    def each(done: int) -> None:
        clock.append(time.monotonic())
        if len(clock) > _TRIED_STEPS or (len(clock) > 2 and clock[-1] - clock[0] > _TRIED_SECONDS):
            raise _Enough

    few = at_most(base, _TRIED_ROWS, seed)  # type: ignore[type-var]
    with contextlib.suppress(_Enough):
        learn(copy.deepcopy(part), few, torch.Generator().manual_seed(seed), None, Run(run.device, each=each))
    between = sorted(later - earlier for earlier, later in itertools.pairwise(clock))
    return steps * between[len(between) // 2] if between else None


class _Enough(Exception):
    """Ends a training that was only to be timed."""


def fitted(
    part: P,
    kind: str,
    base: Bank,
    seed: int,
    cache: Path | None,
    val: Bank | None = None,
    run: Run | None = None,
) -> P:
    """`part` as it is if it has learnt anything, else a copy that was fitted on `base` with `seed`.

    A part that chooses is given `val` too, and one that trains `val` and `run`, whose checkpoints go when it is done.
    With a file name `cache`, a folder, the fitted part is kept there if there is something to keep.
    """
    if saving.fitted_tensors(part):
        return part
    if catalog.known_name(part, kind) is None:
        cache = None  # the user's own class may have changed since: it is fitted again
    if cache is not None and (cache / "part.json").exists():
        return saving.load_part(cache, kind)
    learnt = learn(copy.deepcopy(part), base, torch.Generator().manual_seed(seed), val, run)
    if cache is not None and saving.fitted_tensors(learnt):
        saving.save_part(learnt, cache, kind)
    if run is not None and run.folder is not None:
        for path in run.folder.glob("*.safetensors"):
            path.unlink()
    return learnt
