"""The figures of a benchmark, each a function of rows: gains in order, accuracy by shots, gain by rows made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augforge.bench.columns import (
    accuracy_ends,
    deciding_gain,
    features_name,
    gain_ends,
    grouped,
    how_many,
    one_line,
    share,
    tables_of,
    title_of,
    trials_of,
    where_of,
    within_most,
)  # fmt: skip
from augforge.bench.files import TableRow
from augforge.figures import COLOURS, FAINT, GREY, INK, MARKERS, folded, new_figure, style, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL, _TITLE = 44, 96  # characters of a line of a label, and of a title
_NARROW_LABEL, _NARROW_TITLE = 26, 40  # of a chart for a telephone
_LINES = len(COLOURS) - 1  # methods in a figure of lines, beside the best plain classifier
_Point = tuple[float, float, float, float]  # place, value, and the ends of its interval
_SAME = ("representation", "views", "normalise", "synthesizer", "classifier", "weights", "share", "exact")


def write_plots(rows: Sequence[TableRow], out: Path) -> list[Path]:
    """Draw what rows of one benchmark allow into the folder `out`, each as PNG, SVG and PDF; gives the files.

    gain-N-shot: `gain_chart` of each number of shots. accuracy: `shots_chart`, where there are two numbers of shots.
    made: `made_chart`, where several numbers of rows were made. Raises OSError.
    """
    files, taken = [], set[str]()
    for table in tables_of(rows):
        stem = f"gain-{table[0]['shot']}-shot"
        while stem in taken:  # of another task
            stem += "-more"
        taken.add(stem)
        files += write_figure(gain_chart(table), out / stem)
    first = next(iter(grouped(rows, "task", "part", "way").values()), [])
    if len({row["shot"] for row in first}) > 1:
        files += write_figure(shots_chart(first), out / "accuracy")
    if len({row["made"] for row in _sweep(first)}) > 1:
        files += write_figure(made_chart(first), out / "made")
    return files


# Gains in order


def gain_chart(rows: Sequence[TableRow], narrow: bool = False) -> Figure:
    """The gains of rows of one number of shots over the best plain classifier, as dots with their 95 % intervals.

    Methods come first, the best above, then the controls in grey. Where few intervals lie so far out that the others
    could not be told apart, the axis is broken and they lie beyond the break. A `narrow` chart is for a telephone.
    """
    table = tables_of(rows)[0]
    labels = [folded(text, _NARROW_LABEL if narrow else _LABEL) for text in labels_of(table)]
    heights = [0.12 + 0.15 * (label.count("\n") + 1) for label in labels]  # inches
    gap = 0.12 if 0 < sum(bool(row.get("control")) for row in table) < len(table) else 0.0
    places, at = [], 0.0
    for i, (row, height) in enumerate(zip(table, heights, strict=True)):
        at += gap if i and bool(row.get("control")) != bool(table[i - 1].get("control")) else 0.0
        places.append(at + height / 2)
        at += height
    with style():
        figure = new_figure(4.2 if narrow else 8, at + (1.5 if narrow else 1.3))
        figure.suptitle(
            folded(_title(table), _NARROW_TITLE) if narrow else _title(table),
            x=0.01,
            ha="left",
            fontsize=10,
            fontweight="bold",
        )
        panels = _broken_axes(figure, [gain_ends(row) for row in table], 4 if narrow else 8)
        for axes in panels:
            for row, place in zip(table, places, strict=True):
                _dot(axes, row, place)
            axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
            axes.grid(axis="x", color=FAINT, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.set_ylim(at + 0.05, -0.05)
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(places, labels)
        for tick, row in zip(panels[0].get_yticklabels(), table, strict=True):
            tick.set_color(GREY if row.get("control") else INK)
        _values(panels[-1], table, places)
        says = f"points of accuracy over {_over(table)}, with 95 % intervals"
        says = f"{folded(says, 50) if narrow else says}\nfilled: the interval leaves out 0; grey: controls"
        figure.supxlabel(says, fontsize=8 if narrow else 9)
    return figure


def _broken_axes(figure: Figure, intervals: Sequence[tuple[float, float]], most_ticks: int) -> list[Axes]:
    """Axes side by side, one for most intervals and a narrow one on a side where some lie beyond, from the left."""
    low, high = within_most(intervals)
    room = 0.04 * (high - low or 1.0)
    ranges, widths = [(low - room, high + room)], [6.0]
    for below in (True, False):
        beyond = [ends for ends in intervals if (ends[0] < low if below else ends[1] > high)]
        if beyond:
            start, end = min(a for a, _ in beyond), max(b for _, b in beyond)
            room = 0.1 * (end - start or 1.0)
            start, end = (start - room, min(end + room, low)) if below else (max(start - room, high), end + room)
            place = 0 if below else len(ranges)
            ranges.insert(place, (start, end))
            widths.insert(place, 1.4)
    panels: list[Axes] = list(figure.subplots(1, len(ranges), sharey=True, squeeze=False, width_ratios=widths)[0])
    marks: dict[str, Any] = {"marker": [(-1, -2), (1, 2)], "markersize": 8, "color": INK, "linestyle": "none",
                             "clip_on": False}  # fmt: skip
    for i, (axes, (start, end)) in enumerate(zip(panels, ranges, strict=True)):
        axes.set_xlim(start, end)
        axes.locator_params(axis="x", nbins=2 if widths[i] < 2 else most_ticks)
        if i:
            axes.spines["left"].set_visible(False)
            axes.plot([0], [0], transform=axes.transAxes, **marks)
        if i < len(panels) - 1:
            axes.plot([1], [0], transform=axes.transAxes, **marks)
    return panels


def _dot(axes: Axes, row: TableRow, place: float) -> None:
    gain, (low, high) = deciding_gain(row)[0], gain_ends(row)
    colour = GREY if row.get("control") else COLOURS[0]
    axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
    surely = low > 0 or high < 0
    axes.plot([gain], [place], "o", markersize=5, color=colour, markerfacecolor=colour if surely else "white", zorder=3)


def _values(axes: Axes, rows: Sequence[TableRow], places: Sequence[float]) -> None:
    """The gains as numbers beside the last axes."""
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [f"{deciding_gain(row)[0]:+.2f}" for row in rows])
    right.tick_params(length=0, labelsize=8)
    right.spines["right"].set_visible(False)
    for tick, row in zip(right.get_yticklabels(), rows, strict=True):
        tick.set_color(GREY if row.get("control") else INK)


# Accuracy by shots


def shots_chart(rows: Sequence[TableRow]) -> Figure:
    """The accuracy by the number of real shots, of the best plain classifier and the five methods that gain most.

    Of the best of these a dashed line leads from its accuracy to the curve of the best plain classifier: the shots
    that it is worth. Controls are grey. Names stand at the ends of the lines.
    """
    lines = sorted(grouped(rows, *_SAME, "made").values(), key=_mean_gain, reverse=True)
    made = [line for line in lines if line[0]["p"] is not None]
    methods = [line for line in made if not line[0].get("control")]
    controls = [line for line in made if line[0].get("control")]
    shown = methods[:_LINES] or controls[:1]
    controls = [line for line in controls if line not in shown]
    alike = [row for row in rows if row["p"] is None and (not shown or _on_same_features(row, shown[0][0]))]
    plain = [max(group, key=lambda row: row["accuracy"]) for group in grouped(alike, "shot").values()]
    with style():
        figure = new_figure(8, 5)
        axes = figure.subplots()
        first = rows[0]
        axes.set_title(folded(f"{first['task']}: {first['way']}-way{where_of(rows)}, {trials_of(rows)}{_alike(rows)}",
                              _TITLE))  # fmt: skip
        ends = []
        for line in controls:
            _draw(axes, _by_shots(line), GREY)
        if controls:
            ends.append((_last(controls[0]), "controls" if len(controls) > 1 else _name(controls[0][0], rows), GREY))
        if plain:
            _draw(axes, _by_shots(plain), INK, "o", band=True)
            ends.append((_last(plain), "nothing made, best classifier", INK))
        for i, line in enumerate(shown):
            _draw(axes, _by_shots(line), COLOURS[i], MARKERS[i], band=i == 0)
            ends.append((_last(line), _name(line[0], rows), COLOURS[i]))
        _shot_axis(axes, rows)
        axes.set_ylabel("accuracy, %")
        if shown and len(plain) > 1:
            _draw_worth(axes, shown[0], COLOURS[0])
        _name_ends(axes, ends)
        _say_left_out(axes, len(methods) - len(shown))
    return figure


def _on_same_features(row: TableRow, other: TableRow) -> bool:
    return features_name(row) == features_name(other)


def _draw_worth(axes: Axes, line: Sequence[TableRow], colour: str) -> None:
    """From the accuracy at the fewest shots that are worth a known number along to the plain curve, and down."""
    read = next((row for row in sorted(line, key=_shots) if row.get("shot_worth") is not None
                 and row["shot_worth"] >= 1.05 * _shots(row)), None)  # fmt: skip
    if read is None:
        return
    start, worth, accuracy = _shots(read), read["shot_worth"], read["accuracy"]
    bottom = axes.get_ylim()[0]
    axes.plot([start, worth, worth], [accuracy, accuracy, bottom], color=colour, linestyle=(0, (4, 2)), linewidth=1)
    axes.set_ylim(bottom=bottom)
    shots = "1 real shot is" if read["shot"] == 1 else f"{read['shot']} real shots are"
    text = f"with {one_line(read['synthesizer'])} {shots} worth {worth:.1f}"
    axes.annotate(folded(text, 48), (worth, bottom), (4, 6), textcoords="offset points", color=colour, fontsize=8)


# Gain by the number of rows made


def made_chart(rows: Sequence[TableRow]) -> Figure:
    """The gain over the best plain classifier by how many rows of each class were made, a panel for each shots."""
    sweep = _sweep(rows)
    groups = grouped(sweep, "shot")
    with style():
        figure = new_figure(4.5 * len(groups) + 1.5, 4)
        first = rows[0]
        figure.suptitle(folded(f"{first['task']}: {first['way']}-way{where_of(rows)}, {trials_of(rows)}{_alike(rows)}",
                               _TITLE), x=0.01, ha="left", fontsize=10, fontweight="bold")  # fmt: skip
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, ((shot,), group) in zip(panels, groups.items(), strict=True):
            lines = sorted(grouped(group, *_SAME).values(), key=_mean_gain, reverse=True)
            methods = [line for line in lines if not line[0].get("control")]
            controls, ends = [line for line in lines if line[0].get("control")], []
            shown = methods[:_LINES] or controls[:_LINES]
            for line in controls if methods else ():
                _draw(axes, _by_made(line), GREY)
            for i, line in enumerate(shown):
                _draw(axes, _by_made(line), COLOURS[i], MARKERS[i], band=i == 0)
                row = max(line, key=lambda row: row["made"])
                name = f"{one_line(row['synthesizer'])}{share(row)}" + _classifier_of(row, rows)
                ends.append(((row["made"], deciding_gain(row)[0]), name, COLOURS[i]))
            axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
            axes.set_title(f"{shot} shot{'' if shot == 1 else 's'}", fontsize=9)
            _log_axis(axes, sorted({float(row["made"]) for row in group}), "made rows of each class")
            _name_ends(axes, ends)
            _say_left_out(axes, len(methods) - len(shown) if methods else 0)
        panels[0].set_ylabel(f"points over {_over(rows)}")
    return figure


def _sweep(rows: Sequence[TableRow]) -> list[TableRow]:
    return [row for row in rows if row["made"] and not row.get("exact")]


# What several figures share


def labels_of(rows: Sequence[TableRow]) -> list[str]:
    """The rows' names: of method, classifier and features what is not the same in all of them."""
    return [_name(row, rows) for row in rows]


