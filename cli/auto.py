"""The command `auto`: choose what names pictures of a source best, and write the choice down (a file for each)."""

from __future__ import annotations

import json
from typing import Any

import click

from augforge.cli import options


@click.command()
@click.argument("source")
@click.option("--pool", metavar="SOURCE", help="Unlabelled pictures of the same classes, as a folder of them.")
@click.option("--out", type=options.PATH, metavar="FILE", help="Write the recipe to FILE.json; predict, bench and "
              "synth take it with --with.")  # fmt: skip
@click.option("--representation", metavar="R|DIR", help="Choose among these networks alone, as A or A+B.")
@click.option("--views", metavar="V", help="Views of a picture to average: none, crops-4 or crops [default: "
              "crops-4 where pictures of any size will do, else none].")  # fmt: skip
@options.split("Which part of the source is shown")
@options.max_per_class
@options.group_by
@options.seed("the folds, and of --max-per-class")
@options.data_root
@options.as_json
def auto(**given: Any) -> None:
    """Choose what names pictures of SOURCE best: features, classifier, and whether the pool helps.

    By five folds of the pictures that are there, and by what augforge's own benchmark says where these are few.
    """
    from augforge.auto.recipe_file import SUFFIX
    from augforge.auto.run import Asked, decide
    from augforge.inputs import Inputs, open_pool, open_split
    from augforge.types import InputError

    out = given["out"]
    if out is not None and out.suffix != SUFFIX:
        raise InputError(f"--out {str(out)!r} was given; expected a name that ends in {SUFFIX}")
    chosen = {name: given[name] for name in ("split", "seed", "data_root", "max_per_class", "group_by")}
    bank = open_split(Inputs(given["source"], **chosen))
    pool = None if given["pool"] is None else open_pool(given["pool"], given["data_root"])
    decided = decide(bank, pool, Asked(given["representation"], given["views"], given["seed"]))
    choice, recipe = decided.choice, decided.recipe
    if out is not None:
        recipe.write(out)
    if not given["as_json"]:
        click.echo(recipe.says)
        if out is not None:
            click.echo(f"the recipe is in {click.format_filename(out)}")
        return
    rows = [{"candidate": one.candidate.words(), "accuracy": one.accuracy, "gain": one.mean,
             "gain_ci95": list(one.interval)} for one in choice.rated]  # fmt: skip
    click.echo(json.dumps({
        "chosen": choice.candidate.words(), "views": recipe.views, "out": None if out is None else str(out),
        "held_out": choice.rows, "shots": choice.shots, "pool_trust": choice.trust, "gain": choice.best.mean,
        "gain_ci95": list(choice.best.interval), "shot_worth": choice.worth(choice.best.mean),
        "says": recipe.says, "rows": rows,
    }))  # fmt: skip
