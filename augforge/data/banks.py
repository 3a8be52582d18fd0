"""The three concrete banks: pictures in files, pictures in arrays, and features.

Each satisfies `augforge.types.Bank`. A bank holds an index only: pictures are read and decoded when rows are
asked for. All are frozen, can be pickled, and keep no file open, so that they may be used from several threads
and after a fork.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from augforge.types import Examples, InputError, UnreadablePicture

Columns = Mapping[str, Tensor | tuple[str, ...]]

_THREADS = min(4, os.cpu_count() or 1)
LARGEST = 1e15  # features beyond it have squares that float32 cannot sum
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # no fault of a picture, which must not be left out
_WORTH_THREADS = 64  # below this many rows starting threads costs more than it saves


@dataclass(frozen=True, eq=False)
class FilePictures:
    """Pictures in files or archive members, decoded when they are asked for."""

    space: ClassVar[Literal["image"]] = "image"

    y: Tensor  # [n] int64, indexes `classes`
    classes: tuple[str, ...]
    names: Sequence[str]  # [n] paths relative to `origin`, each once
    origin: str  # the folder or archive
    read: Callable[[int], bytes]  # the encoded bytes of a row, or of place `index[row]`
    decode: Callable[..., np.ndarray]  # these, the name and `at_least` to [h, w, c] uint8, or UnreadablePicture
    skipped: tuple[tuple[str, str], ...] = ()  # (name, reason) of what was left out while indexing
    groups: Columns = field(default_factory=dict)  # further columns [n], such as "superclass"
    attributes: Tensor | None = None  # [n_classes, a]
    index: Tensor | None = None  # [n] int64: places that `read` takes; None: the rows

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.y)

    def name(self, row: int) -> str:
        """The path of a row, relative to the origin."""
        return self.names[row]

    def load(self, row: int) -> tuple[np.ndarray, str]:
        """A picture [h, w, c] uint8 and the SHA-256 of its encoded bytes; raises UnreadablePicture."""
        data = self.encoded(row)
        return self.decode(data, self.names[row]), hashlib.sha256(data).hexdigest()

    def encoded(self, row: int) -> bytes:
        """The bytes of a row's file; raises UnreadablePicture where it cannot be read."""
        try:
            return self.read(_place(self.index, row))
        except OSError as error:
            if error.errno in _OF_THE_MACHINE:
                raise
            raise UnreadablePicture(self.names[row], f"cannot be read ({error.strerror or error})") from error

    def examples(self, rows: Tensor, classes: Tensor | None = None) -> Examples:
        """The pictures of `rows` [m], uint8: [m, c, h, w], or a list of m [c, h, w] where the sizes differ.

        Labels are class ids, or positions in `classes` [way]. Raises UnreadablePicture for a picture that cannot
        be read, and ValueError for a row of a class that is not in `classes`.
        """
        y = _labels(self.y, rows, classes)
        return Examples(_stack(lambda row: self.decode(self.encoded(row), self.names[row]), rows), y)

    def reduced(self, at_least: int) -> FilePictures:
        """The same pictures; JPEG files may be decoded at 1/2, 1/4 or 1/8 of their size, with a shorter side of
        `at_least` px or more.
        """
        return replace(self, decode=partial(self.decode, at_least=at_least))

    def counts(self) -> Tensor:
        """How many rows each class has: [n_classes] int64."""
        return torch.bincount(self.y, minlength=len(self.classes))

    def rows_of(self, class_id: int) -> Tensor:
        """The rows of a class, ascending: [m] int64."""
        return (self.y == class_id).nonzero(as_tuple=True)[0]

    def only(self, classes: Sequence[str]) -> FilePictures:
        """The bank limited to the named classes, which are numbered in that order; raises InputError."""
        return _part(self, *_limit(self, classes))


