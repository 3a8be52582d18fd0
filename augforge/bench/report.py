"""Tables and plots of a benchmark's rows: Markdown for reading, PNG for showing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from augforge.bench.recipe_result import TableRow
from augforge.bench.recipes import Recipe
from augforge.types import InputError, capabilities

TABLE, ACCURACY, GAIN, MADE = "table.md", "accuracy.png", "gain.png", "made.png"
_MOST_LINES = 12  # in one plot; more cannot be distinguished


def weightless(rows: Sequence[TableRow], recipes: Sequence[Recipe]) -> list[str]:
    """A line for each row whose made rows weigh nothing, and why, where no share was asked for."""
    tested = {recipe.shown()["synthesizer"] for recipe in recipes if capabilities(recipe.synthesizer).tested_on_support}
    lines = []
    for row in rows:
        if row.get("made_share") == 0 and row["share"] is None:
            why = "on held-out classes they gained nothing"
            if row["synthesizer"].removesuffix(", no noise") in tested:
                why = "with one row of each class none can be held out to test them"
            lines.append(f"the rows that {row['synthesizer']} makes weigh nothing before {row['classifier']} at "
                         f"{row['shot']} shots: {why}")  # fmt: skip
    return lines


def write_report(rows: Sequence[TableRow], out: Path) -> list[Path]:
    """Write table.md, accuracy.png, gain.png and, where several numbers were made, made.png into the folder `out`.

    `rows` are those of `benchmark.run` or of a bench.jsonl. Gives the files. Raises InputError where there is no
    row, or the folder cannot be written.
    """
    if not rows:
        raise InputError(f"there are no rows to report in {str(out)!r}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / TABLE).write_text(markdown(rows), encoding="utf-8")
        files = [out / TABLE, *_plots(rows, out)]
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be written ({error.strerror})") from error
    return files


def markdown(rows: Sequence[TableRow]) -> str:
    """The rows as Markdown: a table for each task and number of shots, and how to read it."""
    parts = []
    for (task, part, way, shot), group in _grouped(rows, "task", "part", "way", "shot").items():
        first = group[0]
        where = "" if part == "novel" else " on validation classes"
        seeds = "" if first.get("seeds", 1) == 1 else f", mean over {first['seeds']} training seeds"
        if first.get("test") is None:
            what = f"{first['trials']} episodes, {first['query']} queries"
        else:
            what = f"{first['query']} queries of {first['test']}"
        parts.append(f"## {task}: {way}-way {shot}-shot{where}, {what}{seeds}\n")
        parts.append(_table(group))
    return "\n".join([*parts, _legend(rows)])


def _legend(rows: Sequence[TableRow]) -> str:
    """How to read a table: what its rows have need of."""
    own = [row for row in rows if _is_own(row)]
    if any(row.get("test") is not None for row in own):
        interval = _OF_TEST
    else:
        interval = _OF_OWN if own else _OF_EPISODES
    gained = any(row["p"] is not None for row in rows)
    shares = any(row.get("share") is not None for row in rows)
    known = any(row.get("ece") is not None for row in rows)
    gains = _GAINS if not own else _OWN_GAINS if gained else _BESIDE
    legend = (interval + gains).rstrip("\n")
    return legend + (_CALIBRATION if known else "\n") + (_SHARES if shares else "")


def _is_own(row: TableRow) -> bool:
    """Whether a row is of a task of one's own: without base classes."""
    return row.get("base_classes") == 0


# Columns that are there where they are filled
_CHOSEN, _SPREAD, _ECE, _WORTH = "over best by validation", "gain's sd over seeds", "ECE", "worth in shots"
_GAIN = "gain over classes"
_FILLED = (_CHOSEN, _SPREAD, _ECE, _WORTH, _GAIN, "wins", "verdict")
_COLUMNS: tuple[tuple[str, Callable[[TableRow], str]], ...] = (
    ("representation", lambda r: _cell(_features(r))),
    ("made rows", lambda r: _method(r) + (" (control)" if r.get("control") else "")),
    ("classifier", lambda r: _cell(r["classifier"])),
    ("accuracy", lambda r: _within(r["accuracy"], r["ci95_pictures"]) if _is_own(r)
     else _plus_minus(r["accuracy"], r["ci95"])),
    (_GAIN, lambda r: "" if r["p"] is None else _between(r["gain"], r["gain_ci95"])),
    ("over best plain", lambda r: "" if r.get("gain_over_best") is None
     else _between(r["gain_over_best"], r["gain_over_best_ci95"])),
    (_CHOSEN, lambda r: "" if r.get("gain_best") is None
     else f"{_between(r['gain_best'], r['gain_best_ci95'])} {_cell(r['best_plain'])}"),
    (_SPREAD, lambda r: "" if r.get("gain_sd") is None or r["p"] is None else f"{r['gain_sd']:.2f}"),
    ("wins", lambda r: "" if r["win_rate"] is None else f"{r['win_rate']:.0f} %"),
    ("F1", lambda r: f"{r['f1']:.1f}"),
    (_ECE, lambda r: "" if r.get("ece") is None else f"{r['ece']:.1f}"),
    (_WORTH, lambda r: "" if r.get("test") is not None or (_is_own(r) and r["p"] is None)
     else r.get("shot_worth_says") or ""),
    ("verdict", lambda r: r.get("verdict") or ""),
)  # fmt: skip

