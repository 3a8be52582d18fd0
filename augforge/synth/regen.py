"""`augforge regen`: the same bytes again, from one row of a manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from augforge import __version__, chance
from augforge.curate.copies import Distinct
from augforge.data.banks import AnyBank, FeatureBank
from augforge.data.durable import write_file
from augforge.inputs import open_bank, open_method, open_pool
from augforge.networks.pixels import resized
from augforge.parts import catalog, saving
from augforge.parts.catalog import nearest
from augforge.synth.encode import AS_SOURCE, PNG_WRITER, encode, encoding_of
from augforge.synth.generate import (
    Making,
    Notes,
    Parents,
    load,
    needs_no_support,
    original_of,
    rows_before,
    synthesized,
)
from augforge.synth.manifest import REAL, ManifestRow, read_rows
from augforge.synth.marks import marked, packet, source_type
from augforge.synth.plan import ClassPlan, Plan
from augforge.synth.prepare import check_pictures, open_filters
from augforge.synth.request import Request, from_record
from augforge.synth.run_folder import read_run
from augforge.types import InputError, UnreadablePicture, capabilities

_AT_ONCE = 16  # pictures that are made for comparison


def regen(
    manifest: str | Path, row: str, out: str | Path, data_root: Path | None = None, train: bool = False
) -> ManifestRow:
    """Make the picture of one manifest row again and write it to `out`, byte for byte as the run wrote it.

    `row` is a line number from 1 or a `file` of the manifest. The source and a fitted method must be where
    `run.json` says; a row of a tar is written as the picture in it, a row of an `.npz` as a PNG file. With `train` a
    method that the run trained for long is trained again.

    Raises InputError where the row or the parent is not there, the parent's bytes or the method are no longer the
    same, or `out` cannot be written.
    """
    manifest = Path(manifest)
    found = find_row(manifest, row)
    record = read_run(manifest.parent)
    data = _encoded(found, record, data_root, train)
    out = Path(out)
    try:
        write_file(out, data)
    except OSError as error:
        raise InputError(f"--out {str(out)!r} cannot be written ({error.strerror})") from error
    return found


def find_row(manifest: Path, row: str) -> ManifestRow:
    """The row with a number from 1, or of a file (or `file/member`); raises InputError where there is none."""
    names = []
    for number, found in enumerate(read_rows(manifest), 1):
        name = f"{found.file}/{found.member}" if found.member else found.file
        if str(number) == row or name == row:
            return found
        names.append(name)
    if row.isdigit():
        raise InputError(f"{str(manifest)!r} has no row {row}; it has rows 1 to {len(names)}")
    raise InputError(f"{str(manifest)!r} has no row for {row!r}{nearest(row, names[:10_000])}")


def _encoded(row: ManifestRow, record: dict[str, Any], data_root: Path | None, train: bool) -> bytes:
    request = from_record(record, data_root)
    request = replace(request, inputs=replace(request.inputs, train=train))
    bank = open_bank(request.inputs)
    if isinstance(bank, FeatureBank) or request.inputs.representation is not None:
        raise InputError(f"the run of {request.inputs.source!r} made features; regen makes pictures")
    if request.pool is not None:
        return _as_it_lies(row, bank if row.method == REAL else open_pool(request.pool, data_root), request, record)
    if row.cls not in bank.classes:
        raise InputError(f"the class {row.cls!r} is no longer in {request.inputs.source!r}")
    part = open_method(request.inputs, bank)
    settings = saving.part_digest(part)
    if row.method != REAL and (row.settings != settings or row.version != __version__):
        raise InputError(f"the row was made by {row.method} {row.settings} of augforge {row.version}; "
                         f"this is {catalog.describe(part)['name']} {settings} of {__version__}")  # fmt: skip
    label = bank.classes.index(row.cls)
    rows = bank.rows_of(label).numpy()
    making = Making(bank, part, row.method, settings, row.seed, Plan((), 1), request.size)
    if row.method != REAL:
        making = _with_filters(making, request, record)
    if row.parent:
        rows = rows[[bank.name(int(r)) == row.parent for r in rows]]
    else:  # made of the whole class, without what cannot be read
        rows = rows[~np.isin(rows, list(check_pictures(making, rows, 1)[0]))]
    if not len(rows) and not needs_no_support(part):
        raise InputError(f"the parent {row.parent or row.cls!r} is no longer in {request.inputs.source!r}")
    count = next((c["real"] for c in record["classes"] if c["name"] == row.cls), len(rows))
    picture = _picture(making, ClassPlan(row.cls, label, rows, 1, 0), row, count)
    if request.format == "npz":
        return encode(picture, "png")
    as_it_is = row.method == REAL and request.encoding == AS_SOURCE and request.size is None
    if as_it_is and (original := original_of(bank, int(rows[0]))) is not None:
        return original
    data = _coded(picture, row, request, record)
    if not request.mark or row.method == REAL:
        return data
    return marked(data, encoding_of(row.parent, request.encoding), packet(source_type(part), row.method))


def _as_it_lies(row: ManifestRow, bank: AnyBank, request: Request, record: dict[str, Any]) -> bytes:
    """A picture of the source or of the pool that a run took; raises InputError where it is not what it was."""
    place = next((place for place in range(len(bank)) if bank.name(place) == row.parent), None)
    if isinstance(bank, FeatureBank) or place is None:
        raise InputError(f"the parent {row.parent!r} is no longer in {bank.origin!r}")
    try:
        picture, sha256 = bank.load(place)
    except UnreadablePicture as error:
        raise InputError(f"the parent {row.parent!r} {error.reason}") from error
    if sha256 != row.parent_sha256:
        raise InputError(f"the parent {row.parent!r} has changed since the run: its SHA-256 is {sha256}")
    if request.size is not None:
        picture = resized(picture, request.size)
    elif request.encoding == AS_SOURCE and request.format != "npz":
        original = original_of(bank, place, png=row.method != REAL)
        if original is not None:
            return original
    return encode(picture, "png") if request.format == "npz" else _coded(picture, row, request, record)


def _coded(picture: np.ndarray, row: ManifestRow, request: Request, record: dict[str, Any]) -> bytes:
    """The file of a picture as the run coded it; raises InputError where another writer wrote its PNG files."""
    encoding = encoding_of(row.parent, request.encoding)
    if encoding == "png" and record.get("png_writer") != PNG_WRITER:
        raise InputError(
            f"the run wrote PNG files with {record.get('png_writer')}; this is {PNG_WRITER} (extra `fast`)"
        )
    return encode(picture, encoding, request.quality)


def _with_filters(making: Making, request: Request, record: dict[str, Any]) -> Making:
    """With what the run rejected by; raises InputError where one of the filters is no longer the same."""
    kept = open_filters(request, making)
    if list(kept.digests) != record.get("judges", []):
        names = ", ".join(map(repr, (*request.reject, *request.keep)))
        raise InputError(f"what the run rejected by, {names}, is no longer the same")
    return replace(making, filters=kept.filters, tries=request.tries, distinct=kept.distinct)


def _picture(making: Making, plan: ClassPlan, row: ManifestRow, count: int) -> np.ndarray:
    """The picture [h, w, c] of a row whose parents are all that the plan has; its class had `count` in the run."""
    try:
        if row.parent:
            first, sha256 = load(making, int(plan.rows[0]))
            if sha256 != row.parent_sha256:
                raise InputError(f"the parent {row.parent!r} has changed since the run: its SHA-256 is {sha256}")
            if row.method == REAL:
                return first
        parents, one_parent = Parents(making, plan, Notes()), capabilities(making.part).one_parent
        before = rows_before(row.index, count, one_parent) if making.distinct else np.zeros(0, np.int64)
        distinct = Distinct() if making.distinct else None
        for some in np.array_split([*before, row.index], range(_AT_ONCE, len(before) + 1, _AT_ONCE)):
            keys = chance.row_keys(row.seed, row.cls, torch.from_numpy(some.astype(np.int64)))
            picture = synthesized(making, plan, parents, np.zeros(len(some), np.int64), keys, distinct)[0][-1]
        return picture
    except UnreadablePicture as error:
        raise InputError(f"the parent {row.parent!r} {error.reason}") from error
