"""Parts that choose by validation classes, and parts that are trained: what `fit` of each is handed.

One that chooses finds settings, a gate, or when to stop by validation classes; one that trains goes on for long,
keeps checkpoints, and looks at those classes on the way. All others are never shown them.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from augforge.parts import catalog, saving
from augforge.training.loop import Run
from augforge.types import Bank, Part, capabilities

P = TypeVar("P", bound=Part)


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
