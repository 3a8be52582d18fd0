"""What a report page is made of, before it is HTML: sections of sentences, charts, tables, pictures and facts."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and the number that it is sorted by; None for text, which is sorted as such."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that sorts and filters: `grey` lines are of controls, `note` says how to read it."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[Cell]]
    note: str = ""
    grey: Sequence[bool] = ()

    @property
    def greyed(self) -> list[tuple[Sequence[Cell], bool]]:
        """Each line, and whether it is grey."""
        return [(line, bool(self.grey and self.grey[i])) for i, line in enumerate(self.lines)]


@dataclass(frozen=True)
class Thumbnail:
    """A small picture: a JPEG as a data URI, pixels wide and high on the page, what it is of, whether it is a real one,
    what stands below it, and whether it is `enlarged`, so that its pixels are to be seen.
    """

    uri: str
    width: int
    height: int
    alt: str
    real: bool = False
    caption: str = ""
    enlarged: bool = False


@dataclass(frozen=True)
class Block:
    """The pictures of a class: groups of real ones and what was made of them."""

    name: str
    groups: Sequence[Sequence[Thumbnail]]


@dataclass
class Section:
    """A run: what it came to in sentences, charts (title, SVG, and the screens that show it: wide, narrow or any),
    tables, pictures (`sheet`: its contact sheet, where that shows what was refused; `map`: its pictures in a plane),
    and where all of that is from.
    """

    kind: str
    name: str
    verdict: list[str] = field(default_factory=list)
    charts: list[tuple[str, str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    wall: list[Block] = field(default_factory=list)
    wall_says: str = ""
    sheet: Thumbnail | None = None
    map: list[Any] = field(default_factory=list)
    map_says: str = ""
    notes: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def cell_of(text: str, value: float | None = None) -> Cell:
    """A cell that is sorted by `value`, or else by the number that its text begins with."""
    found = _NUMBER.match(text)
    return Cell(text, float(found[0]) if value is None and found else value)


def table_of(title: str, head: Sequence[str], lines: Sequence[Sequence[str]], grey: Sequence[bool] = ()) -> Table:
    """A table of texts."""
    return Table(title, head, [[cell_of(text) for text in line] for line in lines], grey=grey)


def date_of(path: Path) -> str:
    """When a file was last written, in UTC."""
    when = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    return when.strftime("%Y-%m-%d %H:%M UTC")


def facts_of(record: dict) -> list[tuple[str, str]]:
    """Versions and machine as JSON records of runs have them."""
    facts = []
    for name in ("versions", "machine"):
        if isinstance(record.get(name), dict):
            facts.append((name, ", ".join(f"{key} {value}" for key, value in record[name].items())))
    return facts
