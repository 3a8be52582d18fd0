"""Which real pictures can be read, found before anything is written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from augforge.data.decode import UnreadablePicture
from augforge.synth.generate import Making, load
from augforge.synth.workers import in_order
from augforge.types import InputError

_ROWS_AT_ONCE = 128


def check_pictures(making: Making, rows: np.ndarray, workers: int) -> tuple[dict[int, str], set[tuple[int, int, int]]]:
    """Decode the rows [m]: the reason for each that cannot be read, and the shapes [h, w, c] of the others."""
    bad: dict[int, str] = {}
    shapes: set[tuple[int, int, int]] = set()
    pieces = [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]
    for some_bad, some_shapes in in_order(_check, making, pieces, min(workers, len(pieces))):
        bad |= some_bad
        shapes |= some_shapes
    return bad, shapes


def first_readable(making: Making, rows: Mapping[str, np.ndarray]) -> None:
    """Raise InputError naming the first class that has no picture that can be read at all."""
    for name, members in rows.items():
        if not any(_is_readable(making, int(row)) for row in members):
            raise InputError(f"class {name!r} has no picture that can be read; the method needs at least 1")


def _check(making: Making, rows: np.ndarray) -> tuple[dict[int, str], set[tuple[int, int, int]]]:
    bad, shapes = {}, set()
    for row in rows.tolist():
        try:
            shapes.add(load(making, row)[0].shape)
        except UnreadablePicture as error:
            bad[row] = error.reason
    return bad, shapes


def _is_readable(making: Making, row: int) -> bool:
    try:
        load(making, row)
    except UnreadablePicture:
        return False
    return True
