"""What `augforge measure` says of made rows: every metric beside that of held-out rows, and what they are worth."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from augforge.data.banks import AnyBank, ArrayPictures
from augforge.measure.plain_cnn import CnnOptions
from augforge.measure.quality import compute_quality
from augforge.measure.sets import MeasureRequest, Opened, open_sets
from augforge.measure.usefulness import (
    Usefulness,
    feature_sets,
    picture_sets,
    train_logistic,
    train_network,
    usefulness,
)
from augforge.metrics.rows import TooFewRows
from augforge.networks.pixels import Pixels
from augforge.representations.pictures import Augment, batch
from augforge.training.loop import step_generator
from augforge.types import Examples, InputError

JUDGES = ("logistic", "cnn", "none")
_ROWS_AT_ONCE = 4096
_LOOKED_AT = 32  # pictures that mostly tell whether all are of one size, before all are held in memory
# What each metric is called, and which way is better.
_NAMES = {
    "frechet": ("Fréchet distance", "lower"),
    "kid": ("kernel distance (KID)", "lower"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
    "density": ("density", "higher"),
    "coverage": ("coverage", "higher"),
    "diversity": ("diversity, made / real", "near 1"),
    "diversity_within_classes": ("  within classes", "near 1"),
}
_WIDTH = 26
FEWEST_CLASSES = 5  # of an interval over classes


def measure_sources(request: MeasureRequest) -> dict[str, Any]:
    """Measure what the request names, as one object that JSON can hold.

    To what `compute_quality` gives it adds "real", "made", "holdout", "seed", "representation", "usefulness" and
    "notes", sentences on what was left out. Raises InputError for what cannot be measured, in one sentence.
    """
    if request.judge not in JUDGES:
        raise InputError(f"--judge {request.judge!r} was given; expected one of {', '.join(JUDGES)}")
    opened = open_sets(request)
    found = compute_quality(opened.sets, request.seed)
    worth = None
    if request.judge != "none":
        try:
            worth = _by_network(request, opened) if request.judge == "cnn" else _by_logistic(request, opened)
        except TooFewRows as error:
            opened.notes.append(f"usefulness was not measured: {error}")
    return {"real": request.real, "made": request.made, "holdout": request.holdout, "seed": request.seed,
            "representation": opened.representation, **found, "usefulness": worth, "notes": opened.notes}  # fmt: skip


def _by_network(request: MeasureRequest, opened: Opened) -> dict[str, Any]:
    """The five training sets through a network of pictures that is trained from scratch."""
    pictures = [_pictures(bank) for bank in opened.banks]
    shapes = {None if x is None else tuple(x.shape[1:]) for x in pictures}
    if len(shapes) > 1 or None in shapes:
        raise InputError("--judge cnn needs pictures of one size, all grey or all in colour; REAL, MADE and --holdout "
                         "hold pictures that differ")  # fmt: skip
    sides = (opened.sets.real, opened.sets.made, opened.sets.held_out)
    real, made, held_out = (Examples(x, side.y) for x, side in zip(pictures, sides, strict=True) if x is not None)
    kind = _augment(real.x)
    options = CnnOptions(steps=request.steps, device=opened.embedder.device)
    found = usefulness(picture_sets(real, made, kind), held_out, train_network(options), request.repeats, request.seed)
    return {"judge": f"cnn (conv4 from scratch, {request.steps} steps)", "classical": kind, **_as_object(found)}


def _by_logistic(request: MeasureRequest, opened: Opened) -> dict[str, Any]:
    """The training sets through logistic regression on features; classical ones only where there are pictures."""
    sets, classical, kind = opened.sets, None, None
    pictures = None if opened.banks[0].space == "feature" else _pictures(opened.banks[0])
    if pictures is None:
        opened.notes.append(
            "there are no training sets with classical augmentation, which needs real pictures of one size"
        )
    else:
        kind = _augment(pictures)
        classical = _classical(opened, pictures, kind, request.seed)
    found = usefulness(feature_sets(sets.real, sets.made, classical), sets.held_out, train_logistic)
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
    """All pictures of a bank [n, c, h, w] uint8; None where they differ in size, of which a few are read to see it."""
    if isinstance(bank.examples(torch.arange(min(len(bank), _LOOKED_AT))).x, list):
        return None
    x = bank.examples(torch.arange(len(bank))).x
    return x if isinstance(x, Tensor) else None


def _augment(pictures: Tensor | list[Tensor]) -> Augment:
    """Small affine changes for grey pictures, as of letters; shifts and flips for those in colour."""
    return "strokes" if pictures[0].shape[0] == 1 else "crop"


def _as_object(found: Usefulness) -> dict[str, Any]:
    """Usefulness as JSON can hold it, in percent and percentage points; an end that is unknown is None.

    An interval over fewer than 5 classes is left out: Student's t is so wide there that it holds gains that are not
    possible. None reaches beyond a gain of 100 points.
    """
    few = found.classes < FEWEST_CLASSES
    gains = [{"of": gain.of, "over": gain.over, "gain": gain.interval.value,
              "ci95": [None, None] if few else [max(-100.0, gain.interval.low), min(100.0, gain.interval.high)]}
             for gain in found.gains]  # fmt: skip
    return {"accuracy": found.accuracy, "gains": gains, "held_out": found.held_out, "classes": found.classes,
            "repeats": found.repeats}  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """What `measure_sources` found, as text for a person to read."""
    representation, rows = report["representation"], report["rows"]
    made_by = f", {representation['dimensions']} dimensions"
    made_by += f", sha256 {representation['sha256']}" if "sha256" in representation else ""
    lines = [
        f"representation: {representation['name']}{made_by}",
        f"rows: {rows['real']} real, {rows['made']} made, {rows['held_out']} held-out real, of {report['classes']} "
        f"classes; {rows['equal_count']} of each where a metric depends on the count",
        *(f"note: {note}" for note in report["notes"]),
        "",
        f"{'':{_WIDTH}s} {'made':>10s} {'held-out':>10s}  better",
    ]
    lines += [_line(line) for line in report["metrics"]]
    return "\n".join([*lines, "", *_memorised(report["memorisation"]), *_worth(report["usefulness"])])


def _line(metric: dict[str, Any]) -> str:
    name, better = _NAMES[metric["metric"]]
    notes = [metric["note"]] if metric["note"] else []
    if "spread" in metric:
        spread = " and ".join(_number(metric["spread"][side]) for side in ("made", "held_out"))
        notes.append(f"spread {spread} over subsets of {metric['subset_size']} rows")
    note = f"  ({'; '.join(notes)})" if notes else ""
    numbers = " ".join(f"{_number(metric[side]):>10s}" for side in ("made", "held_out"))
    return f"{name:{_WIDTH}s} {numbers}  {better}{note}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _memorised(found: dict[str, Any]) -> list[str]:
    """The lines on memorisation."""
    if found["note"]:
        return [f"memorisation: {found['note']}"]
    lines = ["distance to the nearest real row, made over held-out (below 1 hints at copies)"]
    for name in ("mean", "median"):
        value, low, high = (_number(found[name][key]) for key in ("value", "low", "high"))
        lines.append(f"  {name:{_WIDTH - 2}s} {value:>10s}  95 % [{low}, {high}]")
    lines.append(f"  made rows nearer than the nearest {found['percentile']:g} % of held-out rows: "
                 f"{100 * found['nearer']:.1f} %")  # fmt: skip
    return lines


def _worth(found: dict[str, Any] | None) -> list[str]:
    """The lines on usefulness."""
    if found is None:
        return []
    kind = f"; classical is {found['classical']!r}" if found["classical"] else ""
    rows = f"{found['held_out']} held-out rows of {found['classes']} classes"
    lines = ["", f"accuracy on {rows}, classified by {found['judge']}{kind}"]
    lines += [f"  {name:{_WIDTH - 2}s} {value:10.2f} %" for name, value in found["accuracy"].items()]
    if found["classes"] < FEWEST_CLASSES:
        lines.append(f"  no intervals: they are over classes, of which there are {found['classes']}, and "
                     f"{FEWEST_CLASSES} are needed")  # fmt: skip
    for gain in found["gains"]:
        low, high = (_signed(end) for end in gain["ci95"])
        interval = "" if None in gain["ci95"] else f", 95 % [{low}, {high}]"
        lines.append(f"  {gain['of']} over {gain['over']}: {_signed(gain['gain'])} points{interval}")
    return lines


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.2f}"
