"""Drawing one class of `glyphs`: letters under a shaky hand, every picture a function of its key alone.

The hand slants, stretches and turns a letter, bends it by a smooth field, chooses a pen and presses it unevenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augforge import chance
from augforge.data.glyph_faces import FACES, SIDE, Specimen, faces_of, specimen

SIZE = 28  # px of a picture
_CANVAS = 72  # px drawn on, at twice the size of a picture, with room for the bends
_WINDOW = 2 * SIZE
_COARSE, _FINE = 4, 8  # nodes of the fields: sweeps of the arm, and tremor


@dataclass(frozen=True)
class _Hand:
    """What chance decided for n pictures: `unit` [n, 10] in [0, 1), the nodes of the coarse and fine fields."""

    unit: NDArray[np.float32]
    coarse: NDArray[np.float32]  # [n, 4, 4, 3]: bend in x, bend in y, pressure
    fine: NDArray[np.float32]  # [n, 8, 8, 2]: tremor in x and in y


def _hand(keys: Tensor) -> _Hand:
    return _Hand(
        chance.uniform(chance.fork(keys, "hand"), (10,)).numpy(),
        chance.normal(chance.fork(keys, "bend"), (_COARSE, _COARSE, 3)).numpy(),
        chance.normal(chance.fork(keys, "tremor"), (_FINE, _FINE, 2)).numpy(),
    )


def _between(u: np.float32, low: float, high: float) -> float:
    return low + (high - low) * float(u)


def _affine(u: NDArray[np.float32], outline: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The map [2, 2] from distance field to canvas about their centres, and its mean scale.

    The longer side of the turned and slanted letter comes out at 15.5 to 21 px of the picture.
    """
    turn, slant = np.deg2rad(_between(u[0], -13, 13)), _between(u[1], -0.22, 0.22)
    stretch = np.exp(_between(u[2], -0.12, 0.12))
    shape = np.array([[stretch, slant], [0, 1 / stretch]])
    shape = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ shape
    extent = np.ptp(outline @ shape.T, axis=0).max()  # [k, 2] -> [2] -> one number
    scale = 2 * _between(u[3], 15.5, 21) / (extent + 1)
    return (scale * shape).astype(np.float32), float(scale)


_Y, _X = (a.astype(np.float32) - (_CANVAS - 1) / 2 for a in np.mgrid[:_CANVAS, :_CANVAS])


def _ink(hand: _Hand, i: int, letter: Specimen) -> NDArray[np.float32]:
    """The ink of picture i on the canvas, [_CANVAS, _CANVAS] in 0..1."""
    u = hand.unit[i]
    matrix, scale = _affine(u, letter.outline)
    bend = cv2.resize(hand.coarse[i], (_CANVAS, _CANVAS), interpolation=cv2.INTER_CUBIC)
    tremor = cv2.resize(hand.fine[i], (_CANVAS, _CANVAS), interpolation=cv2.INTER_CUBIC)
    sway, shake = _between(u[4], 1.2, 2.6), _between(u[5], 0.2, 0.7)
    x = _X + sway * bend[..., 0] + shake * tremor[..., 0]
    y = _Y + sway * bend[..., 1] + shake * tremor[..., 1]
    back = np.linalg.inv(matrix).astype(np.float32)
    centre = np.float32((SIDE - 1) / 2)
    source_x = back[0, 0] * x + back[0, 1] * y + centre
    source_y = back[1, 0] * x + back[1, 1] * y + centre
    far = cv2.remap(letter.field, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    pen = 2 * _between(u[6], 0.7, 1.35)  # half the width of the stroke, px of the canvas
    # the weight of the face is evened out in part; thin strokes are not thinned away, nor dense letters filled in
    change = min(max(0.8 * (pen - scale * letter.pen), 0.6 - scale * letter.thinnest), 0.4 * scale * letter.pen)
    return np.clip(0.5 + scale * far + change + 0.22 * bend[..., 2], 0, 1)


def _frame(ink: NDArray[np.float32], u: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut the picture's window [_WINDOW, _WINDOW] about the ink, off centre by up to 2 px of the picture.

    A margin of 1 px of the picture stays free wherever the letter is small enough for it.
    """
    start = []
    for axis, chosen in ((1, u[7]), (0, u[8])):
        marked = np.flatnonzero(ink.max(axis) > 0.05)  # [_CANVAS, _CANVAS] -> rows, then columns
        first, last = (int(marked[0]), int(marked[-1])) if len(marked) else (0, _CANVAS - 1)
        middle = (first + last + 1 - _WINDOW) / 2
        room = max(0.0, (_WINDOW - (last + 1 - first)) / 2 - 2)
        start.append(round(middle + _between(chosen, -1, 1) * min(room, 4.0)))
    room = _CANVAS - _WINDOW
    padded = np.pad(ink, room)  # the window may reach beyond the canvas where a letter was swept aside
    top, left = (min(max(v + room, 0), _CANVAS + room) for v in start)
    return padded[top : top + _WINDOW, left : left + _WINDOW]


def draw(code_point: int, keys: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures [n, 28, 28, 1] of one letter for keys [n], paper 255 and ink near 0, and each one's face [n].

    A face is a position in FACES. Picture i depends on keys[i] alone.
    """
    faces = faces_of(code_point)
    chosen = chance.choice(chance.fork(keys, "face"), len(faces)).tolist()
    letters = {j: specimen(code_point, faces[j]) for j in sorted(set(chosen))}
    hand = _hand(keys)
    pictures = np.empty((len(keys), SIZE, SIZE, 1), np.uint8)
    for i, j in enumerate(chosen):
        framed = _frame(_ink(hand, i, letters[j]), hand.unit[i])
        small = cv2.resize(framed, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        density = 1 - 0.2 * float(hand.unit[i, 9]) ** 2
        pictures[i, ..., 0] = np.rint(255 * (1 - density * small))
    return pictures, np.array([FACES.index(faces[j]) for j in chosen], np.uint8)


def draw_class(code_point: int, name: str, seed: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The first `count` pictures of class `name` under `seed`: [count, 28, 28, 1], and their faces [count]."""
    return draw(code_point, chance.row_keys(seed, name, torch.arange(count)))
