"""What `augforge measure` compares: sources opened, classes matched by name, rows held out, and all embedded alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augforge.curate.children import MANIFEST, parents_by_row, rows_by_sha256
from augforge.data.banks import AnyBank, FeatureBank, FilePictures, take_rows
from augforge.data.selection import Selection, group_numbers, ranks_within_classes
from augforge.data.source import open_source
from augforge.inputs import default_representation, device_of, embed_pictures
from augforge.measure.quality import Sets
from augforge.representations.bank import MADE_BY, embed_bank
from augforge.representations.inception import FidInception, open_inception
from augforge.representations.options import BankOptions
from augforge.types import Examples, InputError

Banks = tuple[AnyBank, AnyBank, AnyBank]


@dataclass(frozen=True)
class MeasureRequest:
    """What is measured and how: the fields are the options of `augforge measure`."""

    real: str  # a source
    made: str  # a source
    holdout: str | None = None  # a source; None: half of each class of `real`
    representation: str | None = None  # a name or a folder; None: what fits the pictures
    inception: Path | None = None  # pytorch-fid's weights
    judge: str = "logistic"  # the classifier that says what made rows are worth: logistic, cnn or none
    split: str | None = None  # of sources that have several; None: train
    seed: int = 0
    device: str = "auto"
    data_root: Path | None = None  # None: the environment variable AUGFORGE_DATA
    steps: int = 600  # of training, for judge cnn
    repeats: int = 1  # training seeds, for judge cnn
    max_per_class: int | None = None  # at most so many rows of each class of each source; None: all
    group_by: str | None = None  # a pattern in the names of `real`: rows that match alike are held out together


@dataclass(frozen=True, eq=False)
class Opened:
    """What `open_sets` gives."""

    sets: Sets  # features
    banks: Banks  # what they were made of, row for row
    embedder: Embedder
    representation: dict[str, Any]  # what made them, as JSON can hold it
    notes: list[str]  # sentences on what was left out


def open_sets(request: MeasureRequest) -> Opened:
    """Open the sources, match their classes by name, hold rows out where there is no --holdout, and embed all.

    Raises InputError for what cannot be compared, in one sentence, and LackError for what this machine lacks.
    """
    if request.representation is not None and request.inception is not None:
        raise InputError("--representation and --inception were both given; expected one of them")
    banks, notes = _opened(request)
    embedder = Embedder(request, banks)
    real, made, held_out = (embedder.features(bank) for bank in banks)
    rows = [Examples(bank.x, _labels(bank, banks[0].classes), weight=bank.weight) for bank in (real, made, held_out)]
    readable = (_readable(banks[0], real), _readable(banks[1], made), _readable(banks[2], held_out))
    sets = Sets(rows[0], rows[1], rows[2], tuple(banks[0].classes))
    return Opened(sets, readable, embedder, embedder.record(real), notes + embedder.notes)


def _opened(request: MeasureRequest) -> tuple[Banks, list[str]]:
    """The banks of real, made and held-out rows, of the classes that all three have, and notes."""
    if request.group_by is not None and request.holdout is not None:
        raise InputError("--group-by says which rows of REAL are held out together, and --holdout names other rows; "
                         "expected one of them")  # fmt: skip
    real, made = _bank(request.real, request, "REAL", request.group_by), _bank(request.made, request, "MADE")
    held_out = None if request.holdout is None else _bank(request.holdout, request, "--holdout")
    if len({bank.space for bank in (real, made, held_out) if bank is not None}) > 1:
        raise InputError(f"REAL {request.real!r}, MADE {request.made!r} and --holdout hold pictures and features; "
                         "expected all of one kind")  # fmt: skip
    shared = [name for name in real.classes if name in set(made.classes)]
    if not shared:
        raise InputError(f"MADE {request.made!r} has none of the classes of REAL {request.real!r}, the first of which "
                         f"are {real.classes[0]!r} and {made.classes[0]!r}; expected the same names")  # fmt: skip
    notes = [f"classes of {role} that {other} lacks are left out: {len(bank.classes) - len(shared)} of "
             f"{len(bank.classes)}" for bank, role, other in ((real, "REAL", "MADE"), (made, "MADE", "REAL"))
             if len(bank.classes) > len(shared)]  # fmt: skip
    real, made = real.only(shared), made.only(shared)
    if held_out is None:
        real, held_out = _halved(real, request.seed)
        notes.append(f"no --holdout was given, so {len(held_out)} rows of REAL, half of each class, are held out; if "
                     "MADE was made from them too, it memorises more and is worth less than it seems")  # fmt: skip
        made, count = _without_children(made, held_out)
        if count:
            notes[-1] = notes[-1].partition("; if")[0] + (
                f"; {count} pictures of MADE that were made of these, by its {MANIFEST}, are left out")  # fmt: skip
    known = [name for name in shared if name in set(held_out.classes)]
    if not known:
        raise InputError(f"--holdout {request.holdout!r} has none of the classes that are measured, as {shared[0]!r}")
    if len(known) < len(shared):
        notes.append(f"classes with no held-out rows are left out: {len(shared) - len(known)} of {len(shared)}")
    return (real.only(known), made.only(known), held_out.only(known)), notes


def _bank(source: str, request: MeasureRequest, role: str, group_by: str | None = None) -> AnyBank:
    banks = open_source(source, request.data_root, Selection(request.max_per_class, group_by, request.seed))
    split = next(iter(banks)) if len(banks) == 1 else request.split or "train"
    if split not in banks:
        raise InputError(f"--split {split!r}: {role} {source!r} has {', '.join(map(repr, banks))}")
    return banks[split]


def _halved(bank: AnyBank, seed: int) -> tuple[AnyBank, AnyBank]:
    """Two halves of a bank, class by class; of an odd number of rows the first has one more.

    Rows of one group stay together, so the second half of a class may be smaller.
    """
    ranks, counts, groups = ranks_within_classes(bank, seed, "halves"), bank.counts(), group_numbers(bank)
    if groups is None:
        held_out = ranks < (counts // 2)[bank.y]
    else:
        held_out = _whole_groups(bank, groups, ranks)
    if not bool(held_out.any()):
        what = "row" if groups is None else "group"
        raise InputError(f"{bank.origin!r} has 1 {what} of each class; expected 2, or --holdout with other rows")
    kept, rest = (side.nonzero(as_tuple=True)[0] for side in (~held_out, held_out))
    return take_rows(bank, kept), take_rows(bank, rest)  # type: ignore[type-var]


def _without_children(made: AnyBank, held_out: AnyBank) -> tuple[AnyBank, int]:
    """A run's made pictures without those whose parents are held out, by its manifest, and how many these are.

    Those of which it names no single parent stay; all do where there is no manifest, or a class would have none left.
    """
    if not isinstance(made, FilePictures) or isinstance(held_out, FeatureBank):
        return made, 0
    parents = parents_by_row(made)
    if not parents:
        return made, 0
    found = rows_by_sha256(held_out)
    kept = torch.tensor([parents.get(row) not in found for row in range(len(made))])
    if bool((torch.bincount(made.y[kept], minlength=len(made.classes)) == 0).any()):
        return made, 0
    return take_rows(made, kept.nonzero(as_tuple=True)[0]), int((~kept).sum())


def _whole_groups(bank: AnyBank, groups: Tensor, ranks: Tensor) -> Tensor:
    """Which rows are held out, bool [n]: of each class as many groups, in random order, as fit into a half of it."""
    held_out = torch.zeros(len(groups), dtype=torch.bool)
    decided = torch.zeros_like(held_out)
    for label in range(len(bank.classes)):
        rows = bank.rows_of(label)
        rows = rows[torch.argsort(ranks[rows])]
        for group in dict.fromkeys(groups[rows].tolist()):
            members = groups == group
            mine = int((groups[rows] == group).sum())
            if not bool(decided[members].any()):
                held_out[members] = int(held_out[rows].sum()) + mine <= len(rows) // 2
                decided |= members
    return held_out


class Embedder:
    """Makes features of banks, all in the same way, and records which."""

    def __init__(self, request: MeasureRequest, banks: Banks) -> None:
        self.notes: list[str] = []
        self.device = device_of(request.device)
        self.inception: FidInception | None = None
        self.name, self.file = request.representation or "", request.inception
        if banks[0].space == "feature":
            _check_features(request, banks)
        elif self.file is not None:
            self.inception = open_inception(self.file)
        else:
            self.name = self.name or default_representation(*(b for b in banks if not isinstance(b, FeatureBank)))

    def features(self, bank: AnyBank) -> FeatureBank:
        """The bank as features; those that it holds already are left as they are."""
        if isinstance(bank, FeatureBank):
            return bank
        if self.inception is not None:
            return embed_bank(self.inception, bank, BankOptions(precision="float32"), device=self.device)
        found, skipped = embed_pictures(bank, self.name, self.device)
        if skipped:
            self.notes.append(f"pictures of {bank.origin!r} that cannot be read are left out: {len(skipped)}, as "
                              f"{skipped[0][0]!r}, which {skipped[0][1]}")  # fmt: skip
        return found

    def record(self, bank: FeatureBank) -> dict[str, Any]:
        """What made the features, for the output."""
        makers = bank.groups.get(MADE_BY, ())
        digest = makers[0] if isinstance(makers, tuple) and makers else None
        if self.inception is not None:
            record = {"name": "inception (pytorch-fid)", "file": str(self.file), "sha256": self.inception.sha256}
        else:
            record = {"name": self.name or "features as given"}
        return {**record, "made_by": digest, "dimensions": bank.x.shape[1]}


def _check_features(request: MeasureRequest, banks: Banks) -> None:
    """Raise InputError for options that need pictures, and for features that different weights made."""
    for option, given in (("--representation", request.representation), ("--inception", request.inception)):
        if given is not None:
            raise InputError(f"{option} {str(given)!r} was given; REAL {request.real!r} holds features already")
    if request.judge == "cnn":
        raise InputError(f"--judge cnn was given and REAL {request.real!r} holds features; expected pictures")
    makers = [set(bank.groups.get(MADE_BY, ())) for bank in banks]
    if any(m and m != makers[0] for m in makers) and makers[0]:
        raise InputError(f"REAL {request.real!r} and MADE {request.made!r} hold features that different weights made")


def _readable(bank: AnyBank, features: FeatureBank) -> AnyBank:
    """The bank limited to the rows that became features."""
    if len(bank) == len(features):
        return bank
    kept = {features.name(row) for row in range(len(features))}
    rows = torch.tensor([row for row in range(len(bank)) if bank.name(row) in kept])
    return take_rows(bank, rows)  # type: ignore[type-var]


def _labels(bank: AnyBank, classes: Sequence[str]) -> Tensor:
    """The labels [n] of a bank as positions in `classes`."""
    place = {name: i for i, name in enumerate(classes)}
    return torch.tensor([place[name] for name in bank.classes], dtype=torch.int64)[bank.y]
