"""Differentiable augmentation of what a discriminator sees, real and made alike, so that few pictures train a GAN.

Zhao, Liu, Lin, Zhu & Han, "Differentiable augmentation for data-efficient GAN training", NeurIPS 2020: T in equations 2
and 3. All chance comes in as numbers, so that the same T can be cut into parts or given to a pair of pictures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from augforge.types import InputError

POLICIES = ("colour", "translation", "cutout")
NUMBERS = (
    7  # uniform numbers that a row uses up: brightness, saturation, contrast; shifts down, right; hole down, right
)
_SHIFT = 0.125  # of the side
_HOLE = 0.5  # of the side


def policy_of(text: str) -> tuple[str, ...]:
    """The policies that a setting names, joined with commas ("" or "none": none); InputError for an unknown one."""
    names = tuple(name for name in text.split(",") if name not in ("", "none"))
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise InputError(f"augment={text!r} was given; expected some of {', '.join(POLICIES)}, joined with commas")
    return names


def diff_augment(x: Tensor, policy: tuple[str, ...], u: Tensor) -> Tensor:
    """T(x) of pictures [n, c, h, w] in [0, 1] by uniform numbers `u` [n, 7]; differentiable, of the same shape.

    Colour adds -0.5..0.5 to a row, scales its distance from its grey by 0..2 and from its mean by 0.5..1.5;
    translation moves it by up to an eighth of the side over 0; cutout sets a square of half the side to 0. The ranges
    are those of the paper, section 4.
    """
    for name in policy:
        x = {"colour": _colour, "translation": _moved, "cutout": _holed}[name](x, u)
    return x


def _colour(x: Tensor, u: Tensor) -> Tensor:
    bright, saturated, contrast = (rearrange(u[:, i], "n -> n 1 1 1") for i in range(3))
    x = x + (bright - 0.5)
    grey = reduce(x, "n c h w -> n 1 h w", "mean")
    x = grey + (x - grey) * (2 * saturated)
    mean = reduce(x, "n c h w -> n 1 1 1", "mean")
    return mean + (x - mean) * (contrast + 0.5)


def _moved(x: Tensor, u: Tensor) -> Tensor:
    """Whole pixels, by one gather out of the padded picture."""
    n, c, height, width = x.shape
    down, right = (_steps(u[:, 3 + i], side, n) for i, side in enumerate((height, width)))  # [n]
    most = max(1, round(max(height, width) * _SHIFT))
    padded = F.pad(x, [most] * 4)
    rows = torch.arange(height, device=x.device)[None, :] + most + down[:, None]  # [n, h]
    columns = torch.arange(width, device=x.device)[None, :] + most + right[:, None]  # [n, w]
    nth, cth = torch.arange(n, device=x.device), torch.arange(c, device=x.device)
    moved: Tensor = padded[nth[:, None, None, None], cth[None, :, None, None], rows[:, None, :, None],
                           columns[:, None, None, :]]  # fmt: skip
    return moved


def _steps(u: Tensor, side: int, n: int) -> Tensor:
    most = max(1, round(side * _SHIFT))
    return (u * (2 * most + 1)).floor().long().clamp(0, 2 * most) - most


def _holed(x: Tensor, u: Tensor) -> Tensor:
    inside = []
    for i, side in enumerate(x.shape[2:]):
        hole = max(1, round(side * _HOLE))
        first = (u[:, 5 + i] * (side + 1)).floor() - hole // 2  # the middle lies anywhere, so holes may be cut off
        place = torch.arange(side, device=x.device)[None, :]
        inside.append((place >= first[:, None]) & (place < first[:, None] + hole))  # [n, side]
    covered = inside[0][:, :, None] & inside[1][:, None, :]
    return x * (~covered)[:, None].to(x.dtype)
