"""Draw docs/finetuning.png, and print the tables of docs/finetuning.md, from results/finetuning.jsonl.

python benchmarks/draw_finetuning.py
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from typing import Any

import matplotlib as mpl
from data_sets import RESULTS

mpl.use("Agg")
import matplotlib.pyplot as plt

SETS = {
    "dogs_vs_cats_small_s160": ("cats and dogs", 2),
    "caltech101_small": ("Caltech 101", 20),
    "gtsrb_small": ("traffic signs, tracks apart", 20),
}
ARMS = {
    "frozen": ("frozen, logistic regression", "#555555", "o"),
    "last": ("fine-tuned: last", "#0072b2", "s"),
    "all": ("fine-tuned: all", "#d55e00", "^"),
}  # colours of Okabe and Ito
STEPS = {
    "scratch": "1 from scratch",
    "bottleneck-mlp": "2 frozen, MLP",
    "frozen": "frozen, logistic",
    "frozen-augmented": "3 frozen, augmented",
    "tuned": "4 fine-tuned (last)",
}
Cell = dict[tuple[str, int, int, str], dict[int, dict[str, Any]]]  # (set, way, shot, arm) -> seed -> row


def main() -> None:
    """Read, print and draw."""
    cells = read()
    columns = ("pictures", "classes", "of each", "tested on", *ARMS, "seconds")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name, (title, way) in SETS.items():
        for shot in shots(cells, name, way):
            found = {arm: cells.get((name, way, shot, arm), {}) for arm in ARMS}
            queries = next(iter(found["frozen"].values()))["queries"]
            times = ", ".join(f"{mean(rows, 'cpu_seconds'):.0f}" for rows in found.values() if rows)
            line = (title, way, shot, queries, *map(text, found.values()), times)
            print("| " + " | ".join(map(str, line)) + " |")
    print("\n| step | accuracy | seconds |\n|---|---|---|")
    for arm, title in STEPS.items():
        rows = cells.get(("dogs_vs_cats_small_s160", 2, 20, "last" if arm == "tuned" else arm), {})
        print(f"| {title} | {text(rows)} | {mean(rows, 'cpu_seconds'):.0f} |")
    draw(cells)


def read() -> Cell:
    """The newest row of each cell and seed."""
    cells: Cell = defaultdict(dict)
    for line in (RESULTS / "finetuning.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        settings = row.get("settings", {})
        if set(settings) <= {"finetune", "flip"}:
            arm = settings["finetune"] if row["arm"] == "tuned" else row["arm"]
            cells[row["set"], row["way"], row["shot"], arm][row["seed"]] = row
    return cells


def shots(cells: Cell, name: str, way: int) -> list[int]:
    """Those of three seeds that a set was measured with, ascending."""
    return sorted(
        {key[2] for key, rows in cells.items() if key[:2] == (name, way) and key[3] == "last" and len(rows) > 2}
    )


def mean(rows: dict[int, dict[str, Any]], key: str = "accuracy") -> float:
    """Over seeds."""
    return statistics.mean(row[key] for row in rows.values()) if rows else float("nan")


def text(rows: dict[int, dict[str, Any]]) -> str:
    """The mean, and the least and the greatest of the seeds."""
    if not rows:
        return ""
    found = [row["accuracy"] for row in rows.values()]
    return f"{mean(rows):.1f} ({min(found):.1f} to {max(found):.1f})"


def draw(cells: Cell) -> None:
    """A panel for each set: accuracy by pictures of each class, the seeds as small marks."""
    figure, axes = plt.subplots(1, len(SETS), figsize=(10, 3.4), layout="constrained")
    for axis, (name, (title, way)) in zip(axes, SETS.items(), strict=True):
        for arm, (label, colour, mark) in ARMS.items():
            found = {
                shot: cells[name, way, shot, arm] for shot in shots(cells, name, way) if (name, way, shot, arm) in cells
            }
            axis.plot(list(found), [mean(rows) for rows in found.values()], mark + "-", color=colour, label=label)
            for shot, rows in found.items():
                axis.plot(
                    [shot] * len(rows), [row["accuracy"] for row in rows.values()], mark, color=colour, alpha=0.3, ms=3
                )
        axis.set(xscale="log", title=f"{title}, {way} classes", xlabel="pictures of each class")
        axis.set_xticks(shots(cells, name, way), [str(shot) for shot in shots(cells, name, way)])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, %")
    axes[-1].legend(loc="lower right", frameon=False, fontsize=8)
    figure.savefig(RESULTS.parent.parent / "docs" / "finetuning.png", dpi=110)


if __name__ == "__main__":
    main()
