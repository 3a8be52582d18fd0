"""The command `report` (a file for each command)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from augforge.cli import options


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=options.PATH)
@click.option("--out", type=options.PATH, required=True, metavar="PAGE.html", help="The file to write.")
@click.option("--map", "map_rows", is_flag=True, help="Add a map of the pictures of each run: alike ones are near.")
@options.data_root
@options.as_json
def report(runs: tuple[Path, ...], out: Path, map_rows: bool, data_root: Path | None, as_json: bool) -> None:
    """Draw one self-contained HTML page of runs: verdict, charts, tables that sort, pictures before and after.

    RUN is a folder of `bench --out` or of `synth`. The page needs no network, and nothing beside it.
    """
    from augforge.report import page

    path = page(runs, out, data_root, map_rows)
    size = path.stat().st_size
    found: dict[str, Any] = {"out": str(path), "runs": [str(run) for run in runs], "bytes": size}
    if as_json:
        click.echo(json.dumps(found))
        return
    shown = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
    click.echo(f"drew {len(runs)} run{'' if len(runs) == 1 else 's'} in {click.format_filename(path)}: {shown}")
