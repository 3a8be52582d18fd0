"""The engine: recipes on the same episodes of a task, with the controls that every table has.

    task = open_task("glyphs")
    results = run(task, [Recipe(representation, synthesizer, Prototype(), made=20)], Plan(shots=(1, 5)), Path("out"))

Every row of the task is embedded once. What was measured is kept, so that the same call on the same folder only
measures what is new.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from augforge import __version__
from augforge.bench_features import Features, features_of, fitted
from augforge.bench_results import RESULTS, append_row, replace_rows
from augforge.bench_rows import Arm, Row, bootstrap_key, complete, measured
from augforge.data.banks import AnyBank
from augforge.digests import fitted_tensors, made_by
from augforge.imagine import check_space
from augforge.machine import machine, versions
from augforge.making_rows import Rows, check_support, from_features, from_parents, from_pictures
from augforge.manifest import digest
from augforge.measuring import Outcome, is_fast, load_outcome, predict, predict_fast, prepared
from augforge.recipes import Recipe, part_name, with_controls
from augforge.representations.bank import data_digest
from augforge.tasks import Task, task_episodes
from augforge.trials import Trials, as_trials
from augforge.types import Examples, InputError

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """Which episodes: `way` classes, each of `shots` support rows in turn, `query` queries of each class, `trials` of
    them drawn by `seed`, of the classes of `part`: novel, or val to choose settings by. `seed` is that of fitting and
    making too. Raises InputError for numbers out of range.
    """

    way: int = 5
    shots: tuple[int, ...] = (1, 5)
    query: int = 15
    trials: int = 600
    seed: int = 0
    part: Literal["novel", "val"] = "novel"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.way < 2 or self.query < 1 or self.trials < 2 or not self.shots or min(self.shots) < 1:
            raise InputError(
                f"way={self.way}, shots={self.shots}, query={self.query}, trials={self.trials} was given; expected "
                "at least 2 classes, 1 shot, 1 query and 2 trials"
            )
        if len(set(self.shots)) < len(self.shots):
            raise InputError(f"shots={self.shots} was given; expected each number once")


@dataclass(frozen=True, eq=False)
class Results:
    """A table: `rows` as JSON objects, the `arms` behind them in the same order, and class names of the judged bank."""

    task: str
    plan: Plan
    rows: list[Row]
    arms: list[Arm]
    classes: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """What `augforge bench --json` prints."""
        return {"task": self.task, "seed": self.plan.seed, "part": self.plan.part, "versions": _versions(),
                "machine": _machine(), "rows": self.rows}  # fmt: skip


@dataclass
class _Run:
    """What the steps of a run share."""

    task: Task
    bank: AnyBank
    plan: Plan
    cache: Path | None
    progress: Progress | None
    total: int = 0
    arms: list[Arm] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def folder(self, name: str) -> Path | None:
        return None if self.cache is None else self.cache / name


def run(
    task: Task,
    recipes: Sequence[Recipe],
    plan: Plan | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Measure recipes and controls on the same episodes.

    With a folder `cache_dir`, features, fitted parts and predictions are kept there, and bench.jsonl gets a line as
    each row is measured; when all are, it is written anew with what needs the whole table. `progress` is called with
    (rows done, rows in all, what is next). Raises InputError for a task without the part, parts that do not go
    together, and for leakage: a query in its support, or features made with other weights than a recipe names.
    """
    plan = Plan() if plan is None else plan
    bank = task.novel if plan.part == "novel" else task.val
    if bank is None:
        raise InputError(f"the task {task.name!r} has no validation classes to run on")
    arms = with_controls(recipes, bank)
    state = _Run(task, bank, plan, cache_dir, progress, len(arms) * len(plan.shots))
    _check_folder(cache_dir)
    episodes = {shot: _episodes(state, shot) for shot in plan.shots}
    for group in _groups(arms, lambda r: (id(r.representation), r.options)):
        _run_representation(state, group, episodes)
    complete(state.rows, state.arms, bootstrap_key(plan.seed))
    results = Results(task.name, plan, state.rows, state.arms, bank.classes)
    if cache_dir is not None:
        replace_rows(cache_dir / RESULTS, state.rows)
    return results


def _groups(arms: list[tuple[Recipe, bool]], key: Callable[[Recipe], tuple]) -> Iterator[list[tuple[Recipe, bool]]]:
    """The arms with equal keys together, in the order of their first."""
    found: dict[tuple, list[tuple[Recipe, bool]]] = {}
    for arm in arms:
        found.setdefault(key(arm[0]), []).append(arm)
    yield from found.values()


def _episodes(state: _Run, shot: int) -> Trials:
    plan, task = state.plan, state.task
    drawn = task_episodes(task, way=plan.way, shot=shot, n_query=plan.query, trials=plan.trials, seed=plan.seed,
                          part=plan.part)  # fmt: skip
    return as_trials(drawn, state.bank, task.groups)


def _run_representation(state: _Run, arms: list[tuple[Recipe, bool]], episodes: dict[int, Trials]) -> None:
    recipe, task, seed = arms[0][0], state.task, state.plan.seed
    representation = recipe.representation
    if representation is not None and task.base.space == "image":
        kept = None
        if state.cache is not None and not fitted_tensors(representation):
            kept = state.folder(f"fitted/{digest([made_by(representation), seed, data_digest(task.base)])}")
        representation = fitted(representation, "representation", task.base, seed, kept)
    features = features_of(representation, task.base, state.bank, recipe.options, state.folder("features"))
    for group in _groups(arms, lambda r: ("plain",) if r.plain else (made_by(r.synthesizer), r.made, r.weights)):
        for shot, trials in episodes.items():
            _run_group(state, group, features, shot, trials)


