"""What the rows of a benchmark say as text: names, cells and columns, which gain decides, and the order of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from augforge.bench.files import TableRow

# Columns that are there where they are filled
CHOSEN, SPREAD, ECE, WORTH = "over best by validation", "gain's sd over seeds", "ECE", "worth in shots"
GAIN = "gain over classes"
FILLED = (CHOSEN, SPREAD, ECE, WORTH, GAIN, "wins", "verdict")
COLUMNS: tuple[tuple[str, Callable[[TableRow], str]], ...] = (
    ("representation", lambda r: cell(features_name(r))),
    ("made rows", lambda r: cell(method_name(r)) + (" (control)" if r.get("control") else "")),
    ("classifier", lambda r: cell(r["classifier"])),
    ("accuracy", lambda r: accuracy(r)),
    (GAIN, lambda r: "" if r["p"] is None else between(r["gain"], r["gain_ci95"])),
    ("over best plain", lambda r: "" if r.get("gain_over_best") is None
     else between(r["gain_over_best"], r["gain_over_best_ci95"])),
    (CHOSEN, lambda r: "" if r.get("gain_best") is None
     else f"{between(r['gain_best'], r['gain_best_ci95'])} {cell(r['best_plain'])}"),
    (SPREAD, lambda r: "" if r.get("gain_sd") is None or r["p"] is None else f"{r['gain_sd']:.2f}"),
    ("wins", lambda r: "" if r["win_rate"] is None else f"{r['win_rate']:.0f} %"),
    ("F1", lambda r: f"{r['f1']:.1f}"),
    (ECE, lambda r: "" if r.get("ece") is None else f"{r['ece']:.1f}"),
    (WORTH, lambda r: worth(r)),
    ("verdict", lambda r: r.get("verdict") or ""),
)  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """A table as text: its title, the names of its columns, its lines, and which lines are of controls."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    controls: Sequence[bool]


def columns_of(rows: Sequence[TableRow]) -> list[tuple[str, Callable[[TableRow], str]]]:
    """The columns that the rows of a table fill, each with its name and what makes its cells."""
    found = [(name, text) for name, text in COLUMNS if name not in FILLED or any(map(text, rows))]
    return [("gain" if name == GAIN and is_own(rows[0]) else name, text) for name, text in found]


def grouped(rows: Iterable[TableRow], *keys: str) -> dict[tuple, list[TableRow]]:
    """The rows with equal values of `keys` together, in the order of their first."""
    found: dict[tuple, list[TableRow]] = defaultdict(list)
    for row in rows:
        found[tuple(row.get(key) for key in keys)].append(row)
    return found


def tables_of(rows: Sequence[TableRow]) -> list[list[TableRow]]:
    """The rows of each task and number of shots, as `sorted_rows` has them."""
    return [sorted_rows(group) for group in grouped(rows, "task", "part", "way", "shot").values()]


def sorted_rows(rows: Sequence[TableRow]) -> list[TableRow]:
    """Methods by what they gain, the most first, and behind them the controls in the same way; equal ones stay."""
    return sorted(rows, key=lambda row: (bool(row.get("control")), -deciding_gain(row)[0]))


def deciding_gain(row: TableRow) -> tuple[float, Sequence[float | None]]:
    """The gain that decides, and its interval: over the best plain classifier by validation where that was asked for,
    else over the best one on these episodes, else over `nothing` with the same classifier.
    """
    for name in ("gain_best", "gain_over_best"):
        if row.get(name) is not None:
            return row[name], row[f"{name}_ci95"]
    return row["gain"], row["gain_ci95"]


def gain_ends(row: TableRow) -> tuple[float, float]:
    """The ends of the interval of the gain that decides; the gain itself where it has none."""
    gain, ends = deciding_gain(row)
    low, high = (gain if end is None else end for end in ends)
    return min(low, gain), max(high, gain)


def title_of(rows: Sequence[TableRow]) -> str:
    """Of a table of one number of shots: the task, way and shots, and how many episodes or queries."""
    first = rows[0]
    return f"{first['task']}: {first['way']}-way {first['shot']}-shot{where_of(rows)}, {trials_of(rows)}"


