"""The command `measure` (a file for each command)."""

from __future__ import annotations

import json
from typing import Any

import click

from augforge.cli import options


@click.command()
@click.argument("real")
@click.argument("made")
@click.option(
    "--holdout", metavar="SOURCE", help="Other real rows to compare with [default: half of each class of REAL]."
)
@options.split("Which part of a source that has train, val and test")
@options.max_per_class
@options.group_by
@options.download
@click.option("--representation", metavar="R|DIR",
              help="What embeds pictures: a name of `augforge list`, or a folder [default: photos; for grey letters of "
                   "28 px conv4-glyphs].")  # fmt: skip
@click.option("--inception", type=options.PATH, metavar="FILE",
              help="Embed by the Inception network of FID, with pytorch-fid's weights in FILE.")  # fmt: skip
@click.option("--judge", type=click.Choice(["logistic", "cnn", "none"]), default="logistic", show_default=True,
              help="The classifier that says what made rows are worth.")  # fmt: skip
@click.option("--steps", type=options.Count(min=1), default=600, show_default=True,
              help="Training steps of --judge cnn, on every set.")  # fmt: skip
@click.option(
    "--repeats", type=options.Count(min=1), default=1, show_default=True, help="Training seeds of --judge cnn."
)
@options.seed()
@options.device("networks run")
@options.data_root
@options.as_json
def measure(**given: Any) -> None:
    """Measure MADE, pictures or features that were made, against REAL ones of the same classes.

    REAL and MADE are sources: a folder of class folders, an archive, an .npz, embeddings, or a name of
    `augforge list`. Every number stands beside the same number of held-out real rows. Nothing is written.
    """
    from augforge.measure.report import measure_sources, table
    from augforge.measure.sets import MeasureRequest

    as_json = given.pop("as_json")
    options.fetch(given, given["representation"])
    report = measure_sources(MeasureRequest(**given))
    name = report["representation"]["name"]
    if given["representation"] is None and given["inception"] is None and name != "features as given":
        click.echo(f"measure: {name}", err=True)
    click.echo(json.dumps(report) if as_json else table(report))
