"""`augforge synth`: expand a data set of pictures or features into a larger, traceable one."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from augforge.adapters.ray import PROCESSES
from augforge.curate.filters import Implausible
from augforge.data.banks import AnyBank, FeatureBank
from augforge.inputs import Skipped, device_of, embed_pictures, open_bank
from augforge.synth import run_folder
from augforge.synth.claims import Claimed, add_parents, check_parents, claimed, parents_of, source_stamp
from augforge.synth.contact_sheet import draw_sheet
from augforge.synth.features import plan_features, synth_features
from augforge.synth.from_pool import choose
from augforge.synth.generate import Making, Notes, rows_of_unit
from augforge.synth.manifest import rejected_tries
from augforge.synth.prepare import Ready, prepare
from augforge.synth.request import Request
from augforge.synth.run_folder import RunOptions
from augforge.synth.sinks import Sink, pack_npz, write_all, write_classes
from augforge.synth.workers import RunItems, run_items_by
from augforge.synth.written import mark_synced, remove_orphans
from augforge.types import InputError, LackError

DEFAULTS = RunOptions()
_SAMPLED_PLACES = 64  # places of a plan where a dry run makes some pictures, to tell the size
_SAMPLED_ROWS = 2  # at each
_FEW_TRIES = 3  # on the sheet of a run whose rows were rejected in all their tries
_SYNC_SECONDS = 5.0  # between two waits for what was written to be on the disk: what a power cut costs at most


@dataclass
class Report:
    """What a run did: `made` and `real` rows by this call (`already` had been), of which `repaired` had been made and
    were missing or damaged; `per_class` of the whole plan; `skipped` (name, reason) of what could not be read;
    `rejected` tries by reason; `size` in bytes (of a dry run: an estimate); `seconds` of making; where the
    `contact_sheet` is, if one was drawn; what was `chosen` for what the request left open; and of a `pool` how many
    rows it has, how many were left out, how far it was believed (`trust`, 0 to 1), and what those of a class weigh.
    """

    out: str
    made: int = 0
    real: int = 0
    already: int = 0
    repaired: int = 0
    per_class: dict[str, int] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)
    size: int = 0
    seconds: float = 0.0
    finished: bool = True
    dry_run: bool = False
    contact_sheet: str | None = None
    chosen: str = ""
    pool: dict[str, Any] | None = None

    @property
    def images_per_second(self) -> float:
        """Rows made and written in a second of making."""
        return (self.made + self.real) / self.seconds if self.seconds else 0.0


def synth(request: Request, out: str | Path, options: RunOptions = DEFAULTS) -> Report:
    """Carry out a request into the folder `out`; what it leaves there is described in docs/synth.md.

    Raises InputError for bad input, LackError for what this machine lacks, QuotaError where a quota was not met. A
    run that was stopped, in whatever way, goes on with `RunOptions(resume=True)`.
    """
    start = time.perf_counter()
    _check_device(request, options)
    with run_items_by(options.engine, options.workers) as run_items:
        out, (bank, skipped) = Path(out), _open(request, options, run_items)
        chosen = choose(request, bank, out)
        if isinstance(bank, FeatureBank):
            skipped = skipped + (chosen.skipped if chosen else [])
            report = Report(str(out), **synth_features(request, bank, out, options, chosen), skipped=skipped)
        else:
            report = _synth_pictures(prepare(request, bank, out, options, chosen, run_items), out, options)
    report.seconds = time.perf_counter() - start
    return report


def _check_device(request: Request, options: RunOptions) -> None:
    """Raise InputError for an engine whose workers have no device."""
    if options.engine != PROCESSES and (device := device_of(request.inputs.device, best="cpu")) != "cpu":
        raise InputError(f"--engine {options.engine} and --device {device} were given; expected --device cpu: Ray's "
                         "workers make pictures on the cores of their machines")  # fmt: skip


def _synth_pictures(ready: Ready, out: Path, options: RunOptions) -> Report:
    ready.record["source_stamp"] = source_stamp(ready.making.bank) + (
        source_stamp(pool) if (pool := ready.making.pool) else ""
    )
    report = _report(ready, out)
    run_folder.claim(out, ready.record, ready.folder, options)
    sheet = run_folder.sheet_path(out, ready.sink.format)
    if not _is_finished(ready, options):
        names = [c.name for c in ready.making.plan.classes if c.make + c.real]
        ready.sink.prepare(names)
        foreign = run_folder.foreign_files(out, names) if ready.sink.format == "folder" else frozenset()
        ready = replace(ready, sink=replace(ready.sink, foreign=foreign))
        try:
            _make(ready, options, report)
        except Implausible:
            draw_sheet(
                replace(ready.making, tries=min(_FEW_TRIES, ready.making.tries)), sheet
            )  # and why it is rejected
            raise
    else:
        report.already = _rows_of_shard(ready, options.shard)
    report.finished = _finish(ready, out, options.shard)
    report.contact_sheet = str(sheet) if sheet.exists() else None
    return report


def dry_run(request: Request, out: str | Path, options: RunOptions = DEFAULTS) -> Report:
    """What `synth` would make and how many bytes that takes, estimated from some of the pictures; writes nothing."""
    out, (bank, skipped) = Path(out), _open(request, options)
    chosen = choose(request, bank, out)
    if isinstance(bank, FeatureBank):
        report = Report(str(out), **plan_features(request, bank, chosen)[2], skipped=skipped)
        report.dry_run = True
        return report
    ready = prepare(request, bank, out, options, chosen)
    report = _report(ready, out)
    report.dry_run = True
    plan = ready.making.plan
    report.made, report.real = sum(c.make for c in plan.classes), sum(c.real for c in plan.classes)
    sampled = replace(plan, block=0, unit=max(1, -(-plan.total // _SAMPLED_PLACES)))
    making = replace(ready.making, plan=sampled, batch_size=_SAMPLED_ROWS, filters=(), distinct=False)  # as large
    sizes = []
    for unit in range(sampled.units):
        for made in itertools.islice(rows_of_unit(making, unit, Notes()), _SAMPLED_ROWS):
            sizes.append(ready.sink.size_of(made))
    report.size = round(float(np.mean(sizes)) * plan.total) if sizes else 0
    return report


def _open(request: Request, options: RunOptions, run_items: RunItems | None = None) -> tuple[AnyBank, Skipped]:
    """The bank of a request, its pictures embedded where it names a representation, and which of them could not be.

    Where an engine is named, `run_items` shares the embedding.
    """
    bank = open_bank(request.inputs)
    if request.inputs.representation is None:
        return bank, []
    device, shared = device_of(request.inputs.device, best="cpu"), options.engine != PROCESSES
    features, skipped = embed_pictures(bank, request.inputs.representation, device, run_items if shared else None)
    if options.strict and skipped:
        raise InputError(f"{skipped[0][0]!r} {skipped[0][1]} (--strict)")
    return features, skipped


def _report(ready: Ready, out: Path) -> Report:
    per_class = {c.name: c.make for c in ready.making.plan.classes}
    return Report(str(out), per_class=per_class, skipped=list(ready.skipped), chosen=ready.chosen, pool=ready.of_pool)


def _make(ready: Ready, options: RunOptions, report: Report) -> None:
    """Make what is left of this shard, unit by unit, and write each unit's lines when its files are in place."""
    plan, shard = ready.making.plan, options.shard
    skipped, rejected = dict(report.skipped), Counter[str]()
    with run_folder.growing_manifest(ready.sink.out, shard, _check(ready, options)) as (manifest, found):
        units = range(shard[0], plan.units, shard[1])
        kept, report.repaired = found.others, found.broken
        report.already = sum(plan.rows_in(unit) for unit in (*units[: found.units], *kept))
        total, rows = sum(map(plan.rows_in, units)), sum(map(plan.rows_in, units[: found.units]))
        to_make = [unit for unit in units[found.units :] if unit not in kept]
        sink = ready.sink if options.engine == PROCESSES else replace(ready.sink, out=ready.sink.out.absolute())
        results = ready.run_items(_make_unit, (ready.making, sink), to_make, min(ready.workers, len(to_make)))
        path, next_sync = Path(manifest.name), time.monotonic() + _SYNC_SECONDS
        with contextlib.closing(results):
            for done, unit in enumerate(units[found.units :], found.units + 1):
                lines, made, size, notes = (kept[unit], 0, 0, Notes()) if unit in kept else next(results)
                add_parents(found.parents, notes.parents.items())
                if unit not in kept and not ready.sink.has_unit(unit):
                    raise LackError(f"what a worker made is not in {str(ready.sink.out)!r} here; expected all machines "
                                    "to see --out at the same path")  # fmt: skip
                with _said(ready.sink.out):
                    write_all(manifest.fileno(), lines)
                    if time.monotonic() >= next_sync:
                        mark_synced(path, done)
                        next_sync = time.monotonic() + _SYNC_SECONDS
                skipped |= dict(notes.skipped)
                rejected.update(notes.rejected)
                count = plan.rows_in(unit)
                if unit not in kept:
                    report.made, report.real = report.made + made, report.real + count - made
                report.size += size
                rows += count
                if options.progress:
                    options.progress(rows, total)
        with _said(ready.sink.out):
            mark_synced(path, len(units))
    report.skipped, report.rejected = sorted(skipped.items()), dict(rejected)
    if options.strict and report.skipped:
        raise InputError(f"{report.skipped[0][0]!r} {report.skipped[0][1]} (--strict)")


