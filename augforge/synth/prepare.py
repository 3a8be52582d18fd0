"""A run of pictures made ready - opened, checked and planned before any write - and what its record says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augforge.curate.by_class import by_classes, embedded
from augforge.curate.copies import Copies
from augforge.curate.filters import ByDiscriminator, Filter
from augforge.curate.looks import Looks, looks_of
from augforge.curate.sound import sound_pictures
from augforge.data.banks import FeatureBank, FilePictures, PictureBank
from augforge.inputs import PRESETS, default_representation, device_of, kind_of_pictures, open_method, open_split
from augforge.machine import cores
from augforge.parts import catalog, saving
from augforge.synth.encode import AS_SOURCE, encoding_of
from augforge.synth.generate import Chosen, Making, load, needs_no_support
from augforge.synth.marks import source_type
from augforge.synth.plan import Plan, Quota, make_plan, say_balance
from augforge.synth.request import DISCRIMINATOR, Request, method_record, run_record, with_preset
from augforge.synth.run_folder import RunOptions
from augforge.synth.sinks import UNITS, Sink, check_folder_names
from augforge.synth.workers import RunItems, in_order, in_order_by_threads
from augforge.training.loop import Run
from augforge.types import InputError, Named, Plausible, UnreadablePicture, capabilities

Checked = tuple[dict[int, str], set[tuple[int, int, int]], str]  # as `check_pictures` gives it

_CHECKED_AT_ONCE, _LOOKED_AT_ONCE = 128, 256  # pictures
_BLOCK, _BLOCK_OF_CLASSES = 8, 125  # rows of a class together in a tar; where each batch needs all of its pictures
_MOST_THREADS = 8  # that read and write around a device, unless --workers says otherwise


@dataclass(frozen=True)
class Kept:
    """The `filters` of a run, whether made rows must be `distinct`, and the digests of representations among them."""

    filters: tuple[Filter, ...] = ()
    distinct: bool = False
    digests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready:
    """A run that can start: everything was opened, checked and planned, and nothing was written.

    `record` is what `run.json` holds, `skipped` the (name, reason) of pictures found unreadable so far, `folder`
    the source's folder or file on disk, if it is one, `chosen` a line about what the request left open, `of_pool` what
    JSON says of a pool, and `run_items` what makes units with so many `workers`.
    """

    making: Making
    sink: Sink
    record: dict[str, Any]
    skipped: list[tuple[str, str]]
    folder: Path | None
    workers: int
    chosen: str
    of_pool: dict[str, Any] | None = None
    run_items: RunItems = in_order


def prepare(
    request: Request, bank: PictureBank, out: Path, options: RunOptions, chosen: Chosen | None = None,
    run_items: RunItems = in_order,
) -> Ready:  # fmt: skip
    """Check and plan a run of pictures, or of those `chosen` from a pool; raises InputError or LackError.

    Nothing is written. `run_items` shares the work of methods that run on the CPU, and the reading of pictures
    beforehand.
    """
    if chosen is not None:
        return replace(_prepare_pool(request, bank, out, options, chosen), run_items=run_items)
    given = request.inputs
    request, kind, said = with_defaults(request, bank)
    quota = Quota(request.per_class, request.to, request.counts)
    check_folder_names(bank.classes)
    device = device_of(request.inputs.device, best="cpu")
    part = open_method(request.inputs, bank, Run(device, progress=options.training))
    described = catalog.describe(part)
    workers = options.workers or (cores() if device == "cpu" else min(_MOST_THREADS, cores()))
    making = Making(bank, part, described["name"], saving.part_digest(part), request.inputs.seed, Plan((), 1),
                    request.size, options.batch_size, device)  # fmt: skip
    processes = workers if device == "cpu" else 1  # none is forked from a process that may hold a device
    checked = partial(check_pictures, making, workers=processes, run_items=run_items)
    rows, skipped, shapes, content = _readable_rows(request, making, quota, options.strict, checked)
    plan = make_plan(rows, quota, capabilities(part).support_needed, request.include_real, UNITS[request.format])
    if described["name"] == "nothing":
        plan = Plan(tuple(replace(c, make=0) for c in plan.classes), plan.unit)
    if request.format == "webdataset":
        says = capabilities(part)
        plan = replace(plan, block=_BLOCK if says.one_parent or needs_no_support(part) else _BLOCK_OF_CLASSES)
    say_balance(plan, request.to, request.include_real)
    if isinstance(part, Named):
        part.named([c.name for c in plan.classes if c.make])  # it raises InputError for a class that it does not know
    kept = open_filters(request, making)
    if kept.distinct and not capabilities(part).one_parent:
        plan = replace(plan, classes=tuple(replace(c, by_index=True) for c in plan.classes))
    making = replace(making, plan=plan, filters=kept.filters, tries=request.tries, distinct=kept.distinct)
    sink = Sink(out, request.format, request.encoding, request.quality, _npz_shape(request, shapes), plan.total,
                source_type(part) if request.mark else None)  # fmt: skip
    origin = Path(bank.origin)
    record = run_record(replace(request, inputs=given), bank, method_record(part), plan) | {"pictures": kind}
    if content:
        record["rows"]["content"] = content
    if kept.digests:
        record["judges"] = kept.digests  # the key of all versions so far
    return Ready(making, sink, record, skipped, origin if origin.exists() else None, workers, said,
                 run_items=run_items if device == "cpu" else in_order_by_threads)  # fmt: skip


def _prepare_pool(request: Request, bank: PictureBank, out: Path, options: RunOptions, found: Chosen) -> Ready:
    """The same for a run that takes its pictures from a pool."""
    check_folder_names(bank.classes)
    assert not isinstance(found.pool, FeatureBank)
    skipped = [*bank.skipped, *found.skipped]
    if options.strict and skipped:
        raise InputError(f"{skipped[0][0]!r} {skipped[0][1]} (--strict)")
    plan = found.plan(request.include_real, UNITS[request.format], _BLOCK if request.format == "webdataset" else 0)
    say_balance(plan, request.to, request.include_real)
    making = Making(bank, None, request.inputs.method, found.method["digest"], request.inputs.seed, plan,
                    request.size, options.batch_size, pool=found.pool)  # fmt: skip
    shapes = set[tuple[int, int, int]]()
    if request.format == "npz":
        for side, rows in ((bank, [c.rows[: c.real] for c in plan.classes]),
                           (found.pool, [taken.rows for taken in found.taken.values()])):  # fmt: skip
            shapes |= check_pictures(replace(making, bank=side), np.concatenate(rows), 1)[1]
    sink = Sink(out, request.format, request.encoding, request.quality, _npz_shape(request, shapes), plan.total)
    record = run_record(request, bank, found.method, plan) | {"pool": found.facts}
    origin = Path(bank.origin)
    workers = options.workers or cores()
    return Ready(making, sink, record, skipped, origin if origin.exists() else None, workers, found.said, found.report)


def with_defaults(request: Request, bank: PictureBank) -> tuple[Request, str, str]:
    """A request with what it left open filled in, as its pictures need it; their kind; and a line that says so.

    The preset of `classical` is that of the kind. The encoding is "png" for arrays, and where every file of the source
    gives PNG.
    """
    kind, said = kind_of_pictures(bank), []
    inputs = with_preset(request.inputs, PRESETS[kind])
    if inputs != request.inputs:
        said.append(f"classical with preset={inputs.settings['preset']}")
    encoding = request.encoding
    if encoding == AS_SOURCE:
        files = isinstance(bank, FilePictures) and request.format != "npz"
        kinds = sorted({encoding_of(name, AS_SOURCE) for name in bank.names or ()} if files else {"png"}) or ["png"]
        encoding = "png" if kinds == ["png"] else AS_SOURCE
        if request.format != "npz":
            said.append(f"files are {' and '.join(map(str.upper, kinds))}")
    return replace(request, inputs=inputs, encoding=encoding), kind, f"{kind}: {', '.join(said)}" if said else ""


def open_filters(request: Request, making: Making) -> Kept:
    """What rejects rows of a run, as `--keep` and `--reject` name it.

    Rows are compared with all classes of the source, so that a class alone is made as among others. Raises InputError
    for a method without a discriminator, a name that is no representation or one that is not fitted, and a source with
    nothing to compare.
    """
    names = request.kept
    if not names:
        return Kept()
    whole = open_split(request.inputs) if request.inputs.classes else making.bank
    bank = making.bank if isinstance(whole, FeatureBank) else whole  # where a part holds pictures, all of it does
    if "plausible" in names and not isinstance(making.part, Plausible):
        option = f"--reject {DISCRIMINATOR}" if DISCRIMINATOR in request.reject else "--keep plausible"
        raise InputError(
            f"{option} was given, and {making.method} has none; expected a method that was trained against one, or "
            "--keep class" + (" or --reject with a representation" if DISCRIMINATOR in request.reject else "")
        )
    opened = {name: _fitted_representation(name, bank) for name in names if name.partition(":")[0] == "class"}
    features, looks, good = _seen(replace(making, bank=bank), opened, bool({"new", "sound"} & set(names)))
    if not good and opened.keys() | ({"new", "sound"} & set(names)):
        raise InputError(f"{bank.origin!r} has no picture that can be read")
    filters: list[Filter] = []
    for name in names:
        if name == "plausible":
            filters.append(ByDiscriminator(request.plausible))
        elif name == "new":
            filters.append(Copies(looks.hashes()))
        elif name == "sound":
            filters.append(sound_pictures(looks))
        elif name != "distinct":
            filters.append(by_classes(opened[name], features[name], bank.y[torch.tensor(good)], bank.classes))
    digests = tuple(saving.part_digest(part, "representation") for part in opened.values())
    return Kept(tuple(filters), "distinct" in names, digests)


def _fitted_representation(keep: str, bank: PictureBank) -> Any:
    """The representation of `class` or `class:R`, with its weights; raises InputError where it has none."""
    name = keep.partition(":")[2] or default_representation(bank)
    representation = saving.open_part(name, None, "representation")
    if getattr(representation, "net_", representation) is None:
        raise InputError(
            f"--reject {name!r} names a representation that is not fitted; expected conv4-glyphs or a folder of `fit`"
        )
    return representation


def _seen(making: Making, opened: dict[str, Any], look: bool) -> tuple[dict[str, Tensor], Looks, list[int]]:
    """The features by each representation, and the looks, of the real pictures at the run's size; and which rows these
    are, without what cannot be read.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in opened}
    looks, good = [looks_of([])], list[int]()
    for pictures, rows in _pictures(making) if opened or look else ():
        each = [torch.from_numpy(picture).permute(2, 0, 1).to(making.device) for picture in pictures]
        x: Tensor | list[Tensor] = torch.stack(each) if len({picture.shape for picture in pictures}) == 1 else each
        for name, representation in opened.items():
            found[name].append(embedded(representation, x))
        if look:
            looks.append(looks_of(pictures))
        good += rows
    features = {name: torch.cat(parts) for name, parts in found.items() if parts}
    columns = [np.concatenate([getattr(one, name) for one in looks]) for name in Looks.__dataclass_fields__]
    return features, Looks(*columns), good


