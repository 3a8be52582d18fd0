"""What several commands share: their options, written once, and how a command shows how far it is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
_LARGEST = 2**31 - 1
_SECONDS = 30.0  # between two lines where there is no terminal

Option = Callable[[Any], Any]


class Count(click.IntRange):
    """A whole number from `min` to what 31 bits hold, which --help need not say."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; fails for a larger one."""
        number: int = super().convert(value, param, ctx)
        if number > _LARGEST:
            self.fail(f"{str(value)[:30]} was given; expected at most {_LARGEST:,}.", param, ctx)
        return number


config = click.option("--config", type=PATH, metavar="FILE", help="Settings of the method as a JSON object.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
data_root = click.option(
    "--data-root", type=PATH, metavar="DIR", help="Where the data of named sources lies [default: $AUGFORGE_DATA]."
)

max_per_class = click.option(
    "--max-per-class", type=Count(min=1), metavar="N",
    help="Use at most N rows of each class, chosen by --seed [default: all].",
)  # fmt: skip
group_by = click.option(
    "--group-by", metavar="REGEX",
    help="Rows whose names match alike, in the first group of REGEX, stay on one side of every split: frames of one "
         "track, photos of one day.",
)  # fmt: skip


download = click.option(
    "--download",
    is_flag=True,
    help="Fetch missing weights of timm: or torchvision: first; nothing else is ever fetched.",
)


weights = click.option(
    "--weights", type=PATH, metavar="FILE",
    help="The weights of --representation timm:NAME or torchvision:NAME: .safetensors, or .pth read as tensors alone.",
)  # fmt: skip


def fetch(given: dict[str, Any], *names: str | None) -> None:
    """Fetch the weights of the representations among `names`, where `--download` is given; raises LackError."""
    from augforge.inputs import fetch_weights

    if given.pop("download"):
        for name in names:
            fetch_weights(name or "")


def representation_settings(given: dict[str, Any]) -> dict[str, str]:
    """The settings that `--weights` makes, once `--download` has fetched what it should; raises InputError."""
    from augforge.inputs import fetch_weights
    from augforge.types import InputError

    name = given["representation"]
    if (given["weights"] is not None or given["download"]) and name is None:
        option = "--download" if given["download"] else "--weights"
        raise InputError(f"{option} was given without --representation; expected one of timm:NAME or torchvision:NAME")
    if given["download"]:
        fetch_weights(name)
    return {} if given["weights"] is None else {"weights": str(given["weights"])}


engine = click.option(
    "--engine", default="processes", show_default=True, metavar="E",
    help="What shares the work: processes; ray, with --workers cores of this machine; or a Ray cluster that runs: "
         "ray:auto, ray:HOST:PORT, ray://HOST:PORT.",
)  # fmt: skip


engine_workers = click.option(
    "--workers", type=Count(min=0), default=0, metavar="N",
    help="With --engine ray: cores that it uses [default: all]; with a cluster that runs, items under way at most.",
)  # fmt: skip


def seed(what: str = "all chance") -> Option:
    """`--seed` of something."""
    return click.option("--seed", type=int, default=0, show_default=True, help=f"The seed of {what}.")


def device(what: str, default: str = "auto") -> Option:
    """`--device`, where something happens."""
    return click.option(
        "--device", default=default, show_default=True, help=f"Where {what}: auto, cpu, cuda or cuda:N."
    )


def split(what: str) -> Option:
    """`--split`, the part of a source that something happens to."""
    return click.option("--split", metavar="NAME", help=f"{what} [default: train].")


def assignments(what: str) -> Option:
    """`--set` for the settings of something."""
    return click.option(
        "--set", "assignments", multiple=True, metavar="K=V", help=f"A setting of {what}; may be given again."
    )


def open_support(given: dict[str, Any]) -> tuple[Any, Any, str | None, str]:
    """The bank of SUPPORT, the representation that embeds its pictures with its name, and the views to average.

    None, None and "none" for features. Raises InputError, also for an option of pictures that is given for features.
    """
    from augforge.data.banks import FeatureBank
    from augforge.inputs import Inputs, default_representation, default_views, open_split
    from augforge.parts.saving import open_part
    from augforge.types import InputError

    chosen = {name: given[name] for name in ("split", "seed", "data_root", "max_per_class")}
    bank = open_split(Inputs(given["support"], **chosen))
    if not isinstance(bank, FeatureBank):
        name = given["representation"] or default_representation(bank)
        representation = open_part(name, representation_settings(given), "representation")
        return bank, representation, name, given["views"] or default_views(representation)
    if given["representation"] is not None:
        raise InputError(f"--representation was given, and {given['support']!r} holds features already")
    if given["views"] is not None:
        raise InputError(f"--views was given, and {given['support']!r} holds features, of which there are no views")
    return bank, None, None, "none"


def read_settings(path: Path | None, given: tuple[str, ...]) -> dict[str, Any]:
    """The settings of `--config`, and over them those of `--set`; raises InputError."""
    from augforge.parts.catalog import read_assignment

    settings = {} if path is None else json_object(path, "--config")
    return settings | dict(map(read_assignment, given))


def json_object(path: Path, option: str) -> dict[str, Any]:
    """What the file of an option holds; raises InputError where that is no JSON object."""
    from augforge.data.strict_json import brief, parse_json
    from augforge.types import InputError

    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{option} {str(path)!r} cannot be read as JSON ({brief(error)})") from error
    if not isinstance(found, dict):
        raise InputError(f"{option} {str(path)!r} holds a {type(found).__name__}; expected a JSON object")
    return found


class Progress:
    """How far a command is, on stderr: a bar on a terminal, and elsewhere a plain line every 30 seconds.

    `unit` is what is counted. Used in a `with`; the first line comes after 30 seconds, so short commands say nothing.
    With `steady` it also comes while one step takes longer than that: a thread repeats the last update. That is for
    commands that fork no workers, which would inherit its locks.
    """

    def __init__(self, unit: str, seconds: float = _SECONDS, steady: bool = False) -> None:
        self.unit, self.seconds, self.steady = unit, seconds, steady
        self.begun = self.spoken = time.monotonic()
        self.bar: Any = None
        self.last = (0, 0, "")
        self.ended, self.speaking = threading.Event(), threading.Lock()
        self.speaker: threading.Thread | None = None

    def update(self, done: int, total: int, what: str = "") -> None:
        """Show that `done` of `total` are finished, and `what` is under way; a smaller number begins anew."""
        if sys.stderr.isatty():
            self._draw(done, total, what)
            return
        self.last = (done, total, what)
        self._say()

    def _say(self) -> None:
        """The line of the last update, if the line before was long enough ago."""
        with self.speaking:
            now = time.monotonic()
            if now - self.spoken < self.seconds:
                return
            self.spoken, (done, total, what) = now, self.last
            count = f"{done}/{total} {self.unit}" if total else "at work"
            click.echo(f"{count}{f', {what}' if what else ''}, {now - self.begun:.0f} s", err=True)

    def _keep_saying(self) -> None:
        while not self.ended.wait(max(0.01, self.spoken + self.seconds - time.monotonic())):
            self._say()

    def _draw(self, done: int, total: int, what: str) -> None:
        """Move the bar. Elsewhere than on a terminal tqdm is not made, even to show nothing: its lock is one for all
        forks of a process, and stays closed for ever where one of them is killed with it.
        """
        if self.bar is None or self.bar.total != total or done < self.bar.n:
            from tqdm import tqdm  # heavy for a command that only answers

            self.close()
            self.bar = tqdm(total=total, initial=done, unit=f" {self.unit}", file=sys.stderr)
        self.bar.set_postfix_str(what, refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it is and go on below it."""
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> Progress:
        """Itself."""
        if self.steady and not sys.stderr.isatty():
            self.speaker = threading.Thread(target=self._keep_saying, name="progress", daemon=True)
            self.speaker.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Close it. The thread has ended then: one that is left at the interpreter's end aborts the process."""
        self.ended.set()
        if self.speaker is not None:
            self.speaker.join()
        self.close()
