"""The files of the named sources, under the data root."""

from __future__ import annotations

import contextlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

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
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read as JSON ({error})") from error


@contextlib.contextmanager
def npz_file(path: str | Path) -> Iterator[NpzFile]:
    """The arrays of an `.npz`, read without unpickling; raises InputError where it or one of its arrays is damaged."""
    try:
        with open(path, "rb") as file:  # opened here because np.load leaves a damaged file open
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, NpzFile):
                raise ValueError("it is one array without a name")
            with arrays:
                yield arrays
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(f"{str(path)!r} cannot be read as an .npz ({error})") from error


def read_arrays(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays `keys` of an `.npz`; raises InputError where it is damaged or one is missing."""
    with npz_file(path) as arrays:
        missing = [key for key in keys if key not in arrays.files]
        if missing:
            raise InputError(f"{str(path)!r} has no array {missing[0]!r}; expected {', '.join(keys)}")
        return {key: arrays[key] for key in keys}
