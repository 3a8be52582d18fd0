"""One's own pictures as a task: episodes within the classes of a folder, or one support against a test set.

Nothing of them is learnt from but the support of an episode: such a task has no base classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank, FilePictures, PictureBank, row_digests
from augforge.data.selection import GROUP, Selection
from augforge.data.source import open_source
from augforge.episodes.tasks import Task
from augforge.types import Episode, InputError

SIDE = "side"  # the column that is 0 for rows that may be support, and 1 for those that may be queries
_NAMED = 5  # classes named in an error


def own_task(name: str, splits: Mapping[str, AnyBank]) -> Task:
    """Episodes within the classes of a source, of one split; or of two with the same classes.

    Of two, support rows are of the first of train, val and test, and queries of the last, as the source divides them.
    """
    order = [split for split in ("all", "train", "val", "test") if split in splits]
    first, last = splits[order[0]], splits[order[-1]]
    if first is last:
        return Task(name, None, None, first)
    both = _joined(first, _same_classes(first, last, f"the split {order[-1]!r} of {name!r}"), order[-1])
    return Task(name, None, None, both, sides=SIDE)


def fixed_support_task(name: str, support: AnyBank, test_name: str, test: AnyBank) -> Task:
    """All rows of `support` as the support of one episode, and all of `test` as its queries.

    Raises InputError where a class is in one of them alone, a class has no support row, a picture lies in both (the
    same SHA-256), or a group of near-copies does.
    """
    test = _same_classes(support, test, f"--test {test_name!r}")
    empty = (support.counts() == 0).nonzero()
    if len(empty):
        raise InputError(f"class {support.classes[int(empty[0])]!r} of {name!r} has no picture; expected at least 1")
    if not len(test):
        raise InputError(f"--test {test_name!r} holds no picture that can be used")
    _check_copies(name, support, test_name, test)
    both, n = _joined(support, test, "test"), len(support)
    if GROUP in both.groups:
        group = both.groups[GROUP]
        shared = sorted({str(g) for g in group[:n]} & {str(g) for g in group[n:]})
        if shared:
            raise InputError(
                f"the group {shared[0]!r} of --group-by has rows in {name!r} and in --test {test_name!r}, "
                f"as have {len(shared) - 1} others; expected each group on one side"
            )
    most = int(support.counts().max())
    rows = torch.full((len(support.classes), most), -1)
    for label in range(len(rows)):
        own = support.rows_of(label)
        rows[label, : len(own)] = own
    episode = Episode(torch.arange(len(rows)), rows, torch.arange(n, n + len(test))[None])
    return Task(name, None, None, both, fixed=(episode,), tested=test_name)


def split_of(source: str, data_root: Path | None, selection: Selection, split: str) -> AnyBank:
    """The bank of a source, or that of the split of this name where it has several; raises InputError."""
    banks = open_source(source, data_root, selection)
    if len(banks) == 1:
        return next(iter(banks.values()))
    if split not in banks:
        raise InputError(f"{source!r} has the splits {', '.join(banks)}; expected one, or {split!r} among them")
    return banks[split]


def _same_classes(first: AnyBank, other: AnyBank, what: str) -> AnyBank:
    """`other` with its classes numbered as in `first`; raises InputError where their names differ."""
    known, found = set(first.classes), set(other.classes)
    for here, there, where in ((found, known, what), (known, found, repr(first.origin))):
        missing = sorted(here - there)
        if missing:
            lacks = repr(first.origin) if here is found else what
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise InputError(
                f"{where} has {'classes' if len(missing) > 1 else 'the class'} "
                f"{', '.join(map(repr, missing[:_NAMED]))}{more}, which {lacks} lacks; expected the same class names"
            )
    return other.only(first.classes)


def _check_copies(name: str, support: AnyBank, test_name: str, test: AnyBank) -> None:
    """Raise InputError for a picture, or row of features, that lies on both sides."""
    encoded = isinstance(support, FilePictures) and isinstance(test, FilePictures)
    known = {sha: row for row, sha in enumerate(row_digests(support, encoded))}
    twice = [(known[sha], row) for row, sha in enumerate(row_digests(test, encoded)) if sha in known]
    if twice:
        here, there = twice[0]
        raise InputError(
            f"{support.name(here)!r} of {name!r} lies in --test {test_name!r} too, as {test.name(there)!r}; expected "
            f"test pictures that nothing was learnt from ({len(twice)} of {len(test)} are known)"
        )


def _joined(first: AnyBank, other: AnyBank, label: str) -> AnyBank:
    """The rows of both banks, with the column SIDE; those of `other` are called "LABEL/NAME"."""
    if first.space != other.space:
        raise InputError(
            f"{first.origin!r} holds {first.space}s and {other.origin!r} {other.space}s; expected one kind"
        )
    y = torch.cat([first.y, other.y])
    names = (*(first.name(i) for i in range(len(first))), *(f"{label}/{other.name(i)}" for i in range(len(other))))
    groups: dict[str, Tensor | tuple[str, ...]] = {SIDE: (torch.arange(len(y)) >= len(first)).to(torch.int64)}
    for key in first.groups.keys() & other.groups.keys():
        one, two = first.groups[key], other.groups[key]
        alike = isinstance(one, Tensor) and isinstance(two, Tensor)
        groups[key] = torch.cat([one, two]) if alike else (*map(str, _listed(one)), *map(str, _listed(two)))  # type: ignore[list-item]
    classes = tuple(first.classes)
    if isinstance(first, FeatureBank) and isinstance(other, FeatureBank):
        if first.x.shape[1:] != other.x.shape[1:]:
            raise InputError(f"{first.origin!r} holds features of {first.x.shape[1]} numbers and {other.origin!r} of "
                             f"{other.x.shape[1]}; expected as many")  # fmt: skip
        x = torch.cat([first.x, other.x.to(first.x)])
        return FeatureBank(x, y, classes, first.origin, names, groups=groups)
    assert not isinstance(first, FeatureBank)
    assert not isinstance(other, FeatureBank)
    skipped = (*first.skipped, *other.skipped)
    if isinstance(first, FilePictures) and isinstance(other, FilePictures):
        reader = _OfTwo(first, other)
        return FilePictures(y, classes, names, first.origin, reader.read, first.decode, skipped, groups)
    return ArrayPictures(y, classes, _OfTwo(first, other).pixels, first.origin, names, skipped, groups)


def _listed(column: Tensor | tuple[str, ...]) -> list[object]:
    return column.tolist() if isinstance(column, Tensor) else list(column)


@dataclass(frozen=True, eq=False)
class _OfTwo:
    """The pictures of two banks, one after the other."""

    first: PictureBank
    other: PictureBank

    def _place(self, row: int) -> tuple[PictureBank, int]:
        n = len(self.first)
        return (self.first, row) if row < n else (self.other, row - n)

    def read(self, row: int) -> bytes:
        """The bytes of a picture's file; raises OSError."""
        bank, place = self._place(row)
        assert isinstance(bank, FilePictures)
        return bank.read(place if bank.index is None else int(bank.index[place]))

    def pixels(self, row: int) -> np.ndarray:
        """A picture [h, w, c] uint8; raises UnreadablePicture."""
        bank, place = self._place(row)
        return bank.load(place)[0]
