"""Photographs to fine-tune a network on: loaded at one size, cropped anew at each step, and some of them held out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from augforge import chance
from augforge.data.banks import ArrayPictures, FilePictures
from augforge.data.selection import group_numbers
from augforge.networks.photographs import resized_middle
from augforge.representations.pictures import jittered
from augforge.types import Bank, InputError, NothingToLearn

_FOLD_FROM, _FOLD = 8, 4  # pictures of a class from which on a fold is held out: one of so many
_AT_ONCE = 32
_SMALLEST_CROP = 0.35  # share of a picture's area


@dataclass(frozen=True, eq=False)
class Photographs:
    """Pictures of one size on one device, with labels."""

    x: Tensor  # [n, 3, s, s] uint8; networks see `side` px of them
    y: Tensor  # [n] int64
    classes: tuple[str, ...]
    side: int
    group: Tensor | None = None  # [n] int64, alike where pictures are near-copies, as frames of a track

    def take(self, rows: Tensor) -> Photographs:
        """The rows [m], of the same classes."""
        group = None if self.group is None else self.group[rows]
        return Photographs(self.x[rows], self.y[rows], self.classes, self.side, group)


def load_photographs(bank: Bank, short_side: int, side: int, device: str | torch.device) -> Photographs:
    """The pictures of a bank, the middle [short_side, short_side] of each at a short side of so many px.

    Raises NothingToLearn where there is none, and InputError for features.
    """
    if bank.space != "image":
        raise InputError("fine-tuning learns from pictures, and this source holds features")
    if not len(bank.y):
        raise NothingToLearn("fine-tuning learns from pictures; there are none")
    parts = []
    for rows in torch.arange(len(bank.y)).split(_AT_ONCE):
        ready = [resized_middle(picture, short_side, short_side) for picture in bank.examples(rows).x]
        parts.append((torch.stack(ready) * 255).round().to(device, torch.uint8))
    group = group_numbers(bank) if isinstance(bank, ArrayPictures | FilePictures) else None
    return Photographs(torch.cat(parts), bank.y.to(device), tuple(bank.classes), side,
                       None if group is None else group.to(device))  # fmt: skip


def with_fold(base: Photographs, seed: int) -> tuple[Photographs, Photographs | None]:
    """A quarter of each class held out where all classes have 8 pictures or more, else none.

    With groups, whole ones are: the first ones, in a random order, that have a quarter; of a class of one group none.
    """
    counts = torch.bincount(base.y)
    if int(counts[counts > 0].min()) < _FOLD_FROM:
        return base, None
    order = chance.uniform(chance.row_keys(seed, "fold", torch.arange(len(base.y)))).argsort(stable=True)
    order = order.to(base.y.device)
    by_class = [order[base.y[order] == k] for k in base.y.unique()]
    if base.group is None:
        held = torch.cat([rows[: len(rows) // _FOLD] for rows in by_class])
    else:
        held = torch.cat([_first_groups(rows, base.group[rows]) for rows in by_class])
    if not len(held):
        return base, None
    kept = torch.ones_like(base.y, dtype=torch.bool)
    kept[held] = False
    return base.take(kept.nonzero(as_tuple=True)[0]), base.take(held.sort().values)


def _first_groups(rows: Tensor, group: Tensor) -> Tensor:
    """The rows [n] of the groups that come first and have a quarter of all, but never of all groups."""
    first = list(dict.fromkeys(group.tolist()))
    sizes = torch.tensor([int((group == one).sum()) for one in first]).cumsum(0)
    count = min(len(first) - 1, int((sizes < len(rows) // _FOLD).sum()) + 1)
    return rows[torch.isin(group, torch.tensor(first[:count], device=group.device))]


def cropped(x: Tensor, side: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random parts of pictures [b, 3, s, s] uint8, resized to [b, 3, side, side] in [0, 1], in mildly other colours.

    Each part has 35 to 100 % of the area and sides of 3:4 to 4:3; half of them are mirrored where `flip`.
    """
    u = torch.rand(5, len(x), generator=generator, device=x.device)
    area, ratio = _SMALLEST_CROP + (1 - _SMALLEST_CROP) * u[0], torch.exp((2 * u[1] - 1) * math.log(4 / 3))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    right, down = (2 * u[2] - 1) * (1 - width), (2 * u[3] - 1) * (1 - height)
    sign = torch.where(u[4] < 0.5, -1.0, 1.0) if flip else torch.ones_like(width)
    none = torch.zeros_like(width)
    boxes = torch.stack([sign * width, none, right, none, height, down], 1).unflatten(1, (2, 3))  # [b, 2, 3]
    grid = F.affine_grid(boxes, [len(x), 3, side, side], align_corners=False)
    return jittered(F.grid_sample(x.float() / 255, grid, padding_mode="border", align_corners=False), generator, 0.2)
