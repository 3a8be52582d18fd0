"""The command `predict` (a file for each command)."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import click

from augforge.cli import options

_AT_ONCE = 16  # pictures that are decoded and named together
RECIPE = "recipe.json"  # beside what --save wrote, with --with
_SPELT = {"assignments": "set", "method": "with"}


@click.command()
@click.argument("support")
@click.argument("pictures", nargs=-1, type=options.PATH, metavar="[PICTURE|ROWS]...")
@click.option("--with", "method", metavar="auto|FILE|NAME|DIR", help="auto: choose features, classifier and what the "
              "pool weighs by the pictures shown (docs/auto.md); FILE: a recipe that auto wrote; NAME or DIR: a method "
              "that makes more pictures of each class to show, as views.")  # fmt: skip
@click.option("--made", type=options.Count(min=1), default=8, show_default=True,
              help="How many pictures of each class --with NAME makes.")  # fmt: skip
@click.option("--representation", metavar="R|DIR",
              help="What embeds pictures: a name of `augforge list`, timm:NAME, A+B, or a folder [default: photos; for "
                   "grey pictures of 28 px conv4-glyphs].")  # fmt: skip
@options.weights
@options.download
@click.option("--views", metavar="V", help="Views of a picture to average: none, flip, crops-4, crops, ... [default: "
              "crops-4 where any size of picture will do, else none].")  # fmt: skip
@click.option("--classifier", metavar="C|DIR",
              help="A name of `augforge list`, or a folder [default: logistic; prototype for letters].")  # fmt: skip
@options.assignments("the classifier")
@click.option("--base", metavar="SOURCE", help="Classes that the classifier learns from first, if it needs any.")
@options.split("Which part of the support's source is shown")
@options.max_per_class
@click.option("--shortlist", type=options.Count(min=0), default=0, metavar="M",
              help="Look into the M nearest superclasses only.")  # fmt: skip
@click.option("--pool", metavar="SOURCE",
              help="Unlabelled pictures of the same classes, as a folder of them, or embeddings: they are labelled by "
                   "soft k-means and shown with small weights.")  # fmt: skip
@click.option("--save", type=options.PATH, metavar="DIR", help="Keep the support, embedded, for the next call.")
@click.option("--top", type=options.Count(min=1), default=5, show_default=True, help="How many classes to name.")
@options.seed("what is learnt from --base, and of --max-per-class")
@options.data_root
@options.as_json
def predict(**given: Any) -> None:
    """Name the class of each PICTURE, shown SUPPORT: a few examples of every class.

    SUPPORT is a source (a folder of class folders, an archive, embeddings, ...) or a folder that --save wrote. ROWS is
    a file of embeddings (.npy, .npz, .safetensors, .csv, .parquet), made as those of SUPPORT were.
    """
    from augforge import predict as production
    from augforge.auto.recipe_file import is_recipe
    from augforge.types import InputError

    if not given["pictures"] and given["save"] is None:
        raise InputError("there is no PICTURE to name and no --save; expected one of them")
    recipe = None
    if production.is_predictor(given["support"]):
        predictor, embedder = _saved(given)
    elif given["method"] is not None and is_recipe(given["method"]):
        predictor, embedder, recipe = _by_recipe(given)
    else:
        predictor, embedder = _made(given)
    if given["save"] is not None:
        production.save_predictor(predictor, given["save"])
        if recipe is not None:
            recipe.write(given["save"] / RECIPE)
    rows: list[dict[str, Any]] = [
        {"picture": name, "classes": [{"class": name, "probability": p} for name, p in ranking[: given["top"]]]}
        for name, ranking in _named(predictor, given["pictures"])
    ]
    facts = _facts(predictor, embedder) | ({} if recipe is None else {"auto": recipe.says})
    if given["as_json"]:
        out = None if given["save"] is None else str(given["save"])
        click.echo(json.dumps({"classes": len(predictor.classes), "out": out, **facts, "rows": rows}))
        return
    if recipe is not None and recipe.says:
        click.echo(recipe.says, err=True)
    if None in (given["representation"], given["classifier"], given["views"]):
        views = "" if facts["representation"] is None else f", views {facts['views']}"
        pool = f", pool {facts['pool']} that weigh {facts['pool_weight']:.1f} a class" if facts["pool"] else ""
        made = f", {given['made']} of each class made with {given['method']}" if given["method"] and not recipe else ""
        click.echo(
            f"predict: {facts['representation'] or 'features'}, {facts['classifier']}{views}{made}{pool}", err=True
        )
    if given["save"] is not None:
        click.echo(f"the support of {len(predictor.classes)} classes is in {click.format_filename(given['save'])}")
    for row in rows:
        named = ", ".join(f"{pair['class']} {100 * pair['probability']:.1f} %" for pair in row["classes"])
        click.echo(f"{click.format_filename(row['picture'])}: {named}")


def _saved(given: dict[str, Any]) -> tuple[Any, str | None]:
    """The predictor of a folder, and its representation's name; options that would make another one are refused."""
    from augforge.parts.catalog import describe
    from augforge.predict import load_predictor
    from augforge.types import InputError

    for option in ("representation", "classifier", "assignments", "base", "split", "shortlist", "max_per_class",
                   "views", "pool", "method"):  # fmt: skip
        if given[option]:
            name = _SPELT.get(option, option.replace("_", "-"))
            raise InputError(f"--{name} was given for {given['support']!r}, which was saved with its own")
    predictor = load_predictor(Path(given["support"]))
    part = predictor.representation
    return predictor, None if part is None else describe(part, "representation")["name"]


