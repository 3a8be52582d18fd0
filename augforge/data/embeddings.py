"""Your own embeddings as a source: `.npy`, `.npz`, `.safetensors`, `.csv`, `.parquet`, or a folder of `.npy` files.

A file holds one row of numbers for each picture (or text, or sound), and in the same order labels, and perhaps names
and splits. Of tables, columns are known by their names; so are arrays of an `.npz`. Labels of an `.npy` lie beside
it: "labels.npy", "labels.csv", "X_labels.npy", or "y.npy" for "X.npy". Everything is float32 in memory.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from augforge.data.banks import FeatureBank
from augforge.data.durable import check_regular
from augforge.data.files import npz_file, read_npy
from augforge.data.labels import beside, by_split, check_finite, labels_beside, number_labels
from augforge.data.notes import listed, note
from augforge.data.selection import GROUP
from augforge.data.splits import ORDER, splits_among
from augforge.data.strict_json import brief, parse_json
from augforge.types import InputError, LackError

SUFFIXES = (".npy", ".npz", ".safetensors", ".csv", ".parquet")

_FEATURES = ("features", "embeddings", "embedding", "feats", "x", "vectors", "vector")
_LABELS = ("label", "labels", "class", "classes", "target", "targets", "y", "category")
_NAMES = ("name", "names", "path", "paths", "file", "files", "filename", "filenames", "file_name", "image", "id")
_SPLIT = ("split", "splits", "subset", "partition")
_INDEX = ("", "index", "unnamed: 0", "__index_level_0__")  # what pandas adds when it writes a table


@dataclass(frozen=True, eq=False)
class Rows:
    """What a file of embeddings holds."""

    x: Tensor  # [n, d] float32
    labels: np.ndarray | None = None  # [n] integers or strings
    names: tuple[str, ...] | None = None  # [n]
    split: list[str] | None = None  # [n]
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)  # further columns [n]


def is_embeddings(path: str | Path) -> bool:
    """Whether a file is one of embeddings, by its suffix."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def read_rows(path: str | Path) -> Rows:
    """The rows of a file, with labels or without; raises InputError, and LackError where a package is missing."""
    path = os.path.abspath(path)
    suffix = os.path.splitext(path)[1].lower()
    try:
        check_regular(path)
        if suffix == ".npy":
            rows = Rows(_numbers(read_npy(path), path))
        elif suffix in (".npz", ".safetensors"):
            rows = _from_arrays(_arrays(path), path)
        elif suffix in (".csv", ".parquet"):
            rows = _from_table(_table(path), path)
        else:
            raise InputError(f"{path!r} is none of: {', '.join(SUFFIXES)}")
    except InputError:
        raise
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise InputError(f"{path!r} cannot be read as {suffix} ({brief(error)})") from error
    check_finite(rows.x, repr(path))
    return rows


def open_embeddings(path: str | Path) -> dict[str, FeatureBank]:
    """The banks of a file: {"all": ...}, or those of its splits; raises InputError, also where there are no labels."""
    path = os.path.abspath(path)
    rows = read_rows(path)
    labels, others = rows.labels, rows.columns
    if labels is None:
        labels, others = labels_beside(path, len(rows.x))
    if labels is None:
        raise InputError(
            f"{path!r} has no labels; expected a column of them, called 'label', or beside it a file "
            f"{os.path.splitext(os.path.basename(path))[0]}_labels.npy, labels.npy or labels.csv"
        )
    if len(labels) != len(rows.x):
        raise InputError(f"{path!r} has {len(rows.x)} rows and {len(labels)} labels; expected as many")
    y, classes = number_labels(labels, None, repr(path))
    names = rows.names or next((others[key] for key in _NAMES if key in others), None)
    bank = FeatureBank(rows.x, y, classes, path, _each_once(names), groups=others)
    return by_split(bank, rows.split, repr(path))


def is_renamed(path: str | Path) -> bool:
    """Whether an `.npz` or `.safetensors` holds embeddings, but not "features" and "labels" alone as our own files."""
    path = os.path.abspath(path)
    try:
        check_regular(path)
        if path.lower().endswith(".npz"):
            with npz_file(path) as arrays:
                keys = set(arrays.files)
        else:
            with safe_open(path, "np") as file:
                keys = set(file.keys())
    except (InputError, OSError, SafetensorError):
        return False  # whoever opens it says what is wrong
    ours = "images" in keys or ({"features", "labels"} <= keys and not keys & {*_NAMES, GROUP})
    return not ours and any(key.lower() in _FEATURES for key in keys)


