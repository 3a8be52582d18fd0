"""The command `check` (a file for each command)."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from augforge.cli import options

_LEAKS = 3


@click.command()
@click.argument("a")
@click.argument("b", required=False)
@options.download
@click.option("--representation", metavar="R|DIR",
              help="What embeds pictures: a name of `augforge list`, or a folder [default: photos; for grey letters of "
                   "28 px conv4-glyphs].")  # fmt: skip
@click.option("--fast", is_flag=True, help="Embed nothing: by pixels and thumbnails alone, without labels.")
@click.option("--near", type=click.FloatRange(0, 1, min_open=True), default=0.98, show_default=True, metavar="COSINE",
              help="From which on two rows of features, around their mean, are near-duplicates.")  # fmt: skip
@click.option("--out", type=options.PATH, metavar="FILE", help="Write all that was found: .json, .csv or .txt.")
@options.seed()
@options.device("networks run")
@options.data_root
@options.as_json
def check(**given: Any) -> None:
    """Audit A, or A against B: copies, children of test pictures, blanks, broken files, suspicious labels.

    A and B are sources: a folder of class folders, one of pictures alone, an archive, an .npz, embeddings, or a name
    of `augforge list`. Without B the splits of A are compared. Exit code 3 says that something of one part is in the
    other.
    """
    from augforge.check.audit import check as run
    from augforge.check.report import as_json, as_table, check_name, write_report
    from augforge.check.sides import CheckRequest
    from augforge.inputs import device_of

    as_object, out = given.pop("as_json"), given.pop("out")
    if out is not None:
        check_name(out)
    options.fetch(given, given["representation"])
    given["device"] = device_of(given["device"])
    audit = run(CheckRequest(**given))
    if out is not None:
        write_report(audit, out)
    click.echo(json.dumps(as_json(audit)) if as_object else as_table(audit))
    if audit.leaks:
        sys.exit(_LEAKS)
