"""The command `preview` (a file for each command)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from augforge.cli import options


@click.command()
@click.argument("source")
@click.option("--out", type=options.PATH, default=Path("preview.png"), show_default=True, metavar="FILE",
              help="The picture to write; one that is there is replaced.")  # fmt: skip
@click.option("--with", "method", default="classical", show_default=True, metavar="NAME|DIR",
              help="The method: a name of `augforge list`, or a folder of `augforge fit`.")  # fmt: skip
@options.assignments("the method")
@options.config
@click.option("--class", "classes", multiple=True, metavar="A", help="Only this class; may be given again.")
@options.split("Which part of a source that has train, val and test")
@options.max_per_class
@click.option("--size", type=click.IntRange(1, 16384), metavar="PX", help="Make every picture square first.")
@click.option("--keep", multiple=True, metavar="sound|new|distinct|class[:R]|plausible",
              help="Show what this would reject, and why; as in `synth`.")  # fmt: skip
@options.seed()
@options.device("the method runs")
@options.data_root
@options.as_json
def preview(**given: Any) -> None:
    """Draw one picture of what `synth` would make of SOURCE: real pictures, and what is made of each.

    Nothing else is written. The made pictures are those that a run with the same options begins with.
    """
    import cv2
    import torch

    from augforge.inputs import Inputs
    from augforge.synth.preview import preview as draw

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    inputs = Inputs(
        settings=options.read_settings(given["config"], given["assignments"]),
        **{name: given[name] for name in ("source", "method", "classes", "split", "seed", "device", "data_root",
                                          "max_per_class")},
    )  # fmt: skip
    found = draw(inputs, given["out"], given["size"], given["keep"])
    if found.chosen:
        click.echo(found.chosen, err=True)
    if given["as_json"]:
        click.echo(json.dumps({"sheet": str(found.sheet), "classes": found.classes,
                               "seconds": round(found.seconds, 3)}))  # fmt: skip
    else:
        click.echo(f"look at {click.format_filename(found.sheet)}: {found.classes}, {found.seconds:.1f} s")
