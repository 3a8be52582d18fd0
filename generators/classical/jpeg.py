"""What the JPEG coder does to a picture, as tensor operations: batched and differentiable.

Baseline JPEG (ITU-T T.81) as the Independent JPEG Group's library does it by default: JFIF colours, chroma at half
the size by means of 2 x 2 pixels, the example tables of Annex K scaled by quality, and chroma made large again by a
triangle filter. Only what loses information is done here; the entropy coder is not, since it loses none.

Differs from a real coder: samples are not rounded to whole numbers on the way, only the coefficients are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# T.81 tables K.1 and K.2: the quantisation steps at quality 50, rows by vertical frequency.
LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99, 99, 99, 99, 99, 99, 99, 99),) * 4,
)


def through_jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """Floating pictures [n, c, h, w] in [0, 1], c 1 or 3, coded and decoded at `quality` [n] int64, 1 to 100.

    The gradient is that of the coder without its rounding, and without the clipping that rounding calls for.
    """
    levels = pictures * 255
    if pictures.shape[1] == 1:
        return (_quantised(levels - 128, steps(LUMA_STEPS, quality)) + 128) / 255
    red, green, blue = levels.split(1, 1)  # [n, 1, h, w] each
    luma = 0.299 * red + 0.587 * green + 0.114 * blue - 128
    chroma = torch.cat([(blue - luma - 128) * (0.5 / 0.886), (red - luma - 128) * (0.5 / 0.701)], 1)
    luma = _quantised(luma, steps(LUMA_STEPS, quality)) + 128
    small = _quantised(_halved(chroma), steps(CHROMA_STEPS, quality))
    cb, cr = _doubled(small)[..., : pictures.shape[2], : pictures.shape[3]].split(1, 1)
    green = luma - (0.114 * 1.772 / 0.587) * cb - (0.299 * 1.402 / 0.587) * cr
    decoded = torch.cat([luma + 1.402 * cr, green, luma + 1.772 * cb], 1) / 255
    return _straight(decoded, decoded.clamp(0, 1))


def steps(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """Quantisation steps [n, 8, 8] int64 of 1 to 255: a table for quality 50, scaled to `quality` [n], 1 to 100."""
    percent = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return ((torch.tensor(table) * percent[:, None, None] + 50) // 100).clamp(1, 255)


def _straight(x: Tensor, changed: Tensor) -> Tensor:
    """`changed` [...] as a number, x [...] to the gradient."""
    return x + (changed - x).detach() if x.requires_grad else changed


def _quantised(planes: Tensor, step: Tensor) -> Tensor:
    """Planes [n, c, h, w] of -128..127 with the coefficients of their 8 x 8 blocks rounded to multiples of `step`."""
    _, channels, height, width = planes.shape
    planes = F.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = rearrange(planes, "n c (down y) (across x) -> y x n c down across", y=8, x=8)
    step = rearrange(step.to(planes.dtype).to(planes.device), "n v u -> u v n 1 1 1")
    cosines = _cosines(planes)
    coefficients = _mixed(cosines, _mixed(cosines, blocks).transpose(0, 1)) / step  # [u, v, n, c, down, across]
    coefficients = _straight(coefficients, coefficients.round()) * step
    blocks = _mixed(cosines.T, _mixed(cosines.T, coefficients).transpose(0, 1))  # [y, x, n, c, down, across]
    planes = rearrange(blocks, "y x n c down across -> n c (down y) (across x)", c=channels)
    planes = planes[..., :height, :width]
    return _straight(planes, planes.clamp(-128, 127))


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal cosine transform [8 frequencies, 8 places] in the dtype and on the device of `like`."""
    angles = torch.arange(8, dtype=torch.float64)[:, None] * (torch.arange(8, dtype=torch.float64) + 0.5)
    cosines = torch.cos(angles * (math.pi / 8)) / 2
    cosines[0] /= math.sqrt(2)
    return cosines.to(like.dtype).to(like.device)


def _mixed(matrix: Tensor, blocks: Tensor) -> Tensor:
    """`matrix` [8, 8] times the first axis of `blocks` [8, 8, n, c, down, across].

    Element by element and not as a matrix product: a coefficient near the edge of rounding must not depend on the
    shape that a library happens to see.
    """
    columns = matrix.T[..., None, None, None, None, None].unbind(0)  # 8 of [8, 1, 1, 1, 1, 1]
    out = columns[0] * blocks[0]
    for column, sample in zip(columns[1:], blocks[1:], strict=True):
        out += column * sample
    return out


def _halved(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels of planes [n, c, h, w]: [n, c, ceil(h / 2), ceil(w / 2)]."""
    planes = F.pad(planes, (0, planes.shape[3] % 2, 0, planes.shape[2] % 2), mode="replicate")
    upper, lower = planes[..., 0::2, :], planes[..., 1::2, :]
    return (upper[..., 0::2] + upper[..., 1::2] + lower[..., 0::2] + lower[..., 1::2]) / 4


def _doubled(planes: Tensor) -> Tensor:
    """Planes [n, c, h, w] at twice the size by the triangle filter: each pixel 3/4 of its nearest and 1/4 of the next.

    Upsampled rows lie between the rows of the small plane, at a quarter and three quarters; edges are repeated.
    """
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    near = 0.75 * padded[..., 1:-1, :]
    halves = torch.stack([near + 0.25 * padded[..., :-2, :], near + 0.25 * padded[..., 2:, :]])
    tall = rearrange(halves, "two n c h w -> n c (h two) w")
    near = 0.75 * tall[..., 1:-1]
    halves = torch.stack([near + 0.25 * tall[..., :-2], near + 0.25 * tall[..., 2:]])
    return rearrange(halves, "two n c h w -> n c h (w two)")
