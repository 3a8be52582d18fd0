"""The faces of `glyphs`: font files that ship with matplotlib, and one letter of one face as a distance field.

System fonts are never looked at, so the same matplotlib gives the same letters on every machine. Faces with a
LastResort or symbol character map are left out: they claim thousands of letters and draw a box for each.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from augforge.types import LackError

REFERENCE = "DejaVuSans"
UPRIGHT = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
    "STIXGeneral",
    "STIXGeneralBol",
)
ITALIC = ("DejaVuSerif-Italic", "DejaVuSerif-BoldItalic", "STIXGeneralItalic", "STIXGeneralBolIta")
COMPUTER_MODERN = ("cmr10", "cmb10", "cmss10", "cmtt10")
FACES = UPRIGHT + ITALIC + COMPUTER_MODERN

BOX = 48  # px of a distance field that the longer side of a letter's bounding box fills
MARGIN = 12  # px of paper on each side of that box
SIDE = BOX + 2 * MARGIN
_FONT_PX = 96  # letters are drawn this large, then reduced to BOX
_NEAR = np.ones((3, 3), np.uint8)
_ASCII_LETTERS = frozenset([*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1)])


def face_path(face: str) -> Path:
    """The font file of `face`. Raises LackError where this matplotlib ships without it."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    if not path.is_file():
        raise LackError(f"glyphs needs the fonts that ship with matplotlib, and {str(path)!r} is missing")
    return path


@functools.cache
def face_characters(face: str) -> frozenset[int]:
    """The code points that `face` has a letter for, after its character map."""
    if face in COMPUTER_MODERN:
        return _ASCII_LETTERS  # the rest of their maps puts TeX symbols at the code points of other characters
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(face_path(face))).get_charmap())


@functools.cache
def fonts_digest() -> str:
    """A SHA-256 of all font files, in hexadecimal."""
    digest = hashlib.sha256()
    for face in FACES:
        digest.update(hashlib.sha256(face_path(face).read_bytes()).digest())
    return digest.hexdigest()


def faces_of(code_point: int) -> tuple[str, ...]:
    """The faces that a letter is drawn in, in the order of FACES.

    Small letters are not drawn in italics: a cursive Cyrillic te is a Latin m, a cursive Latin a is an alpha.
    """
    small = " SMALL " in unicodedata.name(chr(code_point))
    return tuple(f for f in FACES if code_point in face_characters(f) and not (small and f in ITALIC))


@functools.cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    # Patch: the basic engine, because the other one joins Arabic letters and is not in every build of Pillow
    return ImageFont.truetype(str(face_path(face)), _FONT_PX, layout_engine=ImageFont.Layout.BASIC)


def letter_mask(code_point: int, face: str, box: int) -> NDArray[np.bool_]:
    """The ink of a letter [h, w], cut to its bounding box and scaled so that the longer side is `box` px.

    Raises ValueError where the face draws nothing for it.
    """
    font, text = _font(face), chr(code_point)
    left, top, right, bottom = (int(v) for v in font.getbbox(text))
    paper = Image.new("L", (max(right - left, 1) + 8, max(bottom - top, 1) + 8), 0)
    ImageDraw.Draw(paper).text((4 - left, 4 - top), text, fill=255, font=font)
    ink = np.asarray(paper)
    left, top, width, height = cv2.boundingRect((ink > 127).view(np.uint8))
    if not width:
        raise ValueError(f"{face} draws nothing for U+{code_point:04X}")
    ink = ink[top : top + height, left : left + width]
    scale = box / max(ink.shape)
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    return cv2.resize(ink, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR) > 127


@dataclass(frozen=True)
class Specimen:
    """A letter of one face as a field of distances, whose level sets are the letter in every stroke width."""

    field: NDArray[np.float32]  # [SIDE, SIDE] px to the outline, positive in the ink
    outline: NDArray[np.float32]  # [k, 2] (x, y) of its leftmost and rightmost px about the centre of the field
    pen: float  # half the usual stroke width, px
    thinnest: float  # half the width of the thin strokes, px


def specimen(code_point: int, face: str) -> Specimen:
    """Draw a letter once, large. Raises ValueError where the face draws nothing for it."""
    mask = letter_mask(code_point, face, BOX)
    ink = np.zeros((SIDE, SIDE), np.uint8)
    top, left = (SIDE - mask.shape[0]) // 2, (SIDE - mask.shape[1]) // 2
    ink[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    inside = cv2.distanceTransform(ink, cv2.DIST_L2, 5)
    field = inside - cv2.distanceTransform(1 - ink, cv2.DIST_L2, 5)
    ridge = inside[(inside > 0.5) & (inside >= cv2.dilate(inside, _NEAR))]
    ridge.sort()
    pen, thinnest = float(ridge[len(ridge) // 2]), float(ridge[len(ridge) // 7])
    rows = np.flatnonzero(ink.any(1))
    ends = [ink[rows].argmax(1), SIDE - 1 - ink[rows, ::-1].argmax(1)]  # first and last column of ink in each row
    outline = np.stack([np.concatenate(ends), np.tile(rows, 2)], 1).astype(np.float32) - (SIDE - 1) / 2
    return Specimen(field.astype(np.float32), outline, pen, thinnest)
