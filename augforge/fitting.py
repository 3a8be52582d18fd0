"""Fit any part of the catalog on a source and save it: what `augforge fit` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from augforge import catalog, saving
from augforge.choosing import chooses, learn, trains
from augforge.orders import Order, device_of, open_bank, open_part, validation_bank
from augforge.picture_features import embed_pictures
from augforge.training import Run
from augforge.types import InputError


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
    it is finished; the log and what else was drawn there stay. Raises InputError where `out` holds a fitted part or a
    fit that was stopped and `resume` is not set.
    """
    kind = catalog.kind_of(order.method)
    training = out / "training"
    for path, what in ((out / "part.json", "a fitted method"), (training, "a fit that was stopped")):
        if path.exists() and not fitting.resume:
            raise InputError(f"--out {str(out)!r} holds {what}; expected another folder, or --resume to keep it")
    if (out / "part.json").exists():
        return saving.load_part(out, kind), kind
    if fitting.minutes is not None and not _is_trained(order.method, kind):
        raise InputError(f"--minutes was given, and {order.method} does not train for a time that can be set")
    bank = open_bank(order, fitting.data_root)
    if order.representation is not None:
        if kind == "representation":
            raise InputError(f"--representation was given; {order.method} is one itself and learns from pictures")
        bank = embed_pictures(bank, order.representation, device_of(fitting.device))[0]
    run = Run(device_of(fitting.device), training, fitting.minutes, progress=fitting.progress)
    if kind == "synthesizer":
        part = open_part(order, bank, fitting.data_root, run)
    else:
        part = saving.open_part(order.method, dict(order.settings), kind)
        rng = torch.Generator().manual_seed(order.seed)
        if kind == "classifier":
            val = validation_bank(order, fitting.data_root) if chooses(part) else None
            part = learn(part, bank, rng, val, run)
        else:
            part.fit(bank, rng, validation_bank(order, fitting.data_root), run)
    saving.save_part(part, out, kind)
    for path in training.glob("*.safetensors"):
        path.unlink()
    return part, kind


def _is_trained(name: str, kind: str) -> bool:
    """Whether a name of the catalog is trained step by step."""
    return kind == "representation" or (name not in catalog.SHIPPED and trains(catalog.part_class(name, kind)))