def _pictures(making: Making) -> Iterator[tuple[list[np.ndarray], list[int]]]:
    """The pictures [h, w, c] uint8 of a bank that can be read, some at a time, and which rows these are."""
    count = len(making.bank)
    for rows in np.array_split(np.arange(count), range(_LOOKED_AT_ONCE, count, _LOOKED_AT_ONCE)):
        pictures, good = [], []
        for row in rows.tolist():
            try:
                pictures.append(load(making, row)[0])
            except UnreadablePicture:
                continue
            good.append(row)
        if good:
            yield pictures, good


def _readable_rows(
    request: Request, making: Making, quota: Quota, strict: bool, checked: Callable[[np.ndarray], Checked]
) -> tuple[dict[str, np.ndarray], list[tuple[str, str]], set[tuple[int, int, int]], str]:
    """The rows of each class that a plan may count on, the (name, reason) of others, the shapes seen, and of a method
    that makes a picture of many a digest of them all.

    Every picture is read beforehand only where counts, sizes or all of them matter; else one of each class.
    Raises InputError for a class that has none, and with `strict` for any that cannot be read.
    """
    bank, part = making.bank, making.part
    skipped, shapes, content = list(bank.skipped), set[tuple[int, int, int]](), ""
    order, counts = torch.argsort(bank.y, stable=True), torch.bincount(bank.y, minlength=len(bank.classes))
    rows = {name: members.numpy() for name, members in zip(bank.classes, order.split(counts.tolist()), strict=True)}
    quota.check_names(bank.classes)
    exact = request.to is not None or request.include_real or request.format == "npz"
    says = capabilities(part)
    many = not (says.one_parent or needs_no_support(part)) or says.support_needed > 1
    if exact or strict or many:
        every = np.concatenate([*rows.values(), np.zeros(0, np.int64)])
        bad, shapes, content = checked(every)
        skipped += [(bank.name(row), reason) for row, reason in bad.items()]
        good = np.ones(len(bank), dtype=bool)
        good[list(bad)] = False
        rows = {name: members[good[members]] for name, members in rows.items()}
    elif says.support_needed:
        wanted = [name for name, members in rows.items() if quota.to_make(name, len(members))]
        _check_first(making, {name: rows[name] for name in wanted})
    if strict and skipped:
        more = f", and {len(skipped) - 1} more cannot be used" if len(skipped) > 1 else ""
        raise InputError(f"{skipped[0][0]!r} {skipped[0][1]}{more} (--strict)")
    one_parent = says.one_parent or needs_no_support(part)  # its manifest says of which, and as which bytes
    return rows, skipped, shapes, "" if one_parent else content


