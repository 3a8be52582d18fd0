"""The map of a report page: the pictures on it, embedded and laid out in a plane, so that alike ones are near."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augforge.data.decode import decode
from augforge.figures import COLOURS
from augforge.parts import saving
from augforge.report.parts import Block, Thumbnail

WIDTH, HEIGHT, _EDGE = 700.0, 460.0, 14.0  # of the map, and what stays free around it
_FEWEST = 8  # pictures of a map
_LETTERS = {(1, 28, 28)}  # what conv4-glyphs takes


@dataclass(frozen=True)
class Dot:
    """A picture on the map: its place, the number of its class's colour, and the picture."""

    x: float
    y: float
    colour: int
    picture: Thumbnail

    @property
    def at(self) -> tuple[float, float]:
        """Where the upper left corner of its picture is, so that all of it is on the map."""
        left, top = self.x + 8, self.y + 8
        return (max(0.0, min(left, WIDTH - self.picture.width)), max(0.0, min(top, HEIGHT - self.picture.height)))


def dots_of(wall: Sequence[Block]) -> tuple[list[Dot], str]:
    """A dot for each picture of a wall, and how they were laid out; none where there are fewer than 8 pictures.

    The pictures are embedded as they are on the page: letters of 28 x 28 px by conv4-glyphs, all else by photos. t-SNE
    (van der Maaten & Hinton 2008) lays them out where scikit-learn is installed, else their first two principal
    components. Raises LackError where the weights are not there.
    """
    shown = [(i, one) for i, block in enumerate(wall) for group in block.groups for one in group]
    if len(shown) < _FEWEST:
        return [], ""
    pixels = [torch.from_numpy(decode(base64.b64decode(one.uri.partition(",")[2]), one.alt)) for _, one in shown]
    pictures = [picture.permute(2, 0, 1).float() / 255 for picture in pixels]
    name = "conv4-glyphs" if {tuple(x.shape) for x in pictures} == _LETTERS else "photos"
    if name == "photos":
        pictures = [x.expand(3, -1, -1) for x in pictures]
    with torch.no_grad():
        part = saving.open_part(name, None, "representation")
        features = part.embed(torch.stack(pictures) if name != "photos" else pictures)
    plane, how = _plane(features)
    low, high = plane.min(0), plane.max(0)
    room = np.array([WIDTH, HEIGHT]) - 2 * _EDGE
    places = _EDGE + (plane - low) / np.maximum(high - low, 1e-9) * room
    few = len(wall) <= len(COLOURS)
    dots = [Dot(round(float(x), 1), round(float(y), 1), i if few else 0, one)
            for (x, y), (i, one) in zip(places, shown, strict=True)]  # fmt: skip
    return dots, f"{len(dots)} pictures of this page in features of {name}, laid out by {how}"


def _plane(features: Tensor) -> tuple[np.ndarray, str]:
    """Features [n, d] as places [n, 2], and by what."""
    rows = features.double().numpy()
    centred = rows - rows.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError:
        return u[:, :2] * s[:2], "their first two principal components"
    around = min(30.0, (len(rows) - 1) / 3)
    components = (u * s)[:, :50].astype(np.float32)
    return TSNE(perplexity=around, init="pca", random_state=0).fit_transform(components), "t-SNE"
