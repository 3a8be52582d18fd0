"""Drawing one class of `glyphs`: letters under a shaky hand, every picture a function of its key alone.

The hand slants, stretches and turns a letter, bends it by a smooth field, chooses a pen and presses it unevenly.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch import Tensor

from augforge import chance
from augforge.data.glyphs.faces import FACES, SIDE, Specimen, faces_of, specimen

SIZE = 28  # px of a picture
_CANVAS = 64  # px drawn on, at twice the size of a picture, with room for the bends
_WINDOW = 2 * SIZE
_COARSE, _FINE = 4, 8  # nodes of the fields: sweeps of the arm, and tremor
_AT_ONCE = 64  # pictures whose fields are in memory together

_Y, _X = (a.astype(np.float32) - (_CANVAS - 1) / 2 for a in np.mgrid[:_CANVAS, :_CANVAS])


def _spread(nodes: int) -> NDArray[np.float32]:
    """Cubic interpolation from nodes to the canvas, as a matrix [_CANVAS, nodes]."""
    rows = [cv2.resize(row[None], (_CANVAS, 1), interpolation=cv2.INTER_CUBIC)[0] for row in np.eye(nodes)]
    return np.stack(rows, 1).astype(np.float32)


_FROM_COARSE, _FROM_FINE = _spread(_COARSE), _spread(_FINE)


def _between(u: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    return (low + (high - low) * u).astype(np.float32)


def _affine(unit: NDArray[np.float32], letters: Sequence[Specimen]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The maps [n, 2, 2] from distance field to canvas about their centres, and their mean scales [n].

    The longer side of the turned and slanted letter comes out at 15.5 to 21 px of the picture.
    """
    turn, slant = np.deg2rad(_between(unit[:, 0], -13, 13)), _between(unit[:, 1], -0.22, 0.22)
    stretch = np.exp(_between(unit[:, 2], -0.12, 0.12))
    cos, sin = np.cos(turn), np.sin(turn)
    # a turn [[cos, -sin], [sin, cos]] after a slant and stretch [[stretch, slant], [0, 1 / stretch]]; its area is 1
    maps = np.array([[cos * stretch, cos * slant - sin / stretch], [sin * stretch, sin * slant + cos / stretch]])
    maps = rearrange(maps, "row column n -> n row column")
    extent = [np.ptp(letter.outline @ m.T, axis=0).max() for letter, m in zip(letters, maps, strict=True)]
    scale = 2 * _between(unit[:, 3], 15.5, 21) / (np.array(extent, np.float32) + 1)
    return scale[:, None, None] * maps, scale


def _fields(keys: Tensor, unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bends in x and in y, and the pressure of the pen, all in px of the canvas: [n, 3, _CANVAS, _CANVAS]."""
    coarse = chance.normal(chance.fork(keys, "bend"), (3, _COARSE, _COARSE)).numpy()
    fine = chance.normal(chance.fork(keys, "tremor"), (2, _FINE, _FINE)).numpy()
    size = np.full((len(keys), 3, 1, 1), 0.22, np.float32)
    size[:, :2] = _between(unit[:, 4], 1.2, 2.6)[:, None, None, None]
    fields = _FROM_COARSE @ (size * coarse) @ _FROM_COARSE.T
    shake = _between(unit[:, 5], 0.2, 0.7)[:, None, None, None]
    fields[:, :2] += _FROM_FINE @ (shake * fine) @ _FROM_FINE.T
    return fields


def _inks(keys: Tensor, unit: NDArray[np.float32], letters: Sequence[Specimen]) -> NDArray[np.float32]:
    """The ink of n pictures on the canvas, [n, _CANVAS, _CANVAS] in 0..1."""
    maps, scale = _affine(unit, letters)
    fields = _fields(keys, unit)
    x, y = _X + fields[:, 0], _Y + fields[:, 1]
    a, b, c, d = rearrange(maps / scale[:, None, None] ** 2, "n row column -> (row column) n 1 1")
    centre = np.float32((SIDE - 1) / 2)
    source_x, source_y = d * x - b * y + centre, a * y - c * x + centre  # the inverse of the map
    far = np.stack(
        [
            cv2.remap(letter.field, sx, sy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for letter, sx, sy in zip(letters, source_x, source_y, strict=True)
        ]
    )
    usual = scale * np.array([letter.pen for letter in letters], np.float32)
    thinnest = scale * np.array([letter.thinnest for letter in letters], np.float32)
    pen = 2 * _between(unit[:, 6], 0.7, 1.35)  # half the width of the stroke, px of the canvas
    # the weight of the face is evened out in part; thin strokes are not thinned away, nor dense letters filled in
    change = np.minimum(np.maximum(0.8 * (pen - usual), 0.6 - thinnest), 0.4 * usual)
    return np.clip(0.5 + scale[:, None, None] * far + change[:, None, None] + fields[:, 2], 0, 1)


def _frame(ink: NDArray[np.float32], aside: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture's window [_WINDOW, _WINDOW] about the ink, off centre by up to 2 px of the picture.

    `aside` [2] in [0, 1) says how far; a margin of 1 px of the picture stays free unless the letter is too large.
    """
    left, top, width, height = cv2.boundingRect((ink > 0.05).view(np.uint8))
    ink = ink[top : top + height, left : left + width][:_WINDOW, :_WINDOW]
    window = np.zeros((_WINDOW, _WINDOW), np.float32)
    corner = []
    for length, chosen in zip(ink.shape, aside.tolist(), strict=True):
        free = (_WINDOW - length) / 2
        corner.append(round(free + (2 * chosen - 1) * min(max(free - 2, 0), 4)))
    window[corner[0] : corner[0] + ink.shape[0], corner[1] : corner[1] + ink.shape[1]] = ink
    return window


def draw(code_point: int, keys: Tensor, face: str = "") -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures [n, 28, 28, 1] of one letter for keys [n], paper 255 and ink near 0, and each one's face [n].

    A face is a position in FACES, drawn by the key, or `face` for all: the same hand in another face. Picture i depends
    on keys[i] alone.
    """
    faces = (face,) if face else faces_of(code_point)
    chosen = chance.choice(chance.fork(keys, "face"), len(faces)).tolist()
    specimens = {j: specimen(code_point, faces[j]) for j in sorted(set(chosen))}
    pictures = np.empty((len(keys), SIZE, SIZE, 1), np.uint8)
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        unit = chance.uniform(chance.fork(some, "hand"), (10,)).numpy()
        inks = _inks(some, unit, [specimens[j] for j in chosen[start : start + _AT_ONCE]])
        windows = np.stack([_frame(ink, u[7:9]) for ink, u in zip(inks, unit, strict=True)])
        small = reduce(windows, "n (h two) (w too) -> n h w 1", "mean", two=2, too=2)
        density = 1 - 0.2 * unit[:, 9] ** 2
        pictures[start : start + _AT_ONCE] = np.rint(255 * (1 - density[:, None, None, None] * small))
    return pictures, np.array([FACES.index(faces[j]) for j in chosen], np.uint8)


def draw_class(code_point: int, name: str, seed: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The first `count` pictures of class `name` under `seed`: [count, 28, 28, 1], and their faces [count]."""
    return draw(code_point, chance.row_keys(seed, name, torch.arange(count)))
