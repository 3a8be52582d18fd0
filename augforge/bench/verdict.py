"""What a table of a benchmark comes to, in a sentence for each number of shots: the best recipe and its gain."""

from __future__ import annotations

from collections.abc import Sequence

from augforge.bench.columns import between, deciding_gain, grouped, method_name, one_line, tables_of, title_of, worth
from augforge.bench.files import TableRow


def verdicts(rows: Sequence[TableRow]) -> list[str]:
    """A sentence for each task and number of shots: `verdict`, with what it is of before it."""
    tables = tables_of(rows)
    alike = len(grouped(rows, "task", "part", "way")) == 1
    return [f"{_shots(table[0]) if alike else title_of(table)}: {verdict(table)}" for table in tables]


def verdict(rows: Sequence[TableRow]) -> str:
    """The best recipe of rows of the same shots, its gain over the best plain classifier, and its worth in shots.

    The best is the one of highest accuracy, a control too; then the best method that is none is named as well. Where
    the interval of the best one's gain does not lie above 0, that is what is said first.
    """
    made = [row for row in rows if row["p"] is not None]
    plain = _best([row for row in rows if row["p"] is None])
    if not made:
        return "nothing was made" if plain is None else f"{_name(plain)} is best, {plain['accuracy']:.2f} %"
    best = _best(made)
    assert best is not None
    many = f" (best of {len(made)})" if len(made) > 1 else ""
    over = best.get("best_plain") or ("classifiers" if plain is None else plain["classifier"])
    gain, ends = deciding_gain(best)
    said = f"{best['accuracy']:.2f} %, {between(gain, ends)} over plain {one_line(over)}"
    if ends[0] is not None and ends[0] > 0 and best.get("verdict", "helps") == "helps":
        found = f"{_name(best)}{many}: {said}{_worth(best)}"
    else:
        found = f"no sure gain; {_name(best)}{many}: {said}"
    other = _best([row for row in made if not row.get("control")])
    if best.get("control") and other is not None:
        found += f"; best that is no control: {_name(other)}, {between(*deciding_gain(other))}"
    return found


def _best(rows: Sequence[TableRow]) -> TableRow | None:
    """The first of the highest accuracy."""
    return max(rows, key=lambda row: row["accuracy"], default=None)


def _name(row: TableRow) -> str:
    control = " (control)" if row.get("control") and row["p"] is not None else ""
    method = one_line(method_name(row)) + control
    if one_line(row["classifier"]) == row["synthesizer"]:
        return method
    return f"{method} with {one_line(row['classifier'])}"


def _shots(row: TableRow) -> str:
    return f"{row['shot']} shot{'' if row['shot'] == 1 else 's'}"


def _worth(row: TableRow) -> str:
    says = worth(row)
    if not says:
        return ""
    one = row["shot"] == 1
    return f"; {'one shot is' if one else str(row['shot']) + ' shots are'} worth {says}"
