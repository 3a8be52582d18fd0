"""What a sampler takes and gives back: labels of any kind, and the containers that scikit-learn's users have.

Arrays, lists, pandas' frames and SciPy's sparse matrices come back as what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from augforge.types import InputError

_WORDS = ("auto", "not majority", "not minority", "minority", "all")

Strategy = str | float | int | Mapping[Any, int] | Callable[[Any], Mapping[Any, int]]


@dataclass(frozen=True)
class Labels:
    """The labels of n rows as `codes` [n] int64 that index `classes`, which are sorted and all occur.

    Where they were given as a matrix of zeros and ones they are its columns, and `columns` is how many it has (else 0).
    `dtype` is that of the array that they came in.
    """

    codes: np.ndarray
    classes: list[Any]
    dtype: np.dtype
    columns: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as text."""
        return tuple(map(str, self.classes))

    def back(self, codes: np.ndarray) -> np.ndarray:
        """Other codes [m] as labels [m] of the kind that was given, or as a matrix [m, columns]."""
        if self.columns:
            return np.eye(self.columns, dtype=self.dtype)[np.array(self.classes)[codes]]
        table = np.empty(len(self.classes), dtype=self.dtype)
        table[:] = self.classes
        return table[codes]


def flat_labels(y: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels [n] of targets [n], [n, 1] or a matrix [n, classes] with a single 1 in each row, and the matrix or None.

    Raises ValueError for targets that are no classes, and InputError for a row of several classes or none.
    """
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import column_or_1d

    check_classification_targets(y)
    if type_of_target(y) != "multilabel-indicator":
        return column_or_1d(y), None
    matrix = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    if not bool((matrix.sum(1) == 1).all()):
        raise InputError("y is a matrix with rows of several classes or none; expected one class for each row")
    return matrix.argmax(1), matrix


def number_classes(y: np.ndarray, matrix: np.ndarray | None) -> Labels:
    """Labels [n] as codes; `matrix` [n, classes] is what they were given as, if it was one."""
    classes, codes = np.unique(y, return_inverse=True)
    columns, dtype = (0, y.dtype) if matrix is None else (matrix.shape[1], matrix.dtype)
    return Labels(codes.astype(np.int64), classes.tolist(), dtype, columns)


def rows_to_make(strategy: Strategy, labels: Labels, y: Any) -> dict[Any, int]:
    """How many rows to make of which class, in the order of the classes; `Resampler` says what a strategy may be.

    Raises InputError for a strategy that is unknown, or that does not fit the classes.
    """
    counts = dict(zip(labels.classes, np.bincount(labels.codes, minlength=len(labels.classes)).tolist(), strict=True))
    if callable(strategy):
        strategy = strategy(y)
    if isinstance(strategy, Mapping):
        return _from_mapping(strategy, counts)
    if isinstance(strategy, Integral) and not isinstance(strategy, bool) and int(strategy) > 1:
        return {label: max(0, int(strategy) - count) for label, count in counts.items()}
    if len(counts) < 2:
        raise InputError(f"y has {len(counts)} class; sampling_strategy={strategy!r} needs at least 2 to compare")
    if isinstance(strategy, Real) and not isinstance(strategy, bool):
        return _from_ratio(float(strategy), counts)
    return _from_word(strategy, counts)


def _from_mapping(strategy: Mapping[Any, int], counts: dict[Any, int]) -> dict[Any, int]:
    for label, wanted in strategy.items():
        if label not in counts:
            raise InputError(f"sampling_strategy names the class {label!r}; the classes of y are {_some(counts)}")
        if isinstance(wanted, bool) or not isinstance(wanted, Integral):
            raise InputError(f"sampling_strategy wants {wanted!r} rows of class {label!r}; expected a whole number")
        if wanted < counts[label]:
            raise InputError(
                f"sampling_strategy wants {wanted} rows of class {label!r}, which has {counts[label]}; expected at "
                f"least as many: rows are made, and none is taken away"
            )
    return {label: int(strategy[label]) - count for label, count in counts.items() if label in strategy}


def _from_ratio(ratio: float, counts: dict[Any, int]) -> dict[Any, int]:
    if not 0 < ratio <= 1:
        raise InputError(f"sampling_strategy={ratio:g} was given; expected a ratio over 0 and up to 1, or a whole "
                         f"number of rows over 1")  # fmt: skip
    if len(counts) > 2:
        raise InputError(f"sampling_strategy={ratio:g} is a ratio of 2 classes and y has {len(counts)}; expected a "
                         f"dictionary, or a whole number of rows")  # fmt: skip
    largest = max(counts, key=lambda label: counts[label])
    found = {label: int(counts[largest] * ratio) - count for label, count in counts.items() if label != largest}
    if min(found.values()) < 0:
        raise InputError(f"sampling_strategy={ratio:g} is less than the ratio that y has already; rows are made, and "
                         f"none is taken away")  # fmt: skip
    return found


def _from_word(word: Any, counts: dict[Any, int]) -> dict[Any, int]:
    if not isinstance(word, str) or word not in _WORDS:
        raise InputError(f"sampling_strategy={word!r} was given; expected one of {', '.join(_WORDS)}, a ratio, a whole "
                         f"number of rows, a dictionary or a function")  # fmt: skip
    largest, smallest = (choose(counts, key=lambda label: counts[label]) for choose in (max, min))
    chosen = {
        "all": list(counts),
        "minority": [smallest],
        "not minority": [label for label in counts if label != smallest],
    }.get(word, [label for label in counts if label != largest])
    return {label: counts[largest] - counts[label] for label in chosen}


def _some(counts: dict[Any, int]) -> str:
    shown = ", ".join(map(repr, list(counts)[:10]))
    return shown if len(counts) <= 10 else f"{shown}, ..."


def in_container(array: np.ndarray, given: Any) -> Any:
    """An array [m, ...] in the container of `given`: an array, a list, pandas' frame or series, a sparse matrix.

    Columns and names stay; rows are numbered anew. Labels keep the type of their column, as categories do; of rows the
    columns of floats, and sparse ones, keep theirs.
    """
    if isinstance(given, list | tuple):
        return array.tolist()
    module = type(given).__module__.partition(".")[0]
    if module == "pandas" and array.ndim == getattr(given, "ndim", 0) == 1:
        return type(given)(array, name=given.name, dtype=given.dtype)
    if module == "pandas":
        frame = type(given)(array.reshape(len(array), -1), columns=given.columns)
        if array.ndim == 1:
            return frame.astype(dict(given.dtypes.items()))
        kept = {name: dtype for name, dtype in given.dtypes.items() if getattr(dtype, "kind", "") == "f"}
        return frame.astype(kept)
    if module == "scipy" and array.ndim == 2:
        from scipy import sparse

        kind = sparse.csr_array if isinstance(given, sparse.sparray) else sparse.csr_matrix
        return kind(array).asformat(given.format)
    return array
