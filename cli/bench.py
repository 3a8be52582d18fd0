"""The command `bench`: what made examples are worth to a classifier, on episodes of a task."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("task")
# What is compared
@click.option("--with", "methods", multiple=True, metavar="NAME|DIR", help="A method: a name of `augforge list`, "
              "or a folder of `augforge fit`; may be given again [default: the controls alone].")  # fmt: skip
@click.option("--classifier", "classifiers", multiple=True, metavar="C", help="A classifier; may be given again "
              "[default: prototype].")  # fmt: skip
@click.option("--set", "assignments", multiple=True, metavar="[NAME.]K=V", help="A setting of the part NAME; without "
              "it of the only method, or of the only classifier where no method is named.")  # fmt: skip
@click.option("--representation", metavar="R|DIR", help="What makes features of pictures: a name, which is fitted on "
              "the base classes if it is not shipped, or a folder [default for glyphs: conv4-glyphs].")  # fmt: skip
@click.option("--normalise", default="none", show_default=True, metavar="HOW",
              help="Of features: none, l2, centred-l2, power.")  # fmt: skip
@click.option("--views", default="none", show_default=True, metavar="NAME",
              help="Views of a picture to average: none, flip, flip-shift, flip-shift-wide, "
              "or a preset of classical.")  # fmt: skip
@click.option("--made", default="20", show_default=True, metavar="N[,N]", help="Rows made of each class.")
@click.option("--share", "shares", multiple=True, metavar="[NAME=]S[,S]", help="What the made rows of a class weigh "
              "together: 0.5 is half of what its real ones do; of the method NAME, or of all others [default: each row "
              "weighs what its method says, or 1].")  # fmt: skip
# The episodes
@click.option("--way", type=int, help="Classes of an episode [default: 5].")
@click.option("--shot", metavar="N[,N]", help="Real examples of each class; in 1-5 each class draws its own number "
              "[default: 1,5].")  # fmt: skip
@click.option("--query", type=int, help="Queries of each class [default: 15].")
@click.option("--trials", type=int, help="Episodes [default: 600].")
@click.option("--part", type=click.Choice(["novel", "val"]), default="novel", show_default=True,
              help="Judge on novel classes, or on validation classes to choose settings by.")  # fmt: skip
@click.option("--against", type=click.Choice(["nothing", "best"]), default="nothing", show_default=True,
              help="best: add the gain over the best plain classifier, chosen on validation classes.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of all chance.")
@click.option("--seeds", metavar="N,N[,N]", help="Fit and make with each of these seeds, on the episodes of --seed, "
              "and pool.")  # fmt: skip
# The run
@click.option("--device", default="cpu", show_default=True, help="Where parts learn and judge: cpu, cuda, or auto.")
@click.option("--out", type=_PATH, metavar="DIR", help="Keep results, table and plots; the same command goes on there.")
@click.option("--data-root", type=_PATH, metavar="DIR", help="Where the data of named tasks lies "
              "[default: $AUGFORGE_DATA].")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def bench(**given: Any) -> None:
    """Measure on TASK what made examples gain, beside the controls, with honest intervals.

    TASK is glyphs, omniglot, omniglot-alphabet, lake-runs, cifar-fs, fc100, orl-faces, or a source with train, val
    and test classes. Copies, noise, plain augmentation and nothing at all are in every table.
    """
    from augforge.bench.report import markdown, write_report
    from augforge.bench.run import run, run_seeds
    from augforge.bench_classes import write_per_class
    from augforge.episodes.tasks import open_task
    from augforge.inputs import device_of

    made, device = _numbers(given["made"], "--made"), device_of(given["device"])
    seeds = None if given["seeds"] is None else _numbers(given["seeds"], "--seeds", fewest=0)
    task = open_task(given["task"], given["data_root"])
    recipes, plan, out = _recipes(given, made, task), _plan(given, task), given["out"]
    if seeds is None:
        results = run(task, recipes, plan, out, _progress, device)
    else:
        results = run_seeds(task, recipes, plan, seeds, out, _progress, device)
    if out is not None:
        write_report(results.rows, out)
        write_per_class(results, out)
    click.echo(json.dumps(results.as_json()) if given["as_json"] else markdown(results.rows))


def _plan(given: dict[str, Any], task: Any) -> Any:
    """The episodes that were asked for; what was left open is that of the task's fixed episodes, where it has some."""
    from augforge.bench.plan import Plan

    usual: dict[str, Any] = {"way": 5, "shots": (1, 5), "query": 15, "trials": 600}
    if task.fixed is not None and given["part"] == "novel":
        first = task.fixed[0]
        way, shot = first.support.shape
        usual = {"way": way, "shots": (shot,), "query": first.query.shape[1], "trials": len(task.fixed)}
    asked = {name: given[name] for name in ("way", "query", "trials")}
    asked["shots"] = None if given["shot"] is None else _shots(given["shot"])
    chosen = usual | {name: value for name, value in asked.items() if value is not None}
    return Plan(**chosen, seed=given["seed"], part=given["part"], against=given["against"])


