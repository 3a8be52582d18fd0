"""What `augforge check` looks at: the rows of one or two sources, decoded once and embedded, side by side."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from augforge.curate.looks import Looks, looks_of
from augforge.data.banks import AnyBank, FeatureBank, PictureBank, keep_rows, row_digests
from augforge.data.folder import open_flat
from augforge.data.source import open_source
from augforge.inputs import default_representation, embed_pictures
from augforge.types import InputError, UnreadablePicture


@dataclass(frozen=True)
class CheckRequest:
    """What is checked and how: the fields are the options of `augforge check`."""

    a: str  # a source, or a folder of pictures without class folders
    b: str | None = None  # another one: test data beside the training data of `a`; None: the splits of `a`, if any
    representation: str | None = None  # a name or a folder; None: what fits the pictures
    fast: bool = False  # nothing is embedded: by pixels and thumbnails alone
    near: float = 0.98  # least cosine of two rows of features, around their mean, that are near-duplicates, 0 to 1
    device: str = "cpu"
    data_root: Path | None = None  # None: the environment variable AUGFORGE_DATA
    seed: int = 0  # of the folds that labels are checked by

    def __post_init__(self) -> None:
        """Raise InputError for options that exclude each other or are out of range."""
        if self.fast and self.representation is not None:
            raise InputError("--fast and --representation were given; expected one of them: --fast embeds nothing")
        if not 0 < self.near <= 1:
            raise InputError(f"--near {self.near} was given; expected a cosine above 0, at most 1")


@dataclass(eq=False)
class Side:
    """The rows of one part of what is checked: its `title`, the bank, which of its rows can be read; of these a digest
    of the pixels or numbers each, the looks of pictures, and features [n, d] where something embedded them.
    """

    title: str
    bank: AnyBank
    labelled: bool
    broken: list[tuple[str, str]] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    looks: Looks | None = None
    features: Tensor | None = None

    def name(self, row: int) -> str:
        """The name of a row, with that of its side where there are several."""
        return self.named(self.bank.name(row))

    def named(self, name: str) -> str:
        """A name in the bank with that of the side, where it does not begin so."""
        return name if not self.title or name.startswith(f"{self.title}/") else f"{self.title}/{name}"

    def label(self, row: int) -> str:
        """The class of a row; "" where there are no labels."""
        return self.bank.classes[int(self.bank.y[row])] if self.labelled else ""


def open_sides(request: CheckRequest) -> tuple[list[Side], str | None]:
    """The sides of a request, everything read; and the name of what embedded them, None where nothing did.

    Raises InputError for what cannot be opened or compared.
    """
    sides = _opened(request)
    if len({side.bank.space for side in sides}) > 1:
        raise InputError(f"{request.a!r} and {request.b!r} hold pictures and features; expected two of one kind")
    for side in sides:
        _read(side)
    if not any(len(side.bank) for side in sides):
        raise InputError(f"{request.a!r} has no picture that can be read")
    if sides[0].bank.space == "feature":
        if request.representation is not None:
            raise InputError(f"--representation {request.representation!r} was given; {request.a!r} holds features")
        if len({side.bank.x.shape[1] for side in sides if isinstance(side.bank, FeatureBank)}) > 1:
            raise InputError(f"{request.a!r} and {request.b!r} hold features of different widths")
        return sides, "features as given"
    if request.fast:
        return sides, None
    pictures = [side.bank for side in sides if not isinstance(side.bank, FeatureBank) and len(side.bank)]
    name = request.representation or default_representation(*pictures)
    for side in sides:
        if not isinstance(side.bank, FeatureBank) and len(side.bank):
            side.features = embed_pictures(_without_empty(side.bank), name, request.device)[0].x
        else:
            side.features = torch.zeros(0, 1)
    return sides, name


def _opened(request: CheckRequest) -> list[Side]:
    first = _banks(request.a, request.data_root)
    if request.b is None:
        return [Side("" if len(first) == 1 else title, *found) for title, found in first.items()]
    second = _banks(request.b, request.data_root)
    chosen = [next(iter(banks.values())) if len(banks) == 1 else banks.get(split) for banks, split in
              ((first, "train"), (second, "test"))]  # fmt: skip
    for found, source, split in zip(chosen, (request.a, request.b), ("train", "test"), strict=True):
        if found is None:
            raise InputError(f"{source!r} has splits and no {split!r}; expected one, or a folder of one part")
    titles = [Path(source).name or source for source in (request.a, request.b)]
    if titles[0] == titles[1]:
        titles = [request.a.rstrip("/"), request.b.rstrip("/")]
    return [Side(title, *found) for title, found in zip(titles, chosen, strict=True) if found is not None]


def _banks(source: str, data_root: Path | None) -> dict[str, tuple[AnyBank, bool]]:
    """The banks of a source by split, and whether their labels mean something."""
    flat = open_flat(Path(source)) if Path(source).is_dir() else None
    if flat is not None:
        return {"all": (flat, False)}
    return {split: (bank, True) for split, bank in open_source(source, data_root).items()}


def _without_empty(bank: PictureBank) -> PictureBank:
    """A bank of one class: none is missed that has no picture to read."""
    return replace(bank, y=torch.zeros_like(bank.y), classes=("",), attributes=None)


def _read(side: Side) -> None:
    """Read every row once; what cannot be read is noted, and left out of the bank."""
    bank = side.bank
    if isinstance(bank, FeatureBank):
        side.digests, side.features = row_digests(bank, encoded=False), bank.x.float()
        return
    side.broken = list(bank.skipped)
    good: list[int] = []

    def pictures() -> object:
        for row in range(len(bank)):
            try:
                picture = bank.load(row)[0]
            except UnreadablePicture as error:
                side.broken.append((error.name, error.reason))
                continue
            good.append(row)
            side.digests.append(
                hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).data).digest()
            )
            yield picture

    side.looks = looks_of(pictures())  # type: ignore[arg-type]
    side.bank = keep_rows(bank, torch.tensor(good, dtype=torch.int64))  # type: ignore[type-var]
