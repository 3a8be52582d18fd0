"""The light augmentation that training a backbone needs, on pictures that lie on the training device.

A batch is cut out of all pictures with its crops and flips in one gather, so no picture passes through Python. The
classical generators are not used here: they work from keys on single pictures, and training draws for whole batches.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from augforge.networks.pixels import Pixels

Augment = Literal["none", "crop", "colour", "strokes"]

_PAD = 8  # a crop moves by at most side / _PAD: 4 px at 32
_ROWS_AT_ONCE = 4096


def batch(data: Pixels, rows: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """The pictures `rows` [b] as float32 [b, c, h, w] in [0, 1], channels last in memory, each augmented for itself.

    `augment` is "crop" (shifted by up to an eighth of the side over a mirrored border, and flipped), "colour" (crop,
    and brightness, contrast and saturation by up to 0.4), "strokes" (small affine changes, no flip) or "none".
    """
    if augment in ("crop", "colour"):
        x = _cropped(data.x, rows, generator)
    else:
        x = rearrange(data.x[rows], "b h w c -> b c h w")
    x = x.float() / 255
    if augment == "colour":
        x = jittered(x, generator)
    return _bent(x, generator) if augment == "strokes" else x


def _cropped(pixels: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted and flipped pictures [b, c, h, w] uint8 out of [n, h, w, c]: two index tensors and one gather."""
    height, width = pixels.shape[1:3]
    down = _places(height, len(rows), generator)
    right = _places(width, len(rows), generator)
    flip = torch.rand(len(rows), 1, generator=generator, device=pixels.device) < 0.5
    right = torch.where(flip, right.flip(1), right)
    return rearrange(pixels[rows[:, None, None], down[:, :, None], right[:, None, :]], "b h w c -> b c h w")


def _places(side: int, count: int, generator: torch.Generator) -> Tensor:
    """Source positions [count, side] of shifted rows or columns, mirrored at the border."""
    reach = side // _PAD
    device = generator.device
    shift = torch.randint(-reach, reach + 1, (count, 1), generator=generator, device=device)
    return mirrored(torch.arange(side, device=device) + shift, side)


def mirrored(place: Tensor, side: int) -> Tensor:
    """Positions [...] up to a side beyond the border, as those within 0..side-1 that a mirror there shows."""
    place = place.abs()
    return torch.where(place >= side, 2 * (side - 1) - place, place)


def jittered(x: Tensor, generator: torch.Generator, reach: float = 0.4) -> Tensor:
    """Brightness, contrast and saturation of [b, c, h, w], each times 1 - reach .. 1 + reach, for every picture."""
    factor = 1 + reach * (2 * torch.rand(3, len(x), 1, 1, 1, generator=generator, device=x.device) - 1)
    x = (x * factor[0]).clamp(0, 1)
    x = torch.lerp(reduce(_grey(x), "b 1 h w -> b 1 1 1", "mean"), x, factor[1]).clamp(0, 1)
    return torch.lerp(_grey(x), x, factor[2]).clamp(0, 1) if x.shape[1] == 3 else x


def _grey(x: Tensor) -> Tensor:
    """Luma [b, 1, h, w] of [b, c, h, w] (ITU-R BT.601); the mean where there are not three channels."""
    if x.shape[1] != 3:
        return reduce(x, "b c h w -> b 1 h w", "mean")
    return 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def _bent(x: Tensor, generator: torch.Generator) -> Tensor:
    """[b, c, h, w] turned by up to 10 degrees, sheared by 0.15, scaled by 0.85 to 1.15 per axis, shifted by 8 %."""
    u = 2 * torch.rand(7, len(x), generator=generator, device=x.device) - 1
    angle, shear = u[0] * math.radians(10), u[1] * 0.15
    across, along = torch.exp(u[2] * 0.14), torch.exp(u[3] * 0.14)
    cosine, sine = angle.cos(), angle.sin()
    top = torch.stack([cosine * across, (shear * cosine - sine) * along, u[4] * 0.16], 1)
    bottom = torch.stack([sine * across, (shear * sine + cosine) * along, u[5] * 0.16], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def statistics(data: Pixels) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [c] of the pixels in [0, 1], over all pictures; a constant channel deviates by 1."""
    total, squares = torch.zeros(2, data.x.shape[3], dtype=torch.float64, device=data.x.device)
    for part in data.x.split(_ROWS_AT_ONCE):
        part = part.to(torch.float64) / 255
        total += reduce(part, "n h w c -> c", "sum")
        squares += reduce(part.square(), "n h w c -> c", "sum")
    count = data.x[..., 0].numel()
    mean, squares = total.cpu() / count, squares.cpu()
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean.float(), torch.where(deviation > 1e-6, deviation, 1.0).float()
