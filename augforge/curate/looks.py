"""What can be seen of a picture without a network: a thumbnail as its perceptual hash, contrast, and how grainy it is.

All numbers come from whole numbers, picture by picture, so they are the same in any company.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

SIDE = 16  # px of a thumbnail
_FINE = 48  # px at which two pictures are laid upon each other
_BLUR = 3.0  # px of sigma of the coarse thumbnail, which finds pictures that were moved or cut
_STEPS, _ENOUGH = 20, 1e-4  # of the search for how one lies on the other
_MOST_BENT, _MOST_MOVED, _LEAST_SHARED = 0.25, 10.0, 0.7  # off the identity; px of 48; share of the area
_WHOLE = np.full((_FINE, _FINE), 255, np.uint8)


@dataclass(frozen=True, eq=False)
class Looks:
    """Of n pictures: `thumbnails` [n, 16, 16] uint8 grey; `contrast` [n], the standard deviation of grey levels; the
    share `extreme` [n] of samples that are 0 or 255; `grain` [n], the correlation of neighbouring pixels, 1 where a
    picture is smooth and 0 where it is noise (1 where all are alike); and `fine` [n, 48, 48] uint8 grey.
    """

    thumbnails: np.ndarray
    contrast: np.ndarray
    extreme: np.ndarray
    grain: np.ndarray
    fine: np.ndarray

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.contrast)

    def hashes(self, mirrored: bool = False) -> Tensor:
        """The thumbnails as rows [n, 256] float32 around 0, of length 1: cosines compare them whatever the exposure.

        A row is all 0 where a thumbnail has one grey level. With `mirrored` those of the mirror images.
        """
        return directions(self.thumbnails[:, :, ::-1] if mirrored else self.thumbnails)

    def coarse(self, mirrored: bool = False) -> Tensor:
        """Blurred thumbnails as such rows [n, 256]: less changes in them where a picture is moved or cut a little."""
        blurred = [cv2.resize(cv2.GaussianBlur(one, (0, 0), _BLUR), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                   for one in self.fine]  # fmt: skip
        stacked = np.stack(blurred) if blurred else np.zeros((0, SIDE, SIDE), np.uint8)
        return directions(stacked[:, :, ::-1] if mirrored else stacked)


def looks_of(pictures: Iterable[np.ndarray]) -> Looks:
    """The looks of pictures [h, w, c] uint8, c 1 or 3 (RGB)."""
    found = [_look(picture) for picture in pictures]
    if not found:
        return Looks(np.zeros((0, SIDE, SIDE), np.uint8), *(np.zeros(0),) * 3, np.zeros((0, _FINE, _FINE), np.uint8))
    thumbnails, contrast, extreme, grain, fine = zip(*found, strict=True)
    return Looks(np.stack(thumbnails), np.array(contrast), np.array(extreme), np.array(grain), np.stack(fine))


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """A picture [h, w, c] uint8 as [16, 16] grey levels uint8."""
    return cv2.resize(_grey(picture), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def directions(thumbnails: np.ndarray) -> Tensor:
    """Thumbnails [n, s, s] uint8 as rows [n, s * s] float32 around 0 and of length 1; 0 where all is one grey level."""
    rows = thumbnails.reshape(len(thumbnails), -1).astype(np.int64)
    rows = rows * rows.shape[1] - rows.sum(1, keepdims=True)  # around 0, in whole numbers
    length = np.sqrt((rows * rows).sum(1, keepdims=True).astype(np.float64))
    return torch.from_numpy((rows / np.maximum(length, 1)).astype(np.float32))


def contrast_of(picture: np.ndarray) -> float:
    """The standard deviation of the grey levels of a picture [h, w, c] uint8."""
    return float(_grey(picture).std())


def extreme_of(picture: np.ndarray) -> float:
    """The share of the samples of a picture [h, w, c] uint8 that are 0 or 255."""
    return float(((picture == 0) | (picture == 255)).mean())


def grain_of(picture: np.ndarray) -> float:
    """The correlation of each pixel's grey level with those to the right and below; 1 where all are alike."""
    grey = _grey(picture).astype(np.float64)
    apart = grey - grey.mean()
    square = float((apart * apart).mean())
    pairs = [(apart[:, 1:] * apart[:, :-1]), (apart[1:] * apart[:-1])]
    means = [float(pair.mean()) for pair in pairs if pair.size]
    return 1.0 if square == 0 or not means else sum(means) / len(means) / square


def aligned(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two pictures [48, 48] uint8 after the second was moved, turned, sheared or cut onto the first.

    By the enhanced correlation coefficient (Evangelidis and Psarakis, IEEE TPAMI 2008). -1 where they do not share 70 %
    of their area, or the search finds nothing.
    """
    how = np.eye(2, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _STEPS, _ENOUGH)
    try:
        cv2.findTransformECC(one, other, how, cv2.MOTION_AFFINE, criteria, None, 3)  # type: ignore[call-overload]
    except cv2.error:  # it does not converge
        return -1.0
    if np.abs(how[:, :2] - np.eye(2)).max() > _MOST_BENT or np.abs(how[:, 2]).max() > _MOST_MOVED:
        return -1.0
    size = (_FINE, _FINE)
    laid = cv2.warpAffine(other, how, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    shared = cv2.warpAffine(_WHOLE, how, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
    return _correlation(one[shared], laid[shared]) if shared.mean() >= _LEAST_SHARED else -1.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    x, y = (side.astype(np.float64) - side.mean() for side in (a, b))
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size else -1.0


def _look(picture: np.ndarray) -> tuple[np.ndarray, float, float, float, np.ndarray]:
    grey = _grey(picture)
    fine = cv2.resize(grey, (_FINE, _FINE), interpolation=cv2.INTER_AREA)
    return thumbnail(picture), contrast_of(picture), extreme_of(picture), grain_of(picture), fine


def _grey(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0] if picture.shape[2] == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def as_pictures(x: Tensor | Sequence[Tensor]) -> list[np.ndarray]:
    """Pictures [n, c, h, w], or a list of [c, h, w], uint8 or float in [0, 1], as n arrays [h, w, c] uint8."""
    return [_as_uint8(one).permute(1, 2, 0).contiguous().cpu().numpy() for one in x]


def _as_uint8(picture: Tensor) -> Tensor:
    if picture.dtype == torch.uint8:
        return picture
    return (picture.float().nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8)
