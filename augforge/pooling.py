"""One table of several that differ in the seed of their training alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from augforge.bench.arm import Arm, Row, bootstrap_key, measured
from augforge.bench.table import Results, completed
from augforge.parts.saving import digest
from augforge.types import InputError


def pool(results: Sequence[Results]) -> Results:
    """The table of the means over training seeds, on the same episodes.

    Every episode's accuracy and gain is first averaged over the seeds; what is said of a single training - intervals
    over classes, verdicts, shot-worth - is then said of these means. The seeds are taken as they are: how far they
    are apart stands beside it, in `accuracy_by_seed`, `gain_by_seed` and their standard deviations `accuracy_sd` and
    `gain_sd`. The best plain classifier is chosen by its mean over the seeds too. Raises InputError for fewer than two
    tables, for tables of other episodes or recipes, and for a seed that comes twice.
    """
    seeds = [result.plan.training_seed for result in results]
    if len(set(seeds)) < max(2, len(seeds)):
        raise InputError(f"tables of the training seeds {seeds} were given; expected two or more, each once")
    first = results[0]
    told = [[_told(arm) for arm in result.arms] for result in results]
    if any(result.task != first.task or one != told[0] for result, one in zip(results, told, strict=True)):
        raise InputError("the tables are of other recipes or episodes; expected the same but for the seed of training")
    arms = _pooled_arms(results)
    rows = [_row(arm, [r.rows[i] for r in results], seeds, first.plan.seed) for i, arm in enumerate(arms)]
    chosen = [result.validation for result in results if result.validation is not None]
    validation = pool(chosen) if len(chosen) == len(results) else None
    return completed(replace(first, rows=rows, arms=arms, validation=validation))


def _told(arm: Arm) -> tuple[Any, ...]:
    recipe = arm.recipe
    made = recipe.made, recipe.weights, recipe.share
    return *recipe.shown().values(), *made, recipe.options, arm.shot, arm.trials.digest()


def _pooled_arms(results: Sequence[Results]) -> list[Arm]:
    """The arms of all tables at the same places as one, in the order of the first table."""
    arms: list[Arm] = []
    place = {id(arm): i for i, arm in enumerate(results[0].arms)}
    for i, arm in enumerate(results[0].arms):
        same = [result.arms[i] for result in results]
        outcomes = tuple(outcome for one in same for outcome in one.outcomes)
        plain = None if arm.plain is None else arms[place[id(arm.plain)]]  # plain arms come first
        arms.append(replace(arm, outcomes=outcomes, digest=digest([one.digest for one in same]), plain=plain))
    return arms


def _row(arm: Arm, rows: Sequence[Row], seeds: Sequence[int], seed: int) -> Row:
    """The row of a pooled arm: measured anew, and the facts of its rows where they agree."""
    facts: Row = {"task": rows[0]["task"], "part": rows[0]["part"], **measured(arm, bootstrap_key(seed))}
    for key in (key for key in rows[0] if key not in facts):
        values = [row[key] for row in rows]
        facts[key] = values[0] if all(value == values[0] for value in values) else digest(values)
    return facts | {"fit_seed": list(seeds), "seconds": round(sum(row["seconds"] for row in rows), 3)}