def _run_group(state: _Run, group: list[tuple[Recipe, bool]], features: Features, shot: int, trials: Trials) -> None:
    """All classifiers with the same made rows at one number of shots."""
    digests = [_digest(state, recipe, features, trials) for recipe, _ in group]
    kept = [_kept(state, d, trials) for d in digests]
    missing = [i for i, outcome in enumerate(kept) if outcome is None]
    start = time.perf_counter()
    if missing:
        recipe = group[0][0]
        _say(state, f"{recipe.shown()['synthesizer']}, {shot} shots")
        for i, new in zip(missing, _measure(state, [group[i][0] for i in missing], features, trials), strict=True):
            kept[i] = new
            path = state.folder(f"outcomes/{digests[i]}.npz")
            if path is not None:
                new.save(path)
    seconds = (time.perf_counter() - start) / max(1, len(missing))
    for i, ((recipe, control), outcome) in enumerate(zip(group, kept, strict=True)):
        assert outcome is not None
        plain = None if recipe.plain else _plain_of(state, recipe, shot)
        arm = Arm(recipe, control, shot, trials, outcome, digests[i], plain)
        row = {"task": state.task.name, "part": state.plan.part, **measured(arm, bootstrap_key(state.plan.seed))}
        row |= _facts(state, features, trials) | {"seconds": round(seconds, 3) if i in missing else 0.0}
        state.arms.append(arm)
        state.rows.append(row)
        if state.cache is not None:
            append_row(state.cache / RESULTS, row)
    _say(state, "")


def _plain_of(state: _Run, recipe: Recipe, shot: int) -> Arm:
    """The arm with nothing made, of the same representation and classifier, which was measured before."""
    wanted = (id(recipe.representation), recipe.options, recipe.shown()["classifier"])
    for arm in state.arms:
        other = arm.recipe
        same = (id(other.representation), other.options, other.shown()["classifier"]) == wanted
        if other.plain and same and arm.shot == shot:
            return arm
    raise AssertionError("nothing was not measured first")


def _measure(state: _Run, recipes: list[Recipe], features: Features, trials: Trials) -> list[Outcome]:
    first = recipes[0]
    made = None if first.plain else _rows(state, first, features, trials)
    ready = [_fit(state, recipe.classifier, "classifier", features) for recipe in recipes]
    outcomes: dict[int, Outcome] = {}
    if made is None:
        for i, classifier in enumerate(ready):
            if is_fast(classifier, features, trials):
                outcomes[i] = predict_fast(prepared(features), trials)
    slow = [i for i in range(len(ready)) if i not in outcomes]
    if slow:
        constant = first.weights == "constant"
        found = predict([ready[i] for i in slow], features, trials, made, constant)
        outcomes |= dict(zip(slow, found, strict=True))
    return [outcomes[i] for i in range(len(ready))]


def _rows(state: _Run, recipe: Recipe, features: Features, trials: Trials) -> Rows:
    """The rows that the synthesizer of a recipe makes, fitted first, for any batch of `trials`."""
    seed, synthesizer = state.plan.seed, recipe.synthesizer
    check_support(synthesizer, trials)
    if synthesizer.space != "image":
        part = _fit(state, synthesizer, "synthesizer", features)
        return from_features(part, features.support.x, recipe.made, seed)
    if features.embed is None:
        check_space(
            synthesizer, Examples(features.base.x[:1], features.base.y[:1]), part_name(synthesizer, "synthesizer")
        )
    assert features.embed is not None
    part = fitted(synthesizer, "synthesizer", state.task.base, seed, _fit_folder(state, synthesizer, features))
    if part.one_parent:
        return from_parents(part, state.bank, features.embed, trials, recipe.made, seed)
    return from_pictures(part, state.bank, features.embed, recipe.made, seed)


def _fit(state: _Run, part: Any, kind: str, features: Features) -> Any:
    return fitted(part, kind, features.base, state.plan.seed, _fit_folder(state, part, features))


def _fit_folder(state: _Run, part: Any, features: Features) -> Path | None:
    return state.folder(f"fitted/{digest([made_by(part), state.plan.seed, features.digest])}")


def _digest(state: _Run, recipe: Recipe, features: Features, trials: Trials) -> str:
    """What an outcome depends on: the numbers, the episodes, the parts before they are fitted, and the seed."""
    parts = [made_by(part) for part in (recipe.synthesizer, recipe.classifier)]
    told = [__version__, features.digest, features.maker, trials.digest(), *parts, recipe.made, recipe.weights,
            state.plan.seed]  # fmt: skip
    return digest(told)


def _facts(state: _Run, features: Features, trials: Trials) -> Row:
    return {"seed": state.plan.seed, "episodes": trials.digest(), "bank": features.digest, "maker": features.maker,
            "versions": _versions(), "machine": _machine()}  # fmt: skip


@functools.cache
def _versions() -> dict[str, str]:
    return {"augforge": __version__, **versions()}


@functools.cache
def _machine() -> dict[str, Any]:
    return machine()


def _kept(state: _Run, name: str, trials: Trials) -> Outcome | None:
    path = state.folder(f"outcomes/{name}.npz")
    return None if path is None else load_outcome(path, tuple(trials.target.shape))


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
