"""A benchmark's tables for a terminal, as wide as it is: what they come to first, intervals as small bars."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from augforge.bench.columns import (
    Sheet,
    accuracy,
    between,
    columns_of,
    deciding_gain,
    features_name,
    gain_ends,
    is_own,
    method_name,
    tables_of,
    title_of,
    within_most,
    worth,
)  # fmt: skip
from augforge.bench.files import TableRow
from augforge.bench.verdict import verdicts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_BAR, _GAP = 24, 2  # characters: of a bar, and between columns
_WORDS = {"made rows": 18, "representation": 8, "classifier": 9, "similarity": 9}  # columns that may be cut to so many
_CONTROL, _COLOURS = "bright_black", {"helps": "green", "hurts": "red"}
# An interval, its middle, zero, and that it goes on beyond the bar
_ALL_MARKS, _PLAIN_MARKS = tuple("─●┊◂▸"), tuple("-*|<>")
_Cell = Callable[[TableRow], str]


def show(rows: Sequence[TableRow], full: bool = False, console: Console | None = None) -> None:
    """Print the rows of `benchmark.run` on a console, that of stdout if none is given; `full`: with every column."""
    console = _console() if console is None else console
    for sentence in verdicts(rows):
        console.print(sentence, highlight=False, markup=False)
    for table in tables_of(rows):
        console.print()
        console.print(_whole(table, console) if full else _fitting(table, table, console))
    console.print(_LEGEND if full else f"{_LEGEND} --full has every column.", style="dim", highlight=False)


def show_sheets(sheets: Sequence[Sheet], legend: str) -> None:
    """Print tables of text on stdout, those of low-shot recognition and verification."""
    console = _console()
    for sheet in sheets:
        console.print(_table(sheet, console.width))
        console.print()
    console.print(legend.strip(), style="dim", highlight=False, markup=False)


def as_text(rows: Sequence[TableRow], width: int = 80, height: int = 24) -> str:
    """The rows on so many lines of so many characters: what they come to, and of each table what comes first."""
    most = max((len(table) for table in tables_of(rows)), default=0)
    lines: list[str] = []
    for count in range(most, -1, -1):
        lines = _lines(rows, count, width)
        if len(lines) <= height:
            break
    return "\n".join(lines if len(lines) <= height else [*lines[: height - 1], "..."])


def _lines(rows: Sequence[TableRow], count: int, width: int) -> list[str]:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    for sentence in verdicts(rows):
        console.print(sentence, highlight=False, markup=False)
    for table in tables_of(rows) if count else ():
        console.print(_fitting(table[:count], table, console))
        if len(table) > count:
            console.print(f"and {len(table) - count} more", highlight=False)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.rstrip("\n").split("\n")]


def _console() -> Console:
    from rich.console import Console

    console = Console()
    if not console.encoding.startswith("utf") and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name in another script is no reason to fail
    return console


_LEGEND = "Percent and points, with 95 % intervals; docs/bench.md says over what. Verdicts hold for all rows together."


def _fitting(rows: Sequence[TableRow], every: Sequence[TableRow], console: Console) -> Table:
    """Rows with as many columns as there is room for; bars and left-out columns are the same as for `every` row."""
    columns = list(_columns(every, console))
    for least in (None, "gain over nothing", "worth in shots", "verdict", "accuracy", ""):  # the first to go
        columns = [column for column in columns if column[0] != least]
        sheet = _sheet(rows, columns, title_of(every))
        if _widths(sheet, console.width) is not None:
            break
    return _filled(sheet, rows, console.width)


def _columns(rows: Sequence[TableRow], console: Console) -> Iterator[tuple[str, _Cell]]:
    """The columns that tell rows apart."""
    yield "made rows", lambda row: method_name(row) + (" (control)" if row.get("control") else "")
    for name, text in (("representation", features_name), ("classifier", lambda row: row["classifier"])):
        if len({text(row) for row in rows}) > 1:
            yield name, text
    yield "accuracy", accuracy
    gaining = [row for row in rows if row["p"] is not None]
    if gaining and any(deciding_gain(row)[0] != row["gain"] for row in gaining):
        yield "gain over nothing", lambda row: "" if row["p"] is None else between(row["gain"], row["gain_ci95"])
    decides = "over best by validation" if rows[0].get("gain_best") is not None else "over best plain"
    yield decides if gaining else "to best", lambda row: between(*deciding_gain(row))
    bar = _bars(rows, console)
    yield "", bar
    if any(map(worth, rows)) and not is_own(rows[0]):
        yield "worth in shots", worth
    if gaining:
        yield "verdict", lambda row: row.get("verdict") or ""


def _bars(rows: Sequence[TableRow], console: Console) -> _Cell:
    """What draws the interval of a row's gain on a scale that all rows share."""
    line, middle, zero, before, behind = _ALL_MARKS if console.encoding.startswith("utf") else _PLAIN_MARKS
    low, high = within_most([gain_ends(row) for row in rows])
    scale = (_BAR - 1) / ((high - low) or 1.0)

    def bar(row: TableRow) -> str:
        cells = [" "] * _BAR
        cells[round(-low * scale)] = zero
        start, end = ((end - low) * scale for end in gain_ends(row))
        for place in range(max(0, round(start)), min(_BAR - 1, round(end)) + 1):
            cells[place] = line
        place = round((deciding_gain(row)[0] - low) * scale)
        if 0 <= place < _BAR:
            cells[place] = middle
        if round(start) < 0:
            cells[0] = before
        if round(end) >= _BAR:
            cells[-1] = behind
        return "".join(cells)

    return bar


