"""Classical augmentation: affine and photometric, drawn anew for every row within named ranges.

One class, two engines that agree within two grey levels on average: OpenCV on uint8 pictures on the CPU, and
tensor operations on any device, batched and differentiable. All affine parts compose into one resampling and all
linear colour parts into one colour matrix, so a picture is read and written once for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from augforge import chance
from augforge.generators.classical import cv2_engine, tensor_engine
from augforge.generators.classical.parameters import Interpolation, Padding, Parameters, colour_matrices
from augforge.generators.shared.support import choose_parents
from augforge.networks.pixels import check_levels
from augforge.types import Bank, Examples, InputError, Space

Range = float | tuple[float, float]

# A row is what a preset changes; everything else stays as in IDENTITY.
IDENTITY: dict[str, Any] = {
    "rotate": 0.0, "shift_x": 0.0, "shift_y": 0.0, "shear": 0.0, "zoom": 1.0, "zoom_x": 1.0, "zoom_y": 1.0,
    "flip_x": 0.0, "flip_y": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "gamma": 1.0,
    "grey": 0.0, "blur": 0.0, "noise": 0.0, "erase": 0.0, "erase_area": (0.02, 0.2), "jpeg": 0.0,
    "jpeg_quality": (40.0, 95.0), "padding": "edge",
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "identity": {},
    "keras": {"rotate": 40.0, "shift_x": 0.2, "shift_y": 0.2, "shear": 0.2, "zoom_x": (0.8, 1.2),
              "zoom_y": (0.8, 1.2), "flip_x": 0.5},
    "gentle": {"rotate": 10.0, "shift_x": 0.06, "shift_y": 0.06, "zoom": (0.9, 1.05), "flip_x": 0.5,
               "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "padding": "reflect"},
    "photographs": {"rotate": 12.0, "shift_x": 0.08, "shift_y": 0.08, "shear": 4.0, "zoom": (0.65, 1.05),
                    "zoom_x": (0.93, 1.07), "zoom_y": (0.93, 1.07), "flip_x": 0.5, "brightness": 0.15, "contrast": 0.15,
                    "saturation": 0.2, "hue": 0.01, "gamma": (0.9, 1.12), "padding": "reflect"},
    "strong": {"rotate": 40.0, "shift_x": 0.2, "shift_y": 0.2, "shear": 15.0, "zoom": (0.7, 1.2), "zoom_x": (0.9, 1.1),
               "zoom_y": (0.9, 1.1), "flip_x": 0.5, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.08,
               "gamma": (0.7, 1.4), "grey": 0.1, "blur": (0.0, 0.8), "noise": (0.0, 0.03), "erase": 0.25, "jpeg": 0.2,
               "padding": "reflect"},
    "handwriting": {"rotate": 12.0, "shift_x": 0.06, "shift_y": 0.06, "shear": 12.0, "zoom": (0.9, 1.1),
                    "zoom_x": (0.9, 1.1), "zoom_y": (0.9, 1.1), "blur": (0.0, 0.4)},
}  # fmt: skip
_SYMMETRIC = ("rotate", "shift_x", "shift_y", "shear", "hue")  # a single number a means -a..a
_FACTORS = ("brightness", "contrast", "saturation")  # a single number a means 1-a..1+a
_FROM_ZERO = ("blur", "noise")  # a single number a means 0..a
_FIXED = ("zoom", "zoom_x", "zoom_y", "gamma", "erase_area", "jpeg_quality")  # a single number a means a
_CHANCES = ("flip_x", "flip_y", "grey", "erase", "jpeg")
# Every parameter has its own column of random numbers, so that changing one range leaves the others' draws alone.
_COLUMNS = {name: i for i, name in enumerate((
    "rotate", "shift_x", "shift_y", "shear", "zoom", "zoom_x", "zoom_y", "flip_x", "flip_y", "brightness", "contrast",
    "saturation", "hue", "gamma", "grey", "blur", "noise", "erase", "erase_area", "jpeg", "jpeg_quality",
    "erase_top", "erase_left", "erase_aspect"))}  # fmt: skip


@dataclass
class Classical:
    """Random affine and photometric changes of real pictures, one parent each.

    `preset` names the ranges; any other field replaces that preset's range. A range is (low, high), drawn uniformly;
    a single number a stands for -a..a (`rotate` and `shear` in degrees, `shift_x` and `shift_y` in parts of the size,
    `hue` in turns), for 1-a..1+a (`brightness`, `contrast`, `saturation`, which are factors), for 0..a (`blur` in
    pixels of standard deviation, `noise` in parts of the full range) or for exactly a (`zoom`, `zoom_x`, `zoom_y`: the
    part of an axis that is seen, 0.8 enlarges by 1.25; `gamma`; `erase_area` in parts of the picture;
    `jpeg_quality`). `flip_x` (left-right), `flip_y`, `grey`, `erase` and `jpeg` are probabilities. `zoom` acts on
    both axes alike, `zoom_x` and `zoom_y` on one more.

    `padding` (reflect, edge, constant with `fill` in [0, 1]) says what lies outside of the picture, `interpolation`
    is nearest, bilinear or bicubic, and `engine` auto, cv2 or tensor: auto takes cv2 for uint8 pictures on the CPU.
    The order is: affine, colour matrix, gamma, blur, noise, erase, JPEG.

    The ranges of `keras` are those of the well-known Keras recipe (rotation 40, shifts 0.2, shear 0.2, zoom 0.2,
    horizontal flip). Keras' shear is an angle in *degrees*: 0.2 is nearly nothing, and it is kept so here.

    Raises InputError for an unknown preset, padding, interpolation or engine and for a range outside its bounds.
    """

    space: ClassVar[Space] = "image"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    preset: str = "keras"
    rotate: Range | None = None
    shift_x: Range | None = None
    shift_y: Range | None = None
    shear: Range | None = None
    zoom: Range | None = None
    zoom_x: Range | None = None
    zoom_y: Range | None = None
    flip_x: float | None = None
    flip_y: float | None = None
    brightness: Range | None = None
    contrast: Range | None = None
    saturation: Range | None = None
    hue: Range | None = None
    gamma: Range | None = None
    grey: float | None = None
    blur: Range | None = None
    noise: Range | None = None
    erase: float | None = None
    erase_area: Range | None = None
    jpeg: float | None = None
    jpeg_quality: Range | None = None
    padding: Padding | None = None
    fill: float = 0.5
    interpolation: Interpolation = "bilinear"
    engine: Literal["auto", "cv2", "tensor"] = "auto"

    def __post_init__(self) -> None:
        """Fill what was left open from the preset, and check every range."""
        if self.preset not in PRESETS:
            raise InputError(f"preset {self.preset!r} is unknown; expected one of {', '.join(PRESETS)}")
        for name, value in (IDENTITY | PRESETS[self.preset]).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        for name in _SYMMETRIC + _FACTORS + _FROM_ZERO + _FIXED:
            setattr(self, name, _as_range(name, getattr(self, name)))
        for name in (*_CHANCES, "fill"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InputError(f"{name}={value!r} was given; expected a number from 0 to 1")
        _one_of("padding", self.padding, ("reflect", "edge", "constant"))
        _one_of("interpolation", self.interpolation, ("nearest", "bilinear", "bicubic"))
        _one_of("engine", self.engine, ("auto", "cv2", "tensor"))

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Nothing is learnt."""
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Make a row of class `want[i]` from one of the support pictures of that class, by `keys[i]` alone.

        Takes pictures [m, c, h, w] (uint8 or floating) or a list of them; gives the same kind, on the same device.
        Raises InputError where a wanted class has no support row, the support holds features, or floats that are
        not in [0, 1].
        """
        check_levels(support.x, "picture {} of the support")
        parent = choose_parents(support.y, want, keys)
        pictures = [support.x[i] for i in parent.tolist()] if isinstance(support.x, list) else support.x[parent]
        return Examples(self.apply(pictures, self.draw(keys)), want, parent)

    def apply(self, pictures: Tensor | list[Tensor], parameters: Parameters) -> Tensor | list[Tensor]:
        """Replay drawn parameters, row by row, on pictures [n, c, h, w] or a list of n tensors [c, h, w].

        Raises InputError where there are not as many parameters as pictures, or they are not uint8 or floating
        pictures of 1 or 3 channels.
        """
        if len(pictures) != len(parameters):
            raise InputError(f"{len(parameters)} parameters were given for {len(pictures)} pictures")
        if isinstance(pictures, list):
            return self._apply_list(pictures, parameters)
        if not len(pictures):
            return pictures.clone()
        typed = pictures.dtype == torch.uint8 or pictures.is_floating_point()
        if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or 0 in pictures.shape or not typed:
            found = f"{pictures.dtype} {list(pictures.shape)}"
            raise InputError(f"{found} was given; expected uint8 or floating pictures [n, c, h, w] with c 1 or 3")
        with_cv2 = pictures.dtype == torch.uint8 and pictures.device.type == "cpu"
        if self.engine == "cv2" or (self.engine == "auto" and with_cv2):
            return cv2_engine.apply_to_tensor(self, pictures, parameters)
        return tensor_engine.apply(self, pictures, parameters)

    def _apply_list(self, pictures: list[Tensor], parameters: Parameters) -> list[Tensor]:
        """Pictures of one shape go through the engine together."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i, picture in enumerate(pictures):
            shapes.setdefault(tuple(picture.shape), []).append(i)
        out = list(pictures)
        for rows in shapes.values():
            made = self.apply(torch.stack([pictures[i] for i in rows]), parameters.take(torch.tensor(rows)))
            for i, picture in zip(rows, made, strict=True):
                out[i] = picture
        return out

    def draw(self, keys: Tensor) -> Parameters:
        """The parameters of `keys` [n] int64: pure, whatever the batch."""
        keys = keys.cpu()
        u = chance.uniform64(chance.fork(keys, "classical"), (len(_COLUMNS),)).numpy()

        def within(name: str) -> np.ndarray:
            low, high = getattr(self, name)
            return low + (high - low) * u[:, _COLUMNS[name]]

        def happens(name: str) -> np.ndarray:
            return u[:, _COLUMNS[name]] < getattr(self, name)

        zoom = within("zoom")
        saturation = np.where(happens("grey"), 0.0, within("saturation"))
        columns = {name: within(name) for name in ("rotate", "shear", "shift_x", "shift_y", "gamma", "blur", "noise")}
        columns |= {"zoom_x": zoom * within("zoom_x"), "zoom_y": zoom * within("zoom_y")}
        columns |= {"flip_x": happens("flip_x"), "flip_y": happens("flip_y")}
        columns["colour"] = colour_matrices(within("brightness"), within("contrast"), saturation, within("hue"))
        columns["erase"] = _boxes(within("erase_area"), u) * happens("erase")[:, None]
        columns["quality"] = np.where(happens("jpeg"), np.rint(within("jpeg_quality")), 0).astype(np.int64)
        noise_keys = chance.fork(keys, "pixel noise")
        return Parameters(**{name: torch.from_numpy(v) for name, v in columns.items()}, noise_keys=noise_keys)

    def is_varied(self, *names: str) -> bool:
        """Whether any of these ranges can change a picture: it is not what leaves every picture as it is."""
        still = {name: _as_range(name, IDENTITY[name]) if name not in _CHANCES else 0.0 for name in names}
        return any(getattr(self, name) != value for name, value in still.items())


