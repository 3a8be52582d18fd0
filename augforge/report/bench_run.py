"""The section of a report page about a folder of `augforge bench --out`: verdict, charts, arms, classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augforge.bench.columns import (
    CHOSEN,
    ECE,
    GAIN,
    SPREAD,
    WORTH,
    columns_of,
    features_name,
    grouped,
    method_name,
    one_line,
    tables_of,
    title_of,
)  # fmt: skip
from augforge.bench.files import COMMANDS, CONFUSION, LOW_SHOT, PER_CLASS, RESULTS, VERIFICATION, TableRow, read_results
from augforge.bench.plots import gain_chart, shots_chart
from augforge.bench.report import (
    LOW_SHOT_LEGEND,
    VERIFICATION_LEGEND,
    legend,
    low_shot_sheets,
    verification_sheets,
)  # fmt: skip
from augforge.bench.verdict import verdicts
from augforge.figures import COLOURS, FAINT, GREY, INK, as_bytes
from augforge.report.parts import Cell, Section, Table, cell_of, date_of, facts_of, table_of
from augforge.types import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NEEDED = ("task", "part", "representation", "synthesizer", "classifier", "way", "shot", "accuracy", "gain",
           "gain_ci95", "p")  # fmt: skip
_MOST_CHARTS = 6  # of gains; of more numbers of shots the tables are there
_MOST_PAIRS = 30  # of classes that are taken for each other
_VALUES: dict[str, Callable[[TableRow], float | None]] = {
    "accuracy": lambda row: row["accuracy"],
    GAIN: lambda row: row["gain"],
    "gain": lambda row: row["gain"],
    "over best plain": lambda row: row.get("gain_over_best"),
    CHOSEN: lambda row: row.get("gain_best"),
    SPREAD: lambda row: row.get("gain_sd"),
    "wins": lambda row: row.get("win_rate"),
    "F1": lambda row: row.get("f1"),
    ECE: lambda row: row.get("ece"),
    WORTH: lambda row: row.get("shot_worth") or 0.0,
}  # what a column is sorted by, to all digits of bench.jsonl


def bench_section(folder: Path) -> Section:
    """What a folder of `bench --out` came to; raises InputError for rows that are not those of a benchmark."""
    section = Section("bench", folder.resolve().name or str(folder))
    newest = max((path for name in (RESULTS, LOW_SHOT, VERIFICATION) if (path := folder / name).is_file()),
                 key=lambda path: path.stat().st_mtime)  # fmt: skip
    found: list[TableRow] = []
    try:
        for name, add in ((RESULTS, _add_episodes), (LOW_SHOT, _add_low_shot), (VERIFICATION, _add_verification)):
            if rows := read_results(folder / name):
                add(section, rows, folder)
                found += rows
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"the rows in {str(newest)!r} are not those of this version of bench ({error!r})") from error
    if not found:
        raise InputError(f"{str(newest)!r} has no row; expected what `bench --out` wrote")
    section.facts += _facts(found, folder, newest)
    return section


def _add_episodes(section: Section, rows: Sequence[TableRow], folder: Path) -> None:
    for number, row in enumerate(rows, 1):
        if lacking := [name for name in _NEEDED if name not in row]:
            raise InputError(f"line {number} of {str(folder / RESULTS)!r} has no {lacking[0]!r}; expected a row of a "
                             "benchmark")  # fmt: skip
    section.verdict += verdicts(rows)
    tables = tables_of(rows)
    for table in tables[:_MOST_CHARTS]:
        for narrow in (False, True):  # of which the page shows one
            svg = inline_svg(gain_chart(table, narrow), f"c{len(section.charts)}-")
            section.charts.append((f"Gains: {title_of(table)}", svg, "narrow" if narrow else "wide"))
    for group in grouped(rows, "task", "part", "way").values():
        if len({row["shot"] for row in group}) > 1:
            section.charts.append((f"Accuracy by shots: {group[0]['task']}",
                                   inline_svg(shots_chart(group), f"c{len(section.charts)}-"), "any"))  # fmt: skip
    note = legend(rows).replace("\n", " ")
    section.tables += [_arms(table, "" if number else note) for number, table in enumerate(tables)]
    by_class = grouped(read_results(folder / PER_CLASS), "digest")
    for table in tables:
        if found := _classes(table, {digest: lines for (digest,), lines in by_class.items()}):
            section.tables.append(found)
        if found := _confused(table, folder):
            section.tables.append(found)


def _arms(table: Sequence[TableRow], note: str) -> Table:
    """A line for each row of a table, in its order."""
    first, *others = columns_of(table)
    columns = [*others, first]  # on a phone what differs is seen first
    lines = [[_cell(name, text(row).replace("\\|", "|"), row) for name, text in columns] for row in table]
    grey = [bool(row.get("control")) for row in table]
    return Table(f"Arms: {title_of(table)}", [name for name, _ in columns], lines, note, grey)


def _cell(name: str, text: str, row: TableRow) -> Cell:
    return Cell(text, _VALUES[name](row) if name in _VALUES and text else None)


def _classes(table: Sequence[TableRow], by_class: dict[Any, list[TableRow]]) -> Table | None:
    """Precision, recall and F1 of each class before and after: of the best row with nothing made, and of the best."""
    sides_of = {name: row for name, row in _before_and_after(table).items() if row.get("digest") in by_class}
    names, shown = list(sides_of), list(sides_of.values())
    if not shown:
        return None
    sides = [{line["class"]: line for line in by_class[row["digest"]]} for row in shown]
    measures = {"precision": "precision", "recall": "recall", "F1": "f1"}
    head = ["class", "queries", *(f"{word}, {name}" for word in measures for name in names)]
    head += ["change of F1"] if len(shown) == 2 else []
    lines = []
    for cls, first in sides[0].items():
        of_each = [side.get(cls) for side in sides]
        line = [Cell(one_line(cls)), Cell(str(first["queries"]), first["queries"])]
        line += [Cell("", None) if one is None else Cell(f"{one[key]:.2f}", one[key])
                 for key in measures.values() for one in of_each]  # fmt: skip
        if len(shown) == 2:
            change = None if of_each[1] is None else of_each[1]["f1"] - first["f1"]
            line.append(Cell("" if change is None else f"{change:+.2f}", change))
        lines.append(line)
    note = "Percent. " + "; ".join(f"{name}: {_of(row)}" for name, row in sides_of.items()) + "."
    return Table(f"Classes: {title_of(table)}", head, lines, note)


def _before_and_after(table: Sequence[TableRow]) -> dict[str, TableRow]:
    """The best row with nothing made, and the best of those that made rows, where they are there."""
    sides = {
        "before": [row for row in table if row["p"] is None],
        "after": [row for row in table if row["p"] is not None],
    }
    return {name: max(rows, key=lambda row: row["accuracy"]) for name, rows in sides.items() if rows}


def _confused(table: Sequence[TableRow], folder: Path) -> Table | None:
    """The pairs of classes that are taken for each other most often, before and after, in percent of the queries."""
    sides: dict[str, dict[tuple[str, str], float]] = {}
    for name, row in _before_and_after(table).items():
        path = folder / CONFUSION / f"{row.get('digest')}.npz"
        try:
            with np.load(path, allow_pickle=False) as found:
                counts, classes = found["counts"].astype(float), [one_line(str(cls)) for cls in found["classes"]]
        except (OSError, ValueError, KeyError):
            return None
        rates = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        np.fill_diagonal(rates, 0)
        sides[name] = {(classes[i], classes[j]): float(rates[i, j]) for i, j in zip(*np.nonzero(rates), strict=True)}
    pairs = sorted({pair for side in sides.values() for pair in side},
                   key=lambda pair: (-max(side.get(pair, 0.0) for side in sides.values()), pair))  # fmt: skip
    if not pairs:
        return None
    lines = [[Cell(pair[0]), Cell(pair[1]), *(Cell(f"{side.get(pair, 0.0):.2f}", side.get(pair, 0.0))
                                              for side in sides.values())] for pair in pairs[:_MOST_PAIRS]]  # fmt: skip
    note = f"Percent of the queries of a class; the {min(_MOST_PAIRS, len(pairs))} most frequent of {len(pairs)} pairs."
    return Table(f"Confusions: {title_of(table)}", ["class", "taken for", *sides], lines, note)


def _of(row: TableRow) -> str:
    return one_line(f"{method_name(row)} with {row['classifier']} on {features_name(row)}")


def _add_low_shot(section: Section, rows: Sequence[TableRow], _folder: Path) -> None:
    for sheet in low_shot_sheets(rows):
        table = table_of(sheet.title, sheet.head, sheet.lines, sheet.controls)
        section.tables.append(Table(table.title, table.head, table.lines, LOW_SHOT_LEGEND, sheet.controls))
    best = max(rows, key=lambda row: row["top1_all_prior"])
    section.verdict.append(f"low-shot: {_of(best)} is best of all queries with the prior at {best['shot']} shots, "
                           f"{best['top1_all_prior']:.2f} % top-1")  # fmt: skip


def _add_verification(section: Section, rows: Sequence[TableRow], _folder: Path) -> None:
    for sheet in verification_sheets(rows):
        lines = [[cell_of(text) for text in line] for line in sheet.lines]
        section.tables.append(Table(sheet.title, sheet.head, lines, VERIFICATION_LEGEND))
    best = max(rows, key=lambda row: row["accuracy"])
    section.verdict.append(f"verification: {best['accuracy']:.2f} % of pairs are decided rightly, area under ROC "
                           f"{best['auc']:.2f} %")  # fmt: skip


def _facts(rows: Sequence[TableRow], folder: Path, newest: Path) -> list[tuple[str, str]]:
    """Commands, seeds, digests, versions and machine of the rows, each value once."""
    commands = [(line["date"], line["command"]) for line in read_results(folder / COMMANDS) if "command" in line]
    facts = [("command", f"{command}  # {date}") for date, command in commands]
    if not commands:
        facts.append(("command", "not kept: the folder is of an older version, or was written from Python"))
    for name, key in (("seed", "seed"), ("seed of fitting and making", "fit_seed"), ("episodes", "episodes"),
                      ("features", "bank"), ("made by", "maker")):  # fmt: skip
        if values := list(dict.fromkeys(str(row[key]) for row in rows if row.get(key) is not None)):
            facts.append((name, ", ".join(values)))
    for record in ({"versions": row.get("versions"), "machine": row.get("machine")} for row in rows):
        facts += [fact for fact in facts_of(record) if fact not in facts]
    return [*facts, ("rows", f"{len(rows)}, in {newest.name}"), ("written", date_of(newest))]


# Charts as inline SVG

_COLOURS = {INK: "ink", GREY: "grey", FAINT: "faint", "#ffffff": "paper",
            **{colour.lower(): f"c{i}" for i, colour in enumerate(COLOURS)}}  # fmt: skip


def inline_svg(figure: Figure, prefix: str) -> str:
    """A figure as an <svg> element for a page: its ids begin with `prefix`, its colours are those of the page (CSS
    variables, so that it is dark where the page is), and it refers to nothing outside.
    """
    text = as_bytes(figure, "svg").decode("utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r"url\(#", f"url(#{prefix}", text)
    text = re.sub(r'href="#', f'href="#{prefix}', text)
    for colour, name in _COLOURS.items():
        text = re.sub(f": {colour}\\b", f": var(--{name})", text, flags=re.IGNORECASE)
    return text
