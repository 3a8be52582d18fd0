"""The files of the named sources, under the data root."""

from __future__ import annotations

import ast
import contextlib
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.npyio import NpzFile

from augforge.data.durable import check_regular, read_file
from augforge.data.strict_json import MOST_JSON, brief, parse_json
from augforge.types import InputError, LackError


def find_file(root: Path, file: str, source: str) -> Path:
    """The path of a source's file; raises LackError, which says how to name another data root, where it is absent."""
    path = root / file
    if not path.is_file():
        raise LackError(
            f"the source {source!r} needs {file!r}, which is not in {str(root)!r}; "
            f"--data-root or AUGFORGE_DATA says where it lies"
        )
    return path


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises InputError where it is damaged."""
    try:
        return parse_json(read_file(path, MOST_JSON))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read as JSON ({brief(error)})") from error


@contextlib.contextmanager
def npz_file(path: str | Path) -> Iterator[NpzFile]:
    """The arrays of an `.npz`, read without unpickling; raises InputError where it or one of its arrays is damaged."""
    try:
        check_regular(path)
        with open(path, "rb") as file:  # opened here because np.load leaves a damaged file open
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, NpzFile):
                raise ValueError("it is one array without a name")
            with arrays:
                _check_members(path)
                yield arrays
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(f"{str(path)!r} cannot be read as an .npz ({brief(error)})") from error


# What zipfile, zlib and numpy raise for one defect or another; tokens are those of a header that numpy reads as Python.
_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, SyntaxError, TypeError,
            KeyError, RuntimeError, OverflowError, MemoryError, struct.error, tokenize.TokenError)  # fmt: skip


def _check_members(path: str | Path) -> None:
    """Raise ValueError where a member is no array of numbers or text, or is not as long as its header says."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                raise ValueError(f"its member {name[:100]!r} is no .npy")
            with archive.open(info) as file:
                shape, dtype, start, _ = npy_header(file)
            if math.prod(shape) * dtype.itemsize + start != info.file_size:
                raise ValueError(f"its array {name[:100]!r} is {list(shape)} by its header, and has another length")


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int, bool]:
    """Shape, type, length of header, and whether in Fortran's order, of the .npy array that a file begins with.

    Raises ValueError for objects, which would be unpickled, and whatever numpy raises for a damaged header.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its header is of version {version}; expected 1, 2 or 3")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes; expected at most {_LONGEST_HEADER:,}")
    text = file.read(length).decode("latin-1" if version < (3, 0) else "utf-8")
    found = ast.literal_eval(text.strip())
    if not isinstance(found, dict) or set(found) != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header is not that of an array")
    shape, dtype = found["shape"], np.lib.format.descr_to_dtype(found["descr"])
    if dtype.hasobject or dtype.names is not None:
        raise ValueError(f"it holds {dtype}; expected numbers or text")
    if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError(f"its shape is {brief(shape)}; expected whole numbers of at least 0")
    return shape, dtype, 6 + 2 + width + length, found["fortran_order"]


_LONGEST_HEADER = 10_000  # bytes, numpy's own limit


def read_npy(path: str | Path) -> np.ndarray:
    """The numbers or text of an `.npy`; raises ValueError where it is damaged or holds objects, and OSError."""
    check_regular(path)
    with open(path, "rb") as file:
        try:
            shape, dtype, start, _ = npy_header(file)
            size = math.prod(shape) * dtype.itemsize + start
            if size != file.seek(0, 2):
                raise ValueError(f"by its header it is {list(shape)}, {size:,} bytes, and it has {file.tell():,}")
            file.seek(0)
            return np.load(file, allow_pickle=False)
        except OSError:
            raise
        except _DAMAGED as error:
            raise ValueError(brief(error)) from error


def read_arrays(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays `keys` of an `.npz`; raises InputError where it is damaged or one is missing."""
    with npz_file(path) as arrays:
        missing = [key for key in keys if key not in arrays.files]
        if missing:
            raise InputError(f"{str(path)!r} has no array {missing[0]!r}; expected {', '.join(keys)}")
        return {key: arrays[key] for key in keys}