def _npz_shape(request: Request, shapes: set[tuple[int, int, int]]) -> tuple[int, int, int] | None:
    """The one shape [h, w, c] of an `.npz`; grey pictures become colour where both occur. Raises InputError."""
    if request.format != "npz":
        return None
    sizes = sorted({shape[:2] for shape in shapes})
    if len(sizes) > 1:
        found = " and ".join(f"{width}x{height}" for height, width in sizes[:2])
        raise InputError(f"--format npz needs pictures of one size, and there are {found}; --size PX makes them one")
    return (*sizes[0], max(shape[2] for shape in shapes)) if sizes else (0, 0, 1)


def check_pictures(making: Making, rows: np.ndarray, workers: int, run_items: RunItems = in_order) -> Checked:
    """Decode the rows [m]: the reason for each that cannot be read, the shapes [h, w, c] and a digest of the others."""
    bad: dict[int, str] = {}
    shapes: set[tuple[int, int, int]] = set()
    pieces = [rows[i : i + _CHECKED_AT_ONCE] for i in range(0, len(rows), _CHECKED_AT_ONCE)]
    content = hashlib.sha256()
    for some_bad, some_shapes, digests in run_items(_check, making, pieces, min(workers, len(pieces))):
        bad |= some_bad
        shapes |= some_shapes
        content.update(digests.encode())
    return bad, shapes, content.hexdigest()[:16]


def _check_first(making: Making, rows: Mapping[str, np.ndarray]) -> None:
    """Raise InputError naming the first class that has no picture that can be read at all."""
    for name, members in rows.items():
        if not any(_is_readable(making, int(row)) for row in members):
            raise InputError(f"class {name!r} has no picture that can be read; the method needs at least 1")


def _check(making: Making, rows: np.ndarray) -> Checked:
    bad, shapes, digests = {}, set(), []
    for row in rows.tolist():
        try:
            picture, sha256 = load(making, row)
        except UnreadablePicture as error:
            bad[row] = error.reason
        else:
            shapes.add(picture.shape)
            digests.append(sha256)
    return bad, shapes, "".join(digests)


def _is_readable(making: Making, row: int) -> bool:
    try:
        load(making, row)
    except UnreadablePicture:
        return False
    return True
