"""The command that measures made rows: `measure`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("real")
@click.argument("made")
@click.option(
    "--holdout", metavar="SOURCE", help="Other real rows to compare with [default: half of each class of REAL]."
)
@click.option("--split", metavar="NAME", help="Which part of a source that has train, val and test [default: train].")
@click.option("--representation", metavar="R|DIR",
              help="What embeds pictures: a name of `augforge list`, or a folder [default for 28 px in grey: "
                   "conv4-glyphs].")  # fmt: skip
@click.option("--inception", type=_PATH, metavar="FILE",
              help="Embed by the Inception network of FID, with pytorch-fid's weights in FILE.")  # fmt: skip
@click.option("--judge", type=click.Choice(["logistic", "cnn", "none"]), default="logistic", show_default=True,
              help="The classifier that says what made rows are worth.")  # fmt: skip
@click.option("--steps", type=int, default=600, show_default=True, help="Training steps of --judge cnn, in every arm.")
@click.option("--repeats", type=int, default=1, show_default=True, help="Training seeds of --judge cnn.")
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of all chance.")
@click.option("--device", default="auto", show_default=True, help="Where networks run: auto, cpu, cuda.")
@click.option("--data-root", type=_PATH, metavar="DIR",
              help="Where the data of named sources lies [default: $AUGFORGE_DATA].")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def measure(**given: Any) -> None:
    """Measure MADE, pictures or features that were made, against REAL ones of the same classes.

    REAL and MADE are sources: a folder of class folders, an archive, an .npz, a .safetensors feature bank, or a name of
    `augforge list`. Every number stands beside the same number of held-out real rows. Nothing is written.
    """
    from augforge.measure.report import measure_sources, table
    from augforge.measure.sets import MeasureRequest

    as_json = given.pop("as_json")
    report = measure_sources(MeasureRequest(**given))
    click.echo(json.dumps(report) if as_json else table(report))
