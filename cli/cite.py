"""The command `cite` (a file for each command)."""

from __future__ import annotations

import click


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|DIR|FILE...")
def cite(names: tuple[str, ...]) -> None:
    """Print BibTeX of the papers that methods, classifiers and representations come from.

    NAME is one of `augforge list`, FILE a recipe of `augforge auto`, DIR a folder that `fit` or `synth` made.
    """
    from augforge.parts.citations import cite as entries

    found, without = entries(names)
    if found:
        click.echo(found)
    if without:
        click.echo(f"% no paper: {', '.join(without)}; please cite augforge itself (CITATION.cff)")
