"""The uint8 engine of classical augmentation: one `warpAffine` and one `transform` a picture, in threads.

OpenCV lets go of the interpreter lock, so a batch is shared among `torch.get_num_threads()` threads.

OpenCV's bilinear `warpAffine` is two to three times as fast on four channels as on three and where no output pixel
looks outside of the source. So colour pictures get a fourth channel and just the border that their matrix reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from torch import Tensor

from augforge import chance
from augforge.generators.classical.parameters import Parameters, Recipe

BORDERS = {"reflect": cv2.BORDER_REFLECT, "edge": cv2.BORDER_REPLICATE, "constant": cv2.BORDER_CONSTANT}
INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
_GEOMETRY = ("rotate", "shift_x", "shift_y", "shear", "zoom", "zoom_x", "zoom_y", "flip_x", "flip_y")
_COLOUR = ("brightness", "contrast", "saturation", "hue", "grey")
_LAST = ("gamma", "blur", "noise", "erase", "jpeg")
_FEWEST_PER_THREAD = 16
_LARGEST_BORDERED = 9  # in areas of the picture; a matrix that reaches farther is left to OpenCV's own border


def apply_to_tensor(recipe: Recipe, pictures: Tensor, parameters: Parameters) -> Tensor:
    """Pictures [n, c, h, w], uint8 or floating in [0, 1], changed by `parameters`, as the same type."""
    if pictures.dtype != torch.uint8:
        levels = pictures.detach().mul(255).round().clamp(0, 255).to("cpu", torch.uint8)
        return apply_to_tensor(recipe, levels, parameters).to(pictures.device, pictures.dtype).div(255)
    by_pixel = pictures.cpu().permute(0, 2, 3, 1).contiguous().numpy()  # [n, h, w, c]
    out = np.empty_like(by_pixel)
    apply(recipe, by_pixel, parameters, out)
    return torch.from_numpy(out).permute(0, 3, 1, 2).to(pictures.device)  # [n, c, h, w]


def apply(recipe: Recipe, pictures: Sequence[np.ndarray] | np.ndarray, parameters: Parameters, out: np.ndarray) -> None:
    """Change n pictures [h, w, c] of one shape into `out` [n, h, w, c], all uint8; c is 1 or 3."""
    n, height, width, channels = out.shape
    matrices = parameters.matrices(height, width).numpy() if recipe.is_varied(*_GEOMETRY) else None
    colours = None
    if recipe.is_varied(*_COLOUR):
        colours = parameters.colour.numpy().astype(np.float32)
        colours[:, :, 3] *= 255
        if channels == 1:  # greys stay grey under saturation and hue: a row of the matrix is gain and offset
            colours = np.stack([colours[:, :1, :3].sum(-1), colours[:, :1, 3]], -1)
    rest = parameters if recipe.is_varied(*_LAST) else None

    def some(start: int, stop: int) -> None:
        _apply_rows(recipe, pictures, (matrices, colours, rest), out, range(start, stop))

    threads = min(torch.get_num_threads(), n // _FEWEST_PER_THREAD)
    if threads < 2:
        some(0, n)
        return
    edges = np.linspace(0, n, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, edges[:-1], edges[1:]))


def _apply_rows(
    recipe: Recipe,
    pictures: Sequence[np.ndarray] | np.ndarray,
    plan: tuple[np.ndarray | None, np.ndarray | None, Parameters | None],
    out: np.ndarray,
    rows: range,
) -> None:
    """The loop over pictures; `plan` is affine matrices, colour matrices and parameters of the other parts."""
    matrices, colours, rest = plan
    height, width = out.shape[1:3]
    warp = _warp_bilinear if recipe.interpolation == "bilinear" else _warp
    reach = None if matrices is None else _reach(matrices, height, width)
    moved = np.empty(out.shape[1:], np.uint8)
    for i in rows:
        picture = pictures[i]
        if matrices is not None and reach is not None:
            into = moved if colours is not None else out[i]
            warp(recipe, picture, matrices[i], reach[i], into)
            picture = into
        if colours is not None:
            cv2.transform(picture, colours[i], out[i])
        elif matrices is None:
            out[i] = picture
        if rest is not None:
            _finish(recipe, rest, i, out[i])


def _reach(matrices: np.ndarray, height: int, width: int) -> list[list[int]]:
    """How far outside of the source each matrix [n, 2, 3] looks, in pixels: n times left, top, right, bottom."""
    far = np.array([width - 1, height - 1])
    spans = matrices[:, :, :2] * far  # [n, 2 (x, y of the source), 2 (x, y of the output)]
    low = matrices[:, :, 2] + np.minimum(spans, 0).sum(-1)
    high = matrices[:, :, 2] + np.maximum(spans, 0).sum(-1)
    outside = np.concatenate([np.ceil(-low), np.ceil(high - far)], 1)
    return (np.maximum(outside, 0) + 1).astype(int).tolist()


def _warp(recipe: Recipe, picture: np.ndarray, matrix: np.ndarray, reach: list[int], into: np.ndarray) -> None:
    """Resample `picture` [h, w, c] into `into`, the border left to OpenCV."""
    flags = INTERPOLATIONS[recipe.interpolation] | cv2.WARP_INVERSE_MAP
    fill = (round(255 * recipe.fill),) * into.shape[2]
    cv2.warpAffine(picture, matrix, into.shape[1::-1], into, flags, BORDERS[str(recipe.padding)], fill)


def _warp_bilinear(recipe: Recipe, picture: np.ndarray, matrix: np.ndarray, reach: list[int], into: np.ndarray) -> None:
    """The same for bilinear interpolation, on four channels and on a picture that has the border it needs."""
    left, top, right, bottom = reach
    height, width, channels = into.shape
    constant = recipe.padding == "constant"
    if not constant and (left + width + right) * (top + height + bottom) > _LARGEST_BORDERED * height * width:
        _warp(recipe, picture, matrix, reach, into)
        return
    source = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA) if channels == 3 else picture
    if not constant:
        source = cv2.copyMakeBorder(source, top, bottom, left, right, BORDERS[str(recipe.padding)])
        matrix = matrix.copy()
        matrix[0, 2] += left
        matrix[1, 2] += top
    flags, fill = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (round(255 * recipe.fill),) * 4
    into_four = None if channels == 3 else into
    seen = cv2.warpAffine(source, matrix, (width, height), into_four, flags, cv2.BORDER_CONSTANT, fill)
    if channels == 3:
        cv2.cvtColor(seen, cv2.COLOR_RGBA2RGB, into)


def _finish(recipe: Recipe, parameters: Parameters, i: int, picture: np.ndarray) -> None:
    """Gamma, blur, noise, erasing and JPEG of row i, in place on `picture` [h, w, c]."""
    height, width, channels = picture.shape
    if (gamma := float(parameters.gamma[i])) != 1:
        table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
        picture[:] = table[picture]
    if (sigma := float(parameters.blur[i])) > 0:
        side = 2 * blur_radius(sigma, height, width) + 1
        blurred = cv2.GaussianBlur(picture, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)
        picture[:] = blurred.reshape(picture.shape)
    if (deviation := float(parameters.noise[i])) > 0:
        noise = chance.normal(parameters.noise_keys[i : i + 1], (height, width, channels))[0].numpy()
        picture[:] = np.rint(np.clip(picture + noise * np.float32(255 * deviation), 0, 255)).astype(np.uint8)
    top, left, bottom, right = erased_box(parameters.erase[i], height, width)
    picture[top:bottom, left:right] = round(255 * recipe.fill)
    if (quality := int(parameters.quality[i])) > 0:
        picture[:] = _through_jpeg(picture, quality).reshape(picture.shape)


def blur_radius(sigma: float, height: int, width: int) -> int:
    """Pixels on each side of a blur kernel: three standard deviations, and less than the picture."""
    return min(int(np.ceil(3 * sigma)), min(height, width) - 1)


def erased_box(part: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Whole pixels (top, left, bottom, right) of a box [4] given in parts of the height and the width."""
    top, left, bottom, right = (part.numpy() * (height, width, height, width)).round().astype(int).tolist()
    return top, left, bottom, right


def _through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """Code [h, w, c] as a baseline JPEG of `quality` 1 to 100, chroma at half the size, and decode it."""
    coloured = picture.shape[2] == 3
    source = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if coloured else picture
    _, data = cv2.imencode(".jpg", source, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR if coloured else cv2.IMREAD_GRAYSCALE))
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if coloured else decoded
