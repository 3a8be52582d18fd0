"""The files of Hariharan and Girshick's benchmark, read as they are (github: low-shot-shrink-hallucinate).

Features are HDF5 with the datasets `all_feats` [m, d], `all_labels` [m] and `count` [1]: only the first `count` rows
are filled. `label_idx.json` has lists of class ids from 0: `base_classes_1` and `novel_classes_1` to validate,
`base_classes_2` and `novel_classes_2` to test, and in some versions `label_names`. `splitfile_1.json` to
`splitfile_5.json` are one draw each: a list with an entry for every class id, in order, which lists 20 rows of the
training features; at n shots the first n are used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from augforge.data.banks import FeatureBank
from augforge.data.durable import check_regular
from augforge.data.files import read_json
from augforge.data.labels import check_finite
from augforge.data.strict_json import brief
from augforge.protocols.low_shot import LowShot
from augforge.types import InputError, LackError

Setup = Literal["validation", "test"]
_CLASSES_FILE = "label_idx.json"
_DATASETS = ("all_feats", "all_labels", "count")
_MOST_CLASSES = 10_000_000


def open_low_shot(
    train: str | Path, test: str | Path, classes: str | Path, draws: Sequence[str | Path], setup: Setup = "test"
) -> LowShot:
    """The task of their files: training and test features, `label_idx.json`, and the `splitfile_*.json` in order.

    `setup` "validation" takes the classes to tune on, "test" those to report. Raises InputError where a file is
    damaged or does not fit the others, and LackError where h5py is not installed.
    """
    base, novel, names = read_classes(classes, setup)
    banks = [read_feature_file(path) for path in (train, test)]
    known = max(int(torch.cat([base, novel]).max()) + 1, *(len(bank.classes) for bank in banks))
    if names is not None and len(names) < known:
        raise InputError(f"{os.fspath(classes)!r} names {len(names)} classes, but there are {known}")
    labels = tuple(names if names is not None else map(str, range(known)))
    trained, tested = (FeatureBank(bank.x, bank.y, labels, bank.origin) for bank in banks)
    tables = [read_draw(path, novel) for path in draws]
    widths = {table.shape[1] for table in tables}
    if len(widths) != 1:
        raise InputError(
            f"{len(tables)} files of draws were given with {len(widths)} different numbers of rows; expected one"
        )
    return LowShot(trained, tested, base, novel, torch.stack(tables))


def is_low_shot_folder(folder: str | Path) -> bool:
    """Whether a folder holds the files of their benchmark."""
    return (Path(folder) / _CLASSES_FILE).is_file()


def open_low_shot_folder(folder: str | Path, setup: Setup = "test") -> LowShot:
    """`open_low_shot` of train.hdf5, val.hdf5, label_idx.json and all splitfile_*.json of a folder; raises as it does.

    Raises InputError where there is no splitfile.
    """
    folder = Path(folder)
    draws = sorted(folder.glob("splitfile_*.json"), key=lambda path: (len(path.name), path.name))
    if not draws:
        raise InputError(f"{str(folder)!r} has no splitfile_1.json; expected one for each draw")
    return open_low_shot(folder / "train.hdf5", folder / "val.hdf5", folder / _CLASSES_FILE, draws, setup)


def read_feature_file(path: str | Path) -> FeatureBank:
    """The filled rows of a feature file as float32; class i is called str(i), up to the highest label.

    Raises LackError where h5py is not installed, and InputError where the file is damaged or a feature is not finite.
    """
    try:
        import h5py
    except ImportError as error:
        raise LackError(
            f"reading {os.fspath(path)!r} needs the package h5py; `pip install augforge[hdf5]` installs it"
        ) from error
    where = repr(os.fspath(path))
    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            missing = [name for name in _DATASETS if not isinstance(file.get(name), h5py.Dataset)]
            if missing:
                raise InputError(f"{where} has no dataset {missing[0]!r}; expected {', '.join(_DATASETS)}")
            for name in _DATASETS:
                _check_length(file[name], name, os.path.getsize(path))
            count = int(np.asarray(file["count"][()]).reshape(-1)[0])
            x, labels = file["all_feats"][:count], file["all_labels"][:count]
    except InputError:
        raise
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, OverflowError, MemoryError) as error:
        raise InputError(f"{where} cannot be read as HDF5 features ({brief(error)})") from error
    whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all()))
    is_class = whole and len(labels) > 0 and 0 <= labels.min() <= labels.max() < _MOST_CLASSES
    if x.ndim != 2 or x.dtype.kind != "f" or not len(x) == len(labels) == count > 0 or not whole or not is_class:
        raise InputError(
            f"{where} has all_feats {x.dtype} {list(x.shape)}, all_labels {labels.dtype} {list(labels.shape)} and "
            f"count {count}; expected count rows of floats [count, d], and labels from 0 up to {_MOST_CLASSES:,}"
        )
    features = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    check_finite(features, where)
    y = torch.from_numpy(labels.astype(np.int64))
    return FeatureBank(features, y, tuple(map(str, range(int(y.max()) + 1))), os.fspath(path))


def _check_length(dataset: Any, name: str, size: int) -> None:
    """Raise ValueError for a dataset that claims far more numbers than a file of `size` bytes can hold."""
    if dataset.dtype.hasobject or dataset.dtype.itemsize * math.prod(dataset.shape or ()) > 1000 * size:
        raise ValueError(f"its dataset {name!r} is {dataset.dtype} {list(dataset.shape or ())} in {size:,} bytes")


def read_classes(path: str | Path, setup: Setup) -> tuple[Tensor, Tensor, list[str] | None]:
    """The base and novel class ids [b], [v] of a setup, and the class names where the file has them."""
    if setup not in ("validation", "test"):
        raise InputError(f"the setup {setup!r} was asked for; expected 'validation' or 'test'")
    found, number = read_json(Path(path)), 1 if setup == "validation" else 2
    lists = []
    for key in (f"base_classes_{number}", f"novel_classes_{number}"):
        ids = found.get(key) if isinstance(found, dict) else None
        if not _are_rows(ids) or not ids:
            raise InputError(f"{os.fspath(path)!r} has no list of class ids {key!r}, which the {setup} setup needs")
        lists.append(torch.tensor(ids))
    names = found.get("label_names")
    return lists[0], lists[1], names if isinstance(names, list) and all(isinstance(n, str) for n in names) else None


def read_draw(path: str | Path, novel: Tensor) -> Tensor:
    """The rows [v, m] that a draw has for the class ids `novel` [v]; raises InputError where it has not."""
    table: Any = read_json(Path(path))
    if not isinstance(table, list) or len(table) <= int(novel.max()):
        size = f"{len(table)} entries" if isinstance(table, list) else f"a {type(table).__name__}"
        raise InputError(
            f"{os.fspath(path)!r} holds {size}; expected a list of rows for each class id up to {int(novel.max())}"
        )
    lines = [table[i] for i in novel.tolist()]
    if not all(map(_are_rows, lines)) or len({len(line) for line in lines}) != 1 or not lines[0]:
        raise InputError(f"{os.fspath(path)!r} does not list as many rows for every novel class")
    return torch.tensor(lines)


def _are_rows(value: Any) -> bool:
    """Whether a value of JSON is a list of different whole numbers from 0 up to what 31 bits hold."""
    numbers = isinstance(value, list) and all(type(i) is int and 0 <= i < 2**31 for i in value)
    return numbers and len(set(value)) == len(value)
