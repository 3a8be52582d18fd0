"""The vocabulary: examples, banks, episodes, the three kinds of part, and the three errors a user can cause.

Nothing here computes. Every other module speaks in these terms. A part is a plain dataclass with the two verbs of its
kind; it inherits from nothing here.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

Space = Literal["image", "feature", "any"]
Family = Literal["means", "neighbours", "discriminative", "gaussian"]  # of classifiers: how they read rows


_LONGEST = 600  # characters of a sentence; longer ones quote something whose middle nobody reads


def _sentence(word: object) -> object:
    """An argument of an error, its text in one line and cut in the middle where it is long."""
    if not isinstance(word, str):
        return word
    line = word.replace("\n", " ")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 3 :]}"


class InputError(ValueError):
    """Bad input or usage. Its text is one sentence: what was found, and what was expected. Exit code 2."""

    exit_code = 2

    def __init__(self, *words: object) -> None:
        super().__init__(*(map(_sentence, words) if len(words) == 1 else words))


class UnreadablePicture(InputError):
    """A picture that cannot be read: `name` says which, `reason` completes the sentence "the picture ..."."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"the picture {self.name!r} {self.reason}"


class NothingToLearn(InputError):
    """A part that learns from base classes was given none."""


class QuotaError(RuntimeError):
    """A quota or a quality gate was not met. Exit code 3."""

    exit_code = 3


class LackError(RuntimeError):
    """Something that this machine lacks: weights, a device, an optional package. Exit code 4."""

    exit_code = 4

    def __init__(self, *words: object) -> None:
        super().__init__(*(map(_sentence, words) if len(words) == 1 else words))


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


def whole_seed(seed: Any, name: str = "seed") -> int:
    """A seed as an int of 64 bits, signed or not; raises InputError, which calls it `name`, for anything else."""
    try:
        found = None if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        found = None
    if found is None or not -(2**63) <= found < 2**64:
        joined = " " if name.startswith("--") else "="
        raise InputError(f"{name}{joined}{seed!r:.60} was given; expected a whole number of 64 bits")
    return found


@dataclass(frozen=True)
class Inputs:
    """What a command works on, as the options of the command line name it, and where it runs.

    Raises InputError for a seed that is no whole number of 64 bits.
    """

    source: str  # a folder, archive, .npz or feature bank, or a name of `augforge list`
    method: str = "classical"  # a name of the catalog, or a folder that `fit` made
    settings: Mapping[str, Any] = field(default_factory=dict)  # of a method that is a name
    classes: tuple[str, ...] = ()  # the only classes to use; none: all of the source
    split: str | None = None  # which part of the source; None: "train" where it has parts
    seed: int = 0  # of all chance, 64 bits
    representation: str | None = None  # a name or a folder: pictures are embedded by it, and features are used
    device: str = "auto"  # auto, cpu, cuda or cuda:N; it changes no byte on a CPU
    data_root: Path | None = None  # where named sources lie; None: $AUGFORGE_DATA
    max_per_class: int | None = None  # at most so many rows of each class, chosen by the seed; None: all
    group_by: str | None = None  # a pattern in each row's name: rows with the same match are near-copies
    train: bool = False  # whether a method that is trained for long may be given by its name alone

    def __post_init__(self) -> None:
        """Check the seed."""
        whole_seed(self.seed, "--seed")


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

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], or a list of [c, h, w] where sizes differ, to features [n, d]."""
        ...


class Synthesizer(Protocol):
    """Makes the missing examples. What else it says of itself is in `Capabilities`."""

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn from base classes; every random number comes from `rng`."""
        ...

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Make rows labelled exactly `want` [n]; row i depends on the support and on `keys[i]` (int64) alone."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """Scores queries against a support set; keeps no state between calls."""

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn from base classes; every random number comes from `rng`."""
        ...

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of `query` [q, d] for each class of the support; higher is likelier."""
        ...


Part = Representation | Synthesizer | Classifier


@dataclass(frozen=True)
class Capabilities:
    """What a part declares by class variables (or properties) of these names. What it does not declare is as here."""

    space: Space = "any"  # what a synthesizer takes and makes
    one_parent: bool = False  # a made row depends on one support row, so that it can be made for each once
    one_class: bool = False  # a made row depends on the support rows of its own class alone
    tested_on_support: bool = False  # what its rows weigh comes from a test on the support's own held-out rows
    relative_weights: bool = False  # what its rows weigh is beside each other, and says nothing of real rows
    support_needed: int = 1  # how many real rows of a class a synthesizer cannot do without
    chooses: bool = False  # `fit(base, rng, val)` takes validation classes
    trains: bool = False  # `fit(base, rng, val, run)` takes validation classes and how to train
    shares: bool = False  # several processes can train it together
    counts_weights: bool = True  # to a classifier a row of weight 2 is two rows
    family: Family = "discriminative"  # how a classifier reads rows, which decides what made ones should weigh
    any_size: bool = False  # a representation takes pictures of any size, so that crops are views of a picture
    short_side: int = 0  # px to which a representation brings the shorter side of a picture; 0: it looks at all of them
    pretrained: bool = False  # `fit(None, None)` reads weights that lie on this machine, and learns nothing
    alarms: Sequence[str] = ()  # what went wrong while it was trained


def capabilities(part: Part | type[Part]) -> Capabilities:
    """What a part, or its class, declares. What a class decides for each of its parts has its default for the class."""
    declared: dict[str, Any] = {field.name: getattr(part, field.name, field.default) for field in fields(Capabilities)}
    if isinstance(part, type):
        declared = {name: value for name, value in declared.items() if not isinstance(value, property)}
    return Capabilities(**declared)


@runtime_checkable
class Named(Protocol):
    """A synthesizer that is given the names of the classes that it makes rows of."""

    def named(self, names: Sequence[str]) -> Synthesizer:
        """The part for a support whose class i is called `names[i]`; InputError for a name that it does not know."""
        ...


@runtime_checkable
class Weighing(Protocol):
    """A synthesizer that chose, on held-out classes, what its rows should weigh before each kind of classifier."""

    def share(self, family: Family, counts: Tensor) -> Tensor:
        """What the made rows of a class weigh together, in parts of what its real rows do, for classes of `counts` [c]
        real rows: [c], at least 0.
        """
        ...


@runtime_checkable
class Doubting(Protocol):
    """A synthesizer that asks a support whether what it learnt from other classes suits it."""

    def believed(self, support: Examples) -> Tensor:
        """How far it suits a support [n, d], or those of b episodes [b, n, d]: [1] or [b], in 0..1."""
        ...


@runtime_checkable
class Plausible(Protocol):
    """A synthesizer that was trained against a discriminator, and can say how real rows look to it."""

    def plausibility(self, support: Examples, made: Examples) -> Tensor:
        """The share [n] of real rows of its class that look less real than each made row."""
        ...


@runtime_checkable
class Built(Protocol):
    """A part with networks. `facts_` are the whole numbers that their shapes depend on, beside the settings."""

    facts_: dict[str, int] | None

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty networks that `facts` describe; a saved part then fills them."""
        ...