def _recipes(given: dict[str, Any], made: tuple[int, ...], task: Any) -> list[Any]:
    """Every method with every classifier, every number made and every share."""
    from augforge.bench.recipes import Recipe
    from augforge.representations.bank import BankOptions

    settings = _settings(given)
    name, representation = _representation(given["representation"], task, settings)
    options = BankOptions(normalise=given["normalise"], views=given["views"])
    texts = given["methods"] or ("copies",)
    methods = [_part(text, "synthesizer", settings) for text in texts]
    judges = [_part(judge, "classifier", settings) for judge in given["classifiers"] or ("prototype",)]
    shares, recipes = _shares(given["shares"], texts), []
    for text, (shown, method) in zip(texts, methods, strict=True):
        plain = type(method).__name__ == "Nothing"
        asked = shares.get(text, (None,) if plain else shares.get("", (None,)))
        for (label, judge), count, share in product(judges, (0,) if plain else made, asked):
            names = (name, shown, label)
            recipes.append(Recipe(representation, method, judge, count, options=options, names=names, share=share))
    return recipes


def _shares(given: Sequence[str], methods: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The shares of `--share` for each method that they name; "" stands for all others."""
    from augforge.parts.catalog import nearest
    from augforge.types import InputError

    found: dict[str, tuple[float, ...]] = {}
    for text in given:
        name, equals, numbers = text.rpartition("=")
        if equals and name not in methods:
            raise InputError(f"--share {text!r} was given and no method is called {name!r}{nearest(name, [*methods])}")
        if name in found:
            raise InputError(f"--share {text!r} was given after another for the same methods; expected 0.25,0.5")
        parts = numbers.split(",")
        found[name] = tuple(sorted({float(part) for part in parts if re.fullmatch(r" *(\d+\.?\d*|\.\d+) *", part)}))
        if len(found[name]) < len(parts):
            raise InputError(f"--share {text!r} was given; expected different numbers from 0 with commas, as 0.25,0.5")
    return found


def _settings(given: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The settings of `--set` for each part by the name that it was given by."""
    from augforge.parts.catalog import nearest, read_assignment
    from augforge.types import InputError

    methods, judges = list(given["methods"]), list(given["classifiers"] or ("prototype",))
    named = [*methods, *judges, *([given["representation"]] if given["representation"] else [])]
    only = methods or judges
    found: dict[str, dict[str, str]] = {}
    for text in given["assignments"]:
        key, value = read_assignment(text)
        name, dot, setting = key.rpartition(".")
        if dot and name not in named:
            raise InputError(f"--set {text!r} was given and no part is called {name!r}{nearest(name, named)}")
        if not dot and len(only) != 1:
            told = " and ".join(map(repr, only))
            raise InputError(f"--set {text!r} was given with {told}; expected {only[0]}.{key}={value} or the like")
        found.setdefault(name if dot else only[0], {})[setting] = value
    return found


def _representation(asked: str | None, task: Any, settings: dict[str, dict[str, str]]) -> tuple[str | None, Any]:
    from augforge.types import InputError

    if asked is None and task.base.space == "feature":
        return None, None
    if asked is None and task.name != "glyphs":
        raise InputError(
            f"the task {task.name!r} holds pictures; expected --representation with a name or a fitted folder"
        )
    return _part(asked or "conv4-glyphs", "representation", settings)


def _part(text: str, kind: str, settings: dict[str, dict[str, str]]) -> tuple[str | None, Any]:
    """A part by name or folder, and what to call it; a name of the catalog's is made up later."""
    from augforge.parts import catalog, saving

    shown = None if text in catalog.TABLES[kind] else Path(text).name
    return shown, saving.open_part(text, settings.get(text), kind)


def _numbers(text: str, option: str, fewest: int = 1) -> tuple[int, ...]:
    from augforge.types import InputError

    parts = text.split(",")
    numbers = [int(part) for part in parts if part.strip().isdigit() and int(part) >= fewest]
    if len(set(numbers)) < len(parts):
        raise InputError(
            f"{option} {text!r} was given; expected different whole numbers from {fewest} with commas, as 1,5"
        )
    return tuple(sorted(numbers))


def _shots(text: str) -> tuple[Any, ...]:
    """Numbers and ranges: "1,5,1-5" is (1, 5, (1, 5))."""
    ranges = [part for part in text.split(",") if "-" in part]
    single = ",".join(part for part in text.split(",") if "-" not in part)
    pairs = [_numbers(part.replace("-", ","), "--shot") for part in ranges]
    return (*(_numbers(single, "--shot") if single else ()), *pairs)


def _progress(done: int, total: int, what: str) -> None:
    """A line on stderr where a person is looking, and nothing elsewhere."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        click.echo(f"\r\033[K{done}/{total} {what}{end}", err=True, nl=False)
