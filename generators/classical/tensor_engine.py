"""The tensor engine of classical augmentation: batched, on any device, differentiable.

The parts, their order and their meaning are those of the OpenCV engine. Every step is element by element or
picture by picture, with no matrix product over the batch, so a row's numbers are the same in any batch and under any
number of threads, and neither TF32 nor autocast can round them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from augforge import chance
from augforge.generators.classical.jpeg import through_jpeg
from augforge.generators.classical.parameters import Parameters, Recipe

# One part of the recipe: pictures [m, c, h, w] and which rows of the batch they are, to pictures.
Step = Callable[[Tensor, slice], Tensor]

PADDINGS = {"reflect": "reflection", "edge": "border", "constant": "zeros"}
_MOVES = ("rotate", "shift_x", "shift_y", "shear", "zoom", "zoom_x", "zoom_y")
_COLOUR = ("brightness", "contrast", "saturation", "hue", "grey")
# Pixels that go through all the steps together: on a CPU few enough for the caches, elsewhere for the memory.
_PIXELS_AT_ONCE = {"cpu": 1 << 15}
_PIXELS_AT_ONCE_ELSEWHERE = 1 << 22
_ROUNDING = 1e-5  # more than the sums of a step can be off by
_TOE = 1 / 1020  # a quarter of a grey level; below it gamma is a straight line, so that its slope at 0 is finite


def apply(recipe: Recipe, pictures: Tensor, parameters: Parameters) -> Tensor:
    """Pictures [n, c, h, w], c 1 or 3, changed row by row by `parameters`, as the same dtype on the same device.

    uint8 is 0..255, floating is [0, 1]; float64 is computed as it is, everything else in float32. Gradients flow
    to floating pictures; the JPEG coder's rounding lets them through unchanged.
    """
    n, _, height, width = pictures.shape
    if not n:
        return pictures.clone()
    dtype = torch.float64 if pictures.dtype == torch.float64 else torch.float32
    steps = _steps(recipe, parameters, torch.empty(0, 0, height, width, dtype=dtype, device=pictures.device))
    at_once = max(1, _PIXELS_AT_ONCE.get(pictures.device.type, _PIXELS_AT_ONCE_ELSEWHERE) // (height * width))
    parts = [slice(start, start + at_once) for start in range(0, n, at_once)]
    if pictures.requires_grad and torch.is_grad_enabled():
        return torch.cat([_change(pictures[rows], steps, rows, dtype) for rows in parts])
    out = torch.empty_like(pictures)
    for rows in parts:
        out[rows] = _change(pictures[rows], steps, rows, dtype)
    return out


def _change(pictures: Tensor, steps: list[Step], rows: slice, dtype: torch.dtype) -> Tensor:
    """All steps, computed in `dtype`, for pictures [m, c, h, w] that are few enough to be done together."""
    levels = pictures.dtype == torch.uint8
    x = pictures.to(dtype).div_(255) if levels else pictures.to(dtype)
    for step in steps:
        x = step(x, rows)
    return x.mul(255).round_().to(torch.uint8) if levels else x.to(pictures.dtype)


def _steps(recipe: Recipe, parameters: Parameters, like: Tensor) -> list[Step]:
    """The parts that the recipe varies, in order, for pictures of the size, dtype and device of `like`.

    What can be computed for the whole batch at once is computed here; the steps themselves run part by part.
    """
    makers: tuple[tuple[bool, Callable[[Recipe, Parameters, Tensor], Step]], ...] = (
        (recipe.is_varied(*_MOVES), _resampling),
        (recipe.is_varied("flip_x", "flip_y") and not recipe.is_varied(*_MOVES), _flipping),
        (recipe.is_varied(*_COLOUR), _recolouring),
        (recipe.is_varied("gamma"), _bending),
        (recipe.is_varied("blur"), _blurring),
        (recipe.is_varied("noise"), _noising),
        (recipe.is_varied("erase"), _erasing),
        (recipe.is_varied("jpeg"), _coding),
    )
    return [make(recipe, parameters, like) for varied, make in makers if varied]


def _as(values: Tensor, like: Tensor) -> Tensor:
    """Parameters in the dtype and on the device of `like`; the dtype first, for devices without float64."""
    return values.to(like.dtype).to(like.device)


class _Limit(torch.autograd.Function):
    """Cut to [0, 1]; the gradient passes where no more than a rounding error is cut.

    `clamp` stops it at 0 and 1 themselves, and so wherever a picture is black or white.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """x [...] cut to [0, 1]."""
        return x.clamp(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Remember which numbers were inside."""
        (x,) = inputs
        ctx.save_for_backward((x > -_ROUNDING) & (x < 1 + _ROUNDING))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient [...] of those that were inside."""
        (inside,) = ctx.saved_tensors
        return gradient * inside


def _limited(x: Tensor) -> Tensor:
    """x [...], which nobody else holds, cut to [0, 1]: in place where no gradient is asked for."""
    return _Limit.apply(x) if x.requires_grad and torch.is_grad_enabled() else x.clamp_(0, 1)


def _resampling(recipe: Recipe, parameters: Parameters, like: Tensor) -> Step:
    """Every affine part in one reading of the pictures."""
    height, width = like.shape[2:]
    matrices = parameters.matrices(height, width)  # [n, 2, 3] float64: output to source pixels
    # grid_sample puts the centre of pixel i of s at (2 i + 1) / s - 1.
    size = torch.tensor([width, height], dtype=torch.float64)
    matrices = matrices * (2 / size[:, None])
    matrices[:, :, 2] += 1 / size - 1
    across, down, origin = matrices[:, None].unbind(-1)  # [n, 1, 2] each
    # A complex number is an (x, y) that is added at once: twice as fast as with an inner axis of two.
    columns = torch.view_as_complex(_as(torch.arange(width)[:, None] * across, like))  # [n, w]
    lines = torch.view_as_complex(_as(torch.arange(height)[:, None] * down + origin, like))  # [n, h]
    fill = recipe.fill if recipe.padding == "constant" else 0.0

    def step(x: Tensor, rows: slice) -> Tensor:
        grid = torch.view_as_real(lines[rows, :, None] + columns[rows, None])  # [m, h, w, 2]
        x = x - fill if fill else x
        x = F.grid_sample(x, grid, recipe.interpolation, PADDINGS[str(recipe.padding)], align_corners=False)
        return _limited(x + fill if fill else x)

    return step


def _flipping(recipe: Recipe, parameters: Parameters, like: Tensor) -> Step:
    """Exact mirror images, where flips are all the geometry there is."""
    flips = [(parameters.flip_x, -1), (parameters.flip_y, -2)]
    masks = [(drawn.to(like.device)[:, None, None, None], axis) for drawn, axis in flips if bool(drawn.any())]

    def step(x: Tensor, rows: slice) -> Tensor:
        for mask, axis in masks:
            x = torch.where(mask[rows], x.flip(axis), x)
        return x

    return step


def _recolouring(recipe: Recipe, parameters: Parameters, like: Tensor) -> Step:
    """One colour matrix; where no channel changes another, the gain and the offset that its rows add up to."""
    mixing = recipe.is_varied("saturation", "hue", "grey")
    colour = _as(parameters.colour, like)[..., None, None]  # [n, 3, 4, 1, 1]
    gain, offset = colour[:, :1, :3].sum(2), colour[:, :, 3]  # [n, 1, 1, 1], [n, 3, 1, 1]

    def step(x: Tensor, rows: slice) -> Tensor:
        if x.shape[1] == 1 or not mixing:
            return _limited((x * gain[rows]).add_(offset[rows, :1]))
        out = x[:, 0:1] * colour[rows, :, 0]  # [m, 1, h, w] * [m, 3, 1, 1]
        out += x[:, 1:2] * colour[rows, :, 1]
        out += x[:, 2:3] * colour[rows, :, 2]
        out += offset[rows]
        return _limited(out)

    return step


def _bending(recipe: Recipe, parameters: Parameters, like: Tensor) -> Step:
    """Gamma: pictures to a power."""
    gammas = _as(parameters.gamma, like)[:, None, None, None]
    slopes = _as(torch.exp((parameters.gamma - 1) * math.log(_TOE)), like)[:, None, None, None]

    def step(x: Tensor, rows: slice) -> Tensor:
        gamma = gammas[rows]
        # Not pow: its vector and scalar forms differ in the last bit, so that a pixel's place would show.
        curve = (x.clamp(min=_TOE).log() * gamma).exp()
        bent = torch.where(x < _TOE, x * slopes[rows], curve)
        return _limited(torch.where(gamma == 1, x, bent))

    return step


def _blurring(recipe: Recipe, parameters: Parameters, like: Tensor) -> Step:
    """Gaussians, each cut at its own three standard deviations and then made to add up to 1."""
    radius = torch.ceil(3 * parameters.blur).clamp(max=min(like.shape[2:]) - 1)  # [n], as blur_radius
    widest = int(radius.max())
    offset = torch.arange(-widest, widest + 1, dtype=torch.float64)
    kernels = torch.exp(-0.5 * (offset / parameters.blur.clamp(min=1e-6)[:, None]) ** 2)
    kernels = kernels * (offset.abs() <= radius[:, None])
    kernels = _as(kernels / kernels.sum(1, keepdim=True), like)[..., None, None, None]  # [n, taps, 1, 1, 1]

    def step(x: Tensor, rows: slice) -> Tensor:
        for axis, pad in ((3, (widest, widest, 0, 0)), (2, (0, 0, widest, widest))):
            padded, size = F.pad(x, pad, mode="reflect"), x.shape[axis]
            x = padded.narrow(axis, 0, size) * kernels[rows, 0]
            for tap in range(1, 2 * widest + 1):
                x += padded.narrow(axis, tap, size) * kernels[rows, tap]
        return _limited(x)

    return step


def _noising(recipe: Recipe, parameters: Parameters, like: Tensor) -> Step:
    """The noise that the other engine would add, drawn from the same integers, on the device of the pictures."""
    height, width = like.shape[2:]
    deviations = _as(parameters.noise, like)[:, None, None, None]
    keys = parameters.noise_keys.to(like.device)

    def step(x: Tensor, rows: slice) -> Tensor:
        drawn = chance.normal(keys[rows], (height, width, x.shape[1]))
        return _limited(x + _as(rearrange(drawn, "m h w c -> m c h w"), like) * deviations[rows])

    return step


def _erasing(recipe: Recipe, parameters: Parameters, like: Tensor) -> Step:
    """Boxes of whole pixels, filled with `recipe.fill`."""
    height, width = like.shape[2:]
    pixels = (parameters.erase * torch.tensor([height, width, height, width], dtype=torch.float64)).round()
    top, left, bottom, right = pixels.to(torch.int64)[:, :, None].unbind(1)  # [n, 1] each
    y, x = torch.arange(height), torch.arange(width)
    in_y, in_x = ((y >= top) & (y < bottom)).to(like.device), ((x >= left) & (x < right)).to(like.device)

    def step(x: Tensor, rows: slice) -> Tensor:
        return torch.where(in_y[rows, None, :, None] & in_x[rows, None, None, :], recipe.fill, x)

    return step


def _coding(recipe: Recipe, parameters: Parameters, like: Tensor) -> Step:
    """JPEG for the rows whose quality is above 0."""

    def step(x: Tensor, rows: slice) -> Tensor:
        quality = parameters.quality[rows]
        coded = torch.nonzero(quality > 0)[:, 0]
        if not len(coded):
            return x
        place = coded.to(like.device)
        return x.index_copy(0, place, through_jpeg(x[place], quality[coded]))

    return step
