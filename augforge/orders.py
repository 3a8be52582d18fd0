"""What a run was asked for, and everything made ready for it: bank, part, plan and sink, checked before any write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from augforge import __version__, catalog, saving
from augforge.choosing import chooses, learn
from augforge.data.banks import FeatureBank
from augforge.data.source import SOURCE_NAMES, open_source
from augforge.encode import PNG_WRITER, SUFFIXES, Encoding
from augforge.export import UNITS, Format, Sink, check_folder_names
from augforge.machine import cores, machine, versions
from augforge.making import Making, PictureBank
from augforge.picture_features import embed_pictures
from augforge.plan import Plan, Quota, make_plan
from augforge.readable import check_pictures, first_readable
from augforge.types import InputError, LackError


@dataclass(frozen=True)
class Order:
    """All that decides the bytes of a run's output, and nothing else.

    `source` is a SOURCE of the command line, `split` which part of it ("train" where it has parts); `method` a
    catalog name, with `settings`, or a folder that `fit` made; exactly one of `per_class`, `to` and `counts` is
    given; `classes` limits the run to some. `quality` is that of JPEG and WebP; `size` in pixels makes every
    picture square first; `include_real` writes the real pictures too. With a `representation`, a name or a folder,
    pictures are embedded, and features are made.
    """

    source: str
    method: str = "classical"
    settings: Mapping[str, Any] = field(default_factory=dict)
    per_class: int | None = None
    to: int | None = None
    counts: Mapping[str, int] | None = None
    classes: tuple[str, ...] = ()
    split: str | None = None
    seed: int = 0
    format: Format = "folder"
    encoding: Encoding = "png"
    quality: int = 95
    size: int | None = None
    include_real: bool = False
    representation: str | None = None

    def __post_init__(self) -> None:
        """Raise InputError for an unknown format or encoding, or a quality or size out of range."""
        for name, value, allowed in (("--format", self.format, UNITS), ("--encoding", self.encoding, SUFFIXES)):
            if value not in allowed:
                raise InputError(f"{name} {value!r} was given; expected one of {', '.join(allowed)}")
        if not -(2**63) <= self.seed < 2**64:
            raise InputError(f"--seed {self.seed} was given; expected a number of 64 bits")
        if not 1 <= self.quality <= 100:
            raise InputError(f"--quality {self.quality} was given; expected 1 to 100")
        if self.size is not None and not 1 <= self.size <= 16384:
            raise InputError(f"--size {self.size} was given; expected 1 to 16384 pixels")


@dataclass(frozen=True)
class Options:
    """How a run is carried out; nothing here changes a byte of what it makes.

    `workers` processes (0: one for each core), `batch_size` rows in one call of the method, `shard` (i, n) the
    part of the work to do; `resume` goes on with a run, `overwrite` replaces it; `strict` makes an unreadable file
    an error; `progress` is called with (rows done, rows in all).
    """

    workers: int = 0
    batch_size: int = 64
    shard: tuple[int, int] = (0, 1)
    resume: bool = False
    overwrite: bool = False
    strict: bool = False
    data_root: Path | None = None
    device: str = "auto"
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range or options that exclude each other."""
        if self.workers < 0 or self.batch_size < 1:
            raise InputError(f"--workers {self.workers} --batch-size {self.batch_size}: expected at least 0 and 1")
        if not 0 <= self.shard[0] < self.shard[1]:
            raise InputError(f"--shards {self.shard[0]}/{self.shard[1]} was given; expected i/N with 0 <= i < N")
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite were given; expected at most one of them")
        if self.overwrite and self.shard[1] > 1:
            raise InputError("--overwrite and --shards were given; expected an empty --out: shards must not overwrite "
                             "each other")  # fmt: skip


@dataclass(frozen=True)
class Ready:
    """A run that can start: everything was opened, checked and planned, and nothing was written.

    `record` is what `run.json` holds, `skipped` the (name, reason) of pictures found unreadable so far, `folder`
    the source's folder or file on disk, if it is one.
    """

    making: Making
    sink: Sink
    record: dict[str, Any]
    skipped: list[tuple[str, str]]
    folder: Path | None
    workers: int


