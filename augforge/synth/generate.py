"""Make the rows of one unit of work: load the parents, synthesize in batches, and say where each row came from."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augforge import __version__, chance
from augforge.curate.copies import Distinct
from augforge.curate.filters import Filter, Implausible, failure_text, synthesize_plausible
from augforge.data.banks import AnyBank, FilePictures, PictureBank
from augforge.networks.pixels import resized
from augforge.synth.encode import AS_SOURCE, encoding_of
from augforge.synth.manifest import REAL, ManifestRow
from augforge.synth.plan import ClassPlan, Plan, Segment, Taken
from augforge.types import Examples, InputError, Named, QuotaError, UnreadablePicture, capabilities

_BYTES_AT_ONCE = 32 << 20  # pixels of the parents in one call of a method, however large the batch may be
_ONE_AT_A_TIME = threading.Lock()  # of threads that make units together, one is in the method; others read and write
_STARTS = {"jpeg": b"\xff\xd8\xff", "webp": b"RIFF", "png": b"\x89PNG"}
BLOCK = 64  # made rows that are compared with each other where they must be distinct
_LONGEST_STEM = 180  # bytes of a parent's name that its children keep; a file system takes 255 in all


@dataclass(frozen=True)
class Making:
    """All that the rows of a run depend on; `settings` is the digest of the part's settings.

    A made row that one of the `filters` rejects is made again, `tries` times in all; so is one that is like another
    of its block, where they must be `distinct`. Rows that a plan has taken are those of the `pool`, and no part makes
    them.
    """

    bank: PictureBank
    part: Any
    method: str
    settings: str
    seed: int
    plan: Plan
    size: int | None = None
    batch_size: int = 64
    device: str = "cpu"
    filters: tuple[Filter, ...] = ()
    tries: int = 10
    distinct: bool = False
    pool: PictureBank | None = None


@dataclass(frozen=True)
class Chosen:
    """What a pool gives: `taken` rows by class, and of each class of the source the real `rows` that can be read.

    `method` and `facts` are for `run.json`, `said` is a line for whoever runs it, and `report` what JSON says.
    """

    pool: AnyBank
    taken: Mapping[str, Taken]
    rows: Mapping[str, np.ndarray]
    method: dict[str, Any]
    facts: dict[str, Any]
    skipped: list[tuple[str, str]]
    said: str
    report: dict[str, Any]

    def plan(self, include_real: bool, unit: int, block: int = 0) -> Plan:
        """The plan of a run that takes these rows."""
        classes = [
            ClassPlan(name, label, rows, len(self.taken[name].rows), len(rows) if include_real else 0, self.taken[name])
            for label, (name, rows) in enumerate(self.rows.items())
        ]
        return Plan(tuple(classes), unit, block)


@dataclass
class Notes:
    """What came up while rows were made: (name, reason) of what cannot be read, rejected tries by reason, and the
    SHA-256 of parents by name.
    """

    skipped: list[tuple[str, str]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    parents: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MadePicture:
    """One picture [h, w, c] uint8 that goes out, with its class and where it came from."""

    picture: np.ndarray
    cls: str
    label: int
    number: int
    stem: str
    row: dict[str, Any]
    original: bytes | None = None  # of a real picture: its file, where a copy of it will do

    def to_row(self, file: str, data: bytes, member: str = "") -> ManifestRow:
        """The manifest row, once it is known where the picture lies and as which bytes."""
        sha256 = hashlib.sha256(data).hexdigest()
        return ManifestRow(file=file, member=member, cls=self.cls, version=__version__, size=len(data),
                           sha256=sha256, **self.row)  # fmt: skip


def rows_of_unit(making: Making, unit: int, notes: Notes) -> Iterator[MadePicture]:
    """The pictures of a unit, in order; what comes up is added to `notes`.

    Raises QuotaError where a method makes too few rows, or one of them is rejected in all tries.
    """
    for segment in making.plan.segments(unit):
        if segment.plan.taken is not None and not segment.real:
            yield from _taken(making, segment, segment.plan.taken)
        else:
            yield from _real(making, segment) if segment.real else _made(making, segment, notes)


def load(making: Making, row: int, bank: PictureBank | None = None) -> tuple[np.ndarray, str]:
    """A picture [h, w, c] uint8 of the run's bank, or another one, at the run's size, and the SHA-256 of its file.

    Raises UnreadablePicture.
    """
    picture, sha256 = (making.bank if bank is None else bank).load(row)
    return (picture if making.size is None else resized(picture, making.size)), sha256


def _real(making: Making, segment: Segment) -> Iterator[MadePicture]:
    plan = segment.plan
    for place in range(segment.start, segment.stop):
        row = int(plan.rows[place])
        picture, sha256 = load(making, row)
        name = making.bank.name(row)
        facts = _facts(REAL, "", (name, sha256), making.seed, place)
        number = segment.first + place - segment.start
        original = original_of(making.bank, row) if making.size is None else None
        yield MadePicture(picture, plan.name, plan.label, number, f"{stem(name)}-r", facts, original)


def _taken(making: Making, segment: Segment, taken: Taken) -> Iterator[MadePicture]:
    """Pictures of the pool, copied byte for byte where their files are of a kind that is written."""
    plan, pool = segment.plan, making.pool
    assert pool is not None
    for place in range(segment.start, segment.stop):
        row = int(taken.rows[place])
        picture, sha256 = load(making, row, pool)
        name = pool.name(row)
        facts = _facts(making.method, making.settings, (name, sha256), making.seed, place) | taken.facts(place)
        number = segment.first + place - segment.start
        original = original_of(pool, row, png=True) if making.size is None else None
        yield MadePicture(picture, plan.name, plan.label, number, f"{stem(name)}-m", facts, original)


def original_of(bank: PictureBank, row: int, png: bool = False) -> bytes | None:
    """The file of a picture where coding it again would lose detail, which is of JPEG and WebP; else None.

    With `png` that of a PNG too.
    """
    if not isinstance(bank, FilePictures):
        return None
    encoding = encoding_of(bank.name(row), AS_SOURCE)
    start = None if encoding == "png" and not png else _STARTS.get(encoding)
    data = b"" if start is None else bank.encoded(row)
    return data if start and data.startswith(start) else None


def _made(making: Making, segment: Segment, notes: Notes) -> Iterator[MadePicture]:
    """Batches of made rows; the parents of a batch stay under a limit of bytes, at least one each.

    Where rows must be distinct, a batch is of one block, and the rows of the first block that lie before this unit
    are made again, for comparison.
    """
    plan = segment.plan
    places, indices = plan.items(segment.start, segment.stop)
    one_parent, distinct = capabilities(making.part).one_parent, None
    before = rows_before(int(indices[0]), len(plan.rows), one_parent) if making.distinct else indices[:0]
    places, indices = np.concatenate([before % max(1, len(plan.rows)), places]), np.concatenate([before, indices])
    blocks = _blocks(indices, len(plan.rows), one_parent) if making.distinct else np.zeros_like(indices)
    keys = chance.row_keys(making.seed, plan.name, torch.from_numpy(indices))
    parents = Parents(making, plan, notes)
    start, alone = 0, needs_no_support(making.part)
    while start < len(places):
        stop, held = start, 0
        while stop < len(places) and stop - start < making.batch_size and held < _BYTES_AT_ONCE:
            if stop > start and (stop == len(before) or blocks[stop] != blocks[start]):
                break
            held += 0 if alone else parents.picture(int(places[stop])).nbytes
            stop += 1
        if making.distinct and (start == 0 or blocks[start] != blocks[start - 1]):
            distinct = Distinct()
        try:
            pictures, reasons = synthesized(making, plan, parents, places[start:stop], keys[start:stop], distinct)
        except Implausible as error:
            what = f"row {indices[start + error.row]} of class {plan.name!r} was "
            raise Implausible(what + failure_text(error.counts, making.tries), error.row, error.counts) from error
        for i, picture in enumerate(pictures if start >= len(before) else (), start):  # others are of another unit
            name, sha256 = parents.facts(int(places[i])) if one_parent else ("", "")
            facts = _facts(making.method, making.settings, (name, sha256), making.seed, int(indices[i]))
            if rejected := reasons[i - start]:
                notes.rejected.update(rejected)
                facts["rejected"] = dict(sorted(rejected.items()))
            number = segment.first + i - len(before)
            yield MadePicture(picture, plan.name, plan.label, number, f"{stem(name) or _one_part(plan.name)}-m", facts)
        parents.forget_before(int(places[stop - 1]))
        start = stop


def _blocks(indices: np.ndarray, parents: int, one_parent: bool) -> np.ndarray:
    """The block [n] of each made row of a class, by their indices [n]: rows of a block are compared with each other.

    A block is 64 rows of one parent, or of the class where a row has no single parent, in the order of their indices.
    """
    if not one_parent:
        return indices // BLOCK
    copy, place = np.divmod(indices, max(1, parents))
    return copy // BLOCK * max(1, parents) + place


def rows_before(index: int, parents: int, one_parent: bool) -> np.ndarray:
    """The indices [m] of the rows of a class that are before row `index` in its block."""
    step = max(1, parents) if one_parent else 1
    order = index // step
    return np.arange(order // BLOCK * BLOCK, order) * step + (index % step)


def synthesized(
    making: Making,
    plan: ClassPlan,
    parents: Parents,
    places: np.ndarray,
    keys: Tensor,
    distinct: Distinct | None = None,
) -> tuple[list[np.ndarray], list[Counter[str]]]:
    """One call of the method for rows of one class: n pictures [h, w, c] uint8, and of each its rejected tries by
    reason.

    A method that needs one parent gets the parents as classes of their own, so that the plan chooses them; one that
    makes classes by name gets the name, and no pictures where it needs none. Raises Implausible for the first row that
    is rejected in all its tries, by its place among these, and QuotaError where the method makes too few. Rows are
    unlike those that `distinct` has seen.
    """
    support, want = _support(making, plan, parents, places)
    names = [plan.name] * (len(support) if capabilities(making.part).one_parent else 1)
    part = making.part.named(names) if isinstance(making.part, Named) else making.part
    with _ONE_AT_A_TIME:
        if making.filters or distinct is not None:
            filters = [one.for_class(plan.name) for one in making.filters]
            made, reasons = synthesize_plausible(
                part, support, want, keys, filters, making.tries, None if distinct is None else distinct.takes
            )
        else:
            made, reasons = part.synthesize(support, want, keys), [Counter[str]() for _ in places]
        pictures = made.x.cpu() if isinstance(made.x, Tensor) else [picture.cpu() for picture in made.x]
    if len(made) != len(places):
        raise QuotaError(f"{making.method} made {len(made)} of the {len(places)} rows wanted of class {plan.name!r}")
    if isinstance(pictures, Tensor):
        return list(pictures.permute(0, 2, 3, 1).contiguous().numpy()), reasons  # [n, c, h, w] -> n times [h, w, c]
    return [picture.permute(1, 2, 0).contiguous().numpy() for picture in pictures], reasons


def _support(making: Making, plan: ClassPlan, parents: Parents, places: np.ndarray) -> tuple[Examples, Tensor]:
    """What a method is shown for rows of one class at places [n], and the labels [n] that are wanted of it."""
    if capabilities(making.part).one_parent:
        chosen, want = np.unique(places, return_inverse=True)
    else:
        chosen, want = np.arange(len(plan.rows)), np.zeros(len(places), dtype=np.int64)
    x: Tensor | list[Tensor]
    if needs_no_support(making.part):
        x = _nothing_like(parents)
    else:
        x = _stacked([parents.picture(int(place)) for place in chosen])
    x = [p.to(making.device) for p in x] if isinstance(x, list) else x.to(making.device)
    y = torch.arange(len(x)) if capabilities(making.part).one_parent else torch.zeros(len(x), dtype=torch.int64)
    return Examples(x, y), torch.from_numpy(want)


def needs_no_support(part: Any) -> bool:
    """Whether a method makes classes by their names alone."""
    return capabilities(part).support_needed == 0 and isinstance(part, Named)


def _nothing_like(parents: Parents) -> Tensor:
    """No pictures [0, c, h, w] of the form that the first of the class has; grey ones where it has none to read."""
    try:
        first = parents.picture(0)
    except InputError:
        first = np.zeros((1, 1, 1), np.uint8)
    return torch.from_numpy(first).permute(2, 0, 1)[None][:0]


class Parents:
    """The parents of one class, loaded once while they are needed.

    A parent that cannot be read is stood in for by the next one that can, so no worker needs to know of another's
    finds, and the rows of all other parents stay the same.
    """

    def __init__(self, making: Making, plan: ClassPlan, notes: Notes) -> None:
        self.making, self.plan, self.notes = making, plan, notes
        self.loaded: dict[int, tuple[np.ndarray, str, str]] = {}

    def picture(self, place: int) -> np.ndarray:
        """The picture [h, w, c] at a place of the plan's rows."""
        return self._at(place)[0]

    def facts(self, place: int) -> tuple[str, str]:
        """The name and the SHA-256 of what was loaded for a place."""
        return self._at(place)[1:]

    def forget_before(self, place: int) -> None:
        """Free what lies before a place, which no later row of the unit needs."""
        if capabilities(self.making.part).one_parent:
            self.loaded = {p: found for p, found in self.loaded.items() if p >= place}

    def _at(self, place: int) -> tuple[np.ndarray, str, str]:
        if place not in self.loaded:
            self.loaded[place] = self._load(place)
        return self.loaded[place]

    def _load(self, place: int) -> tuple[np.ndarray, str, str]:
        count = len(self.plan.rows)
        for step in range(count):
            row = int(self.plan.rows[(place + step) % count])
            try:
                picture, sha256 = load(self.making, row)
            except UnreadablePicture as error:
                self.notes.skipped.append((error.name, error.reason))
                continue
            return picture, self.making.bank.name(row), sha256
        raise InputError(f"class {self.plan.name!r} has no picture that can be read; the method needs at least 1")


def _facts(method: str, settings: str, parent: tuple[str, str], seed: int, index: int) -> dict[str, Any]:
    name, sha256 = parent
    return {"method": method, "settings": settings, "parent": name, "parent_sha256": sha256, "seed": seed,
            "index": index}  # fmt: skip


def _one_part(name: str) -> str:
    return re.sub(r"[\x00/\\]", "_", name).lstrip(".")


@functools.lru_cache(maxsize=1024)
def stem(name: str) -> str:
    """The last part of a parent's name without its suffix, safe as the start of a file name."""
    last = PurePosixPath(name).name if not name.endswith("]") else name
    last = _one_part(last.rsplit(".", 1)[0] if "." in last[1:] else last)
    while len(os.fsencode(last)) > _LONGEST_STEM:
        last = last[:-1]
    return last


def _stacked(pictures: list[np.ndarray]) -> Tensor | list[Tensor]:
    """n pictures [h, w, c] as a tensor [n, c, h, w] that shares their layout, or a list where the shapes differ."""
    if len({picture.shape for picture in pictures}) == 1:
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)  # [n, h, w, c] -> [n, c, h, w]
    return [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]
