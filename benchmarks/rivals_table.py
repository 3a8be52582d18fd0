"""The tables of rivals on equal budgets, in Markdown, from results/rivals.jsonl: the newest row of each cell.

    python benchmarks/rivals_table.py

The first table is of gains over nearest means, the second over the best plain classifier. Bold: the whole interval is
above 0; italic: it is below 0. In brackets: no trial gained on the validation classes, so that one would make nothing.
After the slash: the same method with its noise at zero.
"""

from __future__ import annotations

import json
from typing import Any

from data_sets import RESULTS
from rival_arms import ARMS

Rows = dict[tuple[str, str, int], dict[str, Any]]  # by set, arm and shots


def main() -> None:
    """Print both tables."""
    lines = (RESULTS / "rivals.jsonl").read_text(encoding="utf-8").splitlines()
    found: Rows = {(row["set"], row["arm"], row["shot"]): row for row in map(json.loads, lines)}
    columns = list(dict.fromkeys((name, shot) for name, _, shot in found))
    for what, base in (("means", "nearest means"), ("best", "the best plain classifier")):
        print("| | " + " | ".join(f"`{name}`, {shot}" for name, shot in columns) + " |")
        print("|---" * (len(columns) + 1) + "|")
        levels = [next(row[what] for key, row in found.items() if key[::2] == column) for column in columns]
        print(f"| {base}, % | " + " | ".join(f"{level:.2f}" for level in levels) + " |")
        for arm in ARMS:
            rows = [found.get((name, arm.name, shot)) for name, shot in columns]
            if any(rows):
                print(f"| {arm.name} | " + " | ".join(cell(row, what) for row in rows) + " |")
        print()


def cell(row: dict[str, Any] | None, what: str) -> str:
    """A gain with its marks; empty where nothing was measured."""
    if row is None:
        return ""
    low, high = row[f"gain_{what}_ci95"]
    shown = f"{row[f'gain_{what}']:+.2f}"
    shown = f"**{shown}**" if low > 0 else f"*{shown}*" if high < 0 else shown
    if f"gain_{what}_still" in row:
        shown += f" / {row[f'gain_{what}_still']:+.2f}"
    return f"({shown})" if row["val_gain"] is not None and row["val_gain"] <= 0 and row["tried"] else shown


if __name__ == "__main__":
    main()
