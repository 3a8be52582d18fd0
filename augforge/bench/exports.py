"""A benchmark's rows for other programs: flat rows for CSV and pandas, and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from augforge.bench.columns import (
    accuracy_ends,
    deciding_gain,
    features_name,
    grouped,
    method_name,
    sorted_rows,
    trials_of,
    where_of,
)  # fmt: skip
from augforge.bench.files import TableRow
from augforge.types import LackError


def flat(row: TableRow) -> dict[str, Any]:
    """A row with one value in each column: an interval NAME becomes NAME_low and NAME_high, an object's value KEY of
    NAME NAME.KEY, and other lists stay.
    """
    found: dict[str, Any] = {}
    for name, value in row.items():
        if "ci95" in name:
            found[f"{name}_low"], found[f"{name}_high"] = (None, None) if value is None else value
        elif isinstance(value, dict):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[name] = value
    return found


def frame(rows: Sequence[TableRow]) -> Any:
    """The rows as a pandas.DataFrame, a line for each as `flat` makes it; raises LackError without pandas."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise LackError("a table as a data frame needs pandas, which is not installed: pip install pandas") from error
    return pandas.DataFrame([flat(row) for row in rows])


def csv_text(rows: Sequence[TableRow]) -> str:
    """The rows as CSV with a header, in the order of the tables; lists as JSON, what is unknown empty."""
    lines = [flat(row) for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: json.dumps(value) if isinstance(value, list) else value for key, value in line.items()})
    return text.getvalue()


def tex_text(rows: Sequence[TableRow]) -> str:
    """The rows as LaTeX tables for booktabs, one for each task: a line for each recipe, and for each number of shots
    its accuracy and the gain that decides. The highest accuracy is bold.
    """
    return "\n".join(_tex_table(group) for group in grouped(rows, "task", "part", "way").values())


_SAME = ("representation", "views", "normalise", "synthesizer", "classifier", "made", "share", "weights", "exact")


def _tex_table(rows: Sequence[TableRow]) -> str:
    shots = list(dict.fromkeys(row["shot"] for row in rows))
    recipes = [{row["shot"]: row for row in group} for group in grouped(rows, *_SAME).values()]
    order = [id(row) for row in sorted_rows([next(iter(recipe.values())) for recipe in recipes])]
    recipes.sort(key=lambda recipe: order.index(id(next(iter(recipe.values())))))
    best = {shot: max(row["accuracy"] for row in rows if row["shot"] == shot) for shot in shots}
    several = len({features_name(row) for row in rows}) > 1
    words = [*(["features"] if several else []), "made rows", "classifier"]
    lines = [
        rf"% {_tex(rows[0]['task'])}: {rows[0]['way']}-way{where_of(rows)}, {trials_of(rows)}; accuracy in percent "
        "with its 95 % interval, and the gain in points over the best classifier with nothing made",
        rf"\begin{{tabular}}{{{'l' * len(words)}{'rr' * len(shots)}}}",
        r"\toprule",
        " & ".join([*[""] * len(words), *(rf"\multicolumn{{2}}{{c}}{{{shot}-shot}}" for shot in shots)]) + r" \\",
        " & ".join([*words, *["accuracy", "gain"] * len(shots)]) + r" \\",
        r"\midrule",
    ]
    control = False
    for recipe in recipes:
        first = next(iter(recipe.values()))
        if bool(first.get("control")) != control:
            control = not control
            lines += [r"\midrule"] if recipe is not recipes[0] else []
        names = [*([features_name(first)] if several else []), method_name(first), first["classifier"]]
        cells = [cell for shot in shots for cell in _tex_cells(recipe.get(shot), best[shot])]
        lines.append(" & ".join([*map(_tex, names), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex_cells(row: TableRow | None, best: float) -> tuple[str, str]:
    """Accuracy and gain of a recipe at one number of shots, empty where it was not run."""
    if row is None:
        return "", ""
    low, high = accuracy_ends(row)
    half = "" if low is None or high is None else rf" \pm {(high - low) / 2:.2f}"
    number = rf"\mathbf{{{row['accuracy']:.2f}}}" if row["accuracy"] == best else f"{row['accuracy']:.2f}"
    gain, ends = deciding_gain(row)
    if row["p"] is None and gain == 0:
        return f"${number}{half}$", ""
    within = ", ".join("?" if end is None else f"{end:+.2f}" for end in ends)
    return f"${number}{half}$", f"${gain:+.2f}$ $[{within}]$"


_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _tex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_SPECIAL.get(c, f"\\{c}" if c in "&%$#_{}" else c if c.isprintable() else " ") for c in text)
