"""The built-in source `glyphs`: letters of thirteen scripts in a shaky hand, from the fonts of matplotlib.

Base classes ("train") are Latin, Greek, Hebrew, Arabic, Lao, N'Ko, Tifinagh, Ogham, Old Italic and Canadian
syllabics; validation classes ("val") Cyrillic; novel classes ("test") Georgian and Armenian. Nothing is
downloaded. The pictures are made in seconds and kept in the user's cache folder; for one machine and one set of
library versions they are the same bytes for the same seed.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import features
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from augforge import chance
from augforge.data.banks import ArrayPictures
from augforge.data.glyphs.classes import TABLE, GlyphClass, glyph_classes
from augforge.data.glyphs.drawing import SIZE, draw, draw_class
from augforge.data.glyphs.faces import FACES, faces_of, fonts_digest
from augforge.types import InputError

RECIPE = 1  # raised with every change of the pictures, so that no cache of an older recipe is read


def open_glyphs(seed: int = 0, per_class: int = 20, cache: Path | None = None) -> dict[str, ArrayPictures]:
    """The banks "train", "val" and "test": pictures [28, 28, 1] uint8, white paper 255 and ink near 0.

    `per_class` pictures of each class; picture i is the same whatever their number. Rows are named as in
    "latin-capital-a/07"; the columns "face" and "script" say which font each was drawn from. `cache` is the
    folder that keeps the pictures, by default `augforge` in the user's cache folder; one that cannot be written
    costs the seconds of making them anew. Raises InputError where `per_class` is not positive, and LackError
    where matplotlib came without its fonts.
    """
    if per_class < 1:
        raise InputError(f"glyphs was asked for {per_class} pictures of a class; at least 1 is expected")
    splits = {split: glyph_classes(split) for split in TABLE}
    everything = [c for classes in splits.values() for c in classes]
    folder = cache if cache is not None else _cache_folder()
    path = None if folder is None else folder / f"glyphs-{_digest(seed, per_class)}.safetensors"
    made = None if path is None else _read(path, len(everything) * per_class)
    if made is None:
        made = draw_classes(everything, seed, per_class)
        if path is not None:
            _write(path, *made)
    banks, start = {}, 0
    for split, classes in splits.items():
        rows = slice(start, start + len(classes) * per_class)
        banks[split] = _bank(classes, made[0][rows], made[1][rows], f"glyphs/{split}")
        start = rows.stop
    return banks


def draw_classes(
    classes: Sequence[GlyphClass], seed: int, per_class: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures [n, 28, 28, 1], class after class, and the face of each [n], a position in FACES."""
    drawn = [draw_class(c.code_point, c.name, seed, per_class) for c in classes]
    return np.concatenate([p for p, _ in drawn]), np.concatenate([f for _, f in drawn])


def glyph_pairs(split: str, faces: tuple[str, str], hands: int = 20, seed: int = 0) -> ArrayPictures:
    """The letters of a split that both of two `faces` have, each in `hands` hands: pictures [28, 28, 1] uint8.

    The column "face" says which of the two a row is, "hand" which of a class's hands drew it: rows of one class and one
    hand differ by their face alone. Rows are named as in "latin-capital-a/DejaVuSerif/07". Nothing is cached. Raises
    InputError for an unknown face, twice the same, or no hands.
    """
    if hands < 1 or faces[0] == faces[1] or not set(faces) <= set(FACES):
        raise InputError(f"glyphs in {hands} hands of {faces!r} were asked for; expected two of {', '.join(FACES)}")
    classes = [c for c in glyph_classes(split) if set(faces) <= set(faces_of(c.code_point))]
    keys = {c: chance.row_keys(seed, c.name, torch.arange(hands)) for c in classes}
    pixels = np.concatenate([draw(c.code_point, keys[c], face)[0] for c in classes for face in faces])
    return ArrayPictures(
        y=torch.arange(len(classes)).repeat_interleave(2 * hands),  # [n_classes] -> [n_classes * 2 * hands]
        classes=tuple(c.name for c in classes),
        pixels=pixels,
        origin=f"glyphs/{split}",
        names=tuple(f"{c.name}/{face}/{i:02d}" for c in classes for face in faces for i in range(hands)),
        groups={
            "face": tuple(face for _ in classes for face in faces for _ in range(hands)),
            "hand": torch.arange(hands).repeat(2 * len(classes)),
            "script": tuple(c.script for c in classes for _ in range(2 * hands)),
        },
    )


def _bank(
    classes: Sequence[GlyphClass], pixels: NDArray[np.uint8], faces: NDArray[np.uint8], origin: str
) -> ArrayPictures:
    per_class = len(pixels) // len(classes)
    return ArrayPictures(
        y=torch.arange(len(classes)).repeat_interleave(per_class),  # [n_classes] -> [n_classes * per_class]
        classes=tuple(c.name for c in classes),
        pixels=pixels,
        origin=origin,
        names=tuple(f"{c.name}/{i:02d}" for c in classes for i in range(per_class)),
        groups={
            "face": tuple(FACES[f] for f in faces.tolist()),
            "script": tuple(c.script for c in classes for _ in range(per_class)),
        },
    )


def _cache_folder() -> Path | None:
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return Path(given) / "augforge"
    try:
        return Path.home() / ".cache" / "augforge"
    except RuntimeError:  # a user without a home folder has no cache either
        return None


def _digest(seed: int, per_class: int) -> str:
    """What the pictures depend on, in 24 hexadecimal digits."""
    versions = (PIL.__version__, features.version("freetype2"), cv2.__version__, np.__version__, torch.__version__)
    inputs = repr((RECIPE, seed, per_class, TABLE, FACES, versions, _matplotlib_version(), fonts_digest()))
    return hashlib.sha256(inputs.encode()).hexdigest()[:24]


def _matplotlib_version() -> str:
    import matplotlib

    return matplotlib.__version__


def _checksum(pixels: NDArray[np.uint8], faces: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data)
    digest.update(np.ascontiguousarray(faces).data)
    return digest.hexdigest()


def _read(path: Path, n: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """The n pictures of a cache file, memory-mapped, and their faces; None where it is absent or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            checksum = (file.metadata() or {}).get("sha256")
            pixels, faces = file.get_tensor("pixels").numpy(), file.get_tensor("faces").numpy()
    except (OSError, SafetensorError):
        return None
    if pixels.shape != (n, SIZE, SIZE, 1) or checksum != _checksum(pixels, faces):
        return None
    return pixels, faces


def _write(path: Path, pixels: NDArray[np.uint8], faces: NDArray[np.uint8]) -> None:
    """Write a cache file under a temporary name and rename it; a folder that cannot be written is left alone."""
    tensors = {"pixels": torch.from_numpy(pixels), "faces": torch.from_numpy(faces)}
    data = save(tensors, {"sha256": _checksum(pixels, faces)})
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
