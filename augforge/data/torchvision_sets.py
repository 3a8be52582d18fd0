"""torchvision's own data sets as sources: "torchvision:CIFAR10". Nothing is downloaded.

The splits are found from the signature: `train` (yes or no), or `split` (a name); a set with neither is {"all"}.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augforge.data.banks import ArrayPictures
from augforge.data.containers import Defect
from augforge.data.decode import to_pixels
from augforge.data.labels import number_labels
from augforge.types import InputError, LackError

_LABELS = ("targets", "labels", "_labels", "y")  # where torchvision's classes keep the labels
_SPLIT_NAMES = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}


@dataclass(frozen=True, eq=False)
class DatasetRows:
    """The pictures of a torchvision data set; called, it gives one as [h, w, c] uint8."""

    dataset: Any  # torchvision's classes share no type that says what a row is

    def __call__(self, row: int) -> np.ndarray:
        """Picture `row` [h, w, c] uint8; raises OSError where it cannot be read."""
        try:
            pixels = to_pixels(self.dataset[row][0])
        except Defect as defect:
            raise OSError(str(defect)) from None
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


def open_torchvision(name: str, root: Path) -> dict[str, ArrayPictures]:
    """The splits of `torchvision.datasets.NAME(root)` as banks; val only where the set has one.

    Raises InputError for an unknown name and for a set whose labels are not one class for each picture, LackError
    where its files are not under `root`.
    """
    cls = _find_class(name)
    parameters = inspect.signature(cls.__init__).parameters
    given = {"download": False} if "download" in parameters else {}
    if "train" in parameters:
        found = {split: _make(cls, root, {**given, "train": split == "train"}) for split in ("train", "test")}
    elif "split" in parameters:
        found = {split: _first(cls, root, given, names) for split, names in _SPLIT_NAMES.items()}
    else:
        found = {"all": _make(cls, root, given)}
    banks = {split: _bank(name, root, split, dataset) for split, dataset in found.items() if dataset is not None}
    if not banks:
        raise InputError(f"torchvision's {name!r} has no train, val or test split that can be used")
    return banks


def _find_class(name: str) -> Any:
    from torchvision import datasets

    exported = {key: getattr(datasets, key) for key in datasets.__all__}
    known = [k for k, v in exported.items() if isinstance(v, type) and issubclass(v, datasets.VisionDataset)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InputError(f"torchvision has no data set {name!r}; the nearest is 'torchvision:{near}'")
    return exported[name]


def _first(cls: Any, root: Path, given: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The data set of the first of a split's names that it has, or None."""
    for name in names:
        try:
            return _make(cls, root, {**given, "split": name})
        except InputError:
            continue
    return None


def _make(cls: Any, root: Path, given: Mapping[str, Any]) -> Any:
    try:
        return cls(str(root), **given)
    except (RuntimeError, OSError, ModuleNotFoundError) as error:
        raise LackError(
            f"torchvision's {cls.__name__} cannot be opened in {str(root)!r} ({' '.join(str(error).split())}); its "
            f"files must lie there as torchvision lays them out, and --data-root or AUGFORGE_DATA names another place"
        ) from error
    except (ValueError, TypeError) as error:
        raise InputError(f"torchvision's {cls.__name__} cannot be opened as a source ({error})") from error


def _bank(name: str, root: Path, split: str, dataset: Any) -> ArrayPictures:
    where = f"torchvision's {name}"
    labels = _labels(dataset, where)
    classes: Any = getattr(dataset, "classes", None)
    usable = isinstance(classes, Sequence) and all(isinstance(c, str) for c in classes)
    usable = usable and len({c.casefold() for c in classes}) == len(classes) > int(labels.max(initial=0))
    y, names = number_labels(labels, classes if usable else None, where)
    rows = tuple(f"{split}/{i:06d}" for i in range(len(y)))
    return ArrayPictures(y, names, DatasetRows(dataset), f"torchvision:{name} in {root}", rows)


def _labels(dataset: Any, where: str) -> np.ndarray:
    """The class [n] of each row; where the set keeps no list of them every row is read for its label."""
    kept = []
    for key in _LABELS:
        column: Any = getattr(dataset, key, None)
        if isinstance(column, Sized) and len(column) == len(dataset):
            kept.append(np.asarray(column))
    labels = kept[0] if kept else np.asarray([dataset[i][1] for i in range(len(dataset))])
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{where} does not label each picture with one class, so it cannot be a source")
    return labels
