"""`augforge preview`: the contact sheet that a run of `synth` would have, drawn without the run.

A module of its own because it is called from Python too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from augforge.data.banks import FeatureBank
from augforge.inputs import Inputs, open_bank
from augforge.synth.contact_sheet import PICTURES, draw_sheet
from augforge.synth.prepare import prepare
from augforge.synth.request import Request
from augforge.synth.run_folder import RunOptions
from augforge.types import InputError


@dataclass(frozen=True)
class Preview:
    """Where the sheet is, which `classes` it shows in words, what was `chosen`, and the `seconds` it took."""

    sheet: Path
    classes: str
    chosen: str
    seconds: float


def preview(inputs: Inputs, sheet: Path, size: int | None = None, keep: tuple[str, ...] = ()) -> Preview:
    """Draw what `synth` makes of a source with these inputs into a PNG file `sheet`, which is replaced.

    A made picture is the one that a run with the same inputs makes of the same real one with the same number. `size`
    and `keep` are those of `synth.Request`. Raises InputError for features, for a source of which nothing is made,
    for a file that cannot be written, and what `synth` raises before it begins.
    """
    start = time.perf_counter()
    if inputs.representation is not None:
        raise InputError("--representation was given, and a preview is of pictures; expected none")
    if not sheet.absolute().parent.is_dir() or sheet.is_dir():
        raise InputError(f"--out {str(sheet)!r} cannot be written; expected a file in a folder that is there")
    bank = open_bank(inputs)
    if isinstance(bank, FeatureBank):
        raise InputError(f"{inputs.source!r} holds features, which cannot be looked at; expected pictures")
    each = max(bank.counts().tolist(), default=1) * PICTURES  # each parent has as many as a sheet has room for
    request = Request(inputs, per_class=each, keep=keep, size=size, encoding="png")
    ready = prepare(request, bank, Path(), RunOptions(workers=1))
    try:
        classes = draw_sheet(replace(ready.making, batch_size=PICTURES), sheet)
    except OSError as error:
        raise InputError(f"--out {str(sheet)!r} cannot be written ({error.strerror or error})") from error
    if classes is None:
        raise InputError(f"{ready.making.method} makes no pictures of {inputs.source!r}; there is nothing to see")
    return Preview(sheet, classes, ready.chosen, time.perf_counter() - start)