def _boxes(area: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Rectangles [n, 4] (top, left, bottom, right) of `area` [n], aspect 0.3 to 3.3 (Zhong et al., AAAI 2020)."""
    aspect = np.exp(np.log(0.3) + (np.log(3.3) - np.log(0.3)) * u[:, _COLUMNS["erase_aspect"]])
    height, width = np.minimum(np.sqrt(area * aspect), 1.0), np.minimum(np.sqrt(area / aspect), 1.0)
    top, left = u[:, _COLUMNS["erase_top"]] * (1 - height), u[:, _COLUMNS["erase_left"]] * (1 - width)
    return np.stack([top, left, top + height, left + width], -1)


def _as_range(name: str, given: Range) -> tuple[float, float]:
    """The pair that `given` stands for; InputError where it is none or lies outside of what `name` can be."""
    pair = _pair(name, given) if isinstance(given, int | float) else given
    numbers = isinstance(pair, tuple | list) and all(isinstance(v, int | float) and math.isfinite(v) for v in pair)
    if not numbers or len(pair) != 2 or not pair[0] <= pair[1]:
        raise InputError(f"{name}={given!r} was given; expected a number, or low,high with low <= high")
    low, high = float(pair[0]), float(pair[1])
    floor = {"zoom": 0.01, "zoom_x": 0.01, "zoom_y": 0.01, "gamma": 0.01, "jpeg_quality": 1.0}.get(name, 0.0)
    ceiling = {"erase_area": 1.0, "jpeg_quality": 100.0}.get(name, math.inf)
    if name not in _SYMMETRIC and not (floor <= low and high <= ceiling):
        bounds = f"at least {floor:g}" if ceiling == math.inf else f"from {floor:g} to {ceiling:g}"
        raise InputError(f"{name}={given!r} was given, which means {low:g} to {high:g}; expected numbers {bounds}")
    return low, high


def _pair(name: str, value: float) -> tuple[float, float]:
    """What a single number means for `name`."""
    if name in _SYMMETRIC:
        return -value, value
    if name in _FACTORS:
        return 1 - value, 1 + value
    return (0.0, value) if name in _FROM_ZERO else (value, value)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name}={value!r} was given; expected one of {', '.join(allowed)}")
