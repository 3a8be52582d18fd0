"""Fit any part of the catalog on a source and save it: what `augforge fit` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from augforge.parts import catalog, saving
from augforge.parts.learning import learn, sees_validation
from augforge.picture_features import embed_pictures
from augforge.synth.request import Order, device_of, open_bank, open_part, validation_bank
from augforge.training.distributed import device_of_process, process_count, process_group, wait
from augforge.training.loop import Run
from augforge.types import InputError, capabilities


@dataclass(frozen=True)
class Fitting:
    """How a fit is carried out.

    `resume` goes on with one that was stopped; `progress` is called with (stage, part done, loss); `minutes` ends a
    stage of training after that time.
    """

    device: str = "auto"
    resume: bool = False
    data_root: Path | None = None
    progress: Callable[[str, float, float], None] | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a time that is not above 0."""
        if self.minutes is not None and not self.minutes > 0:
            raise InputError(f"--minutes {self.minutes} was given; expected a number above 0")


def fit_part(order: Order, out: Path, fitting: Fitting) -> tuple[Any, str]:
    """The part that `order` names, fitted on its source and saved in `out`, and its kind.

    What trains - a representation, or a method that says so - learns from the "train" split and is judged on "val",
    where the source has one; what chooses by validation classes is shown "val". Checkpoints lie in OUT/training until
    it is finished; the log and what else was drawn there stay. Under torchrun all processes train one network, and the
    first writes. Raises InputError where `out` holds a fitted part or a fit that was stopped and `resume` is not set,
    and where several processes were started for what trains in one.
    """
    kind = catalog.kind_of(order.method)
    if process_count() > 1 and not (kind == "synthesizer" and _is_shared(order.method)):
        raise InputError(f"{process_count()} processes were started, and {order.method} is fitted in one")
    device = device_of_process(device_of(fitting.device))
    with process_group(device) as first:
        _check_out(out, fitting, _is_trained(order.method, kind), order.method)
        wait()
        if (out / "part.json").exists():
            return saving.load_part(out, kind), kind
        part = _fitted(order, kind, Run(device, out / "training", fitting.minutes, progress=fitting.progress), fitting)
        if first:
            saving.save_part(part, out, kind)
            for path in (out / "training").glob("*.safetensors"):
                path.unlink()
        wait()
    return part, kind


def _check_out(out: Path, fitting: Fitting, trained: bool, method: str) -> None:
    """Raise InputError where the folder is taken, or a time was set for what has none."""
    for path, what in ((out / "part.json", "a fitted method"), (out / "training", "a fit that was stopped")):
        if path.exists() and not fitting.resume:
            raise InputError(f"--out {str(out)!r} holds {what}; expected another folder, or --resume to keep it")
    if fitting.minutes is not None and not trained and not (out / "part.json").exists():
        raise InputError(f"--minutes was given, and {method} does not train for a time that can be set")


def _fitted(order: Order, kind: str, run: Run, fitting: Fitting) -> Any:
    """The part, fitted on the order's source."""
    bank = open_bank(order, fitting.data_root)
    if order.representation is not None:
        if kind == "representation":
            raise InputError(f"--representation was given; {order.method} is one itself and learns from pictures")
        bank = embed_pictures(bank, order.representation, run.device)[0]
    if kind == "synthesizer":
        return open_part(order, bank, fitting.data_root, run)
    part = saving.open_part(order.method, dict(order.settings), kind)
    rng = torch.Generator().manual_seed(order.seed)
    val = validation_bank(order, fitting.data_root) if sees_validation(part) else None
    return learn(part, bank, rng, val, run)


def _is_shared(name: str) -> bool:
    """Whether several processes can train a method together."""
    return name not in catalog.SHIPPED and capabilities(catalog.part_class(name)).shares


def _is_trained(name: str, kind: str) -> bool:
    """Whether a name is trained step by step."""
    if name in catalog.SHIPPED:
        return kind == "representation"
    return capabilities(catalog.part_class(name, kind)).trains