def _make_unit(job: tuple[Making, Sink], unit: int) -> tuple[bytes, int, int, Notes]:
    """In a worker: the manifest lines of a unit, how many rows were made, their bytes, and what came up."""
    making, sink = job
    notes = Notes()
    rows, size = sink.write(unit, rows_of_unit(making, unit, notes))
    made = sum(row.method == making.method for row in rows)
    add_parents(notes.parents, parents_of(rows))
    return b"".join(row.to_line() for row in rows), made, size, notes


def _check(ready: Ready, options: RunOptions) -> Callable[[Path], Claimed]:
    """What holds a manifest of this run against the plan, the files and the source."""
    before = run_folder.read_run(ready.sink.out).get("source_stamp")

    def check(manifest: Path) -> Claimed:
        shard = (0, 1) if manifest.name == run_folder.MANIFEST else options.shard
        found = claimed(ready.making, ready.sink, manifest, shard, options.verify)
        if options.verify or before != ready.record["source_stamp"]:
            check_parents(ready.making.bank, found.parents)
            if ready.making.pool is not None:
                check_parents(ready.making.pool, found.parents, of_pool=True)
        return found

    return check


def _is_finished(ready: Ready, options: RunOptions) -> bool:
    """Whether this shard has nothing left to do, not even what is missing or damaged of what it made."""
    out, shard = ready.sink.out, options.shard
    if not run_folder.finished(out, shard):
        return False
    return not run_folder.reopen(out, shard, _check(ready, options))


