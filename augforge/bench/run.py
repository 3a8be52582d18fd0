"""The engine: recipes on the same episodes of a task, with the controls that every table has.

    task = open_task("glyphs")
    results = run(task, [Recipe(representation, synthesizer, Prototype(), made=20)], BenchPlan(shots=(1, 5)))

Every row of the task is embedded once. Outcomes are kept in a folder where one is given, so that the same call on it
only computes what is new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from augforge import __version__, chance
from augforge.bench.accuracy import Outcome, load_outcome
from augforge.bench.features import Features
from augforge.bench.files import RESULTS, append_row, make_folder, replace_rows
from augforge.bench.fitting import Workbench, check_without_base, fit_once, recipe_features, seen_digest
from augforge.bench.from_pool import from_pool
from augforge.bench.made_rows import check_support, from_features, from_parents, from_pictures, sharing, weighing
from augforge.bench.place import Place
from augforge.bench.plan import BenchPlan, Shots, mean_shots, shots_name
from augforge.bench.predictions import is_fast, predict, predict_fast, prepared
from augforge.bench.recipe_result import RecipeResult, TableRow, bootstrap_key, table_row
from augforge.bench.recipes import Recipe, part_name, with_controls
from augforge.bench.table import Results, completed, machine_once, pool, versions_once
from augforge.classifiers.pool_rows import PoolRows
from augforge.data.banks import AnyBank
from augforge.episodes import with_shots
from augforge.episodes.batch import RowMaker, Trials, as_trials
from augforge.episodes.tasks import Task, task_episodes
from augforge.imagine import check_space, share_of
from augforge.parts.saving import digest, made_by
from augforge.types import InputError, Part, Weighing, capabilities

Progress = Callable[[int, int, str], None]
_BY_READER = "weights by classifier"
Group = list[tuple[Recipe, bool]]  # recipes, and whether each is a control


@dataclass
class _Run:
    """What the steps of a run share, and what they have found."""

    bench: Workbench
    progress: Progress | None
    total: int  # rows that there will be
    results: list[RecipeResult] = field(default_factory=list)
    rows: list[TableRow] = field(default_factory=list)


def run(
    task: Task,
    recipes: Sequence[Recipe],
    plan: BenchPlan | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    place: str | Place = "cpu",
) -> Results:
    """Compare recipes and controls on the same episodes.

    With a folder `cache_dir`, features, fitted parts and predictions are kept there, and bench.jsonl gets a line as
    each row is known; when all are, it is written anew with what needs the whole table. `progress` is called with
    (rows done, rows in all, what is next). Parts are fitted and evaluated at `place`, or on the device that it names; a
    part that chooses by validation classes is shown them, unless the episodes are of these. Against the best plain
    classifier, all plain ones are run on the validation classes first. Raises InputError for a task without the part,
    parts that do not go together, and for leakage: a query in its support, or features made with other weights than a
    recipe names.
    """
    plan = BenchPlan() if plan is None else plan
    bank = task.novel if plan.part == "novel" else task.val
    if bank is None or (plan.against == "best" and task.val is None):
        why = "to run on" if bank is None else "to choose the best plain classifier by"
        raise InputError(f"the task {task.name!r} has no validation classes {why}")
    compared = with_controls(recipes, bank, task.base is not None, plan.controls)
    if task.base is None:
        check_without_base(task, [recipe for recipe, _ in compared])
    make_folder(cache_dir)
    validation = None
    if plan.against == "best":
        chosen = replace(plan, part="val", against="nothing")
        plain = [recipe for recipe, _ in compared if recipe.plain]
        validation = run(task, plain, chosen, cache_dir, progress, place)
    place = Place(place) if isinstance(place, str) else place
    bench = Workbench(task, bank, plan, cache_dir, place.device, place.shared)
    state = _Run(bench, progress, len(compared) * len(plan.shots))
    episodes = {shots: plan_trials(task, bank, plan, shots) for shots in plan.shots}
    _report(state, "features")
    for group in _groups(compared, lambda r: (id(r.representation), r.options)):
        features = recipe_features(state.bench, [recipe for recipe, _ in group])
        for same in _groups(group, _made_rows):
            for shots, trials in episodes.items():
                _run_group(state, same, features, shots, trials)
    results = completed(Results(task.name, plan, state.rows, state.results, bank.classes, validation))
    if cache_dir is not None:
        replace_rows(cache_dir / RESULTS, results.rows)
    return results


def run_seeds(
    task: Task,
    recipes: Sequence[Recipe],
    plan: BenchPlan,
    seeds: Sequence[int],
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    place: str | Place = "cpu",
) -> Results:
    """`run` with each of several seeds of fitting and making on the same episodes, pooled by `table.pool`.

    With a folder `cache_dir` bench.jsonl has the rows of each seed and the pooled ones. Raises as both do.
    """
    each = [run(task, recipes, replace(plan, fit_seed=seed), cache_dir, progress, place) for seed in seeds]
    results = pool(each)
    if cache_dir is not None:
        replace_rows(cache_dir / RESULTS, results.rows)
    return results


def plan_trials(task: Task, bank: AnyBank, plan: BenchPlan, shots: Shots) -> Trials:
    """The episodes of a plan at one of its shots; `bank` is the part of the task that they are of.

    In a range every number is equally likely, and a class's draw depends on (plan.seed, episode, position) alone.
    Raises InputError where the classes or rows do not suffice.
    """
    low, most = shots if isinstance(shots, tuple) else (shots, shots)
    if task.tested is not None:
        return as_trials(task.fixed or (), bank, task.groups, tested=True, own=True)
    episodes = task_episodes(task, way=plan.way, shot=most, n_query=plan.query, trials=plan.trials, seed=plan.seed,
                             part=plan.part)  # fmt: skip
    if low < most:
        keys = chance.row_keys(plan.seed, "shots", torch.arange(plan.trials))
        drawn = low + (chance.uniform64(keys, (plan.way,)) * (most - low + 1)).to(torch.int64)  # [n, way]
        episodes = [with_shots(episode, each) for episode, each in zip(episodes, drawn.tolist(), strict=True)]
    return as_trials(episodes, bank, task.groups, own=task.base is None)


def _made_rows(recipe: Recipe) -> tuple:
    """What recipes on the same features have alike where they differ in their classifier alone."""
    if recipe.plain:
        return ("plain",)
    return made_by(recipe.synthesizer), recipe.made, recipe.weights, recipe.share


def _groups(compared: Group, key: Callable[[Recipe], tuple]) -> Iterator[Group]:
    """The recipes with equal keys together, in the order of their first."""
    found: dict[tuple, Group] = {}
    for pair in compared:
        found.setdefault(key(pair[0]), []).append(pair)
    yield from found.values()


def _run_group(state: _Run, group: Group, features: Features, shots: Shots, trials: Trials) -> None:
    """All classifiers with the same made rows at one number of shots."""
    bench, plan = state.bench, state.bench.plan
    digests = [_outcome_digest(bench, recipe, features, trials) for recipe, _ in group]
    outcomes = [_kept_outcome(bench, name, trials) for name in digests]
    missing = [i for i, outcome in enumerate(outcomes) if outcome is None]
    start = time.perf_counter()
    if missing:
        _report(state, f"{group[0][0].shown()['synthesizer']}, {shots_name(shots)} shots")
        for i, new in zip(missing, _outcomes(bench, [group[i][0] for i in missing], features, trials), strict=True):
            outcomes[i] = new
            _keep_outcome(bench, digests[i], new)
    seconds = (time.perf_counter() - start) / max(1, len(missing))
    for i, ((recipe, control), outcome) in enumerate(zip(group, outcomes, strict=True)):
        assert outcome is not None
        plain = None if recipe.plain else _plain_of(state, recipe, shots)
        result = RecipeResult(recipe, control, shots, trials, (outcome,), digests[i], plain)
        row = {"task": bench.task.name, "part": plan.part, **table_row(result, bootstrap_key(plan.seed))}
        base = bench.task.base
        row |= {"base_classes": 0 if base is None else len(base.classes), "test": bench.task.tested}
        row |= {"seed": plan.seed, "fit_seed": plan.training_seed, "episodes": trials.digest(),
                "bank": features.digest, "maker": features.made_by, "versions": versions_once(),
                "machine": machine_once(), "seconds": round(seconds, 3) if i in missing else 0.0}  # fmt: skip
        state.results.append(result)
        state.rows.append(row)
        if not (recipe.plain or recipe.exact):
            row["made_share"] = _share_used(bench, recipe, features, shots)
        if bench.cache is not None:
            append_row(bench.cache / RESULTS, row)
    _report(state, "")


def _share_used(bench: Workbench, recipe: Recipe, features: Features, shots: Shots) -> float | None:
    """What made rows may weigh together at that mean number of shots, in parts of the real rows, before an episode's
    support speaks against them; None: what a method that gives its rows weights gave them.
    """
    if recipe.share is not None:
        return recipe.share
    if capabilities(recipe.synthesizer).tested_on_support:
        return 0.0 if shots == 1 else None  # of one row nothing can be held out; else each episode has its own
    weighs = isinstance(recipe.synthesizer, Weighing)
    part = _fitted_synthesizer(bench, recipe, features) if weighs else recipe.synthesizer
    family, count = capabilities(recipe.classifier).family, torch.tensor(mean_shots(shots))
    return round(min(float(share_of(part, family, count)), recipe.made / float(count)), 4)


def _plain_of(state: _Run, recipe: Recipe, shots: Shots) -> RecipeResult:
    """The result with nothing made, of the same representation and classifier, which comes before all others."""
    wanted = (id(recipe.representation), recipe.options, recipe.shown()["classifier"])
    for result in state.results:
        other = result.recipe
        same = (id(other.representation), other.options, other.shown()["classifier"]) == wanted
        if other.plain and same and result.shot == shots:
            return result
    raise AssertionError("the recipe with nothing made was not run first")


def _report(state: _Run, what: str) -> None:
    if state.progress is not None:
        state.progress(len(state.rows), state.total, what)


def _outcome_digest(bench: Workbench, recipe: Recipe, features: Features, trials: Trials) -> str:
    """What an outcome depends on: the numbers, the episodes, the parts before they are fitted, and the seed."""
    parts: list[Part] = [recipe.synthesizer] if recipe.exact else [recipe.synthesizer, recipe.classifier]
    how: tuple[Any, ...] = ("exact",) if recipe.exact else (recipe.made, recipe.weights)
    if not recipe.plain and not recipe.exact:  # so that what was kept of these before is still known
        how = (*how, _BY_READER if recipe.share is None else float(recipe.share))
    facts = [__version__, features.digest, features.made_by, trials.digest(), *map(made_by, parts), *how,
             bench.plan.training_seed]  # fmt: skip
    return digest(facts + seen_digest(features, *parts))


def _kept_outcome(bench: Workbench, name: str, trials: Trials) -> Outcome | None:
    """What was kept under this digest."""
    path = bench.folder(f"outcomes/{name}.npz")
    return None if path is None else load_outcome(path, tuple(trials.target.shape))


def _keep_outcome(bench: Workbench, name: str, outcome: Outcome) -> None:
    """Keep an outcome under its digest, if anything is kept."""
    path = bench.folder(f"outcomes/{name}.npz")
    if path is not None:
        outcome.save(path)


def _outcomes(bench: Workbench, recipes: list[Recipe], features: Features, trials: Trials) -> list[Outcome]:
    """The outcomes of recipes that differ in their classifier alone; rows are made once for all."""
    first, outcomes = recipes[0], dict[int, Outcome]()
    exact = [i for i, recipe in enumerate(recipes) if recipe.exact]
    if exact:
        check_support(first.synthesizer, trials)
        scorer = fit_once(bench, first.synthesizer, "synthesizer", features)
        (found,) = predict(
            [scorer], features, trials, None, True, place=bench.place
        )  # the classifier makes no difference to it
        outcomes |= dict.fromkeys(exact, found)
    others = [i for i in range(len(recipes)) if i not in outcomes]
    fitted = {i: fit_once(bench, recipes[i].classifier, "classifier", features) for i in others}
    if first.plain:
        fast = [i for i in others if is_fast(fitted[i], features, trials)]
        outcomes |= {i: predict_fast(prepared(features), trials, fitted[i].temperature) for i in fast}
    slow = [i for i in others if i not in outcomes]
    if slow:
        made = None if first.plain else sharing(_row_maker(bench, first, features, trials), first.share)
        weighers = None if first.share is not None else [
            weighing(_fitted_synthesizer(bench, first, features), capabilities(recipes[i].classifier).family,
                     features.support.x)
            for i in slow
        ]  # fmt: skip
        constant = first.weights == "constant"
        found_slow = predict([fitted[i] for i in slow], features, trials, made, constant, weighers, bench.place)
        outcomes |= dict(zip(slow, found_slow, strict=True))
    return [outcomes[i] for i in range(len(recipes))]


def _fitted_synthesizer(bench: Workbench, recipe: Recipe, features: Features) -> Any:
    """The synthesizer of a recipe, fitted on the features or on the pictures behind them."""
    pictures = capabilities(recipe.synthesizer).space == "image"
    return fit_once(bench, recipe.synthesizer, "synthesizer", features, pictures=pictures)


def _row_maker(bench: Workbench, recipe: Recipe, features: Features, trials: Trials) -> RowMaker:
    """The rows that the synthesizer of a recipe makes, fitted first, for any batch of `trials`."""
    seed, synthesizer = bench.plan.training_seed, recipe.synthesizer
    check_support(synthesizer, trials)
    if isinstance(synthesizer, PoolRows):
        return from_pool(synthesizer, features)
    if capabilities(synthesizer).space != "image":
        part = _fitted_synthesizer(bench, recipe, features)
        return from_features(part, features.support.x, recipe.made, seed)
    if features.embed is None:
        row = features.support.examples(torch.arange(1))
        check_space(synthesizer, row, part_name(synthesizer, "synthesizer"))
    assert features.embed is not None
    part = _fitted_synthesizer(bench, recipe, features)
    can = capabilities(part)
    device = bench.device if can.trains else "cpu"  # a network is worth the way there; what is none stays here
    if can.one_parent:
        where = Place(device, bench.shared)
        return from_parents(part, bench.bank, features.embed, trials, recipe.made, seed, where)
    return from_pictures(part, bench.bank, features.embed, recipe.made, seed, device)
