"""The results file of a benchmark: one JSON object a line, appended while it runs and completed when it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from augforge.types import InputError

RESULTS = "bench.jsonl"


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a line as soon as it is measured."""
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")


def replace_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put the finished rows in place of what was there of them; rows of other runs stay as they are."""
    ours = {row["digest"] for row in rows}
    others = [row for row in read_results(path) if row.get("digest") not in ours]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in [*others, *rows]), encoding="utf-8")
    partial.replace(path)


def read_results(path: Path) -> list[dict[str, Any]]:
    """The rows of a bench.jsonl, without a last line that a killed run left unfinished; none where it is absent.

    Raises InputError for a line that is no JSON object.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif line.endswith("\n"):
            raise InputError(f"line {number} of {str(path)!r} is no row of a benchmark")
    return rows
