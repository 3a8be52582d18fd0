"""What a benchmark says of each class, as files beside its table: precision and recall, and who is taken for whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from augforge.bench.arm import confused, per_class
from augforge.bench.files import replace_rows
from augforge.bench.table import Results
from augforge.types import InputError

PER_CLASS, CONFUSION = "per_class.jsonl", "confusion"
_NAMES = ("digest", "task", "part", "representation", "synthesizer", "classifier", "made", "share", "shot", "seeds")


def write_per_class(results: Results, out: Path) -> None:
    """Write per_class.jsonl, a line for each row and class, and confusion/DIGEST.npz for each row, into `out`.

    A line has the names of its row, `class`, how many `queries` of it there were, and its `precision`, `recall` and
    `f1` in percent; lines of other runs stay. A .npz has `counts` [k, k] (true class by predicted, of all queries and
    seeds together) and the `classes` [k] by name. Raises InputError where the folder cannot be written.
    """
    lines = []
    try:
        (out / CONFUSION).mkdir(parents=True, exist_ok=True)
        for row, arm in zip(results.rows, results.arms, strict=True):
            found = per_class(arm, results.classes)
            columns = (found[key] for key in ("classes", "queries", "precision", "recall", "f1"))
            for name, queries, precision, recall, f1 in zip(*columns, strict=True):
                told = {"class": name, "queries": queries, "precision": precision, "recall": recall, "f1": f1}
                lines.append({key: row[key] for key in _NAMES} | told)
            path = out / CONFUSION / f"{row['digest']}.npz"
            partial = path.with_name(path.name + ".partial.npz")
            counts, ids = confused(arm)
            np.savez_compressed(partial, counts=counts, classes=np.array([results.classes[i] for i in ids.tolist()]))
            partial.replace(path)
        replace_rows(out / PER_CLASS, lines)
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be written ({error.strerror})") from error