def where_of(rows: Sequence[TableRow]) -> str:
    """Behind a title: " on validation classes", where that is so."""
    return "" if rows[0]["part"] == "novel" else " on validation classes"


def trials_of(rows: Sequence[TableRow]) -> str:
    """How many episodes with how many queries, or queries of what, and over how many training seeds."""
    first = rows[0]
    seeds = "" if first.get("seeds", 1) == 1 else f", mean over {first['seeds']} training seeds"
    if first.get("test") is not None:
        return f"{first['query']} queries of {first['test']}{seeds}"
    return f"{first['trials']} episodes, {first['query']} queries{seeds}"


def is_own(row: TableRow) -> bool:
    """Whether a row is of a task of one's own: without base classes."""
    return row.get("base_classes") == 0


def features_name(row: TableRow) -> str:
    """A representation's name, and behind it what was done to its features."""
    views, normalise = (row.get(key, "none") for key in ("views", "normalise"))
    done = ([f"views {views}"] if views != "none" else []) + ([normalise] if normalise != "none" else [])
    return ", ".join([row["representation"], *done])


def method_name(row: TableRow) -> str:
    """A method's name, and how much it made."""
    return row["synthesizer"] + how_many(row)


def how_many(row: TableRow) -> str:
    """Behind a method's name: how many rows it made and their share, or that exact scores stand for all there are."""
    if row.get("exact"):
        return ", exact"
    return (f" x {row['made']}" if row["made"] else "") + share(row)


def share(row: TableRow) -> str:
    """Behind a method's name: what its rows weigh together, where that was given."""
    return "" if row.get("share") is None else f", share {row['share']:g}"


def accuracy(row: TableRow) -> str:
    """The accuracy with its interval."""
    return (within if is_own(row) else plus_minus)(row["accuracy"], accuracy_ends(row))


def accuracy_ends(row: TableRow) -> Sequence[float | None]:
    """The interval of the accuracy: over pictures where the classes are one's own, else over episodes."""
    ends: Sequence[float | None] = row["ci95_pictures" if is_own(row) else "ci95"]
    return ends


def worth(row: TableRow) -> str:
    """What an accuracy is worth in real shots; nothing where there is no curve to read that from."""
    if row.get("test") is not None or (is_own(row) and row["p"] is None):
        return ""
    return row.get("shot_worth_says") or ""


def cell(text: str) -> str:
    """Text that cannot break a line of a Markdown table."""
    return one_line(text.replace("|", "\\|"))


def one_line(text: str) -> str:
    """Text without line ends and what a terminal would take for a command."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def plus_minus(value: float, ends: Sequence[float | None]) -> str:
    """ "83.05 ± 0.48" """
    low, high = ends
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} ± {(high - low) / 2:.2f}"


def within(value: float, ends: Sequence[float | None]) -> str:
    """ "96.11 (92.2 to 98.1)" """
    low, high = ("?" if end is None else f"{end:.1f}" for end in ends)
    return f"{value:.2f} ({low} to {high})"


def between(value: float, ends: Sequence[float | None]) -> str:
    """ "+1.51 (+1.26 to +1.76)" """
    low, high = ("?" if end is None else f"{end:+.2f}" for end in ends)
    return f"{value:+.2f} ({low} to {high})"


def within_most(intervals: Sequence[tuple[float, float]], left_out: int | None = None) -> tuple[float, float]:
    """The range [low, high] of an axis on which intervals, and 0, can be told apart: all of them, or all but up to
    `left_out` (a quarter), where few lie so far out that without them the range is at most a third.
    """
    lows, highs = sorted(low for low, _ in intervals), sorted((high for _, high in intervals), reverse=True)
    low, high = min([0.0, *lows]), max([0.0, *highs])
    most = len(intervals) // 4 if left_out is None else left_out
    for fewer in range(1, most + 1):
        for below in range(fewer, -1, -1):
            kept = [ends for ends in intervals if ends[0] >= lows[below] and ends[1] <= highs[fewer - below]]
            if len(kept) < max(1, len(intervals) - fewer):
                continue
            start, end = min(0.0, *(low for low, _ in kept)), max(0.0, *(high for _, high in kept))
            if end - start <= (high - low) / 3:
                return within_most(kept, most - fewer)
    return low, high
