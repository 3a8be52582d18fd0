"""The engine: recipes on the same episodes of a task, with the controls that every table has.

    task = open_task("glyphs")
    results = run(task, [Recipe(representation, synthesizer, Prototype(), made=20)], Plan(shots=(1, 5)), Path("out"))

Every row of the task is embedded once. What was measured is kept, so that the same call on the same folder only
measures what is new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from augforge.bench.arm import Arm, Row, bootstrap_key, measured
from augforge.bench.features import Features
from augforge.bench.files import RESULTS, append_row, replace_rows
from augforge.bench.plan import Plan, Shots, plan_trials, shots_name
from augforge.bench.recipes import Recipe, with_controls
from augforge.bench.table import Results, completed, machine_once, versions_once
from augforge.bench_parts import Bench, keep_outcome, kept_outcome, measure, outcome_digest, recipe_features
from augforge.episodes.batch import Trials
from augforge.episodes.tasks import Task
from augforge.parts.saving import made_by
from augforge.pooling import pool
from augforge.types import InputError

Progress = Callable[[int, int, str], None]
Arms = list[tuple[Recipe, bool]]  # recipes, and whether each is a control


@dataclass
class _Run:
    """What the steps of a run share, and what they have found."""

    bench: Bench
    progress: Progress | None
    total: int
    arms: list[Arm] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def run(
    task: Task,
    recipes: Sequence[Recipe],
    plan: Plan | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Results:
    """Measure recipes and controls on the same episodes.

    With a folder `cache_dir`, features, fitted parts and predictions are kept there, and bench.jsonl gets a line as
    each row is measured; when all are, it is written anew with what needs the whole table. `progress` is called with
    (rows done, rows in all, what is next). Parts learn and judge on `device`. A part that chooses by validation classes
    is shown them, unless they are the ones that are judged. Against the best plain classifier, all plain ones are
    measured on the validation classes first. Raises InputError for a task without the part, parts that do not go
    together, and for leakage: a query in its support, or features made with other weights than a recipe names.
    """
    plan = Plan() if plan is None else plan
    bank = task.novel if plan.part == "novel" else task.val
    if bank is None or (plan.against == "best" and task.val is None):
        why = "to run on" if bank is None else "to choose the best plain classifier by"
        raise InputError(f"the task {task.name!r} has no validation classes {why}")
    arms = with_controls(recipes, bank)
    _check_folder(cache_dir)
    validation = None
    if plan.against == "best":
        chosen = replace(plan, part="val", against="nothing")
        validation = run(task, [recipe for recipe, _ in arms if recipe.plain], chosen, cache_dir, progress, device)
    state = _Run(Bench(task, bank, plan, cache_dir, device), progress, len(arms) * len(plan.shots))
    episodes = {shots: plan_trials(task, bank, plan, shots) for shots in plan.shots}
    for group in _groups(arms, lambda r: (id(r.representation), r.options)):
        features = recipe_features(state.bench, [recipe for recipe, _ in group])
        for same in _groups(group, _made_rows):
            for shots, trials in episodes.items():
                _run_group(state, same, features, shots, trials)
    results = completed(Results(task.name, plan, state.rows, state.arms, bank.classes, validation))
    if cache_dir is not None:
        replace_rows(cache_dir / RESULTS, state.rows)
    return results


def run_seeds(
    task: Task,
    recipes: Sequence[Recipe],
    plan: Plan,
    seeds: Sequence[int],
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Results:
    """`run` with each of several seeds of fitting and making on the same episodes, pooled (see `pooling.pool`).

    With a folder `cache_dir` bench.jsonl has the rows of each seed and the pooled ones. Raises as both do.
    """
    each = [run(task, recipes, replace(plan, fit_seed=seed), cache_dir, progress, device) for seed in seeds]
    results = pool(each)
    if cache_dir is not None:
        replace_rows(cache_dir / RESULTS, results.rows)
    return results


def _made_rows(recipe: Recipe) -> tuple:
    """What recipes on the same features have alike where they differ in their classifier alone."""
    if recipe.plain:
        return ("plain",)
    return made_by(recipe.synthesizer), recipe.made, recipe.weights, recipe.share


def _groups(arms: Arms, key: Callable[[Recipe], tuple]) -> Iterator[Arms]:
    """The arms with equal keys together, in the order of their first."""
    found: dict[tuple, Arms] = {}
    for arm in arms:
        found.setdefault(key(arm[0]), []).append(arm)
    yield from found.values()


def _run_group(state: _Run, group: Arms, features: Features, shots: Shots, trials: Trials) -> None:
    """All classifiers with the same made rows at one number of shots."""
    bench, plan = state.bench, state.bench.plan
    digests = [outcome_digest(bench, recipe, features, trials) for recipe, _ in group]
    kept = [kept_outcome(bench, name, trials) for name in digests]
    missing = [i for i, outcome in enumerate(kept) if outcome is None]
    start = time.perf_counter()
    if missing:
        _say(state, f"{group[0][0].shown()['synthesizer']}, {shots_name(shots)} shots")
        for i, new in zip(missing, measure(bench, [group[i][0] for i in missing], features, trials), strict=True):
            kept[i] = new
            keep_outcome(bench, digests[i], new)
    seconds = (time.perf_counter() - start) / max(1, len(missing))
    for i, ((recipe, control), outcome) in enumerate(zip(group, kept, strict=True)):
        assert outcome is not None
        plain = None if recipe.plain else _plain_of(state, recipe, shots)
        arm = Arm(recipe, control, shots, trials, (outcome,), digests[i], plain)
        row = {"task": bench.task.name, "part": plan.part, **measured(arm, bootstrap_key(plan.seed))}
        row |= {"seed": plan.seed, "fit_seed": plan.training_seed, "episodes": trials.digest(),
                "bank": features.digest, "maker": features.maker, "versions": versions_once(),
                "machine": machine_once(), "seconds": round(seconds, 3) if i in missing else 0.0}  # fmt: skip
        state.arms.append(arm)
        state.rows.append(row)
        if bench.cache is not None:
            append_row(bench.cache / RESULTS, row)
    _say(state, "")


def _plain_of(state: _Run, recipe: Recipe, shots: Shots) -> Arm:
    """The arm with nothing made, of the same representation and classifier, which was measured before."""
    wanted = (id(recipe.representation), recipe.options, recipe.shown()["classifier"])
    for arm in state.arms:
        other = arm.recipe
        same = (id(other.representation), other.options, other.shown()["classifier"]) == wanted
        if other.plain and same and arm.shot == shots:
            return arm
    raise AssertionError("nothing was not measured first")


def _say(state: _Run, what: str) -> None:
    if state.progress is not None:
        state.progress(len(state.rows), state.total, what)


def _check_folder(folder: Path | None) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be made ({error.strerror})") from error
