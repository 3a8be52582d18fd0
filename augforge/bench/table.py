"""A finished table of a benchmark: its rows beside each other, and tables of several training seeds pooled."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augforge import __version__, statistics
from augforge.bench.accuracy import Worth, shot_worth
from augforge.bench.exports import frame
from augforge.bench.on_screen import as_text
from augforge.bench.plan import BenchPlan, Shots, mean_shots
from augforge.bench.recipe_result import RecipeResult, TableRow, bootstrap_key, confused, ends, percent, table_row
from augforge.machine import machine, versions
from augforge.parts.saving import digest
from augforge.representations.options import BankOptions
from augforge.types import InputError


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """A table, and what it was made of; printed, it fits a screen of 80 x 24 characters."""

    task: str
    plan: BenchPlan
    rows: list[TableRow]  # JSON objects
    by_recipe: list[RecipeResult]  # what is behind the rows, in the same order
    classes: Sequence[str]  # names of the classes of the bank that the episodes are of
    validation: Results | None = None  # on validation classes, where the best plain classifier was chosen by them

    def confusions(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """For each row the counts [k, k], true class by predicted, and the k class ids that they are of."""
        return [confused(result) for result in self.by_recipe]

    def to_frame(self) -> Any:
        """The rows as a pandas.DataFrame, intervals as two columns; raises LackError where pandas is not installed."""
        return frame(self.rows)

    def __repr__(self) -> str:
        """What the table comes to, and its first rows."""
        return as_text(self.rows)

    def as_json(self) -> dict[str, Any]:
        """What `augforge bench --json` prints."""
        return {"task": self.task, "seed": self.plan.seed, "part": self.plan.part, "against": self.plan.against,
                "versions": versions_once(), "machine": machine_once(), "rows": self.rows}  # fmt: skip


def completed(results: Results) -> Results:
    """The same table with what needs all of it filled in, in place."""
    complete(results.rows, results.by_recipe, bootstrap_key(results.plan.seed))
    if results.validation is not None:
        _beside_chosen(results.rows, results.by_recipe, results.validation.by_recipe)
    return results


def _beside_chosen(
    rows: Sequence[TableRow], results: Sequence[RecipeResult], validation: Sequence[RecipeResult]
) -> None:
    """The gain over the plain classifier that is best on the validation classes, for each features and shots.

    `rows` are those of `results`; every plain recipe of theirs is in `validation` too, with the same objects.
    """
    for members in by_features(results):
        first = results[members[0]].recipe
        same = [result for result in validation if _features(result) == (id(first.representation), first.options)]
        for shot, chosen in best_plain(same).items():
            name = chosen.recipe.shown()["classifier"]
            at_shot = [i for i in members if results[i].shot == shot]
            best = next(results[i] for i in at_shot if results[i].plain is None
                        and results[i].recipe.shown()["classifier"] == name)  # fmt: skip
            for i in at_shot:
                over = results[i].over(best)
                rows[i].update(best_plain=name, gain_best=percent(over.value), gain_best_ci95=ends(over))


def _features(result: RecipeResult) -> tuple[int, BankOptions]:
    return id(result.recipe.representation), result.recipe.options


def complete(rows: Sequence[TableRow], results: Sequence[RecipeResult], seed: int) -> None:
    """Fill in, in place, what needs the whole table: the best plain recipe, shot-worth, and the verdicts.

    `rows` are those of `results`, in the same order. The best plain recipe of a representation is that with the highest
    accuracy at each shot, chosen on these very episodes, which flatters it: the gains over it are the harder test.
    """
    tested = [i for i, result in enumerate(results) if result.plain is not None]
    intervals = [result.over(result.plain) for result in results if result.plain is not None]
    if intervals:
        adjusted, words = statistics.adjusted(intervals), statistics.verdicts(intervals)
        for i, p, word in zip(tested, adjusted, words, strict=True):
            rows[i].update(p_holm=float(p), verdict=word)
    for members in by_features(results):
        _beside_best([rows[i] for i in members], [results[i] for i in members], seed)


def by_features(results: Sequence[RecipeResult]) -> list[list[int]]:
    """The places of the results, those on the same features together."""
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        groups[id(result.recipe.representation), result.recipe.options].append(i)
    return list(groups.values())


def _beside_best(rows: Sequence[TableRow], results: Sequence[RecipeResult], seed: int) -> None:
    """The gain over the best plain recipe at the same shots, and shot-worth, for results of one representation."""
    best = best_plain(results)
    single = [shot for shot in best if isinstance(shot, int)]  # a range is no point of a curve
    shots: list[Shots] = sorted(single or best, key=mean_shots)
    draws, places = _draws(results, seed), [mean_shots(shot) for shot in shots]
    curve = [float(best[shot].correct.mean()) for shot in shots]
    place = {id(result): i for i, result in enumerate(results)}
    curve_draws = np.stack([draws[place[id(best[shot])]] for shot in shots], 1)  # [b, shots]
    for i, (row, result) in enumerate(zip(rows, results, strict=True)):
        over = result.over(best[result.shot])
        worth = shot_worth(float(result.correct.mean()), draws[i], places, curve, curve_draws)
        row.update(gain_over_best=percent(over.value), gain_over_best_ci95=ends(over), **_worth(worth))


def best_plain(results: Sequence[RecipeResult]) -> dict[Shots, RecipeResult]:
    """Of the results with nothing made, the most accurate at each number of shots; the first of equal ones."""
    best: dict[Shots, RecipeResult] = {}
    for result in results:
        if result.plain is None and (
            result.shot not in best or result.correct.mean() > best[result.shot].correct.mean()
        ):
            best[result.shot] = result
    return best


def _draws(results: Sequence[RecipeResult], seed: int) -> dict[int, NDArray[np.float64]]:
    """Bootstrap accuracies [b] of every result, by its place; those of the same shots see the same resamples."""
    found: dict[int, NDArray[np.float64]] = {}
    for shot in dict.fromkeys(result.shot for result in results):
        members = [i for i, result in enumerate(results) if result.shot == shot]
        values = np.stack([results[i].correct for i in members], 2)  # [n, way, k]
        drawn = statistics.class_draws(values, results[members[0]].trials.clusters, seed)
        found |= {i: drawn[:, k] for k, i in enumerate(members)}
    return found


def _worth(worth: Worth) -> TableRow:
    numbers = [None if n in (0.0, float("inf")) else round(n, 3) for n in (worth.value, worth.low, worth.high)]
    return {"shot_worth": numbers[0], "shot_worth_ci95": numbers[1:], "shot_worth_says": worth.words()}


def pool(tables: Sequence[Results]) -> Results:
    """The table of the means over training seeds, on the same episodes.

    Every episode's accuracy and gain is first averaged over the seeds; what is said of a single training - intervals
    over classes, verdicts, shot-worth - is then said of these means. How far the seeds are apart stands beside it, in
    `accuracy_by_seed`, `gain_by_seed` and their standard deviations `accuracy_sd` and `gain_sd`. The best plain
    classifier is chosen by its mean over the seeds too. Raises InputError for fewer than two tables, for tables of
    other episodes or recipes, and for a seed that comes twice.
    """
    seeds = [table.plan.training_seed for table in tables]
    if len(set(seeds)) < max(2, len(seeds)):
        raise InputError(f"tables of the training seeds {seeds} were given; expected two or more, each once")
    first = tables[0]
    compared = [[_compared(result) for result in table.by_recipe] for table in tables]
    if any(table.task != first.task or one != compared[0] for table, one in zip(tables, compared, strict=True)):
        raise InputError("the tables are of other recipes or episodes; expected the same but for the seed of training")
    pooled = _pooled(tables)
    rows = [_pooled_row(result, [t.rows[i] for t in tables], seeds, first.plan.seed) for i, result in enumerate(pooled)]
    chosen = [table.validation for table in tables if table.validation is not None]
    validation = pool(chosen) if len(chosen) == len(tables) else None
    return completed(replace(first, rows=rows, by_recipe=pooled, validation=validation))


def _compared(result: RecipeResult) -> tuple[Any, ...]:
    """What the results that are pooled have alike."""
    recipe = result.recipe
    made = recipe.made, recipe.weights, recipe.share
    return *recipe.shown().values(), *made, recipe.options, result.shot, result.trials.digest()


def _pooled(tables: Sequence[Results]) -> list[RecipeResult]:
    """The results of all tables at the same places as one, in the order of the first table."""
    pooled: list[RecipeResult] = []
    place = {id(result): i for i, result in enumerate(tables[0].by_recipe)}
    for i, result in enumerate(tables[0].by_recipe):
        same = [table.by_recipe[i] for table in tables]
        outcomes = tuple(outcome for one in same for outcome in one.outcomes)
        plain = None if result.plain is None else pooled[place[id(result.plain)]]  # plain recipes come first
        pooled.append(replace(result, outcomes=outcomes, digest=digest([one.digest for one in same]), plain=plain))
    return pooled


def _pooled_row(result: RecipeResult, rows: Sequence[TableRow], seeds: Sequence[int], seed: int) -> TableRow:
    """The row of a pooled result: computed anew, and the facts of its rows where they agree."""
    facts: TableRow = {"task": rows[0]["task"], "part": rows[0]["part"], **table_row(result, bootstrap_key(seed))}
    for key in (key for key in rows[0] if key not in facts):
        values = [row[key] for row in rows]
        facts[key] = values[0] if all(value == values[0] for value in values) else digest(values)
    return facts | {"fit_seed": list(seeds), "seconds": round(sum(row["seconds"] for row in rows), 3)}


@functools.cache
def versions_once() -> dict[str, str]:
    """The versions that a row names."""
    return {"augforge": __version__, **versions()}


@functools.cache
def machine_once() -> dict[str, Any]:
    """The machine that a row names."""
    return machine()
