"""Other people's datasets: the picture and the label of an item, and the labels of all rows without reading one.

An item is a pair (picture, label), as torchvision's datasets give it, or a dictionary with "image" and "label", as
those of Hugging Face do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from augforge.types import InputError

_PICTURE, _LABEL = ("image", "img", "picture"), ("label", "labels", "target", "fine_label")
_COLUMNS = ("y", "targets", "labels")


def pair_of(item: Any, row: int | None = None) -> tuple[Any, Any]:
    """The picture and the label of an item; raises InputError, which names the row, for an item of neither form."""
    if isinstance(item, Mapping):
        keys = [next((name for name in names if name in item), None) for names in (_PICTURE, _LABEL)]
        if None not in keys:
            return item[keys[0]], item[keys[1]]
        found = f"a dictionary with {', '.join(map(repr, item)) or 'nothing'}"
    elif isinstance(item, list | tuple) and len(item) == 2:
        return item[0], item[1]
    else:
        found = f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, list | tuple) else "")
    which = "an item" if row is None else f"row {row}"
    raise InputError(f"{which} of the dataset is {found}, not a pair; expected (picture, label), or a dictionary with "
                     "'image' and 'label'")  # fmt: skip


def label_column(given: Any) -> NDArray[Any]:
    """The labels [n], whole numbers or strings, of a sequence of them or of a dataset that tells them.

    A dataset does so by `get_labels()`, `y`, `targets`, `labels` or, as Hugging Face's, a column "label". Those of
    torch that hold others are looked into: `Subset`, `ConcatDataset`, `TensorDataset`; and so is `Augmented`. No
    item is read. Raises InputError where no labels are found.
    """
    found = _found(given)
    try:
        column = np.asarray(found.cpu() if isinstance(found, Tensor) else found)
    except (ValueError, TypeError, RuntimeError):
        column = np.asarray(None)
    if column.dtype.kind == "O" and all(isinstance(label, str) for label in column.reshape(-1)):
        column = column.astype(str)
    if column.ndim != 1 or column.dtype.kind not in "iuU":
        raise InputError(
            f"a {type(given).__name__} does not tell the labels of its rows; expected whole numbers or strings [n], or "
            "a dataset with get_labels(), y, targets, labels or a column 'label'"
        )
    return column


def _found(given: Any) -> Any:
    from torch.utils.data import ConcatDataset, Subset, TensorDataset

    if isinstance(given, Subset):
        return label_column(given.dataset)[np.asarray(given.indices, dtype=np.int64)]
    if isinstance(given, ConcatDataset):
        return np.concatenate([label_column(one) for one in given.datasets])
    if isinstance(given, TensorDataset):
        return given.tensors[-1]
    if callable(getattr(given, "get_labels", None)):
        return given.get_labels()
    for name in _COLUMNS:
        if hasattr(given, name):
            return getattr(given, name)
    if "label" in getattr(given, "column_names", ()):
        return given["label"]
    inner = getattr(given, "keyed", getattr(given, "dataset", None))  # Augmented, Keyed
    return given if inner is None or isinstance(given, Sequence) else label_column(inner)
