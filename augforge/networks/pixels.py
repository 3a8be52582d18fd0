"""All pictures of a bank on one device, as one tensor: what networks of pictures learn from."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from augforge.types import Bank, InputError, NothingToLearn

LARGEST_LETTER = 32  # pixels a side: grey pictures no larger are taken for writing
_ROWS_AT_ONCE = 4096
_HALF_LEVEL = 0.5 / 255


@dataclass(frozen=True, eq=False)
class Pixels:
    """A bank's pictures on one device, with the rows of each class."""

    x: Tensor  # [n, h, w, c] uint8
    y: Tensor  # [n] int64
    table: Tensor  # [classes, most] int64: the rows of each class, filled up with 0
    counts: Tensor  # [classes] int64: how many rows each class has
    groups: Tensor  # [classes] int64: the group of each class, all 0 where there are none

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.counts)


def load_pixels(bank: Bank, size: int, device: str | torch.device, group: str = "") -> Pixels:
    """All pictures of a bank on a device, made square at `size` px (0: as they are).

    `group` names a column of the bank's `groups`, or several joined with "+", whose entry at the first row of a class
    is the group of the class. Raises InputError where pictures differ in size and no size is given, where there is
    no such column, and NothingToLearn where there is no picture.
    """
    if bank.space != "image":
        raise InputError("this method learns from pictures, and this source holds features")
    if not len(bank.y):
        raise NothingToLearn("this method learns from pictures; there are none")
    parts = [_levels(prepared(bank.examples(rows).x, size)) for rows in torch.arange(len(bank.y)).split(_ROWS_AT_ONCE)]
    if len({tuple(part.shape[1:]) for part in parts}) != 1:
        raise InputError("the pictures differ in size; expected the setting size=PX, which makes them one")
    x = rearrange(torch.cat([part.to(device) for part in parts]), "n c h w -> n h w c").contiguous()
    table, counts = class_table(bank.y, len(bank.classes))
    groups = _class_groups(bank, table[:, 0], group)
    return Pixels(x, bank.y.to(device), table.to(device), counts.to(device), groups.to(device))


def class_table(y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The rows [classes, most] of each class of labels `y` [n], filled up with 0, and how many there are [classes]."""
    counts = torch.bincount(y, minlength=classes)
    order = torch.argsort(y, stable=True)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(order), device=y.device) - starts[y[order]]  # [n] position within the class
    table = torch.zeros(classes, int(counts.max()), dtype=torch.int64, device=y.device)
    table[y[order], place] = order
    return table, counts


def _class_groups(bank: Bank, first: Tensor, group: str) -> Tensor:
    """The group [classes] of each class, numbered, from the column at the class's first row `first` [classes]."""
    if not group:
        return torch.zeros(len(first), dtype=torch.int64)
    columns = getattr(bank, "groups", {})
    missing = [name for name in group.split("+") if name not in columns]
    if missing:
        raise InputError(f"within={group!r} was given; the columns are {sorted(columns)}, and may be joined with +")
    names = [tuple(str(columns[name][row]) for name in group.split("+")) for row in first.tolist()]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])


def prepared(x: Tensor | list[Tensor], size: int) -> Tensor:
    """Pictures as one tensor [n, c, h, w]: square at `size` px where it is not 0, as `resized` makes them.

    uint8 stays uint8 and floats in [0, 1] become float32; the device stays. Raises InputError where sizes differ and
    `size` is 0.
    """
    if isinstance(x, list):
        if size == 0 and len({tuple(picture.shape) for picture in x}) > 1:
            raise InputError("the pictures differ in size; expected the setting size=PX, which makes them one")
        return torch.cat([prepared(picture[None], size) for picture in x]) if x else torch.zeros(0, 3, size, size)
    if size == 0 or tuple(x.shape[2:]) == (size, size) or not len(x):
        return x
    x_cpu = rearrange(x.float() if x.is_floating_point() else x, "n c h w -> n h w c").cpu()
    small = torch.from_numpy(np.stack([resized(picture, size) for picture in x_cpu.numpy()])).to(x.device)
    return rearrange(small, "n h w c -> n c h w").contiguous()


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture [h, w, c], uint8 or float32 in [0, 1], as [size, size, c]: the one resize of this project.

    The short side becomes `size`, and the middle is cut out. Made smaller a pixel is the mean of the area that it
    covers; made larger it is cubic. `synth --size` and the setting `size` of parts that learn give the same bytes.
    """
    height, width, channels = picture.shape
    scale = size / min(height, width)
    if scale != 1:
        shape = (max(size, round(width * scale)), max(size, round(height * scale)))
        picture = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        picture = picture.reshape(shape[1], shape[0], channels)
        if picture.dtype != np.uint8:
            picture = picture.clip(0, 1)  # a cubic curve leaves the range; OpenCV clips uint8 itself
    top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
    return np.ascontiguousarray(picture[top : top + size, left : left + size])


def check_levels(x: Tensor | list[Tensor], what: str) -> None:
    """Raise InputError for a picture of floats outside of [0, 1], as normalised ones are, naming its place in `x`.

    Half a level of 256 beyond an end is let pass: interpolation goes that far. `what` completes "... of the dataset".
    """
    if isinstance(x, list):
        for place, picture in enumerate(x):
            _check_range(picture, what.format(place))
    elif x.is_floating_point() and x.numel():
        low, high = (float(end) for end in torch.aminmax(x.detach()))
        if not (low >= -_HALF_LEVEL and high <= 1 + _HALF_LEVEL):
            for place, picture in enumerate(x):
                _check_range(picture, what.format(place))


def _check_range(picture: Tensor, name: str) -> None:
    if not picture.is_floating_point() or not picture.numel():
        return
    low, high = (float(end) for end in torch.aminmax(picture.detach()))
    if not (low >= -_HALF_LEVEL and high <= 1 + _HALF_LEVEL):
        raise InputError(f"{name} holds floats from {low:.4g} to {high:.4g}; expected 0 to 1: augment before "
                         "Normalize, and normalise what comes out")  # fmt: skip


def _levels(x: Tensor) -> Tensor:
    """Floats in [0, 1] as 256 levels of uint8; uint8 as it is."""
    return (x * 255).round().clamp(0, 255).to(torch.uint8) if x.is_floating_point() else x