def open_bank(order: Order, data_root: Path | None) -> PictureBank | FeatureBank:
    """The split and the classes of the source that the order names; raises InputError."""
    banks = open_source(order.source, data_root)
    split = order.split or (next(iter(banks)) if len(banks) == 1 else "train")
    if split not in banks:
        raise InputError(f"--split {split!r}: {order.source!r} has {', '.join(map(repr, banks))}")
    bank = banks[split]
    return bank.only(order.classes) if order.classes else bank


def validation_bank(order: Order, data_root: Path | None) -> PictureBank | FeatureBank | None:
    """The validation classes of the order's source, embedded where it names a representation.

    None where the source has none, or where a split of it was named.
    """
    if order.split is not None:
        return None
    banks = open_source(order.source, data_root)
    bank = banks.get("val") if len(banks) > 1 else None
    return bank if bank is None or order.representation is None else embed_pictures(bank, order.representation)[0]


def open_part(order: Order, bank: PictureBank | FeatureBank, data_root: Path | None = None) -> Any:
    """The order's method: loaded from a folder, or made by name and fitted on the bank where that is its way.

    One that chooses by validation classes is shown those of the source. Raises InputError for an unknown name or
    setting, and where the method does not work on such a source.
    """
    if _is_folder(order.method):
        if order.settings:
            raise InputError(f"--set was given for {order.method!r}, which was fitted with settings of its own")
        part = saving.load_part(Path(order.method))
    elif order.method in catalog.SHIPPED:
        part = saving.open_part(order.method, dict(order.settings))
    else:
        part = catalog.make(order.method, dict(order.settings))
        _check_space(order, part, bank)
        val = validation_bank(order, data_root) if chooses(part) else None
        part = learn(part, bank, torch.Generator().manual_seed(order.seed), val)
    _check_space(order, part, bank)
    return part


def _check_space(order: Order, part: Any, bank: PictureBank | FeatureBank) -> None:
    """Raise InputError where the method is not for what the source holds, or what was made of it."""
    if part.space in ("any", bank.space):
        return
    if order.representation is not None:
        raise InputError(f"--representation makes features, and {order.method} makes {part.space}s")
    hint = "; --representation makes features of them" if bank.space == "image" else ""
    raise InputError(f"{order.method} makes {part.space}s, and {order.source!r} holds {bank.space}s{hint}")


def prepare(order: Order, bank: PictureBank, out: Path, options: Options) -> Ready:
    """Check and plan a run of pictures; raises InputError or LackError, and writes nothing."""
    quota = Quota(order.per_class, order.to, order.counts)
    check_folder_names(bank.classes)
    part = open_part(order, bank, options.data_root)
    described = catalog.describe(part)
    device = device_of(options.device, best="cpu")
    workers = (options.workers or cores()) if device == "cpu" else 1
    making = Making(bank, part, described["name"], saving.part_digest(part), order.seed, Plan((), 1), order.size,
                    options.batch_size, device)  # fmt: skip
    rows, skipped, shapes = _readable_rows(order, making, quota, options.strict, workers)
    plan = make_plan(rows, quota, part.support_needed, order.include_real, UNITS[order.format])
    if described["name"] == "nothing":
        plan = Plan(tuple(replace(c, make=0) for c in plan.classes), plan.unit)
    making = replace(making, plan=plan)
    sink = Sink(out, order.format, order.encoding, order.quality, _npz_shape(order, shapes), plan.total)
    origin = Path(bank.origin)
    record = run_record(order, bank, part, plan)
    return Ready(making, sink, record, skipped, origin if origin.exists() else None, workers)


