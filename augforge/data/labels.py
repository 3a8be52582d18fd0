"""Columns of a file of arrays -> class ids and splits, with the errors that users make in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from augforge.data.banks import B, take_rows
from augforge.data.splits import ORDER, split_of
from augforge.types import InputError


def number_labels(labels: np.ndarray, classes: Sequence[str] | None, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Class ids [n] int64 and class names from `labels` [n], integers or strings.

    With `classes` [k] integers index them and strings are among them; without, the classes are the sorted labels.
    Raises InputError, which begins with `where`, for labels of another kind or out of range, and for a class that
    is named twice (upper and lower case being the same).
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
    folded: dict[str, str] = {}
    for name in names:
        if name.casefold() in folded:
            raise InputError(f"{where}: the classes {folded[name.casefold()]!r} and {name!r} are the same but for case")
        folded[name.casefold()] = name
    return torch.from_numpy(y.astype(np.int64)), names


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
