"""Encoded bytes -> uint8 pixels (first version; being replaced)."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from augforge.types import InputError

PICTURE_SUFFIXES = frozenset("png jpg jpeg webp bmp gif tif tiff ppm pgm".split())
MAX_PIXELS = 100_000_000


class UnreadablePicture(InputError):
    """A picture that cannot be read: `name` is which, `reason` completes the sentence "the picture ..."."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"the picture {self.name!r} {self.reason}"


def decode(data: bytes, name: str) -> np.ndarray:
    """The picture [h, w, c] uint8."""
    if not data:
        raise UnreadablePicture(name, "is empty")
    try:
        with Image.open(io.BytesIO(data)) as im:
            im.load()
            out = np.array(im if im.mode == "L" else im.convert("RGB"))
    except Exception as error:
        raise UnreadablePicture(name, "is not a picture that can be read") from error
    return out[:, :, None] if out.ndim == 2 else out