def _whole(rows: Sequence[TableRow], console: Console) -> Table:
    """Rows with every column, folded where the terminal is narrow."""
    columns = columns_of(rows)
    sheet = _sheet(rows, [*columns[:4], ("", _bars(rows, console)), *columns[4:]], title_of(rows))
    return _filled(sheet, rows, console.width)


def _sheet(rows: Sequence[TableRow], columns: Sequence[tuple[str, _Cell]], title: str) -> Sheet:
    lines = [[text(row) for _, text in columns] for row in rows]
    return Sheet(title, [name for name, _ in columns], lines, [bool(row.get("control")) for row in rows])


def _filled(sheet: Sheet, rows: Sequence[TableRow], width: int) -> Table:
    """A sheet of rows as a table, with verdicts in their colour."""
    table = _table(sheet, width)
    for column, name in zip(table.columns, sheet.head, strict=True):
        if name == "verdict":
            for text, row in zip(column.cells, rows, strict=False):
                text.stylize(_COLOURS.get(row.get("verdict") or "", ""))  # type: ignore[union-attr]
    return table


def _table(sheet: Sheet, width: int) -> Table:
    """A sheet as a table: columns of words are cut, and those of numbers are whole, unless they are too many."""
    from rich.table import Table

    table = Table(title=_text(sheet.title), title_justify="left", title_style="bold", box=None, pad_edge=False,
                  padding=(0, _GAP, 0, 0))  # fmt: skip
    widths = _widths(sheet, width)
    for i, name in enumerate(sheet.head):
        left = name in _WORDS or name in ("", "verdict")
        table.add_column(name, justify="left" if left else "right", no_wrap=widths is not None, overflow="ellipsis"
                         if widths else "fold", width=widths[i] if widths else None)  # fmt: skip
    for line, control in zip(sheet.lines, sheet.controls, strict=True):
        table.add_row(*map(_text, line), style=_CONTROL if control else None)
    return table


def _widths(sheet: Sheet, width: int) -> list[int] | None:
    """The widths of the columns of a sheet, those of words made smaller, the widest first; None where none fit."""
    from rich.cells import cell_len

    found = [max(map(cell_len, column)) for column in zip(sheet.head, *sheet.lines, strict=True)]
    words = [i for i, name in enumerate(sheet.head) if name in _WORDS]
    while sum(found) + _GAP * (len(found) - 1) > width:
        widest = max(words, key=lambda i: found[i] - _WORDS[sheet.head[i]])
        if found[widest] <= _WORDS[sheet.head[widest]]:
            return None
        found[widest] -= 1
    return found


def _text(text: str) -> Any:
    """Text as it is, not as marks of rich."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else " " for c in text))
