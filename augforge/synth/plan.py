"""How many rows of each class to make, from which parents, and in which order: pure arithmetic, no pictures.

The rows of a run are numbered: class by class, the real ones first where they are included, then the made ones
parent by parent. A unit of work is a range of those numbers, so every worker, shard and resumed run agrees on it.
"""

from __future__ import annotations

import bisect
import difflib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from augforge.data.notes import note
from augforge.types import InputError


@dataclass(frozen=True)
class Quota:
    """How many to make: `per_class` more of each class, or `to` in each class with the real ones, or `counts` more
    of each named class. Exactly one of them.
    """

    per_class: int | None = None
    to: int | None = None
    counts: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Raise InputError where not exactly one quota is given, or a number is not a whole one of at least 0."""
        given = [name for name in ("per_class", "to", "counts") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(f"--{name.replace('_', '-')}" for name in given) or "no quota"
            raise InputError(f"{found} was given; expected exactly one of --per-class N, --to N, --counts FILE")
        numbers: dict[str, object] = {"--per-class": self.per_class, "--to": self.to, **(self.counts or {})}
        for name, number in numbers.items():
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
                raise InputError(f"{name}: {number!r} was given; expected a whole number of at least 0")

    def to_make(self, name: str, real: int) -> int:
        """How many rows to make of a class with `real` real ones."""
        if self.counts is not None:
            return self.counts.get(name, 0)
        return max(0, self.to - real) if self.to is not None else int(self.per_class or 0)

    def check_names(self, classes: Sequence[str]) -> None:
        """Raise InputError where `counts` names a class that is not there, with the nearest one."""
        for name in self.counts or {}:
            if name not in classes:
                near = difflib.get_close_matches(name, classes, n=1, cutoff=0.0)
                hint = f"; the nearest is {near[0]!r}" if near else ""
                raise InputError(f"--counts names the class {name!r}, which is not in the source{hint}")


@dataclass(frozen=True)
class Taken:
    """Rows of a pool that go out as those made of a class, the best first: places in the pool `rows` [m], and of each
    its `weight` in real rows and the `confidence` of its class, where they are known.
    """

    rows: np.ndarray
    weight: tuple[float, ...] | None = None
    confidence: tuple[float, ...] | None = None

    def facts(self, place: int) -> dict[str, Any]:
        """What a manifest says of the row at a place."""
        known = {"weight": self.weight, "confidence": self.confidence}
        return {name: values[place] for name, values in known.items() if values is not None}


@dataclass(frozen=True)
class ClassPlan:
    """What to do for one class: its real `rows` [n] of the bank, how many to make, and how many real ones go out.

    Where rows are `taken` from a pool they are those that are made, one each, in their order.
    """

    name: str
    label: int
    rows: np.ndarray
    make: int
    real: int
    taken: Taken | None = None
    by_index: bool = False  # made rows go out in the order of their indices, not parent by parent

    def items(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The parents (places in `rows`) and the indices of made rows start..stop-1 of this class, parent by parent.

        Index i comes from parent i modulo n, so all parents are used alike, and a larger quota keeps what a smaller
        one made. Where there are no rows, index i is row i.
        """
        number, parents = np.arange(start, stop), max(1, len(self.rows))
        if self.taken is not None:
            return number, number
        if self.by_index:
            return number % parents, number
        each, extra = divmod(self.make, parents)
        edge = extra * (each + 1)  # the first `extra` parents have one row more
        early = number < edge
        late = np.maximum(number - edge, 0)
        place = np.where(early, number // (each + 1), extra + late // max(each, 1))
        copy = np.where(early, number % (each + 1), late % max(each, 1))
        return place, copy * parents + place


@dataclass(frozen=True)
class Segment:
    """Rows start..stop-1 of one class: real ones where `real`, else made ones; `first` is the number of the first."""

    plan: ClassPlan
    real: bool
    start: int
    stop: int
    first: int


@dataclass(frozen=True)
class Plan:
    """The whole run: its classes, and units of about `unit` rows.

    A unit is a range of rows; or with `block`, runs of so many rows from all over the plan, so that it has its share of
    every class.
    """

    classes: tuple[ClassPlan, ...]
    unit: int
    block: int = 0

    @property
    def total(self) -> int:
        """All rows that go out, real and made."""
        return self._ends[-1] if self._ends else 0

    @property
    def units(self) -> int:
        """How many units of work there are."""
        return -(-self.total // self.unit)

    @functools.cached_property
    def _ends(self) -> list[int]:
        """Behind which row the real ones of each class end, and the made ones: [2 classes]."""
        return list(itertools.accumulate(count for c in self.classes for count in (c.real, c.make)))

    def _runs(self, unit: int) -> Iterator[tuple[int, int]]:
        """The first row and the end of each run of rows that a unit has."""
        if not self.block:
            yield unit * self.unit, min((unit + 1) * self.unit, self.total)
            return
        for start in range(unit * self.block, self.total, self.units * self.block):
            yield start, min(start + self.block, self.total)

    def rows_in(self, unit: int) -> int:
        """How many rows a unit has."""
        return sum(stop - start for start, stop in self._runs(unit))

    def segments(self, unit: int) -> Iterator[Segment]:
        """The parts of a unit, class by class."""
        for low, high in self._runs(unit):
            for place in range(bisect.bisect_right(self._ends, low), len(self._ends)):
                plan, passed = self.classes[place // 2], self._ends[place - 1] if place else 0
                start, stop = max(low - passed, 0), min(high, self._ends[place]) - passed
                if start < stop:
                    yield Segment(plan, place % 2 == 0, start, stop, passed + start)
                if self._ends[place] >= high:
                    break


def say_balance(plan: Plan, to: int | None, include_real: bool) -> None:
    """A note where classes are brought up to a number that the made rows, which alone go out, do not have."""
    if to is None or include_real or not plan.classes:
        return
    fewest, most = (choose(plan.classes, key=lambda c: c.make) for choose in (min, max))
    if fewest.make == most.make:
        return
    none = sum(c.make == 0 for c in plan.classes)
    gone = f", and {none} of {len(plan.classes)} classes have none at all" if none else ""
    note(
        f"--to {to} without --include-real: OUT gets the made rows alone, from {fewest.make} of {fewest.name!r} to "
        f"{most.make} of {most.name!r}{gone}; classes that are small in the source are large in OUT. Train on both "
        "together, or add --include-real, which brings each class of OUT up to that number"
    )


def make_plan(rows: Mapping[str, np.ndarray], quota: Quota, needed: int, include_real: bool, unit: int) -> Plan:
    """Plan a run over classes and their readable real rows, in order; class labels are their places.

    `needed` is how many real rows of a class the method cannot do without. Raises InputError naming the first class
    that has fewer and what it needs.
    """
    quota.check_names(list(rows))
    plans = []
    for label, (name, members) in enumerate(rows.items()):
        make = quota.to_make(name, len(members))
        if make and len(members) < needed:
            found = f"has {len(members)} readable pictures" if len(members) else "has no picture that can be read"
            raise InputError(f"class {name!r} {found}; the method needs at least {needed}")
        plans.append(ClassPlan(name, label, members, make, len(members) if include_real else 0))
    return Plan(tuple(plans), unit)
