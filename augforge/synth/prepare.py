"""A run of pictures made ready - opened, checked and planned before any write - and what its record says."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from augforge import __version__
from augforge.data.banks import FeatureBank
from augforge.data.source import SOURCE_NAMES
from augforge.judges import DISCRIMINATOR, open_judges
from augforge.machine import cores, machine, versions
from augforge.parts import catalog, saving
from augforge.readable import check_pictures, first_readable
from augforge.synth.encode import PNG_WRITER
from augforge.synth.generate import Making, PictureBank, needs_no_support
from augforge.synth.plan import Plan, Quota, make_plan
from augforge.synth.reject import Judge
from augforge.synth.request import Options, Order, device_of, is_folder, open_part, open_split
from augforge.synth.sinks import UNITS, Sink, check_folder_names
from augforge.training.loop import Run
from augforge.types import InputError, Named, capabilities

_MOST_THREADS = 8  # that read and write around a device, unless --workers says otherwise


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


def prepare(order: Order, bank: PictureBank, out: Path, options: Options) -> Ready:
    """Check and plan a run of pictures; raises InputError or LackError, and writes nothing."""
    quota = Quota(order.per_class, order.to, order.counts)
    check_folder_names(bank.classes)
    device = device_of(options.device, best="cpu")
    part = open_part(order, bank, options.data_root, Run(device))
    described = catalog.describe(part)
    workers = options.workers or (cores() if device == "cpu" else min(_MOST_THREADS, cores()))
    making = Making(bank, part, described["name"], saving.part_digest(part), order.seed, Plan((), 1), order.size,
                    options.batch_size, device)  # fmt: skip
    processes = workers if device == "cpu" else 1  # none is forked from a process that may hold a device
    rows, skipped, shapes = _readable_rows(order, making, quota, options.strict, processes)
    plan = make_plan(rows, quota, capabilities(part).support_needed, order.include_real, UNITS[order.format])
    if described["name"] == "nothing":
        plan = Plan(tuple(replace(c, make=0) for c in plan.classes), plan.unit)
    if isinstance(part, Named):
        part.named([c.name for c in plan.classes if c.make])  # it raises InputError for a class that it does not know
    judges, digests = judges_of(order, making, options.data_root)
    making = replace(making, plan=plan, judges=judges, tries=order.tries)
    sink = Sink(out, order.format, order.encoding, order.quality, _npz_shape(order, shapes), plan.total)
    origin = Path(bank.origin)
    record = run_record(order, bank, part, plan)
    if digests:
        record["judges"] = digests
    return Ready(making, sink, record, skipped, origin if origin.exists() else None, workers)


def judges_of(order: Order, making: Making, data_root: Path | None) -> tuple[tuple[Judge, ...], list[str]]:
    """What rejects rows of a run, and the digests of the representations among it.

    Rows are compared with all classes of the source, so that a class alone is made as among others. Raises InputError.
    """
    if not order.reject:
        return (), []
    bank = open_split(order, data_root) if order.classes else making.bank
    assert not isinstance(bank, FeatureBank)
    return open_judges(replace(making, bank=bank), order.reject, order.plausible)


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
    says = capabilities(part)
    many = not (says.one_parent or needs_no_support(part)) or says.support_needed > 1
    if exact or strict or many:
        bad, shapes = check_pictures(making, np.concatenate([*rows.values(), np.zeros(0, np.int64)]), workers)
        skipped += [(bank.name(row), reason) for row, reason in bad.items()]
        rows = {name: members[~np.isin(members, list(bad))] for name, members in rows.items()}
    elif says.support_needed:
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


def run_record(order: Order, bank: PictureBank | FeatureBank, part: Any, plan: Plan) -> dict[str, Any]:
    """What `run.json` says: all that a later `--resume` or `regen` has to agree with, versions and the machine."""
    names = hashlib.sha256()
    for row in range(len(bank.y)):
        names.update(bank.name(row).encode("utf-8", "surrogateescape") + b"\0")
    names.update(bank.y.numpy().tobytes())
    asked = asdict(order)
    source = order.source if order.source in SOURCE_NAMES else _absolute(order.source)
    method = _absolute(order.method) if is_folder(order.method) else order.method
    asked |= {"source": source, "method": method, "classes": list(order.classes)}
    if order.representation is None:
        del asked["representation"]  # as in the records of runs without one
    else:
        asked["representation"] = _placed(order.representation)
    if order.reject:
        asked["reject"] = [name if name == DISCRIMINATOR else _placed(name) for name in order.reject]
    else:
        for key in ("reject", "tries", "plausible"):
            del asked[key]
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


def _placed(representation: str) -> str:
    """A shipped representation by its name, and a folder as an absolute path."""
    return representation if representation in catalog.SHIPPED else _absolute(representation)


def _absolute(name: str) -> str:
    """A path as an absolute one, so that a run is understood from any folder; what is no path as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name