def _name(row: TableRow, rows: Sequence[TableRow]) -> str:
    of_features = f" on {one_line(features_name(row))}" if _varies(rows, features_name) else ""
    many = how_many(row).replace("x ", "x\u00a0").replace("share ", "share\u00a0")  # these stay on one line
    return f"{one_line(row['synthesizer'])}{many}{_classifier_of(row, rows)}{of_features}"


def _classifier_of(row: TableRow, rows: Sequence[TableRow]) -> str:
    if not _varies(rows, lambda row: row["classifier"]) or row["classifier"] == row["synthesizer"]:
        return ""
    return f", {one_line(row['classifier'])}"


def _varies(rows: Sequence[TableRow], text: Callable[[TableRow], str]) -> bool:
    return len({text(row) for row in rows}) > 1


def _alike(rows: Sequence[TableRow]) -> str:
    """Behind a title: the classifier and the features, where all rows have the same."""
    found = "" if _varies(rows, lambda row: row["classifier"]) else f"; {rows[0]['classifier']}"
    return found + ("" if _varies(rows, features_name) else f"; {features_name(rows[0])}")


def _title(rows: Sequence[TableRow]) -> str:
    return folded(one_line(title_of(rows) + _alike(rows)), _TITLE)


def _over(rows: Sequence[TableRow]) -> str:
    """What the gain that decides is over."""
    first = rows[0]
    if first.get("gain_best") is not None:
        return "the plain classifier that is best by validation"
    return "the best with nothing made" if first.get("gain_over_best") is not None else "nothing made"


