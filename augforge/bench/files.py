"""The files of a benchmark: a JSON object a line, appended while it runs and completed when it is done; classes."""

from __future__ import annotations

import datetime
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augforge import __version__
from augforge.bench.accuracy import ByClass, by_class
from augforge.data.durable import read_file, replace_file, write_file
from augforge.data.notes import note
from augforge.data.strict_json import parse_json
from augforge.types import InputError

TableRow = dict[str, Any]  # a line of bench.jsonl: text, numbers, intervals

RESULTS, PER_CLASS, CONFUSION = "bench.jsonl", "per_class.jsonl", "confusion"
LOW_SHOT, VERIFICATION = "low_shot.jsonl", "verification.jsonl"
COMMANDS = "commands.jsonl"  # date and words of each command that wrote into the folder
ROWS = (RESULTS, PER_CLASS, LOW_SHOT, VERIFICATION, COMMANDS)  # files of a row a line
_NAMES = ("digest", "task", "part", "representation", "synthesizer", "classifier", "made", "share", "shot", "seeds")


def make_folder(folder: Path | None) -> None:
    """Make a folder, if one is given, and mend its files of rows, so that a run does not end at them.

    Raises InputError where it cannot be made, and for a line in them that is no JSON object.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ROWS:
            _mend(folder / name)
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be made ({error.strerror})") from error
    for name in ROWS:
        read_results(folder / name)


def _mend(path: Path) -> None:
    """Drop a last line that was cut off, by a kill or a full disk, and say so; a whole one gets its line end."""
    if not path.exists():
        return
    data = read_file(path)
    cut = len(data) - data.rfind(b"\n") - 1
    if not cut:
        return
    with path.open("r+b") as file:
        if _row_of(data[-cut:]) is not None:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
        else:
            note(f"{str(path)!r}: its last line was cut off, and is dropped; what it was of is measured again")
            file.truncate(len(data) - cut)


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a line as soon as a row is known."""
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")


def replace_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put the finished rows in place of what was there of them; rows of other runs stay as they are."""
    ours = {row["digest"] for row in rows}
    others = [row for row in read_results(path) if row.get("digest") not in ours]
    write_file(path, "".join(json.dumps(row) + "\n" for row in [*others, *rows]).encode())


def keep_command(folder: Path, words: Sequence[str]) -> None:
    """Write down, once, that a command wrote into `folder`, with the date; raises OSError."""
    command = shlex.join(["augforge", *words])
    if all(line.get("command") != command for line in read_results(folder / COMMANDS)):
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        append_row(folder / COMMANDS, {"date": date, "command": command, "augforge": __version__})


def read_results(path: Path) -> list[dict[str, Any]]:
    """The rows of a bench.jsonl, without a last line that a killed run left unfinished; none where it is absent.

    Raises InputError for a line that is no JSON object.
    """
    if not path.exists():
        return []
    rows = []
    *lines, last = read_file(path).split(b"\n")
    for number, line in enumerate(lines, 1):
        row = _row_of(line)
        if row is None:
            raise InputError(f"line {number} of {str(path)!r} is no row of a benchmark; remove the line, or move the "
                             "file elsewhere: what it lacks is measured again")  # fmt: skip
        rows.append(row)
    row = _row_of(last)
    return rows if row is None else [*rows, row]


def _row_of(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None for anything else."""
    try:
        row = parse_json(line)
    except ValueError:  # bytes that are no UTF-8 are a ValueError too
        return None
    return row if isinstance(row, dict) else None


def write_per_class(
    rows: Sequence[dict[str, Any]], confusions: Sequence[tuple[NDArray, NDArray]], names: Sequence[str], out: Path
) -> None:
    """Write per_class.jsonl, a line for each row and class, and confusion/DIGEST.npz for each row, into `out`.

    `confusions` are the counts [k, k] and class ids [k] of each row (`Results.confusions`), `names` those of all class
    ids. A line has the names of its row, `class`, how many `queries` of it there were, and its `precision`, `recall`
    and `f1` in percent; lines of other runs stay. A .npz has `counts` [k, k] (true class by predicted, of all queries
    and seeds together) and the `classes` [k] by name. Raises InputError where the folder cannot be written.
    """
    lines = []
    try:
        (out / CONFUSION).mkdir(parents=True, exist_ok=True)
        for row, (counts, ids) in zip(rows, confusions, strict=True):
            found = by_class(counts, ids)
            lines += [{key: row[key] for key in _NAMES} | line for line in _class_lines(found, names)]
            path = out / CONFUSION / f"{row['digest']}.npz"
            partial = path.with_name(path.name + ".partial.npz")
            np.savez_compressed(partial, counts=counts, classes=np.array([names[i] for i in ids.tolist()]))
            replace_file(partial, path)
        replace_rows(out / PER_CLASS, lines)
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be written ({error.strerror})") from error


def _class_lines(found: ByClass, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Name, queries, precision, recall and F1 of each class, rates in percent to four digits after the point."""
    rates = [[round(100 * v, 4) for v in column.tolist()] for column in (found.precision, found.recall, found.f1)]
    for i, queries, precision, recall, f1 in zip(found.classes.tolist(), found.queries.tolist(), *rates, strict=True):
        yield {"class": names[i], "queries": queries, "precision": precision, "recall": recall, "f1": f1}
