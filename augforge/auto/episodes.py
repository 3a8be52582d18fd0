"""`auto` as an arm of `augforge bench`: the choice is made anew in every episode, by its support alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from augforge import __version__
from augforge.auto.candidates import Candidate, candidates, with_means
from augforge.auto.choice import Shown, beside, choose, open_classifier
from augforge.auto.recipe_file import RecipeFile, read_recipe
from augforge.auto.run import VIEWS, Asked, embedded_networks, made_rows, pool_views, ready, views_of, ways
from augforge.bench.accuracy import Outcome, in_top, softmax_top
from augforge.bench.features import Features
from augforge.bench.files import RESULTS, replace_rows
from augforge.bench.fitting import Workbench, recipe_features
from augforge.bench.from_pool import without_queries
from augforge.bench.plan import shots_name
from augforge.bench.predictions import TOP
from augforge.bench.recipe_result import RecipeResult, bootstrap_key, table_row
from augforge.bench.recipes import Recipe
from augforge.bench.table import Results, completed
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import AnyBank, FeatureBank
from augforge.data.selection import group_numbers
from augforge.episodes.batch import Trials
from augforge.episodes.tasks import Task
from augforge.generators.nothing import Nothing
from augforge.inputs import open_pool
from augforge.parts.saving import digest, open_part
from augforge.representations.options import BankOptions
from augforge.types import InputError

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Arm:
    """`auto`, as `asked`, or a recipe that was chosen before; and unlabelled rows."""

    asked: Asked = field(default_factory=Asked)
    recipe: RecipeFile | None = None
    pool: AnyBank | None = None

    @property
    def name(self) -> str:
        """What the table calls it."""
        return "auto" if self.recipe is None else "recipe"


def arms_of(
    names: Sequence[str], asked: Asked, task: Task, pool: str | None, data_root: Path | None, group_by: str | None
) -> list[Arm]:
    """The arms that `auto` and recipe files are, with the rows of the source `pool` that are no queries; InputError."""
    rows = without_queries(task, open_pool(pool, data_root), group_by)[0] if names and pool is not None else None
    return [Arm(asked, None if name == "auto" else read_recipe(Path(name)), rows) for name in names]


@dataclass(frozen=True, eq=False)
class _Ready:
    """The features of all rows of the task, what may be chosen, and a digest of it all."""

    shown: Shown
    options: tuple[Candidate, ...]
    fixed: bool  # whether there is nothing to choose
    views: str
    digest: str


def with_auto(
    results: Results, task: Task, arm: Arm, cache: Path | None = None, device: str = "cpu",
    progress: Progress | None = None,
) -> Results:  # fmt: skip
    """The results of `bench.run` with a row of the arm for each number of shots, on the same episodes.

    Its gain is over the first plain recipe of the table. With the folder of the run its outcomes are kept there. Raises
    InputError where the table has no plain recipe, and what embedding raises.
    """
    plan = results.plan
    bank = task.novel if plan.part == "novel" else task.val
    assert bank is not None
    given = _ready(Workbench(task, bank, plan, cache, device), arm)
    rows, found = list(results.rows), list(results.by_recipe)
    for i, shots in enumerate(plan.shots):
        place = next((j for j, one in enumerate(results.by_recipe) if one.plain is None and one.shot == shots), None)
        if place is None:
            raise InputError("the table has no row of nothing made, which --with auto is measured against")
        start, plain = time.perf_counter(), results.by_recipe[place]
        trials = plain.trials
        if progress is not None:
            progress(len(rows), len(rows) + len(plan.shots) - i, f"{arm.name}, {shots_name(shots)} shots")
        outcome, chosen, gains = _outcome(given, trials, plan.seed)
        common = chosen.most_common(1)[0][0]
        names = (common.partition(", ")[0] if given.options[0].networks else "features", arm.name, common)
        recipe = Recipe(plain.recipe.representation, Nothing(), Prototype(), options=plain.recipe.options, names=names)
        result = RecipeResult(recipe, False, shots, trials, (outcome,), digest([given.digest, trials.digest()]), plain)
        row = {**results.rows[place], **table_row(result, bootstrap_key(plan.seed)), "views": given.views}
        row |= {
            "chosen": dict(chosen),
            "expected_gain": gains,
            "seconds": round(time.perf_counter() - start, 3),
        }
        rows.append(row)
        found.append(result)
    new = completed(replace(results, rows=rows, by_recipe=found))
    if cache is not None:
        replace_rows(cache / RESULTS, new.rows)
    return new


def _ready(bench: Workbench, arm: Arm) -> _Ready:
    """Embed what the arm needs."""
    kind, networks = ways(bench.bank, arm.asked)
    views = arm.asked.views or views_of(networks)
    options = candidates(kind, networks)
    if arm.recipe is not None:
        options, views = (arm.recipe.candidate,), arm.recipe.views
    if views not in VIEWS:
        raise InputError(f"--views {views!r} was given with --with auto; expected one of {', '.join(VIEWS)}")
    x, unlabelled, made, seen = {}, {}, {}, [__version__, bench.plan.seed, *(one.words() for one in options)]
    for name in embedded_networks(options):
        features = _features(bench, name, views)
        x[name] = ready(features.support.x.cpu(), name, views)
        seen.append(features.digest)
        if arm.pool is not None:
            other = _features(replace(bench, bank=arm.pool), name, pool_views(views))
            unlabelled[name] = ready(other.support.x.cpu(), name, pool_views(views))
            seen.append(other.digest)
    for one in options:
        if one.made and not isinstance(bench.bank, FeatureBank):
            made[one.made, one.networks[0]] = made_rows(bench.bank, one, views)
    known = Shown(with_means(x), bench.bank.y, with_means(unlabelled), group_numbers(bench.bank), made)
    return _Ready(known, options, arm.recipe is not None, views, digest(seen))


def _features(bench: Workbench, name: str, views: str) -> Features:
    part = open_part(name, None, "representation") if name else None
    how = BankOptions(views=views if name and bench.bank.space == "image" else "none")
    return recipe_features(bench, [Recipe(part, Nothing(), Prototype(), options=how)])


def _outcome(task: _Ready, trials: Trials, seed: int) -> tuple[Outcome, Counter[str], float]:
    """What was predicted, how often each candidate was chosen, and the mean gain that was expected."""
    chosen: Counter[str] = Counter()
    predicted, top, sure, gains = [], [], [], []
    for i in range(len(trials)):
        support, query = trials.rows.support[i], trials.rows.query[i].flatten()
        rows = support[support >= 0]
        labels = torch.arange(len(support))[:, None].expand_as(support)[support >= 0]
        shown = task.shown.take(rows, labels)
        if task.fixed:
            one = task.options[0]
            known = shown.with_pool(one)[0] if one.pool and shown.pool else shown.support(one)
        else:
            choice = choose(shown, task.options, seed)
            one, known = choice.candidate, choice.support
            gains.append(choice.best.mean)
        chosen[one.words()] += 1
        with torch.no_grad():
            x = beside({name: task.shown.x[name][query] for name in one.networks or ("",)}, one.networks)
            scores = open_classifier(one).scores(known, x).float().numpy()[None]  # [1, m, way]
        target = trials.target[i : i + 1].numpy()
        predicted.append(torch.from_numpy(scores.argmax(2)))
        top.append(torch.from_numpy(in_top(scores, target, TOP)))
        sure.append(torch.from_numpy(softmax_top(scores)))
    columns = [torch.cat(part).numpy() for part in (predicted, top, sure)]
    outcome = Outcome(columns[0].astype("uint16"), columns[1], columns[2])
    return outcome, chosen, round(sum(gains) / len(gains), 3) if gains else 0.0
