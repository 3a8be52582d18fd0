"""Draw docs/finetuning.png, and print the tables of docs/finetuning.md, from results/finetuning.jsonl.

    python benchmarks/draw_finetuning.py

Of a cell that was measured with several numbers of steps the one with the most seeds is shown, and of those the
largest. Rows from before there was a column of steps had 60.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
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
SHOTS = (5, 10, 20, 40, 100)
ARMS = {"frozen": ("frozen", "#555555", "o"), "tuned": ("fine-tuned", "#0072b2", "s")}  # Okabe and Ito's blue
STEPS = {
    "scratch": "1 from scratch",
    "bottleneck-mlp": "2 frozen, MLP",
    "frozen": "frozen, logistic",
    "frozen-augmented": "3 frozen, augmented",
    "tuned": "4 fine-tuned",
}
Rows = dict[int, dict[str, Any]]  # seed -> row
Cells = dict[tuple[str, int, int, str], list[dict[str, Any]]]  # (set, way, shot, arm) -> rows


def main() -> None:
    """Read, print and draw."""
    cells = read()
    columns = ("pictures", "classes", "of each", "tested on", "frozen", "fine-tuned", "gain", "steps", "seconds")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name, (title, way) in SETS.items():
        for shot in SHOTS:
            frozen, tuned = both(cells, name, way, shot)
            if not tuned:
                continue
            gains = [tuned[seed]["accuracy"] - frozen[seed]["accuracy"] for seed in tuned]
            some = next(iter(tuned.values()))
            line = (title, way, shot, some["queries"], text(frozen), text(tuned), spread(gains), some["steps"],
                    f"{mean(frozen, 'cpu_seconds'):.0f}, {mean(tuned, 'cpu_seconds'):.0f}")  # fmt: skip
            print("| " + " | ".join(map(str, line)) + " |")
    print("\n| step | accuracy | seconds |\n|---|---|---|")
    for arm, title in STEPS.items():
        rows = by_seed(cells, ("dogs_vs_cats_small_s160", 2, 20, arm))
        print(f"| {title} | {text(rows)} | {mean(rows, 'cpu_seconds'):.0f} |")
    draw(cells)


def read() -> Cells:
    """The rows of each cell."""
    cells: Cells = defaultdict(list)
    for line in (RESULTS / "finetuning.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        settings = row.get("settings", {"finetune": "last"})
        row["steps"] = row.get("steps", int(settings.get("steps", 60)))
        if settings["finetune"] == "last":
            cells[row["set"], row["way"], row["shot"], row["arm"]].append(row)
    return cells


def by_seed(cells: Cells, cell: tuple[str, int, int, str]) -> Rows:
    """The newest row of each seed, of those with as many steps as most seeds have."""
    seeds = {(row["steps"], row["seed"]) for row in cells[cell]}
    most = max(Counter(steps for steps, _ in seeds).items(), key=lambda item: (item[1], item[0]), default=(0, 0))[0]
    return dict(sorted({row["seed"]: row for row in cells[cell] if row["steps"] == most}.items()))


def both(cells: Cells, name: str, way: int, shot: int) -> tuple[Rows, Rows]:
    """The rows of a cell frozen and fine-tuned, of the same seeds and with the same number of steps."""
    tuned, frozen = (by_seed(cells, (name, way, shot, arm)) for arm in ("tuned", "frozen"))
    return {seed: frozen[seed] for seed in tuned}, tuned


def mean(rows: Rows, key: str = "accuracy") -> float:
    """Over seeds."""
    return statistics.mean(row[key] for row in rows.values()) if rows else float("nan")


def text(rows: Rows) -> str:
    """The mean of the seeds, and each."""
    return spread([row["accuracy"] for row in rows.values()]) if rows else ""


def spread(found: list[float]) -> str:
    """The mean, and the numbers themselves."""
    return f"{statistics.mean(found):.1f} ({', '.join(f'{value:.1f}' for value in found)})"


def draw(cells: Cells) -> None:
    """A panel for each set: accuracy by pictures of each class, the seeds as small marks."""
    figure, axes = plt.subplots(1, len(SETS), figsize=(10, 3.4), layout="constrained")
    for axis, (name, (title, way)) in zip(axes, SETS.items(), strict=True):
        shots = [shot for shot in SHOTS if both(cells, name, way, shot)[1]]
        for k, (label, colour, mark) in enumerate(ARMS.values()):
            found = {shot: both(cells, name, way, shot)[k] for shot in shots}
            axis.plot(shots, [mean(rows) for rows in found.values()], mark + "-", color=colour, label=label)
            for shot, rows in found.items():
                seeds = [row["accuracy"] for row in rows.values()]
                axis.plot([shot] * len(seeds), seeds, mark, color=colour, alpha=0.4, ms=3)
        axis.set(xscale="log", title=f"{title}, {way} classes", xlabel="pictures of each class")
        axis.set_xticks(shots, [str(shot) for shot in shots])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, %")
    axes[-1].legend(loc="lower right", frameon=False)
    figure.savefig(RESULTS.parent.parent / "docs" / "finetuning.png", dpi=110)


if __name__ == "__main__":
    main()
