"""Columns of a file of arrays -> class ids and splits, with the errors that users make in them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from augforge.data.banks import B, take_rows
from augforge.data.class_names import taken_for_one
from augforge.data.durable import check_regular
from augforge.data.files import read_npy
from augforge.data.splits import ORDER, split_of
from augforge.data.strict_json import brief
from augforge.types import InputError

_LABELS = ("label", "labels", "class", "target", "y", "category")  # the names of a column of them


def number_labels(labels: np.ndarray, classes: Sequence[str] | None, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Class ids [n] int64 and class names from `labels` [n], integers or strings.

    With `classes` [k] integers index them and strings are among them; without, the classes are the sorted labels.
    Raises InputError, which begins with `where`, for labels of another kind or out of range, and for a class that
    is named twice (upper and lower case, and both Unicode forms of an accent, being the same).
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(f"{where}: labels are {labels.dtype} {list(labels.shape)}; expected integers or strings [n]")
    if classes is None:
        values, y = np.unique(labels, return_inverse=True)
        names = tuple(str(value) for value in values.tolist())
    elif labels.dtype.kind == "U":
        names, ids = tuple(classes), {name: i for i, name in enumerate(classes)}
        unknown = sorted(set(labels.tolist()) - ids.keys())
        if unknown:
            raise InputError(f"{where}: the label {unknown[0]!r} is not among the {len(names)} classes")
        y = np.array([ids[label] for label in labels.tolist()], dtype=np.int64)
    else:
        names, y = tuple(classes), labels
        if len(y) and not (int(y.min()) >= 0 and int(y.max()) < len(names)):
            raise InputError(f"{where}: labels are {y.min()}..{y.max()}, but there are {len(names)} classes")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(f"{where}: the class {twice!r} is named twice")
    if found := taken_for_one(names):
        raise InputError(f"{where}: the classes {found[0]!r} and {found[1]!r} {found[2]}; expected one name for each")
    return torch.from_numpy(y.astype(np.int64)), names


def labels_beside(path: str, n: int) -> tuple[np.ndarray | None, dict[str, tuple[str, ...]]]:
    """The labels [n] in a file beside the file `path` of n rows, None where there is none, and its other columns [n].

    It is an `.npy` [n], or text: a label a line, a header or none, or columns of which one is "label". Raises
    InputError.
    """
    found = beside(path)
    if found is None:
        return None, {}
    others: dict[str, tuple[str, ...]] = {}
    try:
        if found.endswith(".npy"):
            labels = read_npy(found)
        else:
            labels, others = _columns(found, n)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{found!r} cannot be read as the labels of {path!r} ({brief(error)})") from error
    if labels.ndim != 1 or len(labels) != n:
        raise InputError(f"{found!r} has labels {list(labels.shape)}, and {path!r} has {n} rows; expected as many")
    return labels, others


def beside(path: str, own: bool = False) -> str | None:
    """The path of the file that holds the labels of the file `path`; None where there is none.

    "X_train.npy" has its own "y_train.npy" or "X_train_labels.npy"; without `own` "labels.npy" counts too.
    """
    folder, stem = os.path.split(os.path.splitext(path)[0])
    stems = [f"{stem}_labels", f"{stem}-labels", f"{stem}.labels"]
    for words, instead in ((r"X|x", "y"), (r"features?|feats?|embeddings?|embs?|vectors?|X|x", "labels")):
        other = re.sub(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", instead, stem, count=1)
        stems += [other] if other != stem else []
    for name in [*stems, *([] if own else ["labels"])]:
        for suffix in (".npy", ".csv", ".txt"):
            found = os.path.join(folder, name + suffix)
            if found != path and os.path.isfile(found):
                return found
    return None


def _columns(path: str, n: int) -> tuple[np.ndarray, dict[str, tuple[str, ...]]]:
    """The labels [n] of a text, whole numbers where all of them are, and its other columns by name in small letters."""
    check_regular(path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file) if line]
    header = [name.strip().lower() for name in lines[0]] if lines else []
    place = next((header.index(name) for name in _LABELS if name in header), None)
    if place is None and len(header) > 1:
        raise ValueError(f"it has the columns {', '.join(header)} and none called label")
    lines = lines[1:] if place is not None or len(lines) == n + 1 else lines
    texts = [line[place or 0].strip() for line in lines]
    others = {name: tuple(line[i].strip() for line in lines) for i, name in enumerate(header) if i != (place or 0)}
    whole = all(re.fullmatch(r"-?\d{1,18}", text) for text in texts)
    return np.array([int(text) for text in texts] if whole else texts), others


def by_split(bank: B, split: Sequence[str] | None, where: str) -> dict[str, B]:
    """{"all": bank} without `split` [n], else a bank for each of train, val, test that occurs in it.

    A split's bank has the classes that it has rows of. Raises InputError for other names and another length.
    """
    if split is None:
        return {"all": bank}
    if len(split) != len(bank):
        raise InputError(f"{where}: split has {len(split)} entries and labels has {len(bank)}")
    meant = {name: split_of(name) for name in set(split)}
    unknown = sorted(name for name, known in meant.items() if known is None)
    if unknown:
        raise InputError(f"{where}: {unknown[0]!r} is no split; expected one of {', '.join(ORDER)}")
    names = np.array([meant[name] for name in split])
    parts = {name: torch.from_numpy(np.flatnonzero(names == name)) for name in ORDER}
    return {name: take_rows(bank, rows) for name, rows in parts.items() if len(rows)}


def check_finite(x: Tensor, where: str) -> None:
    """Raise InputError, which begins with `where`, naming the first row of `x` [n, d] that is not finite."""
    bad = ~torch.isfinite(x).all(dim=1)
    if bool(bad.any()):
        raise InputError(f"{where}: features[{int(bad.nonzero()[0])}] is not finite")
