"""A finished table of a benchmark: its rows beside each other, and what was measured to choose by."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from augforge import __version__, statistics
from augforge.bench.arm import Arm, Row, best_plain, bootstrap_key, by_features, complete, ends, percent
from augforge.bench.plan import Plan
from augforge.machine import machine, versions


@dataclass(frozen=True, eq=False)
class Results:
    """A table: `rows` as JSON objects, the `arms` behind them in the same order, and class names of the judged bank.

    `validation` is the table on validation classes that the best plain classifier was chosen by, if that was asked for.
    """

    task: str
    plan: Plan
    rows: list[Row]
    arms: list[Arm]
    classes: Sequence[str]
    validation: Results | None = None

    def as_json(self) -> dict[str, Any]:
        """What `augforge bench --json` prints."""
        return {"task": self.task, "seed": self.plan.seed, "part": self.plan.part, "against": self.plan.against,
                "versions": versions_once(), "machine": machine_once(), "rows": self.rows}  # fmt: skip


def completed(results: Results) -> Results:
    """The same table with what needs all of it filled in, in place."""
    complete(results.rows, results.arms, bootstrap_key(results.plan.seed))
    if results.validation is not None:
        _beside_chosen(results.rows, results.arms, results.validation.arms)
    return results


def _beside_chosen(rows: Sequence[Row], arms: Sequence[Arm], validation: Sequence[Arm]) -> None:
    """The gain over the plain classifier that is best on the validation classes, for each features and shots.

    `rows` are those of `arms`; every plain recipe of theirs is among the arms `validation`, and has the same objects.
    """
    for members in by_features(arms):
        first = arms[members[0]].recipe
        same = [arm for arm in validation if _features(arm) == (id(first.representation), first.options)]
        for shot, chosen in best_plain(same).items():
            name = chosen.recipe.shown()["classifier"]
            at_shot = [i for i in members if arms[i].shot == shot]
            judged = next(arms[i] for i in at_shot if arms[i].plain is None
                          and arms[i].recipe.shown()["classifier"] == name)  # fmt: skip
            for i in at_shot:
                over = statistics.class_interval(arms[i].correct - judged.correct, judged.trials.clusters)
                rows[i].update(best_plain=name, gain_best=percent(over.value), gain_best_ci95=ends(over))


def _features(arm: Arm) -> tuple[int, Any]:
    return id(arm.recipe.representation), arm.recipe.options


@functools.cache
def versions_once() -> dict[str, str]:
    """The versions that a row names."""
    return {"augforge": __version__, **versions()}


@functools.cache
def machine_once() -> dict[str, Any]:
    """The machine that a row names."""
    return machine()
