"""Learning curves of a training, drawn from the lines of its log: losses, scores of evaluations, learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augforge.data.durable import read_file
from augforge.data.strict_json import parse_json
from augforge.figures import COLOURS, FAINT, GREY, MARKERS, folded, new_figure, style, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "curves"
_ABOUT = ("stage", "step", "seconds", "lr", "alarm", "kept")  # what a line has beside losses and scores
_MOST_LINES = 6  # in one panel; more cannot be told apart


def draw_curves(log: Path) -> list[Path]:
    """Draw the log.jsonl of a training into curves.png, .svg and .pdf beside it; nothing where there is none.

    Gives the files. A log that cannot be read is no reason to fail: then nothing is drawn either.
    """
    try:
        lines = read_file(log).splitlines()
    except OSError:
        return []
    records = []
    for line in lines:
        with suppress(ValueError):  # the last line of a run that was killed
            record = parse_json(line)
            if isinstance(record, dict):
                records.append(record)
    figure = learning_curves(records, log.parent.parent.name)
    return [] if figure is None else write_figure(figure, log.with_name(CURVES))


def learning_curves(records: Sequence[dict[str, Any]], title: str = "") -> Figure | None:
    """A row of panels for each stage of a training: losses, scores, learning rate, by step; None without a step.

    `records` are the lines of a log.jsonl: a line of a step has "stage", "step", "lr", "seconds" and losses by name,
    one of an evaluation "score" and other numbers. A stage that went on from a checkpoint, or stepped back, has some
    steps twice: the later line counts. Alarms are marked on the axis of the losses.
    """
    stages: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if isinstance(record.get("step"), int):
            stages.setdefault(str(record.get("stage", "")), []).append(record)
    if not stages:
        return None
    with style():
        figure = new_figure(10, 0.5 + 2.6 * len(stages))
        figure.suptitle(folded(title, 100), x=0.01, ha="left", fontsize=10, fontweight="bold")
        rows = figure.subplots(len(stages), 3, squeeze=False)
        for axes, (stage, lines) in zip(rows, stages.items(), strict=True):
            steps = [line for line in lines if "lr" in line]
            looks = [line for line in lines if "lr" not in line and "alarm" not in line]
            _panel(axes[0], _series(steps), f"{stage}: loss", True)
            _panel(axes[1], _series(looks), f"{stage}: validation", False)
            _panel(axes[2], {"learning rate": _points(steps, "lr")}, f"{stage}: learning rate", False)
            for panel in axes:
                panel.set_xlim(0, max(1, *(line["step"] for line in lines)) * 1.03)
            for place in sorted({line["step"] for line in lines if "alarm" in line}):
                axes[0].axvline(place, color=COLOURS[1], linewidth=0.8, linestyle=":")
    return figure


def _series(lines: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The numbers of the lines by name, each with its steps; the score first."""
    names = dict.fromkeys(name for line in lines for name, value in line.items()
                          if name not in _ABOUT and isinstance(value, int | float))  # fmt: skip
    ordered = sorted(names, key=lambda name: name != "score")
    return {name: _points(lines, name) for name in ordered}


def _points(lines: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """The steps and values of a name, finite ones, of each step the last, up to where the run stepped back last."""
    found: dict[int, float] = {}
    for line in lines:
        value = line.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            found = {step: kept for step, kept in found.items() if step < line["step"]}
            found[line["step"]] = float(value)
    return sorted(found.items())


def _panel(axes: Axes, series: dict[str, list[tuple[int, float]]], title: str, may_be_log: bool) -> None:
    """Lines with their names; a score of another size than the first gets none, as it could not be read."""
    axes.set_title(title, fontsize=9)
    shown = {name: points for name, points in series.items() if points}
    if not shown:
        axes.text(0.5, 0.5, "none in the log", color=GREY, ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    first = next(iter(shown.values()))
    size = max(abs(value) for _, value in first) or 1.0
    alike = [
        name for name, points in shown.items() if size / 30 <= (max(abs(v) for _, v in points) or size) <= 30 * size
    ]
    names = alike[:_MOST_LINES]
    for i, name in enumerate(names):
        steps, values = zip(*shown[name], strict=True)
        marker = MARKERS[i] if len(steps) < 25 else ""
        axes.plot(steps, values, color=COLOURS[i], linewidth=1.4, marker=marker, markersize=3.5, label=name)
    every = [value for name in names for _, value in shown[name]]
    if may_be_log and min(every) > 0 and max(every) > 50 * min(every):
        axes.set_yscale("log")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("step")
    left = len(shown) - len(names)
    more = f" and {left} more in the log" if left else ""
    if len(names) > 1 or more:
        axes.legend(fontsize=7, frameon=False, title=more.removeprefix(" ") or None, title_fontsize=7)
