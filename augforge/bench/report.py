"""The files of a benchmark's rows that people read: Markdown, CSV, LaTeX, plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from augforge.bench.columns import (
    Sheet,
    between,
    cell,
    columns_of,
    features_name,
    grouped,
    is_own,
    method_name,
    tables_of,
    title_of,
)  # fmt: skip
from augforge.bench.exports import csv_text, tex_text
from augforge.bench.files import TableRow
from augforge.bench.plots import write_plots
from augforge.bench.recipes import Recipe
from augforge.bench.verdict import verdicts
from augforge.types import InputError, capabilities

TABLE, CSV, TEX = "table.md", "table.csv", "table.tex"


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
    """Write table.md, table.csv, table.tex and the figures of `write_plots` into the folder `out`.

    `rows` are those of `benchmark.run` or of a bench.jsonl. Gives the files. Raises InputError where there is no
    row, or the folder cannot be written.
    """
    if not rows:
        raise InputError(f"there are no rows to report in {str(out)!r}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        texts = {TABLE: markdown(rows), CSV: csv_text(rows), TEX: tex_text(rows)}
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
        files = [*(out / name for name in texts), *write_plots(rows, out)]
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be written ({error.strerror})") from error
    return files


def markdown(rows: Sequence[TableRow]) -> str:
    """The rows as Markdown: what they come to, a table for each task and number of shots, and how to read it."""
    parts = ["".join(f"- {cell(sentence)}\n" for sentence in verdicts(rows))]
    for table in tables_of(rows):
        columns = columns_of(table)
        lines = [[text(row) for _, text in columns] for row in table]
        parts += [f"## {title_of(table)}\n", _markdown_table([name for name, _ in columns], lines)]
    return "\n".join([*parts, legend(rows)])


def legend(rows: Sequence[TableRow]) -> str:
    """How to read a table: what its rows have need of."""
    own = [row for row in rows if is_own(row)]
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


LOW_SHOT_LEGEND = """\
Percent, means over draws of the training rows of novel classes. Base classes keep all their training rows, and a \
query may be of either kind. "Prior": one number added to the scores of all novel classes, tuned on validation \
classes, or on halves of the queries where there are none. The gain is against `nothing` with the same classifier on \
the same draws, of all queries with the prior; its 95 % interval is over draws alone.
"""
VERIFICATION_LEGEND = """\
Percent. Same and different pairs of rows of the novel people, as many of each. The threshold of the accuracy is found \
on the validation people. The 95 % intervals are over people drawn anew.
"""


def low_shot_markdown(rows: Sequence[TableRow]) -> str:
    """The rows of `run_low_shot` as Markdown: a table for each number of shots, and how to read it."""
    return _sheets_markdown(low_shot_sheets(rows), LOW_SHOT_LEGEND)


def low_shot_sheets(rows: Sequence[TableRow]) -> list[Sheet]:
    """A table for each number of shots of the rows of `run_low_shot`."""
    names = ["novel", "base", "all", "all, prior"]
    head = ["representation", "made rows", "classifier", *(f"{top} {n}" for top in ("top-1", "top-5") for n in names),
            "gain, top-1", "gain, top-5"]  # fmt: skip
    sheets = []
    for (task, shot), group in grouped(rows, "task", "shot").items():
        first = group[0]
        kinds = f"{first['novel_classes']} novel and {first['base_classes']} base classes"
        lines = []
        for row in group:
            numbers = [f"{row[f'{top}_{key}']:.2f}" for top in ("top1", "top5")
                       for key in ("novel", "base", "all", "all_prior")]  # fmt: skip
            gains = ["", ""] if row["made"] == 0 else [
                between(row[f"gain_{top}"], row[f"gain_{top}_ci95"]) for top in ("top1", "top5")
            ]  # fmt: skip
            control = " (control)" if row["control"] else ""
            lines.append([features_name(row), method_name(row) + control, row["classifier"], *numbers, *gains])
        controls = [bool(row["control"]) for row in group]
        sheets.append(Sheet(f"{task}: {shot} shots, {kinds}, {first['draws']} draws", head, lines, controls))
    return sheets


def verification_markdown(rows: Sequence[TableRow]) -> str:
    """The rows of `run_verification` as Markdown, and how to read them."""
    return _sheets_markdown(verification_sheets(rows), VERIFICATION_LEGEND)


def verification_sheets(rows: Sequence[TableRow]) -> list[Sheet]:
    """The table of the rows of `run_verification`."""
    head = ["representation", "similarity", "area under ROC", "equal error rate", "accuracy"]
    first = rows[0]
    lines = [[features_name(row), row["similarity"],
              *(f"{row[key]:.2f} ({row[f'{key}_ci95'][0]:.2f} to {row[f'{key}_ci95'][1]:.2f})"
                for key in ("auc", "equal_error_rate", "accuracy"))] for row in rows]  # fmt: skip
    title = f"{first['task']}: verification of {first['people']} people, {first['pairs']} pairs"
    return [Sheet(title, head, lines, [False] * len(lines))]


def _sheets_markdown(sheets: Iterable[Sheet], legend: str) -> str:
    parts = []
    for sheet in sheets:
        lines = [[cell(text) for text in line] for line in sheet.lines]
        parts += [f"## {sheet.title}\n", _markdown_table(sheet.head, lines)]
    return "\n".join([*parts, legend])


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|" + "---|" * len(head)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"
