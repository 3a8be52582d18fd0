"""An `.npz` as a source: `images` and `labels`, or `features` and `labels`.

`images` [n, h, w] or [n, h, w, c] (c 1 or 3) uint8, or float in 0..1; `labels` [n] integers or strings; optional
`classes` [k] names and `split` [n] of "train", "val", "test". Pictures that lie uncompressed in the file stay
there and are read one by one, so that a file larger than the memory can be used.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.data.files import npy_header, npz_file
from augforge.data.labels import by_split, check_finite, number_labels
from augforge.types import InputError

_CHECKED_AT_ONCE = 1 << 24  # numbers


@dataclass(frozen=True)
class StoredRows:
    """Pictures of an array that lies uncompressed in a file; called, it gives one as [h, w, c] uint8."""

    path: str
    stamp: tuple[int, int]  # the file's size and time of change in ns when it was opened
    start: int  # the byte where the array begins
    shape: tuple[int, ...]  # [n, h, w] or [n, h, w, c]
    dtype: np.dtype

    def __call__(self, row: int) -> np.ndarray:
        """Picture `row` [h, w, c] uint8; raises OSError."""
        return _to_uint8(self.raw(row, row + 1))[0]

    def raw(self, first: int, last: int) -> np.ndarray:
        """The stored numbers of the rows first..last-1; raises OSError, also where the file has changed."""
        each = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        file = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            status = os.fstat(file)
            if (status.st_size, status.st_mtime_ns) != self.stamp:
                raise OSError(f"the file {self.path!r} has changed since it was opened")
            data = os.pread(file, each * (last - first), self.start + each * first)
        finally:
            os.close(file)
        if len(data) < each * (last - first):
            raise OSError(f"the file {self.path!r} is cut short")
        return np.frombuffer(data, self.dtype).reshape(last - first, *self.shape[1:])


def open_npz(path: str | Path) -> dict[str, ArrayPictures] | dict[str, FeatureBank]:
    """The banks of an `.npz`: {"all": ...}, or those of its splits. Nothing is unpickled.

    Raises InputError where the file is damaged or its arrays are not as expected.
    """
    path = os.path.abspath(path)
    with npz_file(path) as arrays:
        return _open(path, arrays)


def _open(path: str, arrays: NpzFile) -> dict[str, ArrayPictures] | dict[str, FeatureBank]:
    keys = set(arrays.files)
    if "labels" not in keys or len(keys & {"images", "features"}) != 1:
        raise InputError(f"{path!r} has the arrays {sorted(keys)}; expected labels and one of images, features")
    classes = _strings(path, arrays, "classes")
    split = _strings(path, arrays, "split")
    y, names = number_labels(arrays["labels"], classes, repr(path))
    if "features" in keys:
        x = arrays["features"]
        if x.ndim != 2 or x.dtype.kind != "f" or x.dtype.itemsize > 8:
            raise InputError(f"{path!r}: features are {x.dtype} {list(x.shape)}; expected floats [n, d]")
        _same_length(path, "features", len(x), len(y))
        bank = FeatureBank(torch.from_numpy(np.ascontiguousarray(x, x.dtype.newbyteorder("="))), y, names, path)
        check_finite(bank.x, repr(path))
        return by_split(bank, split, repr(path))
    pixels, n = _images(path, arrays)
    _same_length(path, "images", n, len(y))
    return by_split(ArrayPictures(y, names, pixels, path), split, repr(path))


def _strings(path: str, arrays: NpzFile, key: str) -> list[str] | None:
    if key not in arrays.files:
        return None
    column = arrays[key]
    if column.ndim != 1 or column.dtype.kind != "U":
        raise InputError(f"{path!r}: {key} is {column.dtype} {list(column.shape)}; expected strings [n]")
    return [str(name) for name in column]


def _same_length(path: str, key: str, found: int, labels: int) -> None:
    if found != labels:
        raise InputError(f"{path!r}: {key} has {found} rows and labels has {labels}")


def _images(path: str, arrays: NpzFile) -> tuple[np.ndarray | Callable[[int], np.ndarray], int]:
    """The pictures, as rows to be read or as [n, h, w, c] uint8, and their number; raises InputError."""
    stored = _stored_rows(path)
    images = arrays["images"] if stored is None else stored
    shape, dtype = images.shape, images.dtype
    channels = shape[3] if len(shape) == 4 else 1
    if len(shape) not in (3, 4) or channels not in (1, 3) or 0 in shape[1:]:
        raise InputError(f"{path!r}: images have shape {list(shape)}; expected [n, h, w] or [n, h, w, c] with c 1 or 3")
    if dtype != np.uint8 and dtype.kind != "f":
        raise InputError(f"{path!r}: images are {dtype}; expected uint8, or floats in 0..1")
    if dtype.kind == "f":
        step = max(1, _CHECKED_AT_ONCE // int(np.prod(shape[1:])))
        for first in range(0, shape[0], step):
            last = min(first + step, shape[0])
            part = images.raw(first, last) if isinstance(images, StoredRows) else images[first:last]
            _check_range(path, first, part)
    return images if isinstance(images, StoredRows) else _to_uint8(images), shape[0]


def _check_range(path: str, first: int, part: np.ndarray) -> None:
    flat = part.reshape(len(part), -1)  # [n, h * w * c]
    bad = ~((flat >= 0) & (flat <= 1)).all(axis=1)  # not-a-number is in no range
    if bad.any():
        row = first + int(bad.argmax())
        raise InputError(f"{path!r}: images[{row}] has values outside of 0..1, which is what floats are expected in")


def _to_uint8(images: np.ndarray) -> np.ndarray:
    """[n, h, w] or [n, h, w, c], uint8 or float in 0..1 -> [n, h, w, c] uint8."""
    if images.dtype.kind == "f":
        images = np.rint(images.astype(np.float64) * 255).astype(np.uint8)
    return images if images.ndim == 4 else images[:, :, :, None]


def _stored_rows(path: str) -> StoredRows | None:
    """Where `images` lies in the file, or None where it is compressed or in Fortran's order."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        info = archive.getinfo("images.npy")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            return None
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
        file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), os.SEEK_CUR)
        shape, dtype, _, fortran = npy_header(file)
        if fortran:
            return None
        status = os.fstat(file.fileno())
        return StoredRows(path, (status.st_size, status.st_mtime_ns), file.tell(), shape, dtype)
