"""What the options of `bench` name: its recipes, and numbers and ranges of shots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from augforge.cli import options

if TYPE_CHECKING:
    from augforge.bench.recipes import Recipe
    from augforge.episodes.tasks import Task


def recipes_of(given: dict[str, Any], made: tuple[int, ...], task: Task | None) -> list[Recipe]:
    """Every method with every classifier, every number made and every share; None is a task of features."""
    from augforge.bench.recipes import Recipe
    from augforge.data.banks import FeatureBank
    from augforge.inputs import PRESETS, default_views, kind_of_pictures
    from augforge.representations.options import BankOptions

    of_weights = options.representation_settings(given)
    given, usual = _with_defaults(given, task)
    settings = _settings(given)
    if of_weights:
        settings[given["representation"]] = settings.get(given["representation"], {}) | of_weights
    if task is not None and "classical" in given["methods"] and not isinstance(task.novel, FeatureBank):
        usual["classical"] = {"preset": PRESETS[kind_of_pictures(task.novel)]}  # as `synth` makes them
    for part, chosen in usual.items():
        settings[part] = chosen | settings.get(part, {})
    name, representation = None, None
    if given["representation"] is not None:
        name, representation = _part(given["representation"], "representation", settings)
    views = "none" if task is None or representation is None else default_views(representation)
    bank = BankOptions(normalise=given["normalise"], views=given["views"] or views)
    texts = given["methods"] or ("copies",)
    methods = [_part(text, "synthesizer", settings) for text in texts]
    classifiers = [_part(text, "classifier", settings) for text in given["classifiers"]]
    shares, recipes = _shares(given["shares"], texts), []
    for text, (shown, method) in zip(texts, methods, strict=True):
        plain = type(method).__name__ == "Nothing"
        asked = shares.get(text, (None,) if plain else shares.get("", (None,)))
        for (label, classifier), count, share in product(classifiers, (0,) if plain else made, asked):
            names = (name, shown, label)
            recipes.append(Recipe(representation, method, classifier, count, options=bank, names=names, share=share))
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

    methods, classifiers = list(given["methods"]), list(given["classifiers"])
    named = [*methods, *classifiers, *([given["representation"]] if given["representation"] else [])]
    only = methods or classifiers
    found: dict[str, dict[str, str]] = {}
    for text in given["assignments"]:
        key, value = read_assignment(text)
        name, dot, setting = key.rpartition(".")
        if dot and name not in named:
            raise InputError(f"--set {text!r} was given and no part is called {name!r}{nearest(name, named)}")
        if not dot and len(only) != 1:
            several = " and ".join(map(repr, only))
            raise InputError(f"--set {text!r} was given with {several}; expected {only[0]}.{key}={value} or the like")
        found.setdefault(name if dot else only[0], {})[setting] = value
    return found


def _with_defaults(given: dict[str, Any], task: Task | None) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What was given, and in place of what was not, what suits the rows of a task; and the settings of such parts."""
    from augforge.data.banks import FeatureBank
    from augforge.inputs import default_classifier, default_representation

    settings: dict[str, dict[str, Any]] = {}
    if task is not None:
        pictures = None if isinstance(task.novel, FeatureBank) else task.novel
        if pictures is not None and given["representation"] is None:
            given = {**given, "representation": default_representation(pictures)}
        classifier, chosen = default_classifier(task.novel)
        if not given["classifiers"] and (task.base is None or (pictures is not None and classifier == "logistic")):
            given = {**given, "classifiers": ("logistic", "prototype")}
            settings = {classifier: chosen}
    return {**given, "classifiers": given["classifiers"] or ("prototype",)}, settings


def _part(text: str, kind: str, settings: dict[str, dict[str, str]]) -> tuple[str | None, Any]:
    """A part by name or folder, and what to call it; a name of the catalog's is made up later."""
    from augforge.parts import catalog, saving

    shown = None if text in catalog.TABLES[kind] else Path(text).name
    return shown, saving.open_part(text, settings.get(text), kind)


def read_numbers(text: str, option: str, fewest: int = 1) -> tuple[int, ...]:
    """The numbers of "1,5", ascending; InputError for equal ones, those below `fewest` and more than 18 digits."""
    from augforge.types import InputError

    parts = text.split(",")
    numbers = [int(part) for part in parts if part.strip().isdecimal() and len(part) < 19 and int(part) >= fewest]
    if len(set(numbers)) < len(parts):
        raise InputError(f"{option} {text!r:.200} was given; expected different whole numbers from {fewest}, of 18 "
                         "digits at most, with commas, as 1,5")  # fmt: skip
    return tuple(sorted(numbers))


def read_shots(text: str) -> tuple[Any, ...]:
    """Numbers and ranges: "1,5,1-5" is (1, 5, (1, 5))."""
    ranges = [part for part in text.split(",") if "-" in part]
    single = ",".join(part for part in text.split(",") if "-" not in part)
    pairs = [read_numbers(part.replace("-", ","), "--shot") for part in ranges]
    return (*(read_numbers(single, "--shot") if single else ()), *pairs)


def with_pool(given: dict[str, Any], task: Any, recipes: list[Any], made: int) -> list[Any]:
    """The recipes of `bench` and those of --pool, and a line on stderr of what was left out of it."""
    from augforge.bench.from_pool import with_pool_recipes, without_queries
    from augforge.inputs import open_pool
    from augforge.types import InputError

    if given["pool"] is None and given["transductive"]:
        raise InputError("--transductive was given without --pool, whose rows the queries join")
    if given["pool"] is None:
        return recipes
    if given["part"] == "val":
        raise InputError("--pool was given with --part val; expected --part novel")
    pool, said = without_queries(task, open_pool(given["pool"], given["data_root"]), given["group_by"])
    click.echo(f"bench: {said}", err=True)
    return with_pool_recipes(recipes, pool, made, given["transductive"], given["out"], given["device"])
