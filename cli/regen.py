"""The command `regen` (a file for each command)."""

from __future__ import annotations

import json
from pathlib import Path

import click

from augforge.cli import options


@click.command()
@click.argument("manifest", type=options.PATH)
@click.argument("row")
@click.option("--out", type=options.PATH, required=True, metavar="FILE", help="The file to write.")
@click.option("--fit", "train", is_flag=True, help="Train the method again, where the run trained it for long.")
@options.data_root
@options.as_json
def regen(manifest: Path, row: str, out: Path, train: bool, data_root: Path | None, as_json: bool) -> None:
    """Make the picture of one ROW of a MANIFEST again, byte for byte: a line number from 1, or a file of it."""
    from augforge.synth.manifest import as_dict
    from augforge.synth.regen import regen as run

    found = run(manifest, row, out, data_root, train)
    if as_json:
        click.echo(json.dumps(as_dict(found) | {"out": str(out)}))
    else:
        click.echo(f"made {found.file!r} again as {str(out)!r}")
