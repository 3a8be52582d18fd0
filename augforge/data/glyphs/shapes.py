"""Which letters have the same shape: the criterion by which homoglyphs were left out of `glyphs`.

A letter of the reference face is thinned to lines one pixel wide, so that weight does not count; its bounding
box is scaled to one size, so that size does not count; it is redrawn with one pen and blurred, so that a pixel
more or less does not count. The likeness of two letters is the correlation of those pictures, the largest over
the stretches and slants that the hand which draws the pictures gives to one of them. Thinning shrinks a lone dot
to a pixel, so letters that differ in dots alone are mostly called alike.

The limits were chosen by looking at pairs sorted by likeness. Above 0.90 nearly all are one shape, or one but for
a dot or bar (c C 0.94, X with a bar 0.94). Around 0.88 one shape (T and small tau, 0.89) stands beside different
letters (E F 0.87); around 0.85 most are different (C and Armenian et, 0.84). Between splits the lower limit holds,
since a novel class that looks like a base class would not be novel.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from augforge.data.glyphs.faces import REFERENCE, faces_of, letter_mask

WITHIN = 0.88  # two classes of one split are less alike than this
ACROSS = 0.85  # two classes of different splits are less alike than this
OTHERS = ("DejaVuSerif", "DejaVuSansMono", "STIXGeneral")
ALLOWANCE = 0.05  # shared serifs and squeezed letters raise the likeness of letters that the eye tells apart
_STRETCHES, _SLANTS = (0.8, 1.0, 1.25), (-0.2, 0.0, 0.2)  # as far as the hand of glyph_drawing goes
_PEN = np.ones((4, 4), np.uint8)
_GRID, _SIDE, _FILLED = 52, 32, 23  # px: box to thin in; side of the compared picture, and how much of it is filled


def thin(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin shapes [n, h, w], whose border is empty, to lines of one pixel.

    Zhang & Suen, "A fast parallel algorithm for thinning digital patterns", CACM 27(3), 1984.
    """
    ink = ink.copy()
    todo = np.arange(len(ink))
    while len(todo):
        x = ink[todo]
        before = x.sum((1, 2))  # [m, h, w] -> [m]
        for first in (True, False):
            # the eight neighbours, clockwise from north: P2 to P9 of the paper
            north, east = x[:, :-2, 1:-1], x[:, 1:-1, 2:]
            south, west = x[:, 2:, 1:-1], x[:, 1:-1, :-2]
            ring = [north, x[:, :-2, 2:], east, x[:, 2:, 2:], south, x[:, 2:, :-2], west, x[:, :-2, :-2]]
            count = np.add.reduce([p.view(np.uint8) for p in ring])
            turns = np.add.reduce([(b & ~a).view(np.uint8) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)])
            edge = ~(east & south & (north | west)) if first else ~(north & west & (east | south))
            gone = x[:, 1:-1, 1:-1] & (count >= 2) & (count <= 6) & (turns == 1) & edge
            x[:, 1:-1, 1:-1] &= ~gone
        ink[todo] = x
        todo = todo[x.sum((1, 2)) < before]
    return ink


def _redrawn(lines: NDArray[np.bool_], stretch: float, slant: float) -> NDArray[np.float32]:
    """Lines [h, w], stretched and slanted, at one size, with one pen, blurred: [_SIDE * _SIDE], of length 1."""
    y, x = np.nonzero(lines)
    points = np.stack([y, stretch * x + slant * y])  # [2, k]
    points -= (points.min(1, keepdims=True) + points.max(1, keepdims=True)) / 2
    scale = 2 * (_FILLED - 1) / max(float(2 * points.max()), 1.0)
    large = np.zeros((2 * _SIDE, 2 * _SIDE), np.float32)
    rows, columns = np.rint(points * scale + _SIDE - 0.5).astype(int)
    large[rows, columns] = 1
    small = cv2.resize(cv2.dilate(large, _PEN), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    shape = cv2.GaussianBlur(small, (0, 0), 1.3).ravel()
    shape -= shape.mean()
    return (shape / np.linalg.norm(shape)).astype(np.float32)


def likeness_in(face: str, code_points: Sequence[int]) -> NDArray[np.float32]:
    """How alike letters of one face are in shape: [n, n], 1 for the same shape, about 0 for unrelated ones.

    Raises ValueError where the face draws nothing for one of them.
    """
    boxes = np.zeros((len(code_points), _GRID + 4, _GRID + 4), bool)
    for box, code_point in zip(boxes, code_points, strict=True):
        mask = letter_mask(code_point, face, _GRID)
        top, left = (_GRID + 4 - mask.shape[0]) // 2, (_GRID + 4 - mask.shape[1]) // 2
        box[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    thinned = thin(boxes)
    plain = np.stack([_redrawn(lines, 1.0, 0.0) for lines in thinned])  # [n, _SIDE * _SIDE]
    alike = plain @ plain.T
    for stretch in _STRETCHES:
        for slant in _SLANTS:
            if (stretch, slant) == (1.0, 0.0):
                continue
            drawn = np.stack([_redrawn(lines, stretch, slant) for lines in thinned])
            alike = np.maximum(alike, drawn @ plain.T)
    return np.maximum(alike, alike.T)


def likeness(code_points: Sequence[int]) -> NDArray[np.float32]:
    """How alike letters are in shape, [n, n]: in the reference face, or less ALLOWANCE in another one.

    Serifs and narrow letters make some pairs coincide that the reference face tells apart (n and Armenian ra).
    Raises ValueError where the reference face draws nothing for one of them.
    """
    alike = likeness_in(REFERENCE, code_points)
    for face in OTHERS:
        rows = [i for i, c in enumerate(code_points) if face in faces_of(c)]
        if len(rows) > 1:
            block = np.ix_(rows, rows)
            alike[block] = np.maximum(alike[block], likeness_in(face, [code_points[i] for i in rows]) - ALLOWANCE)
    return alike


def distinct(letters: Sequence[tuple[str, Sequence[int]]]) -> dict[str, list[int]]:
    """Drop homoglyphs from (split, code points) pairs: the letters that are kept, by split.

    In the order given a letter is kept where it is less like every kept one than WITHIN, if that is of the same
    split, or ACROSS, if of another.
    """
    labelled = [(split, c) for split, code_points in letters for c in code_points]
    alike = likeness([c for _, c in labelled])
    kept: list[int] = []
    for i, (split, _) in enumerate(labelled):
        limits = np.array([WITHIN if labelled[j][0] == split else ACROSS for j in kept])
        if (alike[i, kept] < limits).all():
            kept.append(i)
    return {split: [labelled[i][1] for i in kept if labelled[i][0] == split] for split, _ in letters}
