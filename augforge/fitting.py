"""Fit any part of the catalog on a source and save it: what `augforge fit` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from augforge import catalog, saving
from augforge.data.source import open_source
from augforge.orders import Order, open_bank, open_part
from augforge.training import Run
from augforge.types import InputError, LackError


@dataclass(frozen=True)
class Fitting:
    """How a fit is carried out.

    `resume` goes on with one that was stopped; `progress` is called with (stage, part done, loss).
    """

    device: str = "auto"
    resume: bool = False
    data_root: Path | None = None
    progress: Callable[[str, float, float], None] | None = None


def fit_part(order: Order, out: Path, fitting: Fitting) -> tuple[Any, str]:
    """The part that `order` names, fitted on its source and saved in `out`, and its kind.

    A representation is trained on the "train" split and judged on "val", where the source has one. Its checkpoints
    lie in OUT/training until it is finished; the log stays. Raises InputError where `out` holds a fitted part or a
    fit that was stopped and `resume` is not set.
    """
    kind = catalog.kind_of(order.method)
    training = out / "training"
    for path, what in ((out / "part.json", "a fitted method"), (training, "a fit that was stopped")):
        if path.exists() and not fitting.resume:
            raise InputError(f"--out {str(out)!r} holds {what}; expected another folder, or --resume to keep it")
    if (out / "part.json").exists():
        return saving.load_part(out, kind), kind
    bank = open_bank(order, fitting.data_root)
    if kind == "synthesizer":
        part = open_part(order, bank)
    else:
        part = saving.open_part(order.method, dict(order.settings), kind)
        rng = torch.Generator().manual_seed(order.seed)
        if kind == "classifier":
            part.fit(bank, rng)
        else:
            val = open_source(order.source, fitting.data_root).get("val") if order.split is None else None
            part.fit(bank, rng, val, Run(_device(fitting.device), training, progress=fitting.progress))
    saving.save_part(part, out, kind)
    for path in training.glob("*.safetensors"):
        path.unlink()
    return part, kind


def _device(device: str) -> str:
    """The device as torch calls it, CUDA for "auto" where it works; LackError where it is not there."""
    there = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if there else "cpu"
    if device == "cpu" or (device.startswith("cuda") and there):
        return device
    raise LackError(f"--device {device}: this machine has none; expected auto or cpu")
