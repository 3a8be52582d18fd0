"""The built-in source `scenes`: crops of photographs that scikit-image's wheel carries. Nothing is downloaded.

Each of twelve photographs is a class. A line divides it in two: support rows ("train") are cut from one side, query
rows ("test") from the other, so that no pixel is in both. Colour and grey, longer sides of 96 to 320 px.

All are CC0 or in the public domain by the docstrings of `skimage.data`: astronaut and hubble_deep_field (NASA), rocket
(SpaceX), coins (Brooklyn Museum, no known copyright restrictions), camera (L. Varshney), cell (P. Müller et al.),
chelsea (S. van der Walt), coffee (R. Michetti), retina (M. Häggström), brick and gravel (CC0 Textures), grass
(linolafett). `moon` is left out, as nothing says whose it is.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from augforge import chance
from augforge.data.banks import ArrayPictures
from augforge.data.decode import decode
from augforge.types import InputError, LackError

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Photograph:
    """A photograph of the wheel, `width` by `height` px. `line` divides it at x, or at y where `across`, so that both
    sides show what it is of.
    """

    name: str
    suffix: str
    width: int
    height: int
    line: int
    across: bool = False

    def part(self, split: Split) -> tuple[int, int, int, int]:
        """The side of a split in pixels: left, top, right, bottom."""
        if self.across:
            top, bottom = (0, self.line) if split == "train" else (self.line, self.height)
            return 0, top, self.width, bottom
        left, right = (0, self.line) if split == "train" else (self.line, self.width)
        return left, 0, right, self.height


PHOTOGRAPHS = (
    Photograph("astronaut", ".png", 512, 512, 240),
    Photograph("brick", ".png", 512, 512, 256),
    Photograph("camera", ".png", 512, 512, 256, across=True),
    Photograph("cell", ".png", 550, 660, 372, across=True),
    Photograph("chelsea", ".png", 451, 300, 222),
    Photograph("coffee", ".png", 600, 400, 290),
    Photograph("coins", ".png", 384, 303, 192),
    Photograph("grass", ".png", 512, 512, 256),
    Photograph("gravel", ".png", 512, 512, 256),
    Photograph("hubble_deep_field", ".jpg", 1000, 872, 500),
    Photograph("retina", ".jpg", 1411, 1411, 705),
    Photograph("rocket", ".jpg", 640, 427, 232, across=True),
)
SHORTEST, LONGEST = 96, 320  # pixels of a crop's longer side
_LEAST = 0.6  # of the shorter side of a photograph's part is what a crop shows
_WIDEST = 4 / 3  # width by height


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops of photographs; called, it gives one as [h, w, c] uint8."""

    paths: tuple[Path, ...]
    photograph: Tensor  # [n] int64, indexes `paths`
    boxes: Tensor  # [n, 6] int64: left, top, right, bottom; width and height that it is brought to

    def __call__(self, row: int) -> np.ndarray:
        """Picture `row` [h, w, c] uint8; raises OSError where the photograph cannot be read."""
        left, top, right, bottom, width, height = self.boxes[row].tolist()
        cut = _pixels(self.paths[int(self.photograph[row])])[top:bottom, left:right]
        return cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)


def open_scenes(seed: int = 0, per_class: int = 20) -> dict[str, ArrayPictures]:
    """The banks "train" and "test", `per_class` crops of each photograph: [h, w, c] uint8, c 1 or 3, 96 to 320 px.

    Both have the same classes and no pixel in common. Crop i is the same whatever their number; rows are named as in
    "coffee/train-07". Raises InputError where `per_class` is not positive, and LackError where scikit-image, or a
    photograph of its wheel, is not installed.
    """
    if per_class < 1:
        raise InputError(f"scenes was asked for {per_class} pictures of a class; at least 1 is expected")
    paths = _paths()
    return {split: _bank(split, paths, seed, per_class) for split in ("train", "test")}


def boxes(photograph: Photograph, split: Split, seed: int, per_class: int) -> Tensor:
    """Where the crops of a photograph lie, and their sizes: [per_class, 6] int64 as in `Crops`.

    A crop shows 0.6 to 1 of the shorter side of its part, is between 3:4 and 4:3, and is never enlarged.
    """
    keys = chance.row_keys(seed, f"scenes/{photograph.name}/{split}", torch.arange(per_class))
    u = chance.uniform64(keys, (5,)).numpy()  # [per_class, 5]
    left, top, right, bottom = photograph.part(split)
    side = (_LEAST + (1 - _LEAST) * u[:, 0]) * min(right - left, bottom - top)
    aspect = _WIDEST ** (2 * u[:, 1] - 1)
    width = np.minimum(side * np.sqrt(aspect), right - left).round()
    height = np.minimum(side / np.sqrt(aspect), bottom - top).round()
    x = left + np.floor(u[:, 2] * (right - left - width + 1))
    y = top + np.floor(u[:, 3] * (bottom - top - height + 1))
    longer = np.maximum(width, height)
    scale = np.minimum(SHORTEST * (LONGEST / SHORTEST) ** u[:, 4] / longer, 1)
    numbers = np.stack([x, y, x + width, y + height, (width * scale).round(), (height * scale).round()], 1)
    return torch.from_numpy(numbers.astype(np.int64))


def _bank(split: Split, paths: tuple[Path, ...], seed: int, per_class: int) -> ArrayPictures:
    y = torch.arange(len(PHOTOGRAPHS)).repeat_interleave(per_class)  # [n_classes] -> [n_classes * per_class]
    return ArrayPictures(
        y=y,
        classes=tuple(p.name for p in PHOTOGRAPHS),
        pixels=Crops(paths, y, torch.cat([boxes(p, split, seed, per_class) for p in PHOTOGRAPHS])),
        origin=f"scenes/{split}",
        names=tuple(f"{p.name}/{split}-{i:02d}" for p in PHOTOGRAPHS for i in range(per_class)),
    )


def _paths() -> tuple[Path, ...]:
    """Where the photographs lie, found without importing scikit-image; raises LackError."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        raise LackError(
            "the source 'scenes' needs the package scikit-image, which carries the photographs; "
            "`pip install augforge[scenes]` installs it"
        )
    folder = Path(found.origin).parent / "data"
    paths = tuple(folder / f"{p.name}{p.suffix}" for p in PHOTOGRAPHS)
    for path in paths:
        if not path.is_file():
            raise LackError(f"the source 'scenes' needs the photographs of scikit-image, and {str(path)!r} is missing")
    return paths


@functools.lru_cache(maxsize=len(PHOTOGRAPHS))
def _pixels(path: Path) -> np.ndarray:
    """A photograph [h, w, c] uint8."""
    return decode(path.read_bytes(), path.name)