def is_embeddings_folder(path: str | Path) -> bool:
    """Whether a folder holds `.npy` files and no folders, or splits that do."""
    try:
        files, folders = _entries(os.fspath(path))
    except OSError:
        return False  # whoever opens it says what is wrong
    if folders and not files:
        return len(splits_among(folders)) == len(folders) and all(
            is_embeddings_folder(os.path.join(path, folder)) for folder in folders
        )
    return bool(files) and not folders


def open_embeddings_folder(path: str | Path) -> dict[str, FeatureBank]:
    """The banks of a folder: one `.npy` [n, d] with its labels, one for each split, or one for each class.

    Splits may be folders too. Raises InputError for anything else.
    """
    root = os.path.abspath(path)
    files, folders = _entries(root)
    if folders:
        parts = {
            split: open_embeddings_folder(os.path.join(root, name)) for name, split in splits_among(folders).items()
        }
        return {split: parts[split]["all"] for split in ORDER if split in parts}
    paths = [os.path.join(root, name) for name in files]
    labels = {found for name in paths if (found := beside(name, own=True)) is not None}
    data = [name for name in paths if name not in labels and os.path.basename(name) != "labels.npy"]
    if len(data) == 1 and beside(data[0]) is not None:
        return open_embeddings(data[0])
    stems = {name: os.path.splitext(os.path.basename(name))[0] for name in data}
    if labels:
        return _split_files(data, stems, root)
    if len(set(splits_among(stems.values()).values())) > 1:
        raise InputError(f"{root!r} has {', '.join(files)} and no labels; expected train_labels.npy and so on beside")
    return {"all": _class_files(stems, root)}


def _split_files(data: list[str], stems: dict[str, str], root: str) -> dict[str, FeatureBank]:
    """train.npy with train_labels.npy, and so on."""
    without = [stems[name] for name in data if beside(name, own=True) is None]
    splits = splits_among(stems.values())
    if without or len(splits) < len(stems) or len(set(splits.values())) < len(splits):
        names = ", ".join(sorted(f"{stem}.npy" for stem in stems.values()))
        raise InputError(f"{root!r} has {names} with labels; expected one of them, or one for each of train, val, test")
    banks = {splits[stem]: open_embeddings(name)["all"] for name, stem in stems.items()}
    return {split: banks[split] for split in ORDER if split in banks}


def _class_files(stems: dict[str, str], root: str) -> FeatureBank:
    """cat.npy, dog.npy: a class each."""
    rows = {stem: read_rows(name).x for name, stem in sorted(stems.items(), key=lambda pair: pair[1])}
    if len({x.shape[1] for x in rows.values()}) > 1:
        sizes = ", ".join(f"{stem}.npy {x.shape[1]}" for stem, x in list(rows.items())[:5])
        raise InputError(f"{root!r} has rows of different sizes ({sizes}); expected one size")
    labels = np.array([stem for stem, x in rows.items() for _ in range(len(x))])
    y, classes = number_labels(labels, list(rows), repr(root))
    names = tuple(f"{stem}.npy[{i}]" for stem, x in rows.items() for i in range(len(x)))
    return FeatureBank(torch.cat(list(rows.values())), y, classes, root, names)


def _entries(root: str) -> tuple[list[str], list[str]]:
    """The `.npy` files and the folders of a folder, without hidden ones; sorted."""
    with os.scandir(root) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        files = [entry.name for entry in shown if entry.name.lower().endswith(".npy")]
        return sorted(files), sorted(entry.name for entry in shown if entry.is_dir())


def _arrays(path: str) -> dict[str, Any]:
    """All arrays of an `.npz` or `.safetensors`; a list of names in the latter's metadata is one of them."""
    if path.lower().endswith(".npz"):
        with npz_file(path) as arrays:
            return {key: arrays[key] for key in arrays.files}
    try:
        with safe_open(path, "pt") as file:  # numpy has no bfloat16
            found: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dictionary
            lists = {key: parse_json(text) for key, text in (file.metadata() or {}).items() if key in _NAMES + _LABELS}
    except SafetensorError as error:
        raise ValueError(error) from error
    found = {key: (v.float() if v.is_floating_point() else v).numpy() for key, v in found.items()}
    return {key: np.array(value) for key, value in lists.items()} | found


