"""Encoded bytes -> uint8 pixels, and one error for everything that can be wrong with a picture.

Pillow decodes, except for WebP that does not move, which OpenCV (the same libwebp) decodes in about half the time for
small pictures, and in half of the memory for large ones. Greyscale stays one channel; transparency is laid on white;
EXIF's orientation is applied; colour profiles are ignored. No warning leaves this module and no global setting of
Pillow or OpenCV is read or changed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, PpmImagePlugin

from PIL import TiffImagePlugin, WebPImagePlugin  # isort: skip
from PIL.ImageFile import ImageFile

from augforge.data.containers import (
    CUT_SHORT,
    NO_PICTURE,
    READ_BY,
    Container,
    Defect,
    can_read,
    exif_orientation,
    inspect,
)
from augforge.data.strict_json import brief
from augforge.types import InputError, UnreadablePicture

MAX_PIXELS = 8192 * 8192  # of one picture, where AUGFORGE_MAX_PIXELS does not say otherwise; they take half a GB
_STRIP = 1 << 16  # pixels that are converted at a time

# The classes are called directly because Image.open has a limit of its own, for which it warns.
_OPEN: dict[str, type[ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
_UNKNOWN_RANGE = "has samples that are neither 8 nor 16 bits unsigned, so that black and white are not known"
_quiet = threading.Lock()


def decode(data: bytes, name: str, at_least: int = 0) -> np.ndarray:
    """The picture [h, w, c] uint8, contiguous and writable; c is 1 (greyscale) or 3 (RGB).

    With `at_least` above 0 a JPEG may come out at 1/2, 1/4 or 1/8 of its size, with a shorter side of so many pixels or
    more: libjpeg then inverts a part of each cosine transform only. A photograph of 4,000 x 3,000 px at 1/4 takes a
    fifth of the time of all of it, and a sixteenth of the memory.

    PNG, JPEG, WebP, BMP, GIF (its first frame), TIFF, PPM/PGM, AVIF and HEIF are recognised by their bytes, whatever
    the file is called. 16-bit greyscale is divided by 257 and rounded; 16-bit colour keeps its high bytes. Raises
    UnreadablePicture, with `name`, for what is empty, no picture, cut short, or larger than `most_pixels()`.
    """
    try:
        container = inspect(data)
        _check_size(container.pixels)
        pixels = _decode_still_webp(container.data) if container.still_webp else None
        if pixels is None:
            pixels = _decode_pillow(container, at_least)
    except Defect as defect:
        raise UnreadablePicture(name, str(defect)) from None
    return np.ascontiguousarray(_turn(pixels, container.orientation))


def most_pixels() -> int:
    """How many pixels a picture may have: AUGFORGE_MAX_PIXELS, which worker processes inherit, or 8,192 x 8,192.

    Raises InputError where the variable is no whole number of at least 1.
    """
    said = os.environ.get("AUGFORGE_MAX_PIXELS")
    if said is None:
        return MAX_PIXELS
    if not (said.isascii() and said.isdigit() and 0 < len(said) < 19 and int(said)):
        raise InputError(f"AUGFORGE_MAX_PIXELS is {brief(repr(said))}; expected a whole number of at least 1")
    return int(said)


def _check_size(pixels: int | None) -> None:
    if pixels is not None and pixels > (most := most_pixels()):
        raise Defect(f"has {pixels:,} pixels, more than {most:,} can be (AUGFORGE_MAX_PIXELS)")


def _decode_still_webp(data: bytes) -> np.ndarray | None:
    """[h, w, 3], or None where OpenCV cannot: Pillow's error is the one to report."""
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if bgr is None or bgr.dtype != np.uint8 or bgr.ndim != 3 or bgr.shape[2] not in (3, 4):
        return None
    if bgr.shape[2] == 4:
        bgra: np.ndarray = bgr
        bgr = _in_strips(bgra.shape[:2], lambda top, end: _on_white(bgra[top:end]))
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr)


def _decode_pillow(container: Container, at_least: int) -> np.ndarray:
    """[h, w] or [h, w, c] uint8; whatever Pillow raises becomes a Defect."""
    # Only these parse metadata that may be damaged without concern to the pixels, and warn about it.
    noisy = container.kind in ("TIFF", "GIF", "AVIF", "HEIF")
    opener = _opener(container.kind)
    try:
        quiet = _without_warnings() if noisy else contextlib.nullcontext()
        with quiet, opener(io.BytesIO(container.data)) as image:
            _check_size(image.width * image.height)
            if at_least and container.kind == "JPEG":
                image.draft(None, (at_least, at_least))  # None: in the file's own mode
            image.load()
            pixels = to_pixels(image, container.kind)
            if container.kind != "AVIF":  # libheif turns its pictures itself
                return pixels
            return _turn(pixels, exif_orientation(image.info.get("exif", b"").removeprefix(b"Exif\0\0")))
    except (Defect, InputError, MemoryError):
        raise
    except Exception as error:  # Pillow raises nearly every built-in error for one defect or another
        raise Defect(CUT_SHORT if "truncated" in str(error).lower() else NO_PICTURE) from error