_OF_EPISODES = "Percent. The accuracy is ± its 95 % interval over episodes of these classes. "
_OF_OWN = """\
Percent. The accuracy has its 95 % interval where the pictures asked about are drawn anew, those of a group together; \
the classes are yours and stay, in all intervals. """
_OF_TEST = """\
Percent. The accuracy of the one support that there is has its 95 % interval over test pictures: Wilson's, or where \
they are in groups that of groups drawn anew. """
_BESIDE = """\
"Over best plain" is against the best classifier on the same queries.
"""
_OWN_GAINS = """\
A gain is against `nothing` with the same features and classifier on the same queries, with its 95 % interval over \
pictures. "Over best plain" is against the best classifier with nothing made, chosen on these queries. "Wins" are the \
episodes, or queries, that are better, ties counted half. The verdict keeps false alarms among all rows of a run under \
5 % (Holm).
"""
_GAINS = """\
A gain is against `nothing` with the same \
features and classifier on the same episodes; its 95 % interval is over classes drawn anew, and the one over episodes \
alone, which is too small, is in bench.jsonl. "Over best plain" is against the best classifier with nothing made, \
chosen on these episodes; "by validation" is against the one that is best on the validation classes, which is named. \
"Wins" are the episodes with a higher accuracy, ties counted half. "Worth in shots" is how \
many real shots of the best plain classifier give the same accuracy. The verdict keeps false alarms among all rows of \
a run under 5 % (Holm), so that an interval beside "no evidence" can leave out 0.
"""
_CALIBRATION = """ \
"ECE" is the expected calibration error (Guo et al. 2017, 15 bins of equal width): how far confidences are from \
accuracies.
"""
_SHARES = '"Share 0.5": the made rows of a class weigh half as much together as its real ones.\n'


def _table(rows: Sequence[TableRow]) -> str:
    columns = [(name, cell) for name, cell in _COLUMNS if name not in _FILLED or any(map(cell, rows))]
    names = ["gain" if name == _GAIN and _is_own(rows[0]) else name for name, _ in columns]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row) for _, cell in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _features(row: TableRow) -> str:
    """A representation's name, and behind it what was done to its features."""
    views, normalise = (row.get(key, "none") for key in ("views", "normalise"))
    done = ([f"views {views}"] if views != "none" else []) + ([normalise] if normalise != "none" else [])
    return ", ".join([row["representation"], *done])


def _method(row: TableRow) -> str:
    return _cell(row["synthesizer"]) + _how_many(row)


def _how_many(row: TableRow) -> str:
    """Behind a method's name: how many rows it made and their share, or that exact scores stand for all there are."""
    if row.get("exact"):
        return ", exact"
    return (f" x {row['made']}" if row["made"] else "") + _share(row)


def _share(row: TableRow) -> str:
    return "" if row.get("share") is None else f", share {row['share']:g}"


def _place(value: float | str) -> float:
    """Where a number of rows or shots lies on an axis; a range "1-5" at its middle."""
    low, _, high = str(value).partition("-")
    return (float(low) + float(high or low)) / 2


def _cell(text: str) -> str:
    """Text that cannot break a table's line."""
    return " ".join(text.replace("|", "\\|").split())


def _plus_minus(value: float, ends: Sequence[float | None]) -> str:
    low, high = ends
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} ± {(high - low) / 2:.2f}"


def _within(value: float, ends: Sequence[float | None]) -> str:
    low, high = ("?" if end is None else f"{end:.1f}" for end in ends)
    return f"{value:.2f} ({low} to {high})"


def _between(value: float, ends: Sequence[float | None]) -> str:
    low, high = ("?" if end is None else f"{end:+.2f}" for end in ends)
    return f"{value:+.2f} ({low} to {high})"


def _grouped(rows: Iterable[TableRow], *keys: str) -> dict[tuple, list[TableRow]]:
    found: dict[tuple, list[TableRow]] = defaultdict(list)
    for row in rows:
        found[tuple(row.get(key) for key in keys)].append(row)
    return found


def _plots(rows: Sequence[TableRow], out: Path) -> list[Path]:
    same = ("task", "representation", "views", "normalise", "synthesizer", "classifier", "weights", "share", "seed")
    lines = _grouped(rows, *same, "made")
    sweep = [row for row in rows if row["made"] and not row.get("exact")]
    gaining = {key: group for key, group in lines.items() if group[0]["p"] is not None}
    files = [_plot(lines, "shot", "accuracy", "ci95", out / ACCURACY)]
    if gaining:
        files.append(_plot(gaining, "shot", "gain", "gain_ci95", out / GAIN))
    if len({row["made"] for row in sweep}) > 1:
        over_made = _grouped(sweep, *same, "shot")
        files.append(_plot(over_made, "made", "gain", "gain_ci95", out / MADE))
    return files


