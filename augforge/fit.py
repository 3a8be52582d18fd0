"""Fit any part of the catalog on a source and save it: what `augforge fit` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from augforge.figures import FORMATS
from augforge.figures.curves import CURVES, draw_curves
from augforge.inputs import Inputs, device_of, embed_pictures, on_device, open_bank, open_method, validation_bank
from augforge.parts import catalog, saving
from augforge.parts.learning import learn, sees_validation
from augforge.training.checkpoint import LOG
from augforge.training.distributed import device_of_process, process_count, process_group, wait
from augforge.training.loop import Run
from augforge.types import InputError, capabilities


@dataclass(frozen=True)
class FitOptions:
    """How a fit is carried out."""

    resume: bool = False  # go on with a fit that was stopped
    progress: Callable[[str, float, float], None] | None = None  # called with (stage, part done, loss)
    minutes: float | None = None  # ends each stage of a training after that time

    def __post_init__(self) -> None:
        """Raise InputError for a time that is not above 0."""
        if self.minutes is not None and not self.minutes > 0:
            raise InputError(f"--minutes {self.minutes} was given; expected a number above 0")


def fit_part(inputs: Inputs, out: Path, options: FitOptions) -> tuple[Any, str]:
    """The part that `inputs.method` names, fitted on the source and saved in `out`, and its kind.

    What trains - a representation, or a method that says so - learns from the "train" split and is validated on "val",
    where the source has one; what chooses by validation classes is shown "val". Checkpoints lie in OUT/training until
    it is finished; the log, its learning curves and what else was drawn there stay. Under torchrun all processes train
    one network, and the first writes. Raises InputError where `out` holds a fitted part or a fit that was stopped and
    `resume` is not set, and where several processes were started for what trains in one.
    """
    inputs, kind = replace(inputs, train=True), catalog.kind_of(inputs.method)
    if process_count() > 1 and not (kind == "synthesizer" and _is_shared(inputs.method)):
        raise InputError(f"{process_count()} processes were started, and {inputs.method} is fitted in one")
    device = device_of_process(device_of(inputs.device))
    with process_group(device) as first:
        _check_out(out, options, _is_trained(inputs, kind), inputs.method)
        wait()
        if (out / "part.json").exists():
            if first:
                _tidy(out / "training")  # what a kill left undone
            return saving.load_part(out, kind), kind
        part = _fitted(inputs, kind, Run(device, out / "training", options.minutes, progress=options.progress))
        if first:
            saving.save_part(part, out, kind)
            _tidy(out / "training")
        wait()
    return part, kind


def _tidy(training: Path) -> None:
    """Remove the checkpoints of a finished fit, and draw the learning curves that are not there."""
    for path in training.glob("*.safetensors"):
        path.unlink()
    if not all((training / f"{CURVES}.{name}").exists() for name in FORMATS):
        draw_curves(training / LOG)


def _check_out(out: Path, options: FitOptions, trained: bool, method: str) -> None:
    """Raise InputError where the folder is taken, or a time was set for what has none."""
    for path, what in ((out / "part.json", "a fitted method"), (out / "training", "a fit that was stopped")):
        if path.exists() and not options.resume:
            raise InputError(f"--out {str(out)!r} holds {what}; expected another folder, or --resume to keep it")
    if options.minutes is not None and not trained and not (out / "part.json").exists():
        raise InputError(f"--minutes was given, and {method} does not train for a time that can be set")


def _fitted(inputs: Inputs, kind: str, run: Run) -> Any:
    """The part, fitted on the source; features lie on the device of the run from then on."""
    bank = open_bank(inputs)
    if inputs.representation is not None:
        if kind == "representation":
            raise InputError(f"--representation was given; {inputs.method} is one itself and learns from pictures")
        bank = embed_pictures(bank, inputs.representation, run.device)[0]
    bank = on_device(bank, run.device)
    if kind == "synthesizer":
        return open_method(inputs, bank, run)
    part = saving.open_part(inputs.method, dict(inputs.settings), kind)
    rng = torch.Generator().manual_seed(inputs.seed)
    val = validation_bank(inputs, run.device) if sees_validation(part) else None
    return learn(part, bank, rng, val, run)


def _is_shared(name: str) -> bool:
    """Whether several processes can train a method together."""
    return name not in catalog.SHIPPED and capabilities(catalog.part_class(name)).shares


def _is_trained(inputs: Inputs, kind: str) -> bool:
    """Whether a method is trained step by step; some are by their settings."""
    if inputs.method in catalog.SHIPPED:
        return kind == "representation"
    return capabilities(catalog.make(inputs.method, dict(inputs.settings), kind)).trains
