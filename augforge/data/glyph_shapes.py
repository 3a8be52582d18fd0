"""Which letters have the same shape: the criterion by which homoglyphs were left out of `glyphs`.

A letter of the reference face is thinned to lines one pixel wide, so that weight does not count; its bounding
box is scaled to one size, so that size does not count; it is redrawn with one pen and blurred, so that a pixel
more or less does not count. The likeness of two letters is the correlation of those pictures. Thinning shrinks
a lone dot to one pixel, so letters that differ in dots alone are often called alike: none is kept by mistake.

The limits were chosen by looking at pairs sorted by likeness. From 0.88 on pairs are one shape but for a detail
(J j, X with and without a bar); below 0.84 they are different letters (G Ω, E F with another foot).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from augforge.data.glyph_faces import REFERENCE, letter_mask

WITHIN = 0.88  # two classes of one split are less alike than this
ACROSS = 0.84  # two classes of different splits are less alike than this
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


def _redrawn(lines: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Lines [h, w] at one size, with one pen, blurred: [_SIDE, _SIDE]."""
    y, x = np.nonzero(lines)
    scale = 4 * (_FILLED - 1) / max(np.ptp(x), np.ptp(y), 1)
    middle = 2 * _SIDE - 0.5
    large = np.zeros((4 * _SIDE, 4 * _SIDE), np.float32)
    rows = np.rint((y - (y.min() + y.max()) / 2) * scale + middle).astype(int)
    large[rows, np.rint((x - (x.min() + x.max()) / 2) * scale + middle).astype(int)] = 1
    pen = cv2.dilate(large, np.ones((7, 7), np.uint8))
    return cv2.GaussianBlur(cv2.resize(pen, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), (0, 0), 1.3)


def likeness(code_points: Sequence[int], face: str = REFERENCE) -> NDArray[np.float64]:
    """How alike letters are in shape: [n, n], 1 for the same shape, about 0 for unrelated ones.

    Raises ValueError where the face draws nothing for one of them.
    """
    boxes = np.zeros((len(code_points), _GRID + 4, _GRID + 4), bool)
    for box, code_point in zip(boxes, code_points, strict=True):
        mask = letter_mask(code_point, face, _GRID)
        top, left = (_GRID + 4 - mask.shape[0]) // 2, (_GRID + 4 - mask.shape[1]) // 2
        box[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    shapes = np.array([_redrawn(lines).ravel() for lines in thin(boxes)], np.float64)  # [n, _SIDE * _SIDE]
    shapes -= shapes.mean(1, keepdims=True)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True)
    return shapes @ shapes.T


def distinct(splits: Sequence[Sequence[int]]) -> list[list[int]]:
    """Drop homoglyphs: in the order given, keep a letter that is unlike all those kept before it.

    It must stay below WITHIN for letters of its own split and below ACROSS for those of earlier ones.
    """
    everything = [c for split in splits for c in split]
    alike = likeness(everything)
    earlier: list[int] = []
    kept: list[list[int]] = []
    position = 0
    for split in splits:
        own: list[int] = []
        for i in range(position, position + len(split)):
            if (alike[i, own] < WITHIN).all() and (alike[i, earlier] < ACROSS).all():
                own.append(i)
        kept.append([everything[i] for i in own])
        earlier += own
        position += len(split)
    return kept
