"""The command `fit` (a file for each command)."""

from __future__ import annotations

import json
from typing import Any

import click

from augforge.cli import options

_ALARMS_SHOWN = 2  # of a fit: the last ones count, and all are in its log


@click.command()
@click.argument("name")
@click.argument("source")
@click.option("--out", type=options.PATH, required=True, metavar="DIR", help="The folder that the fitted part goes to.")
@options.split("Which part of the source to learn from")
@options.max_per_class
@options.group_by
@options.download
@click.option("--representation", metavar="R|DIR",
              help="Learn from the features it makes of pictures: conv4-glyphs, or a folder of `fit`.")  # fmt: skip
@options.assignments("the method")
@options.config
@options.seed()
@options.device("to learn")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), metavar="M",
              help="End each stage of a training after M minutes.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with a fit that was stopped; one that is finished stays.")
@options.data_root
@options.as_json
def fit(**given: Any) -> None:
    """Fit NAME - a method, a classifier or a representation - on SOURCE and save it.

    `augforge synth --with DIR` and `augforge bench --with DIR`, `--classifier DIR`, `--representation DIR` take it.
    """
    from augforge.fit import FitOptions, fit_part
    from augforge.inputs import Inputs
    from augforge.parts.saving import part_digest
    from augforge.training.distributed import is_first
    from augforge.types import capabilities

    options.fetch(given, given["name"], given["representation"])
    out, settings = given["out"], options.read_settings(given["config"], given["assignments"])
    chosen = {name: given[name] for name in ("source", "split", "seed", "representation", "device", "data_root",
                                             "max_per_class", "group_by")}  # fmt: skip
    inputs = Inputs(method=given["name"], settings=settings, **chosen)
    with options.Progress("% of the steps") as shown:
        part, kind = fit_part(inputs, out, FitOptions(given["resume"], _to_bar(shown), given["minutes"]))
    if not is_first():
        return
    digest, alarms = part_digest(part, kind), list(capabilities(part).alarms)
    for alarm in alarms[-_ALARMS_SHOWN:]:
        click.echo(f"alarm: {alarm}", err=True)
    if len(alarms) > _ALARMS_SHOWN:
        click.echo(f"{len(alarms) - _ALARMS_SHOWN} earlier alarms are in {out / 'training' / 'log.jsonl'}", err=True)
    if given["as_json"]:
        found = {"name": given["name"], "kind": kind, "out": str(out), "digest": digest, "seed": given["seed"]}
        click.echo(json.dumps(found | {"alarms": alarms} if alarms else found))
    else:
        click.echo(f"fitted {given['name']} ({digest}) is in {out}")


def _to_bar(shown: options.Progress) -> Any:
    """What a training calls with its stage, the part of it that is done, and the loss."""
    return lambda stage, done, loss: shown.update(round(100 * done), 100, f"{stage}, loss {loss:.3f}")
