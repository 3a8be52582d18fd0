"""The commands that make something: `synth`, `fit` and `regen`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)
_ALARMS_TOLD = 2  # of a fit: the last ones count, and all are in its log
_data_root = click.option(
    "--data-root", type=_PATH, metavar="DIR", help="Where the data of named sources lies [default: $AUGFORGE_DATA]."
)
_set = click.option(
    "--set", "assignments", multiple=True, metavar="K=V", help="A setting of the method; may be given again."
)
_config = click.option("--config", type=_PATH, metavar="FILE", help="Settings of the method as a JSON object.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
_seed = click.option("--seed", type=int, default=0, show_default=True, help="The seed of all chance.")


@click.command()
@click.argument("source")
@click.option("--out", type=_PATH, required=True, metavar="DIR", help="The folder to write; new, empty, or a run's.")
@click.option("--with", "method", default="classical", show_default=True, metavar="NAME|DIR",
              help="The method: a name of `augforge list`, or a folder that `augforge fit` made.")  # fmt: skip
# How many
@click.option("--per-class", type=int, metavar="N", help="Make N more of each class.")
@click.option("--to", type=int, metavar="N", help="Bring each class up to N, real ones counted.")
@click.option("--counts", type=_PATH, metavar="FILE", help="Make as many of each class as a JSON object says.")
@click.option("--class", "classes", multiple=True, metavar="A", help="Only this class; may be given again.")
@click.option("--split", metavar="NAME", help="Which part of a source that has train, val and test [default: train].")
# How
@_set
@_config
@_seed
@click.option("--representation", metavar="R|DIR",
              help="Embed pictures by it, as conv4-glyphs or a folder of `fit`: makes features.")  # fmt: skip
@click.option("--size", type=int, metavar="PX", help="Make every picture square first: short side PX, middle cut out.")
# What is kept
@click.option("--reject", multiple=True, metavar="discriminator|R|DIR",
              help="Make a picture again that the method's discriminator finds implausible, or that lies off its "
                   "class in a representation, as conv4-glyphs; may be given again.")  # fmt: skip
@click.option("--tries", type=int, default=10, show_default=True, help="How often a picture may be made with --reject.")
@click.option("--plausible", type=float, default=0.05, show_default=True, metavar="SHARE",
              help="Least share of real pictures that look less real to the discriminator.")  # fmt: skip
# Where to
@click.option("--format", "sink", type=click.Choice(["folder", "webdataset", "npz"]), default="folder",
              show_default=True, help="What OUT holds.")  # fmt: skip
@click.option("--encoding", type=click.Choice(["png", "jpeg", "webp"]), default="png", show_default=True,
              help="How pictures are coded.")  # fmt: skip
@click.option("--quality", type=int, default=95, show_default=True, help="Of JPEG and WebP; WebP 100 is lossless.")
@click.option("--include-real", is_flag=True, help="Write the real pictures too, coded alike.")
# The run
@click.option("--device", default="auto", show_default=True, help="Where the method runs: auto, cpu, cuda.")
@click.option("--workers", type=int, default=0, metavar="N", help="Processes [default: one for each core].")
@click.option("--batch-size", type=int, default=64, show_default=True, help="Rows in one call of the method.")
@click.option("--shards", metavar="i/N", help="Do the i-th of N parts, from 0; the last to finish joins them.")
@click.option("--strict", is_flag=True, help="A picture that cannot be read is an error.")
@click.option("--resume", is_flag=True, help="Go on with the run that OUT holds.")
@click.option("--overwrite", is_flag=True, help="Replace the run that OUT holds.")
@click.option("--dry-run", is_flag=True, help="Say what would be made and how large it will be.")
@_data_root
@_json
def synth(**given: Any) -> None:
    """Expand SOURCE: make more examples of its classes, and say of each where it came from.

    SOURCE is a folder (root/class/picture, or root/{train,val,test}/class/picture), a .zip or .tar of one, an .npz
    (images, labels, classes), a .safetensors feature bank, or a name of `augforge list`.
    """
    import cv2
    import torch

    from augforge.synth.request import Options, Order
    from augforge.synth.run import as_json, dry_run
    from augforge.synth.run import synth as run

    torch.set_num_threads(1)  # --workers shares the work; threads on top of processes would fight over the cores
    cv2.setNumThreads(0)
    order = Order(
        source=given["source"],
        method=given["method"],
        settings=_settings(given["config"], given["assignments"]),
        counts=None if given["counts"] is None else _json_object(given["counts"], "--counts"),
        encoding=given["encoding"],
        format=given["sink"],
        **{name: given[name] for name in ("per_class", "to", "classes", "split", "seed", "quality", "size")},
        **{name: given[name] for name in ("include_real", "representation", "reject", "tries", "plausible")},
    )
    bar = _Bar(sys.stderr.isatty())
    options = Options(
        shard=_shard(given["shards"]),
        progress=bar.update,
        **{name: given[name] for name in ("workers", "batch_size", "resume", "overwrite", "strict", "data_root",
                                          "device")},
    )  # fmt: skip
    report = (dry_run if given["dry_run"] else run)(order, given["out"], options)
    bar.close()
    for name, reason in report.skipped[:10]:
        click.echo(f"skipped {name!r}: {reason}", err=True)
    if len(report.skipped) > 10:
        click.echo(f"skipped {len(report.skipped) - 10} more", err=True)
    click.echo(json.dumps(as_json(report)) if given["as_json"] else _told(report))


@click.command()
@click.argument("name")
@click.argument("source")
@click.option("--out", type=_PATH, required=True, metavar="DIR", help="The folder that the fitted method goes to.")
@click.option("--split", metavar="NAME", help="Which part of the source to learn from [default: train].")
@click.option("--representation", metavar="R|DIR",
              help="Learn from the features it makes of pictures: conv4-glyphs, or a folder of `fit`.")  # fmt: skip
@_set
@_config
@_seed
@click.option("--device", default="auto", show_default=True, help="Where to learn: auto, cpu, cuda.")
@click.option("--minutes", type=float, metavar="M", help="End each stage of a training after M minutes.")
@click.option("--resume", is_flag=True, help="Go on with a fit that was stopped; one that is finished stays.")
@_data_root
@_json
def fit(**given: Any) -> None:
    """Fit NAME - a method, a classifier or a representation - on SOURCE and save it.

    `augforge synth --with DIR` and `augforge bench --with DIR`, `--classifier DIR`, `--representation DIR` take it.
    """
    from augforge.fit import Fitting, fit_part
    from augforge.parts.saving import part_digest
    from augforge.synth.request import Order
    from augforge.training.distributed import is_first
    from augforge.types import capabilities

    out, settings = given["out"], _settings(given["config"], given["assignments"])
    chosen = {name: given[name] for name in ("split", "seed", "representation")}
    order = Order(given["source"], given["name"], settings, per_class=0, **chosen)
    device, resume, data_root, minutes = (given[name] for name in ("device", "resume", "data_root", "minutes"))
    part, kind = fit_part(order, out, Fitting(device, resume, data_root, _told_loss(), minutes))
    if not is_first():
        return
    digest, alarms = part_digest(part, kind), list(capabilities(part).alarms)
    for alarm in alarms[-_ALARMS_TOLD:]:
        click.echo(f"alarm: {alarm}", err=True)
    if len(alarms) > _ALARMS_TOLD:
        click.echo(f"{len(alarms) - _ALARMS_TOLD} earlier alarms are in {out / 'training' / 'log.jsonl'}", err=True)
    if given["as_json"]:
        found = {"name": given["name"], "kind": kind, "out": str(out), "digest": digest, "seed": given["seed"]}
        click.echo(json.dumps(found | {"alarms": alarms} if alarms else found))
    else:
        click.echo(f"fitted {given['name']} ({digest}) is in {out}")


@click.command()
@click.argument("manifest", type=_PATH)
@click.argument("row")
@click.option("--out", type=_PATH, required=True, metavar="FILE", help="The file to write.")
@_data_root
@_json
def regen(manifest: Path, row: str, out: Path, data_root: Path | None, as_json: bool) -> None:
    """Make the picture of one ROW of a MANIFEST again, byte for byte: a line number from 1, or a file of it."""
    from augforge.synth.manifest import as_dict
    from augforge.synth.regen import regen as run

    found = run(manifest, row, out, data_root)
    if as_json:
        click.echo(json.dumps(as_dict(found) | {"out": str(out)}))
    else:
        click.echo(f"made {found.file!r} again as {str(out)!r}")


def _told_loss() -> Any:
    """What shows how far a training is, on a terminal only."""
    if not sys.stderr.isatty():
        return None
    return lambda stage, done, loss: click.echo(f"{stage}: {100 * done:3.0f} %, loss {loss:.3f}", err=True)


class _Bar:
    """A progress bar on a terminal, and nothing elsewhere."""

    def __init__(self, shown: bool) -> None:
        self.shown = shown
        self.bar: Any = None

    def update(self, done: int, total: int) -> None:
        """Show that `done` rows of `total` are finished."""
        if not self.shown:
            return
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=0, unit=" images", file=sys.stderr)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it is and go on below it."""
        if self.bar is not None:
            self.bar.close()


