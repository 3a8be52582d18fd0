"""What a run of `augforge synth` was asked for, and how `run.json` keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from augforge import __version__
from augforge.data.banks import AnyBank
from augforge.data.source import SOURCE_NAMES
from augforge.machine import machine, versions
from augforge.parts import catalog, saving
from augforge.parts.catalog import nearest
from augforge.synth.encode import AS_SOURCE, PNG_WRITER, SUFFIXES, Encoding
from augforge.synth.manifest import OF_POOL
from augforge.synth.plan import Plan
from augforge.synth.sinks import UNITS, Format
from augforge.types import InputError, Inputs

DISCRIMINATOR = "discriminator"  # what `--reject` calls `--keep plausible`
KEEP = ("sound", "new", "distinct", "class", "plausible")  # what `--keep` takes, and class:R
_OF_INPUTS = ("source", "method", "settings", "classes", "split", "seed", "representation", "max_per_class")
_RECORDED = (
    "source", "method", "settings", "per_class", "to", "counts", "classes", "split", "seed", "format", "encoding",
    "quality", "size", "include_real", "representation", "reject", "tries", "plausible",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """All that decides the bytes of a run's output: what it works on, and what is made of that.

    Exactly one of `per_class`, `to` and `counts` is given. Raises InputError for an unknown format or encoding,
    numbers out of range, rejection of features, and a pool without a method that takes from it, or the other way round.
    """

    inputs: Inputs
    per_class: int | None = None  # make so many more of each class
    to: int | None = None  # bring each class up to so many, real ones counted
    counts: Mapping[str, int] | None = None  # make so many more of each named class
    format: Format = "folder"  # what OUT holds
    encoding: Encoding | Literal["source"] = "source"  # how pictures are coded; "source": as the one each was made from
    quality: int = 95  # of JPEG and WebP, 1 to 100; WebP 100 is lossless
    size: int | None = None  # every picture is made square first, 1 to 16384 px
    include_real: bool = False  # the real pictures are written too
    classifier: str = "logistic"  # by name: which will read made features, whose weights suit it
    reject: tuple[str, ...] = ()  # what rejects pictures: "discriminator", and representations by name or folder
    keep: tuple[str, ...] = ()  # only pictures that are: of KEEP, or "class:R" with a representation by name or folder
    tries: int = 10  # how often a picture is made before a run gives up, 1 to 10000
    plausible: float = 0.05  # least share of real pictures that look less real to the discriminator, 0 to 1
    mark: bool = True  # files of made pictures say that they were made: IPTC's digital source type, in XMP
    pool: str | None = None  # unlabelled rows, any source: the examples that the methods pool and retrieved give

    def __post_init__(self) -> None:
        """Check what was given."""
        encodings = (AS_SOURCE, *SUFFIXES)
        for name, value, allowed in (("--format", self.format, UNITS), ("--encoding", self.encoding, encodings)):
            if value not in allowed:
                raise InputError(f"{name} {value!r} was given; expected one of {', '.join(allowed)}")
        if not 1 <= self.quality <= 100:
            raise InputError(f"--quality {self.quality} was given; expected 1 to 100")
        if self.size is not None and not 1 <= self.size <= 16384:
            raise InputError(f"--size {self.size} was given; expected 1 to 16384 pixels")
        catalog.family_of(self.classifier)
        self._check_rejection()
        takes = self.inputs.method in OF_POOL  # also where a folder is called so, as a pool may be
        if takes and self.pool is None:
            raise InputError(f"--with {self.inputs.method} was given without --pool, whose pictures it takes")
        if not takes and self.pool is not None:
            raise InputError(f"--pool was given with --with {self.inputs.method!r}; expected {' or '.join(OF_POOL)}")
        if self.pool is not None and self.kept:
            option = "--reject" if self.reject else "--keep"
            raise InputError(
                f"{option} is for pictures that are made, and those of --pool are taken; expected no {option}"
            )

    def _check_rejection(self) -> None:
        if not 1 <= self.tries <= 10_000:
            raise InputError(f"--tries {self.tries} was given; expected 1 to 10000")
        if not 0 <= self.plausible <= 1:
            raise InputError(f"--plausible {self.plausible} was given; expected a share, 0 to 1")
        if not self.kept and (self.tries, self.plausible) != (Request.tries, Request.plausible):
            raise InputError("--tries or --plausible was given without --reject or --keep, which they belong to")
        for name in self.keep:
            kind, colon, rest = name.partition(":")
            if kind not in KEEP or (colon and (kind != "class" or not rest)):
                raise InputError(
                    f"--keep {name!r} was given; expected {', '.join(KEEP)} or class:R{nearest(name, [*KEEP])}"
                )
        if len(set(self.kept)) < len(self.kept):
            option, given = ("--keep", self.keep) if self.keep else ("--reject", self.reject)
            raise InputError(f"{option} names something twice: {', '.join(map(repr, given))}")
        if self.reject and self.inputs.representation is not None:
            raise InputError("--reject is for pictures, and --representation makes features; expected one of them")

    @property
    def kept(self) -> tuple[str, ...]:
        """The filters that rows must pass, in order, as `--keep` calls them: those of `reject` come first."""
        older = ("plausible" if name == DISCRIMINATOR else f"class:{name}" for name in self.reject)
        return (*older, *self.keep)


def with_preset(inputs: Inputs, preset: str) -> Inputs:
    """Inputs with a preset of `classical`, where that is the method and none was given."""
    if inputs.method != "classical" or "preset" in inputs.settings:
        return inputs
    return replace(inputs, settings={**inputs.settings, "preset": preset})


def as_record(request: Request) -> dict[str, Any]:
    """A request as `run.json` keeps it under "order": paths are absolute, so that it is understood from any folder."""
    values = vars(request.inputs) | vars(request)
    found = {name: values[name] for name in _RECORDED}
    source, method = request.inputs.source, request.inputs.method
    found["source"] = source if source in SOURCE_NAMES else _absolute(source)
    found["method"] = _absolute(method) if method not in OF_POOL and saving.is_folder(method) else method
    found["classes"] = list(request.inputs.classes)
    if request.inputs.representation is None:
        del found["representation"]  # as in the records of runs without one
    else:
        found["representation"] = _placed(request.inputs.representation)
    if request.classifier != Request.classifier:
        found["classifier"] = request.classifier
    if request.inputs.max_per_class is not None:
        found["max_per_class"] = request.inputs.max_per_class
    if request.pool is not None:
        found["pool"] = request.pool if request.pool in SOURCE_NAMES else _absolute(request.pool)
    if request.reject:
        found["reject"] = [name if name == DISCRIMINATOR else _placed(name) for name in request.reject]
    else:
        del found["reject"]
    if request.keep:
        parts = (name.partition(":") for name in request.keep)
        found["keep"] = [f"{kind}:{_placed(name)}" if name else kind for kind, _, name in parts]
    if not request.kept:
        del found["tries"], found["plausible"]
    if request.mark and request.format != "npz" and request.pool is None:
        found["mark"] = True  # not in records of before, so that their runs are not gone on with
    return found


def method_record(part: Any) -> dict[str, Any]:
    """What `run.json` says of a method: name, settings and digest."""
    return catalog.describe(part) | {"digest": saving.part_digest(part)}


def run_record(request: Request, bank: AnyBank, method: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """What `run.json` says: all that a later `--resume` or `regen` has to agree with, versions and the machine."""
    names = hashlib.sha256()
    for row in range(len(bank.y)):
        names.update(bank.name(row).encode("utf-8", "surrogateescape") + b"\0")
    names.update(bank.y.numpy().tobytes())
    return {
        "augforge": __version__,
        "order": as_record(request),
        "method": method,
        "rows": {"count": len(bank.y), "digest": names.hexdigest()[:16]},
        "classes": [{"name": c.name, "real": len(c.rows), "make": c.make} for c in plan.classes],
        "png_writer": PNG_WRITER,
        "versions": versions(),
        "machine": machine(),
    }


def from_record(record: dict[str, Any], data_root: Path | None = None) -> Request:
    """The request that a `run.json` keeps, with the preset that its pictures had; raises InputError for another one."""
    try:
        asked = dict(record["order"])
        asked |= {name: tuple(asked.get(name, ())) for name in ("classes", "reject", "keep")}
        asked.setdefault("mark", False)
        inputs = Inputs(**{name: asked.pop(name) for name in _OF_INPUTS if name in asked}, data_root=data_root)
        made_by = record["method"].get("settings", {})
        return Request(with_preset(inputs, made_by["preset"]) if "preset" in made_by else inputs, **asked)
    except (TypeError, KeyError) as error:
        raise InputError(f"run.json was written by another version of augforge ({error})") from error


def _placed(representation: str) -> str:
    """A shipped representation by its name, and a folder as an absolute path."""
    return representation if representation in catalog.SHIPPED else _absolute(representation)


def _absolute(name: str) -> str:
    """A path as an absolute one; what is no path as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name