def _shots(row: TableRow) -> float:
    """Where a number of shots lies on an axis; a range "1-5" at its middle."""
    low, _, high = str(row["shot"]).partition("-")
    return (float(low) + float(high or low)) / 2


def _mean_gain(line: Sequence[TableRow]) -> float:
    return sum(deciding_gain(row)[0] for row in line) / len(line)


def _last(line: Sequence[TableRow]) -> tuple[float, float]:
    row = max(line, key=_shots)
    return _shots(row), row["accuracy"]


def _by_shots(line: Sequence[TableRow]) -> list[_Point]:
    """The accuracies of a line by shots, with their intervals."""
    found = []
    for row in sorted(line, key=_shots):
        value = row["accuracy"]
        low, high = (value if end is None else end for end in accuracy_ends(row))
        found.append((_shots(row), value, low, high))
    return found


def _by_made(line: Sequence[TableRow]) -> list[_Point]:
    """The gains of a line by rows made, with their intervals."""
    return [(row["made"], deciding_gain(row)[0], *gain_ends(row)) for row in sorted(line, key=lambda row: row["made"])]


def _draw(axes: Axes, points: Sequence[_Point], colour: str, marker: str = "", band: bool = False) -> None:
    """A line through points, thin where it has no marker, with a `band` of their intervals."""
    places, values, lows, highs = zip(*points, strict=True)
    width, above = (1.8, 3) if marker else (0.8, 2)
    axes.plot(places, values, color=colour, marker=marker, markersize=4, linewidth=width, zorder=above)
    if band:
        axes.fill_between(places, lows, highs, color=colour, alpha=0.12, linewidth=0)


