"""What one classical augmentation does to one picture, as numbers that can be replayed on another.

All affine parts become one matrix and so one resampling, all linear colour parts one 3 x 4 colour matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in torchvision, Pillow and OpenCV
# Rows: luma Y and the two chroma axes I and Q of the NTSC system; hue turns the (I, Q) plane.
_TO_YIQ = np.array([LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)

Padding = Literal["reflect", "edge", "constant"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]


class Recipe(Protocol):
    """What both engines ask of the settings, beside the drawn parameters."""

    padding: Padding | None
    fill: float
    interpolation: Interpolation

    def is_varied(self, *names: str) -> bool:
        """Whether any of these ranges can change a picture."""
        ...


@dataclass(frozen=True)
class Parameters:
    """The drawn parameters of n pictures, one row each; every tensor is on the CPU.

    Geometry, float64 [n]: `rotate` and `shear` in degrees, `shift_x` and `shift_y` in parts of the width and the
    height, `zoom_x` and `zoom_y` the part of the width and height that is seen, `flip_x` and `flip_y` bool.
    Colour: `colour` float64 [n, 3, 4] acts on (R, G, B, 1) in [0, 1]; `gamma` [n] exponents.
    Then `blur` [n] in pixels (standard deviation), `noise` [n] (standard deviation, of 1), `erase` [n, 4] as
    top, left, bottom, right in parts of the height and width (all 0: nothing erased), `quality` int64 [n] of the
    JPEG coder (0: none), and `noise_keys` int64 [n] for the noise.
    """

    rotate: Tensor
    shear: Tensor
    shift_x: Tensor
    shift_y: Tensor
    zoom_x: Tensor
    zoom_y: Tensor
    flip_x: Tensor
    flip_y: Tensor
    colour: Tensor
    gamma: Tensor
    blur: Tensor
    noise: Tensor
    erase: Tensor
    quality: Tensor
    noise_keys: Tensor

    def __len__(self) -> int:
        """How many pictures these parameters are for."""
        return len(self.rotate)

    def take(self, rows: Tensor | slice) -> Parameters:
        """The parameters of some rows: indices [m] or a slice."""
        return Parameters(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def matrices(self, height: Tensor | float, width: Tensor | float) -> Tensor:
        """Matrices [n, 2, 3] float64 that take output pixels (x, y, 1) to source pixels, centres at whole numbers.

        The order is that of Keras' `apply_affine_transform` (output to source: rotation, shift, shear, zoom), with
        its conventions: rows are the first axis, shear by s degrees is the matrix [[1, -sin s], [0, cos s]], and a
        zoom of 0.8 shows 80 % of an axis, enlarged. Flips come last. `height` and `width` are numbers or [n].
        """
        n = len(self)
        tall = np.broadcast_to(np.asarray(height, dtype=np.float64), (n,))
        wide = np.broadcast_to(np.asarray(width, dtype=np.float64), (n,))
        angle, shear = (np.deg2rad(v.numpy()) for v in (self.rotate, self.shear))
        cos, sin, shear_sin, shear_cos = np.cos(angle), np.sin(angle), np.sin(shear), np.cos(shear)
        zoom_y = self.zoom_y.numpy() * np.where(self.flip_y.numpy(), -1.0, 1.0)
        zoom_x = self.zoom_x.numpy() * np.where(self.flip_x.numpy(), -1.0, 1.0)
        down, right = self.shift_y.numpy() * tall, self.shift_x.numpy() * wide
        # In (y, x): rotation [[cos, -sin], [sin, cos]] times shear [[1, -sin s], [0, cos s]] times the zooms.
        yy, yx = cos * zoom_y, (-cos * shear_sin - sin * shear_cos) * zoom_x
        xy, xx = sin * zoom_y, (-sin * shear_sin + cos * shear_cos) * zoom_x
        middle_y, middle_x = (tall - 1) / 2, (wide - 1) / 2
        to_y = middle_y + cos * down - sin * right - yy * middle_y - yx * middle_x
        to_x = middle_x + sin * down + cos * right - xy * middle_y - xx * middle_x
        return torch.from_numpy(np.stack([np.stack([xx, xy, to_x], -1), np.stack([yx, yy, to_y], -1)], -2))


def colour_matrices(
    brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray, hue: np.ndarray
) -> np.ndarray:
    """One matrix [n, 3, 4] for four linear changes of colour, each given as [n].

    `brightness` multiplies; `contrast` scales about mid-grey; `saturation` scales the distance from the picture's
    own grey (BT.601 luma), 0 making it grey; `hue` in turns rotates the chroma plane of YIQ. They apply in that
    order. Greys stay grey under saturation and hue.
    """
    cos, sin = np.cos(2 * np.pi * hue) * saturation, np.sin(2 * np.pi * hue) * saturation
    turn = np.zeros((len(hue), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = cos
    turn[:, 1, 2], turn[:, 2, 1] = -sin, sin
    turn = _FROM_YIQ @ turn @ _TO_YIQ
    linear = turn * (brightness * contrast)[:, None, None]
    offset = (turn.sum(-1) * (0.5 - 0.5 * contrast)[:, None])[..., None]  # [n, 3, 1]; row sums of `turn` are 1
    return np.concatenate([linear, offset], -1)
