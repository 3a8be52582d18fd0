"""The quality of made rows: every metric of `augforge.metrics`, each beside the same number of held-out real rows.

All but diversity are taken at equal count, since most depend on how many rows there are: as many made rows of each
class as held-out ones. The kernel distance is that of sets with so many rows of each class (`kid_of_classes`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from augforge import chance
from augforge.metrics.by_class import by_class
from augforge.metrics.coverage import density_coverage, precision_recall
from augforge.metrics.diversity import diversity
from augforge.metrics.frechet import ROWS_PER_DIMENSION, enough_rows, frechet_distance
from augforge.metrics.kid import kid, kid_of_classes, kid_spread_of_classes
from augforge.metrics.memorisation import memorisation
from augforge.metrics.rows import TooFewRows
from augforge.types import Examples, InputError

Metric = Callable[[Tensor, Tensor], float]

_SUBSET = 100  # rows of a subset of the kernel distance, where there are as many
BY_CLASS: dict[str, Metric] = {
    "kid": kid,
    "precision": lambda real, made: precision_recall(real, made).precision,
    "recall": lambda real, made: precision_recall(real, made).recall,
    "density": lambda real, made: density_coverage(real, made).density,
    "coverage": lambda real, made: density_coverage(real, made).coverage,
    "diversity": lambda real, made: diversity(real, made).ratio,
}
_AT_EQUAL_COUNT = ("frechet", "kid", "precision", "recall", "density", "coverage")


@dataclass(frozen=True, eq=False)
class Sets:
    """Three sets of features, with labels 0..way-1."""

    real: Examples
    made: Examples
    held_out: Examples  # real ones that the generator was not shown
    classes: tuple[str, ...]  # names, by label

    def __post_init__(self) -> None:
        """Raise TooFewRows where one of the sets is empty."""
        for name, rows in (("real", self.real), ("made", self.made), ("held-out", self.held_out)):
            if not len(rows):
                raise TooFewRows(f"there are no {name} rows of the classes that are measured; expected at least 1")


def compute_quality(sets: Sets, seed: int = 0) -> dict[str, Any]:
    """Every metric that needs nothing but features, as one object that JSON can hold.

    "rows" counts them, and "classes" those that have some in every set; "metrics" is a list of {"metric", "made",
    "held_out", "note"}, where a number that is not defined is None and the note says why; "memorisation" has ratios
    with intervals; "per_class" goes by class name.
    The same `seed` draws the same rows. Raises InputError for features of different width or not finite.
    """
    real, made, held_out = (_features(rows) for rows in (sets.real, sets.made, sets.held_out))
    few_made, few_held_out = _equal(sets.made.y, sets.held_out.y, seed)
    pairs = dict.fromkeys(BY_CLASS, (made, held_out))
    pairs |= dict.fromkeys(_AT_EQUAL_COUNT, (made[few_made], held_out[few_held_out]))
    rows = {"real": len(real), "made": len(made), "held_out": len(held_out), "equal_count": len(few_made)}
    metrics = [_compared("frechet", frechet_distance, real, *pairs["frechet"])]
    metrics[0]["note"] = metrics[0]["note"] or _frechet_note(min(len(real), len(few_made)), real.shape[1])
    metrics.append(_kernel_distance(sets, few_made, few_held_out, seed))
    metrics += [_compared(name, metric, real, *pairs[name]) for name, metric in BY_CLASS.items() if name != "kid"]
    per_class = _per_class(sets, few_made, few_held_out)
    metrics.append(_within(per_class, "diversity"))
    return {
        "rows": rows, "classes": int(_counts(sets).all(0).sum()), "metrics": metrics,
        "memorisation": _memorised(sets, seed), "per_class": per_class,
    }  # fmt: skip


def _features(rows: Examples) -> Tensor:
    """The features [n, d] of a set; raises InputError for pictures of several sizes."""
    if not isinstance(rows.x, Tensor):
        raise InputError("there are pictures of several sizes; expected features [n, d]")
    return rows.x


def _equal(made: Tensor, held_out: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of labels `made` [m] and `held_out` [h]: as many of each class from both, drawn by `seed`."""
    found: list[list[Tensor]] = [[], []]
    for label in torch.unique(held_out).tolist():
        drawn = [_shuffled((y == label).nonzero()[:, 0], seed, f"equal {label}") for y in (made, held_out)]
        count = min(map(len, drawn))
        for parts, rows in zip(found, drawn, strict=True):
            parts.append(rows[:count])
    return torch.cat(found[0]), torch.cat(found[1])


def _shuffled(rows: Tensor, seed: int, purpose: str) -> Tensor:
    keys = chance.row_keys(seed, purpose, torch.arange(len(rows)))
    return rows[torch.argsort(chance.uniform64(keys), stable=True)]


