"""The contact sheet: rows of one real parent and what was made of it, to see at a glance whether a run is any good."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from augforge import chance
from augforge.curate.copies import Distinct
from augforge.synth.generate import Making, Notes, Parents, load, needs_no_support, synthesized
from augforge.synth.plan import ClassPlan
from augforge.types import InputError

ROWS, COLUMNS = 12, 8  # at most so many parents; the made pictures of each
_CELL, _GAP, _LABEL, _TITLE = 96, 6, 170, 30  # pixels
_PAPER, _INK, _FAINT, _FRAME = (255, 255, 255), (30, 30, 30), (120, 120, 120), (210, 210, 210)


def draw_sheet(making: Making, path: Path) -> None:
    """Draw up to 12 parents, spread over the classes, with up to 8 pictures made of each, into a PNG at `path`.

    The pictures are made anew from their keys, so the time does not grow with the run. Nothing is drawn where
    nothing is made.
    """
    lines = [_line(making, plan, place) for plan, place in _chosen(making.plan.classes)]
    if not lines:
        return
    columns = max(len(pictures) for _, pictures in lines)
    width = _LABEL + max(columns, 4) * (_CELL + _GAP) + 3 * _GAP
    page = Image.new("RGB", (width, _TITLE + len(lines) * (_CELL + _GAP) + _GAP), _PAPER)
    pen, font = ImageDraw.Draw(page), _font(14)
    pen.text((_LABEL, 8), "real", _FAINT, font)
    said = f"made with {making.method}, seed {making.seed}" if making.pool is None else f"taken by {making.method}"
    pen.text((_LABEL + _CELL + 3 * _GAP, 8), said, _FAINT, font)
    for i, (name, pictures) in enumerate(lines):
        top = _TITLE + i * (_CELL + _GAP)
        pen.text((_GAP, top + _CELL // 2 - 8), _fitting(name, font), _INK, font)
        for j, picture in enumerate(pictures):
            left = _LABEL + j * (_CELL + _GAP) + (2 * _GAP if j else 0)
            tile = Image.fromarray(_tile(picture))
            corner = left + (_CELL - tile.width) // 2, top + (_CELL - tile.height) // 2
            page.paste(tile, corner)
            frame = (corner[0] - 1, corner[1] - 1, corner[0] + tile.width, corner[1] + tile.height)
            pen.rectangle(frame, outline=_FRAME)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    page.save(partial, "PNG")
    os.replace(partial, path)


def _chosen(classes: tuple[ClassPlan, ...]) -> list[tuple[ClassPlan, int]]:
    """Which parents to show: one of each of up to 12 classes evenly spread, or several where there are fewer."""
    making = [plan for plan in classes if plan.make]
    if len(making) > ROWS:
        making = [making[i * len(making) // ROWS] for i in range(ROWS)]
    each = ROWS // max(len(making), 1)
    return [(plan, place) for plan in making for place in range(min(each, len(plan.rows), plan.make))]


def _line(making: Making, plan: ClassPlan, place: int) -> tuple[str, list[np.ndarray]]:
    """The class name, and the parent followed by what was made of it, or was taken from a pool."""
    indices = np.arange(place, plan.make, len(plan.rows))[:COLUMNS]
    if plan.taken is not None:
        taken = [load(making, int(row), making.pool)[0] for row in plan.taken.rows[indices]]
        return plan.name, [load(making, int(plan.rows[place]))[0], *taken]
    parents = Parents(making, plan, Notes())
    keys = chance.row_keys(making.seed, plan.name, torch.from_numpy(indices))
    made = synthesized(
        making, plan, parents, np.full(len(indices), place), keys, Distinct() if making.distinct else None
    )
    try:
        parent = parents.picture(place)
    except InputError:
        if not needs_no_support(making.part):
            raise
        parent = np.full((1, 1, 1), 255, np.uint8)
    return plan.name, [parent, *made]


def _tile(picture: np.ndarray) -> np.ndarray:
    """[h, w, c] as RGB that fits a cell: whole-number enlargement keeps small pixels sharp, large ones are averaged."""
    height, width = picture.shape[:2]
    rgb = picture.repeat(3, axis=2) if picture.shape[2] == 1 else picture
    scale = _CELL / max(height, width)
    if scale >= 1:
        whole = int(scale)
        return rgb.repeat(whole, axis=0).repeat(whole, axis=1)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which ships with matplotlib and knows most alphabets; found without importing matplotlib."""
    found = find_spec("matplotlib")
    fonts = Path(str(found.origin if found else "")).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)


def _fitting(name: str, font: ImageFont.FreeTypeFont) -> str:
    """A class name on one line that fits the label column, its middle left out where it is too long."""
    name = "".join(c if c.isprintable() else "\ufffd" for c in name)
    shown, kept = name, len(name)
    while kept > 2 and font.getlength(shown) > _LABEL - 2 * _GAP:
        kept -= 1
        shown = name[: kept // 2] + "…" + name[len(name) - (kept - kept // 2) :]
    return shown