def _settings(config: Path | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """The settings of `--config`, and over them those of `--set`."""
    from augforge.parts.catalog import read_assignment

    settings = {} if config is None else _json_object(config, "--config")
    return settings | dict(map(read_assignment, assignments))


def _json_object(path: Path, option: str) -> dict[str, Any]:
    from augforge.types import InputError

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{option} {str(path)!r} cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{option} {str(path)!r} holds a {type(found).__name__}; expected a JSON object")
    return found


def _shard(text: str | None) -> tuple[int, int]:
    from augforge.types import InputError

    if text is None:
        return 0, 1
    shard, slash, count = text.partition("/")
    if not (slash and shard.isdecimal() and count.isdecimal()):
        raise InputError(f"--shards {text!r} was given; expected i/N, as 0/3")
    return int(shard), int(count)


def _told(report: Any) -> str:
    """A report as a person reads it."""
    from augforge.synth.reject import told_counts

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
        lines.append(f"rejected {count} {'try' if count == 1 else 'tries'}: {told_counts(report.rejected)}")
    if report.already:
        lines.append(f"{report.already} had been made before")
    if report.contact_sheet:
        lines.append(f"look at {click.format_filename(report.contact_sheet)}")
    if not report.finished:
        lines.append("other shards are not finished; the last one joins them")
    return "\n".join(lines)
