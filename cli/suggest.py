"""The command `suggest` (a file for each command)."""

from __future__ import annotations

import json
from typing import Any

import click

from augforge.cli import options


@click.command()
@click.argument("support")
@click.option(
    "--pool", required=True, metavar="SOURCE", help="Unlabelled pictures, as a folder of them, or embeddings."
)
@click.option("--count", type=click.IntRange(min=1), default=10, show_default=True, metavar="N",
              help="How many pictures to name.")  # fmt: skip
@click.option("--representation", metavar="R|DIR", help="What embeds pictures [default: as in predict].")
@options.weights
@options.download
@click.option("--views", metavar="V", help="Views of a picture to average [default: as in predict].")
@options.split("Which part of the support's source is shown")
@options.max_per_class
@options.seed("--max-per-class")
@options.data_root
@options.as_json
def suggest(**given: Any) -> None:
    """Name the pictures of a pool that are most worth a label next, beside SUPPORT: what is labelled so far.

    Each line is a picture and the points of accuracy that its label is expected to add; the most worth comes first.
    """
    from augforge.inputs import open_pool
    from augforge.suggest import suggest as worth

    bank, representation, name, views = options.open_support(given)
    found = worth(bank, open_pool(given["pool"], given["data_root"]), representation, views, given["count"])
    if given["as_json"]:
        rows = [{"picture": one.name, "row": one.row, "gain": one.gain} for one in found]
        click.echo(json.dumps({"representation": name, "views": views, "rows": rows}))
        return
    click.echo(f"suggest: {name or 'features'}, views {views}", err=True)
    for one in found:
        click.echo(f"{click.format_filename(one.name)}: +{one.gain:.2f}")