def _named(predictor: Any, paths: tuple[Path, ...]) -> list[tuple[str, Any]]:
    """(name, ranking) of every picture, and of every row of files of embeddings, in the order of the paths."""
    from augforge.data.embeddings import SUFFIXES, is_embeddings
    from augforge.predict import predict_rows
    from augforge.types import InputError, capabilities

    pictures = tuple(path for path in paths if not is_embeddings(path))
    if pictures and predictor.representation is None:
        raise InputError(
            f"{str(pictures[0])!r} was given, and the support holds embeddings; expected a file of the same network's "
            f"embeddings ({', '.join(SUFFIXES)})"
        )
    short_side = 0 if predictor.representation is None else capabilities(predictor.representation).short_side
    parts = [pictures[start : start + _AT_ONCE] for start in range(0, len(pictures), _AT_ONCE)]
    of_pictures = chain.from_iterable(predictor.predict(_decoded(part, short_side)) for part in parts)
    found: list[tuple[str, Any]] = []
    for path in paths:
        found += predict_rows(predictor, path) if is_embeddings(path) else [(str(path), next(of_pictures))]
    return found


def _made(given: dict[str, Any]) -> tuple[Any, str | None]:
    """A predictor from a source, with the classifier fitted on --base if given, and its representation's name."""
    import torch

    from augforge.data.banks import FeatureBank
    from augforge.inputs import (
        Inputs,
        default_classifier,
        open_pool,
        open_split,
    )  # fmt: skip
    from augforge.parts.saving import open_part
    from augforge.predict import add_made, features_of, make_predictor

    bank, representation, name, views = options.open_support(given)
    usual, settings = default_classifier(bank)
    settings = (settings if given["classifier"] is None else {}) | options.read_settings(None, given["assignments"])
    classifier = open_part(given["classifier"] or usual, settings, "classifier")
    if given["base"] is not None:
        base = open_split(Inputs(given["base"], data_root=given["data_root"]))
        features = FeatureBank(features_of(base, representation, views), base.y, tuple(base.classes), base.origin)
        classifier.fit(features, torch.Generator().manual_seed(given["seed"]))
    pool = None if given["pool"] is None else open_pool(given["pool"], given["data_root"])
    if pool is not None:
        _say_transductive(given["pictures"], Path(given["pool"]))
    part = None if given["method"] is None else _method(given, bank)
    predictor = make_predictor(bank, classifier, representation, given["shortlist"], views, pool)
    return predictor if part is None else add_made(predictor, bank, part, given["made"], given["seed"]), name


def _method(given: dict[str, Any], bank: Any) -> Any:
    """The method of --with NAME or DIR, which makes pictures of those in the bank."""
    from augforge.data.banks import FeatureBank
    from augforge.inputs import Inputs, open_method
    from augforge.types import InputError

    if isinstance(bank, FeatureBank):
        raise InputError(f"--with {given['method']!r} was given, and {given['support']!r} holds features; expected "
                         "pictures to make more of")  # fmt: skip
    return open_method(Inputs(given["support"], given["method"], split=given["split"], seed=given["seed"],
                              data_root=given["data_root"], max_per_class=given["max_per_class"]), bank)  # fmt: skip


def _by_recipe(given: dict[str, Any]) -> tuple[Any, str | None, Any]:
    """A predictor as `auto` or a recipe file says, its representation's name, and the recipe."""
    from augforge.auto.run import Asked, made
    from augforge.inputs import Inputs, open_pool, open_split
    from augforge.types import InputError

    decided = ["classifier", "assignments", "base", "shortlist", "weights", "download"]
    if given["method"] != "auto":
        decided += ["representation", "views"]
    for option in decided:
        if given[option]:
            name = _SPELT.get(option, option.replace("_", "-"))
            raise InputError(f"--{name} was given with --with {given['method']}, which has a choice of its own")
    chosen = {name: given[name] for name in ("split", "seed", "data_root", "max_per_class")}
    bank = open_split(Inputs(given["support"], **chosen))
    pool = None if given["pool"] is None else open_pool(given["pool"], given["data_root"])
    if pool is not None:
        _say_transductive(given["pictures"], Path(given["pool"]))
    asked = Asked(given["representation"], given["views"], given["seed"])
    predictor, recipe = made(bank, pool, given["method"], asked)
    return predictor, recipe.candidate.representation, recipe


def _say_transductive(pictures: tuple[Path, ...], pool: Path) -> None:
    """One line on how many of the pictures lie in the pool, where they are learnt from before they are named."""
    where = pool.resolve()
    inside = sum(path.resolve().is_relative_to(where) for path in pictures)
    if inside and where.exists():
        click.echo(f"predict: {inside} of {len(pictures)} given lie in the pool {str(pool)!r} too, so what names them "
                   "has seen them, unlabelled (transductive)", err=True)  # fmt: skip


def _facts(predictor: Any, embedder: str | None) -> dict[str, Any]:
    """What names the pictures, for the record."""
    from augforge.predict import scorer_name

    return {
        "representation": embedder,
        "classifier": scorer_name(predictor.classifier)[1],
        "views": predictor.views,
        "temperature": predictor.temperature,
        "pool": predictor.pool,
        "pool_weight": predictor.pool_weight,
    }


def _decoded(paths: tuple[Path, ...], short_side: int) -> list[Any]:
    """The pictures [c, h, w] uint8, large ones as the support's are decoded for a network of that `short_side`."""
    import torch

    from augforge.data.decode import decode
    from augforge.types import UnreadablePicture

    pictures = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UnreadablePicture(str(path), f"cannot be read ({error.strerror or error})") from error
        pictures.append(
            torch.from_numpy(decode(data, str(path), 2 * short_side)).permute(2, 0, 1).contiguous()
        )  # [h, w, c] -> [c, h, w]
    return pictures