@dataclass(frozen=True, eq=False)
class ArrayPictures:
    """Pictures that are arrays already."""

    space: ClassVar[Literal["image"]] = "image"

    y: Tensor  # [n] int64, indexes `classes`
    classes: tuple[str, ...]
    pixels: np.ndarray | Callable[[int], np.ndarray]  # [k, h, w, c] uint8, c 1 or 3; or a place -> [h, w, c]
    origin: str
    names: Sequence[str] | None = None  # [n], each once; None: "images[place]"
    skipped: tuple[tuple[str, str], ...] = ()  # (name, reason) of what was left out
    groups: Columns = field(default_factory=dict)  # further columns [n]
    attributes: Tensor | None = None  # [n_classes, a]
    index: Tensor | None = None  # [n] int64: places in `pixels`, so that splits can share one array; None: the rows

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.y)

    def name(self, row: int) -> str:
        """The name of a row: its own, or its place in the array that it was made from."""
        return f"images[{_place(self.index, row)}]" if self.names is None else self.names[row]

    def load(self, row: int) -> tuple[np.ndarray, str]:
        """A picture [h, w, c] uint8 and the SHA-256 of its pixels' bytes; raises UnreadablePicture."""
        picture = self._picture(row)
        return picture, hashlib.sha256(picture.data).hexdigest()

    def _picture(self, row: int) -> np.ndarray:
        place = _place(self.index, row)
        try:
            return np.array(self.pixels(place) if callable(self.pixels) else self.pixels[place], order="C")
        except OSError as error:
            raise UnreadablePicture(self.name(row), f"cannot be read ({error.strerror or error})") from error

    def examples(self, rows: Tensor, classes: Tensor | None = None) -> Examples:
        """The pictures of `rows` [m], uint8: [m, c, h, w], or a list of m [c, h, w] where the sizes differ.

        Labels are class ids, or positions in `classes` [way]. Raises UnreadablePicture for a picture that cannot
        be read, and ValueError for a row of a class that is not in `classes`.
        """
        y = _labels(self.y, rows, classes)
        if callable(self.pixels):
            return Examples(_stack(self._picture, rows), y)
        places = rows if self.index is None else self.index[rows]
        pixels = torch.from_numpy(self.pixels[places.numpy()])  # [m, h, w, c]
        return Examples(pixels.permute(0, 3, 1, 2).contiguous(), y)

    def counts(self) -> Tensor:
        """How many rows each class has: [n_classes] int64."""
        return torch.bincount(self.y, minlength=len(self.classes))

    def rows_of(self, class_id: int) -> Tensor:
        """The rows of a class, ascending: [m] int64."""
        return (self.y == class_id).nonzero(as_tuple=True)[0]

    def only(self, classes: Sequence[str]) -> ArrayPictures:
        """The bank limited to the named classes, which are numbered in that order; raises InputError."""
        return _part(self, *_limit(self, classes))


@dataclass(frozen=True, eq=False)
class FeatureBank:
    """Features, real or made."""

    space: ClassVar[Literal["feature"]] = "feature"

    x: Tensor  # [n, d] float
    y: Tensor  # [n] int64, indexes `classes`
    classes: tuple[str, ...]
    origin: str = ""
    names: Sequence[str] | None = None  # [n], each once; None: "features[place]"
    attributes: Tensor | None = None  # [n_classes, a]
    parent: Tensor | None = None  # [n] int64: row of another bank that each was made from, -1: none; a record only
    weight: Tensor | None = None  # [n], goes with the examples
    groups: Columns = field(default_factory=dict)  # further columns [n]
    index: Tensor | None = None  # [n] int64: places in the origin, for names; None: the rows

    def __post_init__(self) -> None:
        """Raise InputError naming the first row that is not finite, or beyond 1e15, whose squares may overflow."""
        check_numbers(self.x, repr(self.origin) if self.origin else "the features")

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.y)

    def name(self, row: int) -> str:
        """The name of a row: its own, or its place in the file that it came from."""
        return f"features[{_place(self.index, row)}]" if self.names is None else self.names[row]

    def examples(self, rows: Tensor, classes: Tensor | None = None) -> Examples:
        """The features [m, d] of `rows` [m]; labels are class ids, or positions in `classes` [way].

        Raises ValueError for a row of a class that is not in `classes`.
        """
        weight = None if self.weight is None else self.weight[rows]
        return Examples(self.x[rows], _labels(self.y, rows, classes), weight=weight)

    def counts(self) -> Tensor:
        """How many rows each class has: [n_classes] int64."""
        return torch.bincount(self.y, minlength=len(self.classes))

    def rows_of(self, class_id: int) -> Tensor:
        """The rows of a class, ascending: [m] int64."""
        return (self.y == class_id).nonzero(as_tuple=True)[0]

    def only(self, classes: Sequence[str]) -> FeatureBank:
        """The bank limited to the named classes, which are numbered in that order; raises InputError."""
        return _part(self, *_limit(self, classes))


PictureBank = FilePictures | ArrayPictures
AnyBank = PictureBank | FeatureBank
B = TypeVar("B", FilePictures, ArrayPictures, FeatureBank)


def check_numbers(x: Tensor, what: str) -> None:
    """Raise InputError naming the first row of features `x` [..., n, d] that is not finite or beyond 1e15.

    `what` ends the words "row 3 of ...".
    """
    if not x.is_floating_point() or not x.numel() or x.device.type == "meta":
        return
    low, high = torch.aminmax(x.detach())
    if bool((low >= -LARGEST) & (high <= LARGEST)):  # one pass; NaN is in no range
        return
    rows = x.detach().reshape(-1, x.shape[-1])
    bad = ~(rows.abs() <= LARGEST)
    row = int(bad.any(1).nonzero()[0])
    value = float(rows[row][bad[row]][0])
    raise InputError(
        f"row {row % max(1, x.shape[-2]) if x.ndim > 1 else row} of {what} holds {value:g}; expected finite numbers of "
        f"at most {LARGEST:g} in size, so scale or leave out what is beyond"
    )


