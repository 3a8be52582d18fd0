"""What `augforge measure` says of made rows: every metric beside that of held-out rows, and what they are worth."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from augforge.data.banks import AnyBank, ArrayPictures
from augforge.measure.plain_cnn import CnnOptions
from augforge.measure.quality import measure
from augforge.measure.sets import Opened, Request, open_sets
from augforge.measure.usefulness import (
    Usefulness,
    cnn_judge,
    feature_arms,
    logistic_judge,
    picture_arms,
    usefulness,
)
from augforge.metrics.rows import TooFewRows
from augforge.networks.pixels import Pixels
from augforge.representations.pictures import Augment, batch
from augforge.training.loop import step_generator
from augforge.types import Examples, InputError

JUDGES = ("logistic", "cnn", "none")
_ROWS_AT_ONCE = 4096


def measure_sources(request: Request) -> dict[str, Any]:
    """Measure what the request names, as one object that JSON can hold.

    To what `quality.measure` gives it adds "real", "made", "holdout", "seed", "representation", "usefulness" and
    "notes", sentences on what was left out. Raises InputError for what cannot be measured, in one sentence.
    """
    if request.judge not in JUDGES:
        raise InputError(f"--judge {request.judge!r} was given; expected one of {', '.join(JUDGES)}")
    opened = open_sets(request)
    found = measure(opened.sets, request.seed)
    judged = None
    if request.judge != "none":
        try:
            judged = _by_cnn(request, opened) if request.judge == "cnn" else _by_logistic(request, opened)
        except TooFewRows as error:
            opened.notes.append(f"usefulness was not measured: {error}")
    return {"real": request.real, "made": request.made, "holdout": request.holdout, "seed": request.seed,
            "representation": opened.representation, **found, "usefulness": judged, "notes": opened.notes}  # fmt: skip


def _by_cnn(request: Request, opened: Opened) -> dict[str, Any]:
    """The five arms through a network that is trained on pictures from scratch."""
    pictures = [_pictures(bank) for bank in opened.banks]
    shapes = {None if x is None else tuple(x.shape[1:]) for x in pictures}
    if len(shapes) > 1 or None in shapes:
        raise InputError("--judge cnn needs pictures of one size, all grey or all in colour; REAL, MADE and --holdout "
                         "hold pictures that differ")  # fmt: skip
    sides = (opened.sets.real, opened.sets.made, opened.sets.held_out)
    real, made, held_out = (Examples(x, side.y) for x, side in zip(pictures, sides, strict=True) if x is not None)
    kind = _augment(real.x)
    options = CnnOptions(steps=request.steps, device=opened.embedder.device)
    judge = cnn_judge(options)
    found = usefulness(picture_arms(real, made, kind), held_out, judge, request.repeats, request.seed)
    return {"judge": f"cnn (conv4 from scratch, {request.steps} steps)", "classical": kind, **_as_object(found)}


def _by_logistic(request: Request, opened: Opened) -> dict[str, Any]:
    """The arms through logistic regression on the features; classical ones only where there are pictures."""
    sets, classical, kind = opened.sets, None, None
    pictures = None if opened.banks[0].space == "feature" else _pictures(opened.banks[0])
    if pictures is None:
        opened.notes.append("there are no arms with classical augmentation, which needs real pictures of one size")
    else:
        kind = _augment(pictures)
        classical = _classical(opened, pictures, kind, request.seed)
    found = usefulness(feature_arms(sets.real, sets.made, classical), sets.held_out, logistic_judge)
    return {"judge": "logistic", "classical": kind, **_as_object(found)}


def _classical(opened: Opened, pictures: Tensor, kind: Augment, seed: int) -> Examples:
    """Features of as many augmented real pictures of each class as there are made ones; parents take turns."""
    real_y, made_y = opened.sets.real.y, opened.sets.made.y
    parent = torch.empty_like(made_y)
    for label in made_y.unique().tolist():
        wanted, rows = (made_y == label).nonzero()[:, 0], (real_y == label).nonzero()[:, 0]
        parent[wanted] = rows[torch.arange(len(wanted)) % len(rows)]
    empty = torch.zeros(0, dtype=torch.int64)
    lying = rearrange(pictures, "n c h w -> n h w c").contiguous()
    data, made = Pixels(lying, real_y, empty, empty, empty), []
    for number, rows in enumerate(parent.split(_ROWS_AT_ONCE)):
        x = batch(data, rows, kind, step_generator(torch.Generator(), seed, number))
        made.append((x * 255).round().clamp(0, 255).to(torch.uint8))
    pixels = rearrange(torch.cat(made), "n c h w -> n h w c").contiguous().numpy()
    bank = ArrayPictures(made_y, opened.sets.classes, pixels, "classical augmentation")
    return Examples(opened.embedder.features(bank).x, made_y)


def _pictures(bank: AnyBank) -> Tensor | None:
    """All pictures of a bank [n, c, h, w] uint8; None where they differ in size."""
    x = bank.examples(torch.arange(len(bank))).x
    return x if isinstance(x, Tensor) else None


def _augment(pictures: Tensor | list[Tensor]) -> Augment:
    """Small affine changes for grey pictures, as of letters; shifts and flips for those in colour."""
    return "strokes" if pictures[0].shape[0] == 1 else "crop"


def _as_object(found: Usefulness) -> dict[str, Any]:
    """Usefulness as JSON can hold it, in percent and percentage points; an end that is unknown is None."""
    gains = [{"of": gain.of, "over": gain.over, "gain": gain.interval.value,
              "ci95": [end if math.isfinite(end) else None for end in (gain.interval.low, gain.interval.high)]}
             for gain in found.gains]  # fmt: skip
    return {"accuracy": found.accuracy, "gains": gains, "held_out": found.held_out, "classes": found.classes,
            "repeats": found.repeats}  # fmt: skip
