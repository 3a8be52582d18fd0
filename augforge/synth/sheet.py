"""The paper of a contact sheet: blocks of small pictures with names and captions, with little of it left white."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 1600, 2400  # pixels of the largest page, but for its title and last sections
_GAP, _MARGIN, _NAME, _LINE, _BETWEEN = 5, 12, 20, 14, 26  # pixels; of a line of a caption, and between columns
_PAPER, _INK, _FAINT, _FRAME, _REAL, _BAD = "#ffffff", "#1e1e1e", "#6f6f6f", "#d2d2d2", "#1e1e1e", "#c0392b"
_SMALLEST, _LARGEST, _SHRUNK = 64, 128, 112  # pixels: below that pictures are enlarged, above that shrunk, to what
_SMALLER = (88, 72)  # pixels: how high pictures are where not all classes fit otherwise
_TOGETHER = 5  # pictures of a line for each real one


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture [h, w, c] uint8, whether it is a real one, and what stands below it; `bad` ones have a red frame."""

    picture: np.ndarray
    real: bool = False
    caption: str = ""
    bad: bool = False


@dataclass(frozen=True, eq=False)
class Block:
    """Pictures under a name: groups that stay on one line, a real picture and what was made of it."""

    name: str
    groups: Sequence[Sequence[Tile]]


@dataclass(frozen=True)
class Layout:
    """How many classes are `shown` in how many `columns`, each with at most `lines` of `across` pictures, of which the
    first is a real one; how many stand `together`, a real one and what was made of it, where a class has several real
    ones; and the height and usual width of a picture.
    """

    shown: int
    columns: int
    lines: int
    across: int
    together: int
    height: int
    width: int