@contextlib.contextmanager
def _said(out: Path) -> Iterator[None]:
    """Turn an error of the file system into the sentence that `out` cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be written ({error.strerror or error})") from error


def _finish(ready: Ready, out: Path, shard: tuple[int, int]) -> bool:
    """Draw and pack once all rows are there, and finish the run; False while other shards are not done."""
    plan = ready.making.plan
    with _said(out), run_folder.alone(out):
        if (out / run_folder.MANIFEST).exists():
            return True
        whole = run_folder.whole_manifest(out, plan, shard)
        if whole is None:
            return False
        if shard[1] > 1:
            _check_joined(ready, whole)
        remove_orphans(out, map(plan.rows_in, range(plan.units)), whole)
        if ready.sink.format == "npz":
            counts = [c.make + c.real for c in plan.classes]
            labels = np.repeat(np.arange(len(counts)), counts)
            pack_npz(ready.sink, plan.units, labels, [c.name for c in plan.classes])
        if ready.sink.format == "webdataset":
            write_classes(out, [c.name for c in plan.classes])
        filtered = ready.making.filters or ready.making.distinct
        rejected = rejected_tries(whole) if filtered else None
        draw_sheet(ready.making, run_folder.sheet_path(out, ready.sink.format), rejected)
        run_folder.finish_run(out, whole)
        return True


def _check_joined(ready: Ready, whole: Path) -> None:
    """Raise InputError where shards that were made apart were not copied together with all that they made."""
    found = claimed(ready.making, ready.sink, whole)
    if found.broken:
        raise InputError(f"of {found.broken} rows in the manifests of {str(ready.sink.out)!r} lines or files are "
                         "missing or damaged; expected all that each shard wrote")  # fmt: skip


def _rows_of_shard(ready: Ready, shard: tuple[int, int]) -> int:
    plan = ready.making.plan
    return sum(plan.rows_in(unit) for unit in range(shard[0], plan.units, shard[1]))


def as_json(report: Report) -> dict[str, object]:
    """The report as `synth --json` prints it."""
    skipped: Sequence[dict[str, str]] = [{"file": name, "reason": reason} for name, reason in report.skipped]
    return {
        "made": report.made, "real": report.real, "already": report.already, "repaired": report.repaired,
        "per_class": report.per_class,
        "rejected": report.rejected, "skipped": skipped, "out": report.out, "bytes": report.size,
        "seconds": round(report.seconds, 3), "images_per_second": round(report.images_per_second, 1),
        "finished": report.finished, "dry_run": report.dry_run, "contact_sheet": report.contact_sheet,
        **({} if report.pool is None else {"pool": report.pool}),
    }  # fmt: skip
