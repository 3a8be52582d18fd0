"""The command `synth` (a file for each command)."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from augforge.cli import options


@click.command()
@click.argument("source")
@click.option(
    "--out", type=options.PATH, required=True, metavar="DIR", help="The folder to write; new, empty, or a run's."
)
@click.option("--with", "method", metavar="NAME|DIR",
              help="The method: a name of `augforge list`, a folder of `fit`, auto, or its recipe; with --pool pool or "
                   "retrieved [default: classical; pool with --pool].")  # fmt: skip
@click.option("--pool", metavar="SOURCE",
              help="Unlabelled pictures of the same classes, as a folder of them, or features: the best of each class "
                   "are the examples that are added.")  # fmt: skip
@click.option("--fit", "train", is_flag=True,
              help="Train a method that is trained for long, given by its name, for this run alone.")  # fmt: skip
# How many
@click.option("--per-class", type=options.Count(min=0), metavar="N", help="Make N more of each class.")
@click.option(
    "--to",
    type=options.Count(min=0),
    metavar="N",
    help="Bring each class up to N, real ones counted (see --include-real).",
)
@click.option("--counts", type=options.PATH, metavar="FILE", help="Make as many of each class as a JSON object says.")
@click.option("--class", "classes", multiple=True, metavar="A", help="Only this class; may be given again.")
@options.split("Which part of a source that has train, val and test")
@options.max_per_class
# How
@options.assignments("the method")
@options.config
@options.seed()
@options.download
@click.option("--representation", metavar="R|DIR",
              help="Embed pictures by it, as conv4-glyphs or a folder of `fit`: makes features.")  # fmt: skip
@click.option("--size", type=click.IntRange(1, 16384), metavar="PX",
              help="Make every picture square first: short side PX, middle cut out.")  # fmt: skip
# What is kept
@click.option("--keep", multiple=True, metavar="sound|new|distinct|class[:R]|plausible",
              help="Make a picture again that is blank, saturated or noise; a copy of a real one; like another made "
                   "one; off its class in a representation R; or that the discriminator finds implausible. May be "
                   "given again.")  # fmt: skip
@click.option("--reject", multiple=True, metavar="discriminator|R|DIR",
              help="The same as --keep plausible, and --keep class:R.")  # fmt: skip
@click.option("--tries", type=click.IntRange(1, 10_000), default=10, show_default=True,
              help="How often a picture may be made with --keep or --reject.")  # fmt: skip
@click.option("--plausible", type=click.FloatRange(0, 1), default=0.05, show_default=True, metavar="SHARE",
              help="Least share of real pictures that look less real to the discriminator.")  # fmt: skip
# Where to
@click.option("--format", "sink", type=click.Choice(["folder", "webdataset", "npz"]), default="folder",
              show_default=True, help="What OUT holds.")  # fmt: skip
@click.option("--encoding", type=click.Choice(["source", "png", "jpeg", "webp"]), default="source", show_default=True,
              help="How pictures are coded; source: as the picture that each was made from.")  # fmt: skip
@click.option("--quality", type=click.IntRange(1, 100), default=95, show_default=True,
              help="Of JPEG and WebP; WebP 100 is lossless.")  # fmt: skip
@click.option("--mark/--no-mark", default=True, show_default=True,
              help="Say in the file of each made picture that it was made, as IPTC's digital source type.")  # fmt: skip
@click.option("--classifier", default="logistic", show_default=True, metavar="C",
              help="The classifier that will read made features: their weights suit it.")  # fmt: skip
@click.option("--report/--no-report", "drawn", default=True, show_default=True,
              help="Draw OUT/report.html at the end, one page of the run (see `augforge report`).")  # fmt: skip
@click.option("--include-real", is_flag=True, help="Write the real pictures too.")
# The run
@options.device("the method runs")
@click.option("--workers", type=options.Count(min=0), default=0, metavar="N",
              help="Processes [default: one for each core].")  # fmt: skip
@options.engine
@click.option("--batch-size", type=options.Count(min=1), default=64, show_default=True,
              help="Rows in one call of the method.")  # fmt: skip
@click.option("--shards", metavar="i/N", help="Do the i-th of N parts, from 0; the last to finish joins them.")
@click.option("--strict", is_flag=True, help="A picture that cannot be read is an error.")
@click.option("--resume", is_flag=True, help="Go on with the run that OUT holds.")
@click.option("--verify", is_flag=True, help="With --resume: read all that was made, and its parents, to check them.")
@click.option("--overwrite", is_flag=True, help="Replace the run that OUT holds.")
@click.option("--dry-run", is_flag=True, help="Say what would be made and how large it will be.")
@options.data_root
@options.as_json
def synth(**given: Any) -> None:
    """Expand SOURCE: make more examples of its classes, and say of each where it came from.

    SOURCE is a folder (root/class/picture, or root/{train,val,test}/class/picture), a .zip or .tar of one, an .npz
    (images, labels, classes), embeddings (.npy, .npz, .safetensors, .csv, .parquet), or a name of `augforge list`.
    """
    import cv2
    import torch

    from augforge.auto.recipe_file import is_recipe, method_of
    from augforge.inputs import Inputs
    from augforge.synth.request import Request
    from augforge.synth.run import as_json, dry_run
    from augforge.synth.run import synth as run
    from augforge.synth.run_folder import RunOptions

    given["method"] = given["method"] or ("classical" if given["pool"] is None else "pool")
    options.fetch(given, given["representation"], *given["reject"], *(n.partition(":")[2] for n in given["keep"]))
    torch.set_num_threads(1)  # --workers shares the work; threads on top of processes would fight over the cores
    cv2.setNumThreads(0)
    if is_recipe(given["method"]):
        given["method"], why = method_of(given["method"], given["pool"] is not None)
        click.echo(why, err=True)
    inputs = Inputs(
        settings=options.read_settings(given["config"], given["assignments"]),
        **{name: given[name] for name in ("source", "method", "classes", "split", "seed", "representation", "device",
                                          "data_root", "max_per_class", "train")},
    )  # fmt: skip
    request = Request(
        inputs,
        counts=None if given["counts"] is None else options.json_object(given["counts"], "--counts"),
        encoding=given["encoding"],
        format=given["sink"],
        **{name: given[name] for name in ("per_class", "to", "quality", "size", "include_real", "classifier", "reject",
                                          "keep", "tries", "plausible", "mark", "pool")},
    )  # fmt: skip
    with (
        options.Progress("% of the training") as learning,
        options.Progress("images") as shown,
        contextlib.redirect_stdout(sys.stderr),  # Ray prints that a worker died
    ):
        how = RunOptions(
            shard=_shard(given["shards"]),
            progress=shown.update,
            training=lambda stage, done, loss: learning.update(round(100 * done), 100, f"{stage}, loss {loss:.3f}"),
            **{
                name: given[name]
                for name in ("workers", "batch_size", "resume", "overwrite", "strict", "verify", "engine")
            },
        )
        report = (dry_run if given["dry_run"] else run)(request, given["out"], how)
    for name, reason in report.skipped[:10]:
        click.echo(f"skipped {name!r}: {reason}", err=True)
    if len(report.skipped) > 10:
        click.echo(f"skipped {len(report.skipped) - 10} more", err=True)
    if report.chosen:
        click.echo(report.chosen, err=True)
    page = None if given["dry_run"] or not given["drawn"] else _page(report, given["data_root"])
    found = as_json(report) | ({"report": str(page)} if page else {})
    click.echo(json.dumps(found) if given["as_json"] else _as_text(report, page))


_MOST_SHARDS = 100_000


def _shard(text: str | None) -> tuple[int, int]:
    from augforge.types import InputError

    if text is None:
        return 0, 1
    shard, slash, count = text.partition("/")
    if not (slash and shard.isdecimal() and count.isdecimal()):
        raise InputError(f"--shards {text!r} was given; expected i/N, as 0/3")
    if len(count) > 6 or int(count) > _MOST_SHARDS:
        raise InputError(f"--shards {text!r} was given; expected at most {_MOST_SHARDS:,} parts")
    return int(shard), int(count)


def _page(report: Any, data_root: Path | None) -> Path | None:
    """The page of a finished run of pictures; it is drawn where it is not there, or the run made something."""
    from augforge.data.notes import note
    from augforge.report import page_beside
    from augforge.synth.run_folder import report_path
    from augforge.types import InputError

    if not (report.finished and report.contact_sheet):
        return None
    try:
        path = report_path(Path(report.out))
    except (InputError, OSError) as error:
        note(str(error))
        return None
    if (report.made or report.real or not path.exists()) and (why := page_beside(Path(report.out), data_root)):
        note(why)
        return None
    return path


def _as_text(report: Any, page: Path | None) -> str:
    """A report as a person reads it, and where its page is."""
    from augforge.curate.filters import counts_text
    from augforge.synth.contact_sheet import classes_shown

    classes = sum(1 for count in report.per_class.values() if count)
    out = click.format_filename(report.out)
    size = f"{report.size / 1e6:.1f} MB" if report.size >= 1e5 else f"{report.size / 1e3:.1f} kB"
    real = f" and {report.real} real ones" if report.real else ""
    if report.dry_run:
        return f"would make {report.made} examples of {classes} classes{real}, about {size}, in {out}"
    lines = [f"made {report.made} examples of {classes} classes{real} in {out}: {size}, {report.seconds:.1f} s, "
             f"{report.images_per_second:,.0f} a second"]  # fmt: skip
    if report.rejected:
        count = sum(report.rejected.values())
        lines.append(f"rejected {count} {'try' if count == 1 else 'tries'}: {counts_text(report.rejected)}")
    if report.already:
        lines.append(f"{report.already} had been made before")
    if report.repaired:
        lines.append(f"{report.repaired} of them were missing or damaged, or lie with such, and were made again")
    drawn = [click.format_filename(path) for path in (report.contact_sheet, page) if path]
    if drawn:
        shown = classes_shown(Path(report.contact_sheet)) if report.contact_sheet else ""
        lines.append(f"look at {' and '.join(drawn)}{f': {shown}' if ' of ' in shown else ''}")
    if not report.finished:
        lines.append("other shards are not finished; the last one joins them")
    return "\n".join(lines)
