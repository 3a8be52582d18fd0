"""The vocabulary: examples, banks, episodes, the three kinds of part, and the three errors a user can cause.

Nothing here computes. Every other module speaks in these terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

Space = Literal["image", "feature", "any"]


class InputError(ValueError):
    """Bad input or usage. Its text is one sentence: what was found, and what was expected. Exit code 2."""

    exit_code = 2


class QuotaError(RuntimeError):
    """A quota or a quality gate was not met. Exit code 3."""

    exit_code = 3


class LackError(RuntimeError):
    """Something that this machine lacks: weights, a device, an optional package. Exit code 4."""

    exit_code = 4


@dataclass(frozen=True)
class Examples:
    """Labelled rows: pictures or features.

    `x` is pictures [n, c, h, w] - float32 in [0, 1] or uint8 in 0..255 - or features [n, d]; where the sizes
    of pictures differ it is a list of n tensors [c, h, w]. `y` [n] int64 is the class of each row (0..way-1
    inside an episode). `parent` [n] int64 is the support row that each was made from, -1 where there is none,
    and None for real rows. `weight` [n] says how much a classifier should trust each row; None means 1.
    """

    x: Tensor | list[Tensor]
    y: Tensor
    parent: Tensor | None = None
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where the columns have different lengths."""
        lengths = {"x": len(self.x), "y": len(self.y)}
        lengths |= {k: len(v) for k, v in (("parent", self.parent), ("weight", self.weight)) if v is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of Examples differ in length: {lengths}")

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.y)

    def __add__(self, other: Examples) -> Examples:
        """Join real and made rows, as the paper's S ∪ G(S); a missing parent is -1 and a missing weight 1."""
        return Examples(
            x=_join(self.x, other.x),
            y=torch.cat([self.y, other.y]),
            parent=_join_column(self, other, "parent", -1),
            weight=_join_column(self, other, "weight", 1),
        )

    def take(self, rows: Tensor) -> Examples:
        """The rows `rows` [m] (int64 or bool), in that order. Parents keep pointing at the support they came from."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero(as_tuple=True)[0]
        x = [self.x[i] for i in rows.tolist()] if isinstance(self.x, list) else self.x[rows.to(self.x.device)]
        parent = None if self.parent is None else self.parent[rows]
        weight = None if self.weight is None else self.weight[rows]
        return Examples(x, self.y[rows], parent, weight)


def _join(a: Tensor | list[Tensor], b: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape[1:] == b.shape[1:]:
        return torch.cat([a, b])
    return [*a, *b]


def _join_column(a: Examples, b: Examples, name: Literal["parent", "weight"], missing: int) -> Tensor | None:
    left, right = getattr(a, name), getattr(b, name)
    if left is None and right is None:
        return None
    like = left if left is not None else right
    columns = [
        torch.full((len(side),), missing, dtype=like.dtype, device=like.device) if column is None else column
        for side, column in ((a, left), (b, right))
    ]
    return torch.cat(columns)


@dataclass(frozen=True)
class Episode:
    """Rows of a bank, not tensors: the same rows index the picture bank and the feature bank.

    `classes` [way] are class ids of the bank, `support` [way, shot] real rows only, `query` [way, n_query] real rows,
    never made ones and never any of the support. Where classes have different numbers of shots, -1 stands behind the
    rows of those with fewer. Line i of the queries is of class i; or there is a single line [1, q], and the labels of
    the bank tell the class of each of its rows (Lake's trials: 20 classes, one query).
    """

    classes: Tensor
    support: Tensor
    query: Tensor


@runtime_checkable
class Bank(Protocol):
    """Labels, class names, and rows on request; pictures are decoded only when asked for.

    `space` says whether the rows are pictures or features, `y` [n] int64 indexes `classes`, and `attributes`
    [n_classes, a] may be None.
    """

    @property
    def space(self) -> Literal["image", "feature"]:
        """Whether the rows are pictures or features."""
        ...

    @property
    def y(self) -> Tensor:
        """The class of every row, [n] int64."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """The class names."""
        ...

    @property
    def attributes(self) -> Tensor | None:
        """A description of every class, [n_classes, a], or None."""
        ...

    def examples(self, rows: Tensor, classes: Tensor | None = None) -> Examples:
        """The rows `rows` [m]. With `classes` [way] the labels are positions in it, else the bank's class ids."""
        ...


class Representation(Protocol):
    """Pictures to features."""

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn from base classes; every random number comes from `rng`."""
        ...

    def embed(self, x: Tensor) -> Tensor:
        """Pictures [n, c, h, w] to features [n, d]."""
        ...


class Synthesizer(Protocol):
    """Makes the missing examples.

    `space` says what it takes and makes; `one_parent` that a row depends on one support row alone, so that it
    can be made for each support row once; `support_needed` how many real rows of a class it cannot do without.
    """

    space: ClassVar[Space]
    one_parent: ClassVar[bool]
    support_needed: ClassVar[int]

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn from base classes; every random number comes from `rng`."""
        ...

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Make rows labelled exactly `want` [n]; row i depends on the support and on `keys[i]` (int64) alone."""
        ...


class Classifier(Protocol):
    """Scores queries against a support set; keeps no state between calls."""

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn from base classes; every random number comes from `rng`."""
        ...

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of `query` [q, d] for each class of the support; higher is likelier."""
        ...