def _plot(lines: dict[tuple, list[TableRow]], x: str, y: str, interval: str, path: Path) -> Path:
    """One line for each recipe with its intervals, slightly apart so that they do not hide each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = list(lines.values())[:_MOST_LINES]
    for i, group in enumerate(shown):
        group = sorted(group, key=lambda row: _place(row[x]))
        nudge = 1.02 ** (i - len(shown) / 2)  # the axis is logarithmic
        low, high = zip(*((r[y] - _end(r, interval, 0, y), _end(r, interval, 1, y) - r[y]) for r in group), strict=True)
        dashes = "--" if group[0].get("control") else "-"
        axes.errorbar([_place(r[x]) * nudge for r in group], [r[y] for r in group], yerr=(low, high), capsize=2,
                      marker=".", linestyle=dashes, linewidth=1, label=_label(group[0], x))  # fmt: skip
    ticks = sorted({row[x] for group in shown for row in group}, key=_place)
    axes.set_xscale("log")
    axes.set_xticks([_place(tick) for tick in ticks], [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel({"shot": "real shots of each class", "made": "made rows of each class"}[x])
    axes.set_ylabel({"accuracy": "accuracy, %", "gain": "gain over nothing, points"}[y])
    if y == "gain":
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    left = len(lines) - len(shown)
    axes.set_title(f"{left} more are in the table" if left else "", fontsize=8)
    axes.legend(fontsize=7)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, dpi=150, format="png", metadata={"Software": None})
    partial.replace(path)
    return path


def _end(row: TableRow, interval: str, side: int, y: str) -> float:
    """An end of an interval; where it has none, the value itself, so that the plot keeps its range."""
    end = row[interval][side]
    return row[y] if end is None else min(end, row[y]) if side == 0 else max(end, row[y])


def _label(row: TableRow, x: str) -> str:
    """A line's name, with dollar signs kept from being read as formulas."""
    made = _how_many(row) if x != "made" else _share(row)
    shot = f", {row['shot']} shots" if x == "made" else ""
    return f"{row['synthesizer']}{made}, {row['classifier']} on {_features(row)}{shot}".replace("$", r"\$")


_LOW_SHOT_LEGEND = """\
Percent, means over draws of the training rows of novel classes. Base classes keep all their training rows, and a \
query may be of either kind. "Prior": one number added to the scores of all novel classes, tuned on validation \
classes, or on halves of the queries where there are none. The gain is against `nothing` with the same classifier on \
the same draws, of all queries with the prior; its 95 % interval is over draws alone.
"""
_VERIFICATION_LEGEND = """\
Percent. Same and different pairs of rows of the novel people, as many of each. The threshold of the accuracy is found \
on the validation people. The 95 % intervals are over people drawn anew.
"""


def low_shot_markdown(rows: Sequence[TableRow]) -> str:
    """The rows of `run_low_shot` as Markdown: a table for each number of shots, and how to read it."""
    names = ["novel", "base", "all", "all, prior"]
    head = ["representation", "made rows", "classifier", *(f"{top} {n}" for top in ("top-1", "top-5") for n in names),
            "gain, top-1", "gain, top-5"]  # fmt: skip
    parts = []
    for (task, shot), group in _grouped(rows, "task", "shot").items():
        first = group[0]
        kinds = f"{first['novel_classes']} novel and {first['base_classes']} base classes"
        parts.append(f"## {task}: {shot} shots, {kinds}, {first['draws']} draws\n")
        lines = []
        for row in group:
            numbers = [f"{row[f'{top}_{key}']:.2f}" for top in ("top1", "top5")
                       for key in ("novel", "base", "all", "all_prior")]  # fmt: skip
            gains = ["", ""] if row["made"] == 0 else [
                _between(row[f"gain_{top}"], row[f"gain_{top}_ci95"]) for top in ("top1", "top5")
            ]  # fmt: skip
            control = " (control)" if row["control"] else ""
            lines.append([_cell(_features(row)), _method(row) + control, _cell(row["classifier"]), *numbers, *gains])
        parts.append(_markdown_table(head, lines))
    return "\n".join([*parts, _LOW_SHOT_LEGEND])


def verification_markdown(rows: Sequence[TableRow]) -> str:
    """The rows of `run_verification` as Markdown, and how to read them."""
    head = ["representation", "similarity", "area under ROC", "equal error rate", "accuracy"]
    first = rows[0]
    lines = [[_cell(_features(row)), row["similarity"],
              *(f"{row[key]:.2f} ({row[f'{key}_ci95'][0]:.2f} to {row[f'{key}_ci95'][1]:.2f})"
                for key in ("auc", "equal_error_rate", "accuracy"))] for row in rows]  # fmt: skip
    title = f"## {first['task']}: verification of {first['people']} people, {first['pairs']} pairs\n"
    return "\n".join([title, _markdown_table(head, lines), _VERIFICATION_LEGEND])


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)) + "\n"