def _shot_axis(axes: Axes, rows: Sequence[TableRow]) -> None:
    names = {_shots(row): str(row["shot"]) for row in sorted(rows, key=_shots)}
    _log_axis(axes, list(names), "real shots of each class", list(names.values()))


def _log_axis(axes: Axes, places: Sequence[float], label: str, names: Sequence[str] | None = None) -> None:
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places] if names is None else names)
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _name_ends(axes: Axes, ends: Sequence[tuple[tuple[float, float], str, str]]) -> None:
    """Names at the right ends of lines, moved apart where they would lie on each other, each with a thin pointer."""
    low, high = axes.get_ylim()
    texts = [(place, folded(name, 30), colour) for place, name, colour in sorted(ends, key=lambda end: end[0][1])]
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = axes.get_window_extent().height / figure.dpi - 0.5  # what the layout leaves, about
    height = (high - low) * 8.5 / (72 * inches)  # of a line of text, in data
    size = [(text.count("\n") + 1.25) * height for _, text, _ in texts]
    middle = [place[1] for place, _, _ in texts]
    for _ in range(200):
        for i in range(1, len(middle)):
            lack = (size[i - 1] + size[i]) / 2 - (middle[i] - middle[i - 1])
            if lack > 0:
                middle[i - 1], middle[i] = middle[i - 1] - lack / 2, middle[i] + lack / 2
    for (place, text, colour), at in zip(texts, middle, strict=True):
        axes.annotate(text, place, (1.03, (at - low) / (high - low)), textcoords="axes fraction", color=colour,
                      va="center", fontsize=8, annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 1,
                                  "relpos": (0, 0.5)})  # fmt: skip


def _say_left_out(axes: Axes, count: int) -> None:
    if count > 0:
        axes.text(0.01, 0.99, f"{count} more method{'' if count == 1 else 's'} in the table", color=GREY, fontsize=8,
                  va="top", transform=axes.transAxes)  # fmt: skip