def _from_arrays(arrays: dict[str, Any], path: str) -> Rows:
    x = _pick(arrays, _FEATURES)
    if x is None:
        two = [key for key, value in arrays.items() if value.ndim == 2]
        if len(two) != 1:
            raise InputError(
                f"{path!r} has the arrays {sorted(arrays)}; expected one of numbers [n, d] called features"
            )
        x = arrays[two[0]]
    one = {key: value for key, value in arrays.items() if value.ndim == 1 and len(value) == len(x)}
    labels, names, split, group = (_pick(one, keys) for keys in (_LABELS, _NAMES, _SPLIT, (GROUP,)))
    if labels is not None and labels.dtype.kind in "iu" and (known := arrays.get("classes")) is not None:
        if known.ndim != 1 or not (len(labels) == 0 or 0 <= labels.min() <= labels.max() < len(known)):
            raise InputError(f"{path!r}: labels are no places in classes {list(known.shape)}")
        labels = known[labels]
    return Rows(_numbers(x, path), labels, None if names is None else tuple(map(str, names.tolist())),
                None if split is None else list(map(str, split.tolist())),
                {} if group is None else {GROUP: tuple(map(str, group.tolist()))})  # fmt: skip


def _pick(found: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """What is called by the first of the keys that is there, in any case."""
    lower = {name.lower(): name for name in found}
    return next((found[lower[key]] for key in keys if key in lower), None)


def _numbers(x: np.ndarray, path: str) -> Tensor:
    if x.ndim != 2 or x.dtype.kind not in "fiu" or 0 in x.shape:
        raise InputError(f"{path!r} holds {x.dtype} {list(x.shape)}; expected numbers [n, d], a row for each example")
    return torch.from_numpy(np.ascontiguousarray(x, np.float32))


def _table(path: str) -> Any:
    """A `.csv` or `.parquet` as a table of pyarrow."""
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise LackError(f"{path!r} needs pyarrow to be read: pip install 'augforge[tables]'") from error
    try:
        return (pyarrow.csv.read_csv if path.lower().endswith(".csv") else pyarrow.parquet.read_table)(path)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error).partition("\n")[0]) from error


def _from_table(table: Any, path: str) -> Rows:
    """Rows of a table: columns of text are labels, names, split and others; those of numbers, or one of lists, x."""
    import pyarrow.types as kinds

    names = [name for name in table.column_names if name.lower() not in _INDEX]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(f"{path!r} has more than one column called {brief(repr(twice[0]))}; expected each name once")
    columns = {name: table.column(name) for name in names}
    taken = [next((name for key in keys for name in columns if name.lower() == key), None)
             for keys in (_LABELS, _NAMES, _SPLIT, (GROUP,))]  # fmt: skip
    rest = {name: column for name, column in columns.items() if name not in taken}
    lists = [name for name, column in rest.items() if kinds.is_list(column.type) or kinds.is_large_list(column.type)
             or kinds.is_fixed_size_list(column.type)]  # fmt: skip
    numbers = [name for name, column in rest.items() if kinds.is_floating(column.type) or kinds.is_integer(column.type)]
    if lists:
        chosen = next((name for key in _FEATURES for name in lists if name.lower() == key), lists[0])
        cells = rest[chosen].to_pylist()
        if len({None if cell is None else len(cell) for cell in cells}) != 1:
            raise InputError(f"{path!r}: the lists of column {chosen!r} differ in length")
        x = np.array(cells, np.float32)
    else:
        chosen_numbers = _family(numbers)
        if not chosen_numbers:
            raise InputError(f"{path!r} has the columns {', '.join(columns)}; expected numbers, in columns or in lists")
        if len(chosen_numbers) < len(numbers):
            note(f"{path!r}: columns are left out, beside those called {chosen_numbers[0]!r} and so on: "
                 f"{listed(set(numbers) - set(chosen_numbers))}")  # fmt: skip
        x = np.stack([rest[name].to_numpy().astype(np.float32) for name in chosen_numbers], axis=1)
    texts = {name: tuple(map(str, column.to_pylist())) for name, column in rest.items()
             if kinds.is_string(column.type) or kinds.is_large_string(column.type)}  # fmt: skip
    label, name, split, group = (None if key is None else columns[key].to_pylist() for key in taken)
    if group is not None:
        texts[GROUP] = tuple(map(str, group))
    return Rows(_numbers(x, path), None if label is None else np.array(label),
                None if name is None else tuple(map(str, name)), split, texts)  # fmt: skip


def _family(names: list[str]) -> list[str]:
    """The most columns that are called alike but for a number, as "f0", "f1"; all of them where none are."""
    families: dict[str, list[str]] = {}
    for name in names:
        found = re.fullmatch(r"(.*?)\d+", name)
        if found is not None:
            families.setdefault(found[1], []).append(name)
    best = max(families.values(), key=len, default=[])
    return best if len(best) > 1 else names


def _each_once(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Names of rows, those that occur twice with their row."""
    if names is None or len(set(names)) == len(names):
        return names
    seen: set[str] = set()
    again = {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]
    return tuple(f"{name}[{i}]" if name in again else name for i, name in enumerate(names))
