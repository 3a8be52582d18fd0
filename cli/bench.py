"""The command `bench`: what made examples are worth to a classifier, on episodes of a task."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from augforge.cli import options
from augforge.cli.bench_recipes import read_numbers, read_shots, recipes_of, with_pool

if TYPE_CHECKING:
    from augforge.bench.plan import BenchPlan
    from augforge.bench.recipes import Recipe
    from augforge.episodes.tasks import Task


@click.command()
@click.argument("task")
# What is compared
@click.option("--with", "methods", multiple=True, metavar="NAME|DIR", help="A method: a name of `augforge list`, "
              "a folder of `augforge fit`, auto, or a recipe of it; may be given again [default: the controls "
              "alone].")  # fmt: skip
@click.option("--classifier", "classifiers", multiple=True, metavar="C", help="A classifier; may be given again "
              "[default: prototype; for photographs or one's own classes logistic too].")  # fmt: skip
@click.option("--set", "assignments", multiple=True, metavar="[NAME.]K=V", help="A setting of the part NAME; without "
              "it of the only method, or of the only classifier where no method is named.")  # fmt: skip
@click.option("--representation", metavar="R|DIR", help="What makes features of pictures: a name, which is fitted on "
              "the base classes if it is not shipped, or a folder [default: by the pictures].")  # fmt: skip
@options.weights
@options.download
@click.option("--normalise", default="none", show_default=True, metavar="HOW",
              help="Of features: none, l2, centred-l2, power.")  # fmt: skip
@click.option("--views", metavar="NAME", help="Views of a picture to average: none, flip, flip-shift, flip-shift-wide, "
              "crops-4, crops, or a preset of classical [default: crops-4 where pictures of any size will do, else "
              "none].")  # fmt: skip
@click.option("--made", default="20", show_default=True, metavar="N[,N]", help="Rows made of each class.")
@click.option("--share", "shares", multiple=True, metavar="[NAME=]S[,S]", help="What the made rows of a class weigh "
              "together: 0.5 is half of what its real ones do; of the method NAME, or of all others [default: what "
              "suits the classifier, as the method found on held-out classes or as is usual].")  # fmt: skip
# The episodes
@click.option("--test", metavar="SOURCE", help="Other rows of the classes of TASK to test on: all rows of TASK are the "
              "support, and every row of SOURCE is a query.")  # fmt: skip
@click.option("--pool", metavar="SOURCE", help="Unlabelled pictures or rows: with the labels found for them they are a "
              "recipe of their own, without those that may be queries.")  # fmt: skip
@click.option("--transductive", is_flag=True, help="The queries of an episode are in its pool; the table says so.")
@click.option("--protocol", type=click.Choice(["episodes", "low-shot", "verification"]), default="episodes",
              show_default=True, help="low-shot: base and novel classes in one label space (Hariharan and Girshick); "
              "verification: are two pictures of the same class?")  # fmt: skip
@click.option("--episodes", "episode_file", type=options.PATH, metavar="FILE",
              help="Run exactly the episodes of a file (docs/bench.md), in place of drawing them.")  # fmt: skip
@click.option("--way", type=options.Count(), help="Classes of an episode [default: 5; of one's own all].")
@click.option("--shot", metavar="N[,N]", help="Real examples of each class; in 1-5 each class draws its own number "
              "[default: 1,5; of low-shot 1,2,5,10,20, and of these what one's own classes allow].")  # fmt: skip
@click.option(
    "--query", type=options.Count(), help="Queries of each class [default: 15, or what one's own classes allow]."
)
@click.option("--trials", type=options.Count(), help="Episodes [default: 600; of one's own fewer the more classes "
              "there are], or draws of low-shot [default: 5].")  # fmt: skip
@click.option("--part", type=click.Choice(["novel", "val"]), default="novel", show_default=True,
              help="Evaluate on novel classes, or on validation classes to choose settings by.")  # fmt: skip
@click.option("--against", type=click.Choice(["nothing", "best"]), default="nothing", show_default=True,
              help="best: add the gain over the best plain classifier, chosen on validation classes.")  # fmt: skip
@options.seed()
@click.option("--seeds", metavar="N,N[,N]", help="Fit and make with each of these seeds, on the episodes of --seed, "
              "and pool.")  # fmt: skip
@options.max_per_class
@options.group_by
# The run
@options.device("parts are fitted and used", "cpu")
@options.engine
@options.engine_workers
@click.option(
    "--out",
    type=options.PATH,
    metavar="DIR",
    help="Keep results, table, plots and report.html; the same command goes on there.",
)
@click.option("--full", is_flag=True, help="On a terminal: every column. Elsewhere they are all there anyway.")
@options.data_root
@options.as_json
def bench(**given: Any) -> None:
    """Measure on TASK what made examples gain, beside the controls, with honest intervals.

    TASK is glyphs, omniglot, omniglot-alphabet, lake-runs, cifar-fs, fc100, orl-faces, or a source with train, val
    and test classes; or a source of your own, whose classes are learnt from a few rows of each, or from all of them
    with --test. Copies, noise, plain augmentation and nothing at all are beside every method.
    """
    from augforge.bench.files import make_folder
    from augforge.inputs import device_of

    given["device"] = device_of(given["device"])
    _check_options(given)
    if given["out"] is not None and given["out"].is_dir():
        make_folder(given["out"])  # what is damaged there is found before anything is measured
    run = {"episodes": _episodes, "low-shot": _low_shot, "verification": _verification}[given["protocol"]]
    with options.Progress("rows", steady=given["protocol"] != "episodes"):  # of episodes the rows are counted
        result, table = run(given)
    if given["as_json"]:
        click.echo(json.dumps(result))
    elif sys.stdout.isatty():
        _show(result["rows"], given)
    else:
        click.echo(table)


def _show(rows: list[dict[str, Any]], given: dict[str, Any]) -> None:
    """The rows for a terminal."""
    from augforge.bench import on_screen, report

    if given["protocol"] == "low-shot":
        on_screen.show_sheets(report.low_shot_sheets(rows), report.LOW_SHOT_LEGEND)
    elif given["protocol"] == "verification":
        on_screen.show_sheets(report.verification_sheets(rows), report.VERIFICATION_LEGEND)
    else:
        on_screen.show(rows, given["full"])


# The options that a protocol, or --episodes, has no use for
_UNUSED = {
    "--protocol low-shot": ("episode_file", "way", "against", "seeds", "pool", "transductive", "engine"),
    "--protocol verification": ("episode_file", "way", "against", "seeds", "methods", "classifiers", "made", "shares",
                                "shot", "query", "trials", "part", "pool", "transductive", "engine"),
    "--episodes": ("way", "shot", "query", "trials", "part"),
    "--test": ("episode_file", "way", "shot", "query", "trials", "part", "against", "protocol"),
}  # fmt: skip


def _check_options(given: dict[str, Any]) -> None:
    """Raise InputError for options that do not go together."""
    from augforge.types import InputError

    context = click.get_current_context()
    spelt = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    choice = "--episodes" if given["episode_file"] is not None else f"--protocol {given['protocol']}"
    if given["protocol"] != "episodes":
        choice = f"--protocol {given['protocol']}"
    if given["test"] is not None:
        choice = "--test"
    for name in _UNUSED.get(choice, ()):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise InputError(f"{spelt[name]} was given with {choice}, which has no use for it; expected one of them")


Answer = tuple[dict[str, Any], str]  # what --json prints, and the table


def _episodes(given: dict[str, Any]) -> Answer:
    """Recipes on episodes."""
    from augforge.auto.episodes import arms_of, with_auto
    from augforge.auto.run import Asked
    from augforge.bench.files import write_per_class
    from augforge.bench.place import place_of
    from augforge.bench.report import markdown, weightless, write_report
    from augforge.bench.run import run, run_seeds
    from augforge.episodes.files import read_episodes
    from augforge.episodes.named_tasks import open_task

    given, named = _without_auto(given)
    made = read_numbers(given["made"], "--made")
    seeds = None if given["seeds"] is None else read_numbers(given["seeds"], "--seeds", fewest=0)
    task = (
        _tested(given) if given["test"] is not None else open_task(given["task"], given["data_root"], _selection(given))
    )
    if given["episode_file"] is not None:
        task = replace(task, fixed=read_episodes(given["episode_file"], task.novel).episodes)
    if (task.base is None or given["pool"] is not None) and not given["methods"]:
        given = {**given, "methods": ("nothing",)}
    asked = Asked(given["representation"], given["views"], given["seed"])
    recipes, plan, out = recipes_of(given, made, task), _plan(given, task), given["out"]
    recipes = with_pool(given, task, recipes, max(made))
    with (_Said(task, plan, recipes, given["representation"] is None) as shown,
          place_of(given["device"], given["engine"], given["workers"]) as place):  # fmt: skip
        if seeds is None:
            results = run(task, recipes, plan, out, shown.update, place)
        else:
            results = run_seeds(task, recipes, plan, seeds, out, shown.update, place)
        for arm in arms_of(named, asked, task, given["pool"], given["data_root"], given["group_by"]):
            results = with_auto(results, task, arm, out, given["device"], shown.update)
    for line in weightless(results.rows, recipes):
        click.echo(line, err=True)
    if out is not None:
        write_report(results.rows, out)
        write_per_class(results.rows, results.confusions(), results.classes, out)
        _draw_page(out)
    return results.as_json(), markdown(results.rows)


def _without_auto(given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What was given, less `--with auto` and recipe files, and these; raises InputError."""
    from augforge.auto.recipe_file import is_recipe
    from augforge.types import InputError

    named = [name for name in given["methods"] if is_recipe(name)]
    for option in ("seeds", "transductive"):
        if named and given[option]:
            raise InputError(f"--{option} was given with --with {named[0]}, which has no use for it")
    others = tuple(name for name in given["methods"] if name not in named)
    return {**given, "methods": others or (("nothing",) if named else ())}, named