def _readable_rows(
    order: Order, making: Making, quota: Quota, strict: bool, workers: int
) -> tuple[dict[str, np.ndarray], list[tuple[str, str]], set[tuple[int, int, int]]]:
    """The rows of each class that a plan may count on, the (name, reason) of others, and the shapes seen.

    Every picture is read beforehand only where counts, sizes or all of them matter; else one of each class.
    Raises InputError for a class that has none, and with `strict` for any that cannot be read.
    """
    bank, part = making.bank, making.part
    skipped, shapes = list(bank.skipped), set[tuple[int, int, int]]()
    rows = {name: bank.rows_of(label).numpy() for label, name in enumerate(bank.classes)}
    quota.check_names(bank.classes)
    exact = order.to is not None or order.include_real or order.format == "npz"
    if exact or strict or not part.one_parent or part.support_needed > 1:
        bad, shapes = check_pictures(making, np.concatenate([*rows.values(), np.zeros(0, np.int64)]), workers)
        skipped += [(bank.name(row), reason) for row, reason in bad.items()]
        rows = {name: members[~np.isin(members, list(bad))] for name, members in rows.items()}
    elif part.support_needed:
        wanted = [name for name, members in rows.items() if quota.to_make(name, len(members))]
        first_readable(making, {name: rows[name] for name in wanted})
    if strict and skipped:
        more = f", and {len(skipped) - 1} more cannot be used" if len(skipped) > 1 else ""
        raise InputError(f"{skipped[0][0]!r} {skipped[0][1]}{more} (--strict)")
    return rows, skipped, shapes


def _npz_shape(order: Order, shapes: set[tuple[int, int, int]]) -> tuple[int, int, int] | None:
    """The one shape [h, w, c] of an `.npz`; grey pictures become colour where both occur. Raises InputError."""
    if order.format != "npz":
        return None
    sizes = sorted({shape[:2] for shape in shapes})
    if len(sizes) > 1:
        found = " and ".join(f"{width}x{height}" for height, width in sizes[:2])
        raise InputError(f"--format npz needs pictures of one size, and there are {found}; --size PX makes them one")
    return (*sizes[0], max(shape[2] for shape in shapes)) if sizes else (0, 0, 1)


def device_of(name: str, best: str | None = None) -> str:
    """The device of `--device` as torch calls it; LackError where it is not there.

    "auto" is `best`, or CUDA where it works and else the CPU.
    """
    there = torch.cuda.is_available()
    if name == "auto":
        return best or ("cuda" if there else "cpu")
    if name == "cpu" or (name.startswith("cuda") and there):
        return name
    raise LackError(f"--device {name}: this machine has none; expected auto or cpu")


def run_record(order: Order, bank: PictureBank | FeatureBank, part: Any, plan: Plan) -> dict[str, Any]:
    """What `run.json` says: all that a later `--resume` or `regen` has to agree with, versions and the machine."""
    names = hashlib.sha256()
    for row in range(len(bank.y)):
        names.update(bank.name(row).encode("utf-8", "surrogateescape") + b"\0")
    names.update(bank.y.numpy().tobytes())
    asked = asdict(order)
    source = order.source if order.source in SOURCE_NAMES else _absolute(order.source)
    method = _absolute(order.method) if _is_folder(order.method) else order.method
    asked |= {"source": source, "method": method, "classes": list(order.classes)}
    if order.representation is None:
        del asked["representation"]  # as in the records of runs without one
    elif order.representation not in catalog.SHIPPED:
        asked["representation"] = _absolute(order.representation)
    return {
        "augforge": __version__,
        "order": asked,
        "method": catalog.describe(part) | {"digest": saving.part_digest(part)},
        "rows": {"count": len(bank.y), "digest": names.hexdigest()[:16]},
        "classes": [{"name": c.name, "real": len(c.rows), "make": c.make} for c in plan.classes],
        "png_writer": PNG_WRITER,
        "versions": versions(),
        "machine": machine(),
    }


def _is_folder(method: str) -> bool:
    """Whether a method is a folder that `fit` made; one that is called like a method is given as "./name"."""
    return method not in catalog.SYNTHESIZERS and Path(method).is_dir()


def _absolute(name: str) -> str:
    """A path as an absolute one, so that a run is understood from any folder; what is no path as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name