def _compared(name: str, metric: Metric, real: Tensor, made: Tensor, held_out: Tensor) -> dict[str, Any]:
    """A line of the table: the metric of made rows and of held-out rows, each against the real ones."""
    values: dict[str, float | None] = {}
    notes = []
    for side, rows in (("made", made), ("held_out", held_out)):
        try:
            values[side] = _finite(metric(real, rows))
        except TooFewRows as error:
            values[side] = None
            reason = str(error) if side == "made" else str(error).replace("made", "held-out")
            notes.append(f"too few rows: {reason}")
    return {"metric": name, **values, "note": "; ".join(dict.fromkeys(notes))}


def _frechet_note(n: int, d: int) -> str:
    if enough_rows(n, d):
        return ""
    needed = ROWS_PER_DIMENSION * d
    return f"too few rows: {n} for {d} dimensions, where {needed} are needed; the number says little else"


def _kernel_distance(sets: Sets, few_made: Tensor, few_held_out: Tensor, seed: int) -> dict[str, Any]:
    """The line of the kernel distance, at equal count, of the classes that have 2 rows on every side."""
    sides = {"made": sets.made.take(few_made), "held_out": sets.held_out.take(few_held_out)}
    counts = torch.stack([torch.bincount(x.y, minlength=len(sets.classes)) for x in (sets.real, *sides.values())])
    there, enough = (counts > 0).all(0), (counts >= 2).all(0)  # [k]
    line: dict[str, Any] = {"metric": "kid", "made": None, "held_out": None, "note": ""}
    if not bool(enough.any()):
        return line | {"note": "too few rows: no class has 2 rows on every side"}
    if bool((there & ~enough).any()):
        line["note"] = f"without {int((there & ~enough).sum())} classes that have fewer than 2 rows on a side"
    real, *others = [_of_classes(rows, enough) for rows in (sets.real, *sides.values())]
    try:
        found = [kid_spread_of_classes(real, rows, _SUBSET, seed=seed) for rows in others]
        line["spread"] = dict(zip(sides, (subsets.spread for subsets in found), strict=True))
        line["subset_size"] = found[0].size
    except TooFewRows as error:
        line["note"] = "; ".join(filter(None, (line["note"], f"too few rows for a spread: {error}")))
    return line | {side: _finite(kid_of_classes(real, rows)) for side, rows in zip(sides, others, strict=True)}


def _of_classes(rows: Examples, which: Tensor) -> tuple[Tensor, Tensor]:
    """The features and labels of the classes `which` [k]."""
    some = rows.take(which[rows.y])
    return _features(some), some.y


def _counts(sets: Sets) -> Tensor:
    """How many rows each class has in each set: [3, k]."""
    return torch.stack(
        [torch.bincount(x.y, minlength=len(sets.classes)) for x in (sets.real, sets.made, sets.held_out)]
    )


def _memorised(sets: Sets, seed: int) -> dict[str, Any]:
    """Ratios of distances to the nearest real row, made over held-out."""
    try:
        found = memorisation(_features(sets.real), _features(sets.made), _features(sets.held_out), seed=seed)
    except TooFewRows as error:
        return {"note": f"too few rows: {error}"}
    record = asdict(found)
    for name in ("mean", "median"):
        record[name] = {key: _finite(value) for key, value in record[name].items()}
    return record | {"note": ""}


def _per_class(sets: Sets, few_made: Tensor, few_held_out: Tensor) -> dict[str, dict[str, Any]]:
    """For each class its rows, the metrics of both sides, and in words which of them had too few rows."""
    counts = _counts(sets)
    found: dict[str, dict[str, Any]] = {
        name: {"rows": dict(zip(("real", "made", "held_out"), (int(c[i]) for c in counts), strict=True)), "too_few": {}}
        for i, name in enumerate(sets.classes)
    }
    for name, metric in BY_CLASS.items():
        sides = {"made": sets.made, "held_out": sets.held_out}
        if name in _AT_EQUAL_COUNT:
            sides = {"made": sets.made.take(few_made), "held_out": sets.held_out.take(few_held_out)}
        for side, rows in sides.items():
            values = by_class(metric, [(_features(sets.real), sets.real.y), (_features(rows), rows.y)])
            for i, label in enumerate(sets.classes):
                found[label].setdefault(name, {})[side] = _finite(values.values.get(i, math.nan))
                if i in values.too_few:
                    reason = values.too_few[i].replace("made", "held-out") if side == "held_out" else values.too_few[i]
                    found[label]["too_few"].setdefault(name, reason)
    return found


def _within(per_class: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """A line of the table: the mean over classes of a metric within each; classes with too few rows are left out."""
    both = [c[name] for c in per_class.values() if None not in (c[name]["made"], c[name]["held_out"])]
    note = "" if len(both) == len(per_class) else f"too few rows in {len(per_class) - len(both)} classes"
    values = {side: _mean([value[side] for value in both]) for side in ("made", "held_out")}
    return {"metric": f"{name}_within_classes", **values, "note": note}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _finite(value: float) -> float | None:
    """A number that JSON can hold."""
    return float(value) if math.isfinite(value) else None