def _selection(given: dict[str, Any]) -> Any:
    from augforge.data.selection import Selection

    return Selection(given["max_per_class"], given["group_by"], given["seed"])


def _tested(given: dict[str, Any]) -> Task:
    """All rows of TASK as the support, and those of --test as its queries. --max-per-class is of the support."""
    from augforge.data.selection import Selection
    from augforge.episodes.own import fixed_support_task, split_of

    alike = Selection(None, given["group_by"], given["seed"])
    support = split_of(given["task"], given["data_root"], _selection(given), "train")
    return fixed_support_task(
        given["task"], support, given["test"], split_of(given["test"], given["data_root"], alike, "test")
    )


def _plan(given: dict[str, Any], task: Task) -> BenchPlan:
    """The episodes that were asked for; what was left open is what suits the task."""
    from augforge.bench.plan import plan_of

    asked = {name: given[name] for name in ("way", "query", "trials", "seed", "part", "against")}
    asked["shots"] = None if given["shot"] is None else read_shots(given["shot"])
    return plan_of(task, asked)


class _Said(options.Progress):
    """Progress whose first step says on stderr what was chosen where nothing was asked for."""

    def __init__(self, task: Task, plan: BenchPlan, recipes: Sequence[Recipe], chosen: bool) -> None:
        super().__init__("rows", steady=True)
        self.task, self.plan, self.recipes = task, plan, recipes
        self.said = task.base is not None and not (chosen and task.novel.space == "image")

    def update(self, done: int, total: int, what: str = "") -> None:
        """As it is, and the line first."""
        from augforge.bench.plan import in_words

        if not self.said:
            self.said = True
            names = dict.fromkeys(recipe.shown()["classifier"] for recipe in self.recipes)
            features, views = self.recipes[0].shown()["representation"], self.recipes[0].options.views
            what = "bench" if self.task.base is not None else in_words(self.task, self.plan)
            click.echo(f"{what}; {features}, views {views}; {', '.join(names)}", err=True)
        super().update(done, total, what)