def _opener(kind: str) -> Callable[[io.BytesIO], ImageFile]:
    """Pillow's class for a format; raises Defect where this machine cannot read it."""
    if not can_read(kind):
        raise Defect(f"is {kind}, which is not read here: {READ_BY[f'.{kind.lower()}']}")
    if kind == "AVIF":
        from PIL.AvifImagePlugin import AvifImageFile

        return AvifImageFile
    if kind == "HEIF":
        from pillow_heif import HeifImageFile

        return HeifImageFile
    return _OPEN[kind]


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Python 3.11 keeps its warning filters for all threads together, so one at a time may change them."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_pixels(image: Image.Image, kind: str = "") -> np.ndarray:
    """A picture of Pillow's, of the format `kind`, as grey [h, w] or RGB [h, w, 3] uint8; raises Defect."""
    convert = _conversion(image, kind)
    width, height = image.size
    return _in_strips(
        (height, width),
        lambda top, end: convert(image if end - top == height else image.crop((0, top, width, end))),
    )


def _in_strips(size: tuple[int, int], strip: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """[h, w] or [h, w, c] of what `strip(top, end)` makes: a conversion of the whole would hold it three times."""
    height, width = size
    at_once = max(1, _STRIP // max(1, width))
    if height <= at_once:
        return strip(0, height)
    first = strip(0, at_once)
    out = np.empty((height, *first.shape[1:]), np.uint8)
    out[:at_once] = first
    for top in range(at_once, height, at_once):
        out[top : top + at_once] = strip(top, min(height, top + at_once))
    return out


def _conversion(image: Image.Image, kind: str) -> Callable[[Image.Image], np.ndarray]:
    """What makes pixels of a part of a picture of Pillow's; raises Defect."""
    mode, level = image.mode, image.info.get("transparency")
    if mode.startswith("I;16") or (mode == "I" and kind == "PPM"):  # Pillow scales a PGM's range to 16 bits
        return functools.partial(_from_16_bits, *_range_of_16_bits(image), level)
    if mode in ("I", "F"):
        raise Defect(_UNKNOWN_RANGE)
    if mode == "1":
        return functools.partial(_from_1_bit, level)
    if mode in ("La", "LA") or (mode == "L" and level is not None):
        return lambda part: _on_white(np.asarray(part if part.mode == "LA" else part.convert("LA")))
    if mode in ("RGBa", "RGBA", "PA") or (mode in ("P", "RGB") and level is not None):
        return lambda part: _on_white(np.asarray(part if part.mode == "RGBA" else part.convert("RGBA")))
    return lambda part: np.array(part if mode in ("L", "RGB") else part.convert("RGB"))


def _from_1_bit(level: object, image: Image.Image) -> np.ndarray:
    """Black and white [h, w] to 0 and 255; tRNS of a bilevel PNG names the level 0 or 1."""
    grey = np.array(image.convert("L"))
    return grey if level is None else np.where(grey == (255 if level else 0), np.uint8(255), grey)


def _range_of_16_bits(image: Image.Image) -> tuple[int, bool]:
    """The top of a range of 16-bit grey, and whether it is black: a TIFF may have fewer bits, and white at zero."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 65535, False
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    return (1 << bits) - 1, image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _from_16_bits(top: int, inverted: bool, level: object, image: Image.Image) -> np.ndarray:
    """16-bit grey [h, w] to 8 bits."""
    values = np.array(image).astype(np.uint32)
    values = top - values if inverted else values
    grey = ((values * 255 + top // 2) // top).astype(np.uint8)
    if isinstance(level, int):
        grey[values == level] = 255
    return grey


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """Pixels [h, w, c + 1], alpha last, over white, rounded: [h, w] or [h, w, 3] uint8."""
    colour, alpha = pixels[:, :, :-1], pixels[:, :, -1:].astype(np.uint16)
    # at most 65,152: 16 bits are enough
    out = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return out[:, :, 0] if out.shape[2] == 1 else out


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF's orientation undone: [h, w] or [h, w, c] -> [h', w', c]."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