def source_sha256(bank: PictureBank, row: int) -> str:
    """The SHA-256 of a picture as `load` gives it, without decoding a file; raises UnreadablePicture."""
    if isinstance(bank, FilePictures):
        return hashlib.sha256(bank.encoded(row)).hexdigest()
    return bank.load(row)[1]


def row_digests(bank: AnyBank, encoded: bool) -> list[bytes]:
    """The SHA-256 of every row: of the file of a picture where it is `encoded`, else of its pixels, or of features.

    Raises UnreadablePicture.
    """
    return [_sha256(bank, row, encoded) for row in range(len(bank))]


def _sha256(bank: AnyBank, row: int, encoded: bool) -> bytes:
    """Of the file of a picture, of its pixels, or of a row of features."""
    if isinstance(bank, FeatureBank):
        return hashlib.sha256(bank.x[row].contiguous().numpy().tobytes()).digest()
    if not encoded:
        pixels = bank.load(row)[0]
        return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).digest()
    assert isinstance(bank, FilePictures)
    return hashlib.sha256(bank.encoded(row)).digest()


def _place(index: Tensor | None, row: int) -> int:
    return int(row) if index is None else int(index[row])


def _labels(y: Tensor, rows: Tensor, classes: Tensor | None) -> Tensor:
    labels = y[rows]
    if classes is None:
        return labels
    same = labels[:, None] == classes[None, :].to(labels)  # [m, way]
    if not bool(same.any(1).all()):
        raise ValueError("a row was asked for whose class is not among the classes")
    return same.to(torch.int8).argmax(1)


def _stack(picture: Callable[[int], np.ndarray], rows: Tensor) -> Tensor | list[Tensor]:
    """Uint8 [m, c, h, w], or a list of m [c, h, w]; grey is repeated where colour is among them."""
    wanted = rows.tolist()
    if not wanted:
        return torch.zeros(0, 3, 0, 0, dtype=torch.uint8)
    if len(wanted) < _WORTH_THREADS:
        arrays = [picture(row) for row in wanted]
    else:
        with ThreadPoolExecutor(_THREADS) as pool:
            arrays = list(pool.map(picture, wanted))
    channels = max(a.shape[2] for a in arrays)
    arrays = [a if a.shape[2] == channels else np.repeat(a, channels, axis=2) for a in arrays]
    if len({a.shape for a in arrays}) == 1:
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()  # [m, h, w, c] -> [m, c, h, w]
    return [torch.from_numpy(a).permute(2, 0, 1).contiguous() for a in arrays]


def take_rows(bank: B, rows: Tensor) -> B:
    """The bank limited to `rows` [m] and to the classes that occur among them, in their old order."""
    ids, y = torch.unique(bank.y[rows], return_inverse=True)
    return _part(bank, ids, rows, y)


def keep_rows(bank: B, rows: Tensor) -> B:
    """The bank limited to `rows` [m], with all its classes, also those that then have no row."""
    return _part(bank, torch.arange(len(bank.classes)), rows, bank.y[rows])


def _limit(bank: AnyBank, classes: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """The old ids [way], the rows [m] in their old order, and the new labels [m] for the named classes."""
    known = {name: i for i, name in enumerate(bank.classes)}
    form = {unicodedata.normalize("NFC", name): name for name in bank.classes}
    classes = [name if name in known else form.get(unicodedata.normalize("NFC", name), name) for name in classes]
    for name in classes:
        if name not in known:
            near = difflib.get_close_matches(name, bank.classes, n=1, cutoff=0.0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise InputError(f"there is no class {name!r} in {bank.origin!r}{hint}")
    if len(set(classes)) < len(classes):
        raise InputError(f"a class is named twice in {list(classes)!r}")
    ids = torch.tensor([known[name] for name in classes], dtype=torch.int64)
    renumber = torch.full((len(bank.classes),), -1, dtype=torch.int64)
    renumber[ids] = torch.arange(len(ids))
    y = renumber[bank.y]
    rows = (y >= 0).nonzero(as_tuple=True)[0]
    return ids, rows, y[rows]


def _part(bank: B, ids: Tensor, rows: Tensor, y: Tensor) -> B:
    """The bank limited to rows [m] with new labels y [m] and to the classes `ids` [way]."""
    places = rows.tolist()
    changes: dict[str, Any] = {
        "y": y,
        "classes": tuple(bank.classes[i] for i in ids.tolist()),
        "names": None if bank.names is None else tuple(bank.names[i] for i in places),
        "index": rows if bank.index is None else bank.index[rows],
        "groups": {
            key: column[rows] if isinstance(column, Tensor) else tuple(column[i] for i in places)
            for key, column in bank.groups.items()
        },
        "attributes": None if bank.attributes is None else bank.attributes[ids],
    }
    if isinstance(bank, FeatureBank):
        changes["x"] = bank.x[rows]
        changes["parent"] = None if bank.parent is None else bank.parent[rows]
        changes["weight"] = None if bank.weight is None else bank.weight[rows]
    return replace(bank, **changes)