def _low_shot(given: dict[str, Any]) -> Answer:
    """Recipes in one label space of base and novel classes."""
    from augforge.bench.files import LOW_SHOT
    from augforge.bench.protocols import LowShotPair, LowShotPlan, low_shot_features, run_low_shot
    from augforge.bench.report import low_shot_markdown
    from augforge.episodes.named_tasks import open_task
    from augforge.protocols.low_shot_files import is_low_shot_folder, open_low_shot_folder

    name, val, shots = given["task"], given["part"] == "val", given["shot"]
    chosen: dict[str, Any] = {"query": given["query"], "draws": given["trials"]}
    chosen["shots"] = None if shots is None else read_numbers(shots, "--shot")
    plan = LowShotPlan(**{k: v for k, v in chosen.items() if v is not None}, seed=given["seed"], val=val)
    made = read_numbers(given["made"], "--made")
    if is_low_shot_folder(name):
        recipes = recipes_of(given, made, None)
        test = open_low_shot_folder(name, "validation" if val else "test")
        pair = LowShotPair(name, test, None if val else open_low_shot_folder(name, "validation"))
    else:
        task = open_task(name, given["data_root"], _selection(given))
        recipes = recipes_of(given, made, task)
        pair = low_shot_features(task, recipes[0], plan, given["device"], given["out"])
    return _written(given, run_low_shot(pair, recipes, plan), low_shot_markdown, LOW_SHOT)


def _verification(given: dict[str, Any]) -> Answer:
    """A representation on pairs of rows."""
    from augforge.bench.files import VERIFICATION
    from augforge.bench.protocols import run_verification
    from augforge.bench.report import verification_markdown
    from augforge.episodes.named_tasks import open_task

    task = open_task(given["task"], given["data_root"], _selection(given))
    (recipe,) = recipes_of({**given, "methods": ("nothing",), "classifiers": ("prototype",)}, (1,), task)
    rows = run_verification(task, recipe, given["seed"], given["device"], given["out"])
    return _written(given, rows, verification_markdown, VERIFICATION)


def _written(given: dict[str, Any], rows: list[dict[str, Any]], markdown: Callable[..., str], name: str) -> Answer:
    """The rows as JSON and as a table; both are in the folder of --out too."""
    from augforge.bench.files import make_folder, replace_rows
    from augforge.bench.report import TABLE
    from augforge.bench.table import machine_once, versions_once

    table, out = markdown(rows), given["out"]
    if out is not None:
        make_folder(out)
        replace_rows(out / name, rows)
        (out / TABLE).write_text(table, encoding="utf-8")
        _draw_page(out)
    facts = {name: given[name] for name in ("task", "protocol", "seed", "part")}
    return {**facts, "versions": versions_once(), "machine": machine_once(), "rows": rows}, table


def _draw_page(out: Path) -> None:
    """Write down the command, and draw report.html of all that the folder holds; where that fails, say why."""
    from augforge.bench.files import keep_command
    from augforge.data.notes import note
    from augforge.report import page_beside

    try:
        keep_command(out, click.get_current_context().find_root().obj or ())
    except OSError as error:
        note(f"the command was not written down: {error}")
    if why := page_beside(out):
        note(why)