def picture_size(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """The height and usual width that pictures of these shapes [h, w, c] are shown with: their own where that is from
    64 to 128 pixels, small ones a whole number of times larger, large ones 112 high.
    """
    if not shapes:
        return _SMALLEST, _SMALLEST
    height = int(np.median([shape[0] for shape in shapes]))
    aspect = float(np.clip(np.median([shape[1] / shape[0] for shape in shapes]), 0.5, 2.0))
    if height < _SMALLEST:
        height *= -(-_SMALLEST // height)
    elif height > _LARGEST:
        height = _SHRUNK
    return height, round(height * aspect)


def layout_of(classes: int, size: tuple[int, int], most: int, pictures: int, captions: bool) -> Layout:
    """The layout for so many classes with at most `most` made pictures of a real one each; about so many `pictures`.

    All classes are shown where they fit on the largest page: with fewer pictures the more there are, and large pictures
    smaller.
    """
    found = _layout(classes, size, most, pictures, captions)
    for height in _SMALLER:
        if found.shown < classes and height < size[0]:
            found = _layout(classes, (height, size[1] * height // size[0]), most, pictures, captions)
    return found


def _layout(classes: int, size: tuple[int, int], most: int, pictures: int, captions: bool) -> Layout:
    height, width = size
    lines = 4 if classes == 1 else 3 if classes <= 4 else 2 if classes <= 10 else 1
    wanted = -(-max(3 * classes, pictures) // (classes * lines))
    room = max(1, (WIDTH - 2 * _MARGIN + _GAP) // (width + _GAP) - 1)
    across = 1 + max(1, min(wanted, room))
    block_width, line = across * (width + _GAP), height + _GAP + (_LINE if captions else 0)
    columns = max(1, (WIDTH - 2 * _MARGIN + _BETWEEN) // (block_width + _BETWEEN))
    fits = columns * max(1, HEIGHT // (_NAME + lines * line))
    together = across // max(1, across // _TOGETHER)
    return Layout(min(classes, fits), min(columns, classes), lines, across, min(together, 1 + most), height, width)


def draw_page(title: Sequence[str], blocks: Sequence[Block], layout: Layout, last: Sequence[Block]) -> Image.Image:
    """Blocks in columns below the lines of a title; the `last` ones below them over the whole width."""
    room = layout.across * (layout.width + _GAP)
    drawn = [_Drawing(block, layout, room) for block in blocks]
    block_width = max((one.used for one in drawn), default=0)
    width = max(2 * _MARGIN + layout.columns * (block_width + _BETWEEN) - _BETWEEN, 420)
    top = _MARGIN + 20 * len(title)
    ends = []
    per_column = -(-len(drawn) // layout.columns)
    for start in range(0, len(drawn), per_column):
        ends.append(top + sum(one.height for one in drawn[start : start + per_column]))
    below = [_Drawing(block, layout, width - 2 * _MARGIN) for block in last]
    page = Image.new("RGB", (width, max(ends, default=top) + sum(one.height for one in below) + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(page)
    for i, line in enumerate(title):
        pen.text((_MARGIN, _MARGIN - 4 + 20 * i), _cut(line, font(14 if i == 0 else 12), width - 2 * _MARGIN),
                 _FAINT if i else _INK, font(14 if i == 0 else 12))  # fmt: skip
    for i, one in enumerate(drawn):
        column, place = divmod(i, per_column)
        above = sum(other.height for other in drawn[column * per_column : column * per_column + place])
        one.draw(page, _MARGIN + column * (block_width + _BETWEEN), top + above)
    at = max(ends, default=top)
    for one in below:
        one.draw(page, _MARGIN, at)
        at += one.height
    return page


class _Drawing:
    """A block whose pictures have their sizes and lines."""

    def __init__(self, block: Block, layout: Layout, width: int) -> None:
        self.block, self.width = block, width
        self.lines = list(_lines(block.groups, layout, width))
        self.heights = [max(image.height + _LINE * len(_captions(tile, image.width)) for tile, image in line) + _GAP
                        for line in self.lines]  # fmt: skip
        self.height = _NAME + sum(self.heights) + _GAP
        self.used = max((sum(image.width + _GAP for _, image in line) for line in self.lines), default=0)

    def draw(self, page: Image.Image, left: int, top: int) -> None:
        """Draw it with its corner at a place of the page."""
        pen = ImageDraw.Draw(page)
        pen.text((left, top + 2), _cut(self.block.name, font(12), self.width), _INK, font(12))
        top += _NAME
        for line, height in zip(self.lines, self.heights, strict=True):
            at = left
            for tile, image in line:
                page.paste(image, (at, top))
                frame = (at - 1, top - 1, at + image.width, top + image.height)
                colour = _BAD if tile.bad else _REAL if tile.real else _FRAME
                pen.rectangle(frame, outline=colour, width=2 if tile.real or tile.bad else 1)
                for i, text in enumerate(_captions(tile, image.width)):
                    pen.text((at, top + image.height + 1 + _LINE * i), text, _FAINT, font(10))
                at += max(image.width, _least_width(tile)) + _GAP
            top += height


def _lines(
    groups: Sequence[Sequence[Tile]], layout: Layout, width: int
) -> Iterator[list[tuple[Tile, Image.Image]]]:  # fmt: skip
    """Lines of pictures with their images: a group begins a new one where it does not fit, and is cut at its end."""
    line: list[tuple[Tile, Image.Image]] = []
    used = 0
    for group in groups:
        images = [Image.fromarray(_scaled(tile.picture, layout.height)) for tile in group]
        sizes = [max(image.width, _least_width(tile)) + _GAP for tile, image in zip(group, images, strict=True)]
        if line and used + sum(sizes) > width + _GAP:
            yield line
            line, used = [], 0
        for tile, image, size in zip(group, images, sizes, strict=True):
            if line and used + size > width + _GAP:
                break
            line.append((tile, image))
            used += size
    if line:
        yield line


def _least_width(tile: Tile) -> int:
    return 76 if tile.caption else 1


def _scaled(picture: np.ndarray, height: int) -> np.ndarray:
    """[h, w, c] as RGB about `height` high and at most twice as wide: a whole number of times larger, so that pixels
    stay sharp, or smaller, averaged.
    """
    h, w = picture.shape[:2]
    rgb = picture.repeat(3, axis=2) if picture.shape[2] == 1 else picture
    scale = min(height / h, 2 * height / w)
    if scale >= 1:
        return rgb.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which ships with matplotlib and knows most alphabets; found without importing matplotlib."""
    found = find_spec("matplotlib")
    fonts = Path(str(found.origin if found else "")).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)


def _captions(tile: Tile, width: int) -> list[str]:
    """The lines of a caption, cut between words, each as wide as the picture or 76 pixels; at most three."""
    lines: list[str] = []
    room = max(width, _least_width(tile))
    for word in tile.caption.split():
        if lines and font(10).getlength(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(_cut(word, font(10), room))
    return lines[:3]


def _cut(text: str, of: ImageFont.FreeTypeFont, width: int) -> str:
    """Text on one line of at most so many pixels, its middle left out where it is too long."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    shown, kept = text, min(len(text), 400)
    while kept > 2 and of.getlength(shown) > width:
        kept -= 1
        shown = text[: kept // 2] + "…" + text[len(text) - (kept - kept // 2) :]
    return shown
