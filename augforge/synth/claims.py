"""What a run's manifest claims, held against the plan, the files and the source, before a run goes on.

A line counts where it is that of its row of the plan, and what it names is there with its size. Sources are compared by
sizes and times first, and by SHA-256 where those differ. With `verify` every file, and every parent, is read; so are
files of a run that was stopped which were not yet known to be on the disk.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from augforge import __version__
from augforge.data.banks import FilePictures, PictureBank, source_sha256
from augforge.data.folder import FileReader
from augforge.synth.generate import Making
from augforge.synth.manifest import OF_POOL, REAL, ManifestRow, from_line
from augforge.synth.sinks import Sink, folder_name, pixels_path
from augforge.synth.written import PARTIAL, synced_units
from augforge.types import InputError, UnreadablePicture

_AT_ONCE = 1 << 20  # bytes read at a time
_IN_POOL = "\0"  # before a parent's name, which may be that of a source picture too


@dataclass
class Claimed:
    """What of a shard's manifest is right."""

    units: int = 0  # so many from the start
    size: int = 0  # bytes of their lines
    others: dict[int, bytes] = field(default_factory=dict)  # later ones that are right too: unit -> its lines
    broken: int = 0  # lines of units that are not: their rows have to be made again
    whole: bool = False  # there are lines for all units, and no more
    parents: dict[str, str] = field(default_factory=dict)  # name -> SHA-256


def claimed(
    making: Making, sink: Sink, manifest: Path, shard: tuple[int, int] = (0, 1), verify: bool = False
) -> Claimed:
    """What of a shard's manifest is right; a last line that a killed write left unfinished never is.

    Raises InputError where one parent has two SHA-256.
    """
    found, right, plan = Claimed(), True, making.plan
    packed = _Packed(sink) if sink.format == "npz" and (sink.out / "data.npz").exists() else None
    growing = manifest.parent.name == PARTIAL
    whole_npz = packed is None or growing or packed.is_whole()
    on_disk = synced_units(manifest) if growing else plan.units
    with open(manifest, "rb") as lines:
        for place, unit in enumerate(range(shard[0], plan.units, shard[1])):
            some = [lines.readline() for _ in range(plan.rows_in(unit))]
            if not all(line.endswith(b"\n") for line in some):
                return found
            rows = _rows(making, unit, some, manifest)
            if rows is None or not whole_npz or not _are_there(sink, unit, rows, packed, verify or place >= on_disk):
                found.broken += len(some)
                right = False
                continue
            add_parents(found.parents, parents_of(rows))
            if right:
                found.units, found.size = found.units + 1, found.size + sum(map(len, some))
            else:
                found.others[unit] = b"".join(some)
        found.whole = not lines.readline()
    return found


def _rows(making: Making, unit: int, lines: list[bytes], path: Path) -> list[ManifestRow] | None:
    """The manifest rows of a unit; None where one is not that of its row of the plan."""
    rows = []
    for number, (line, expected) in enumerate(zip(lines, _expected(making, unit), strict=True), 1):
        try:
            row = from_line(line, path, number)
        except InputError:
            return None
        settings = "" if row.method == REAL else making.settings
        found = (row.cls, row.method, row.index, row.settings, row.seed, row.version)
        if found != (*expected, settings, making.seed, __version__):
            return None
        rows.append(row)
    return rows


def _expected(making: Making, unit: int) -> Iterator[tuple[str, str, int]]:
    """The class, the method and the index of each row of a unit."""
    for segment in making.plan.segments(unit):
        name, start, stop = segment.plan.name, segment.start, segment.stop
        if segment.real:
            yield from ((name, REAL, place) for place in range(start, stop))
        else:
            yield from ((name, making.method, i) for i in segment.plan.items(start, stop)[1].tolist())


def parents_of(rows: Iterable[ManifestRow]) -> Iterator[tuple[str, str]]:
    """The name of each row's parent, marked where it is of a pool, and its SHA-256."""
    for row in rows:
        yield (_IN_POOL if row.method in OF_POOL else "") + row.parent, row.parent_sha256


def add_parents(parents: dict[str, str], more: Iterable[tuple[str, str]]) -> None:
    """Add parents (name, SHA-256) to those that are known; raises InputError for one that has another SHA-256 there."""
    for name, sha256 in more:
        if name and parents.setdefault(name, sha256) != sha256:
            raise InputError(_changed(name))


def _changed(name: str) -> str:
    what = "picture of the pool" if name.startswith(_IN_POOL) else "source picture"
    return (
        f"the {what} {name.removeprefix(_IN_POOL)!r} is not what it was when pictures were made of it; expected the "
        "same source, or --overwrite to make all of them anew"
    )


def _are_there(sink: Sink, unit: int, rows: list[ManifestRow], packed: _Packed | None, verify: bool) -> bool:
    """Whether what the rows of a unit name is there as they say: by size, and with `verify` by SHA-256."""
    try:
        if sink.format == "folder":
            return all(_is_file(sink, row, verify) for row in rows)
        if sink.format == "webdataset":
            return _are_members(sink.out / f"shard-{unit:06d}.tar", rows, verify)
        if packed is not None and packed.is_whole():
            return not verify or packed.are_pixels(rows)
        return _are_pixels(pixels_path(sink, unit), rows, verify)
    except (OSError, tarfile.TarError):
        return False


def _is_file(sink: Sink, row: ManifestRow, verify: bool) -> bool:
    kind = "r" if row.method == REAL else "m"
    folder, name = os.path.split(row.file)
    if folder != folder_name(row.cls) or not os.path.splitext(name)[0].endswith(f"-{kind}{row.index:05d}"):
        return False
    path = f"{sink.out}/{row.file}"
    if row.size >= 0 and os.stat(path).st_size != row.size:
        return False
    return not (verify and row.sha256) or hashlib.sha256(Path(path).read_bytes()).hexdigest() == row.sha256


def _are_members(path: Path, rows: list[ManifestRow], verify: bool) -> bool:
    with tarfile.open(path, "r:") as tar:
        members = {member.name: member for member in tar}
        for row in rows:
            member = members.get(row.member)
            if row.file != path.name or member is None or row.size not in (-1, member.size):
                return False
            data = tar.extractfile(member) if verify and row.sha256 else None
            if data is not None and hashlib.sha256(data.read()).hexdigest() != row.sha256:
                return False
    return True


def _are_pixels(path: Path, rows: list[ManifestRow], verify: bool) -> bool:
    if rows[0].size >= 0 and path.stat().st_size != sum(row.size for row in rows):
        return False
    with open(path, "rb") as file:
        return not verify or all(hashlib.sha256(file.read(row.size)).hexdigest() == row.sha256 for row in rows)


class _Packed:
    """The pictures in `data.npz`."""

    def __init__(self, sink: Sink) -> None:
        self.path, self.start = sink.out / "data.npz", -1
        self.each = int(np.prod(sink.shape or 0))
        with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo("images.npy")
            with archive.open(info) as member:
                np.lib.format.read_magic(member)
                shape = np.lib.format.read_array_header_1_0(member)[0]
                header = member.tell()
            with open(self.path, "rb") as file:
                file.seek(info.header_offset + 26)
                lengths = np.frombuffer(file.read(4), "<u2")  # of the name and of the extra field
                end = file.seek(0, os.SEEK_END)
            start = info.header_offset + 30 + int(lengths.sum()) + header
            if shape == (sink.total, *(sink.shape or ())) and end >= start + sink.total * self.each:
                self.start = start

    def is_whole(self) -> bool:
        """Whether it has the size that the plan says."""
        return self.start >= 0

    def are_pixels(self, rows: list[ManifestRow]) -> bool:
        """Whether the pictures of the rows are those that were written."""
        with open(self.path, "rb") as file:
            for row in rows:
                file.seek(self.start + int(row.member[len("images[") : -1]) * self.each)
                if row.sha256 and hashlib.sha256(file.read(self.each)).hexdigest() != row.sha256:
                    return False
        return True


def source_stamp(bank: PictureBank) -> str:
    """A digest of the sizes and times of all files of a source; "" for a source that is in no files of its own."""
    digest = hashlib.sha256()
    if isinstance(bank, FilePictures) and isinstance(bank.read, FileReader):
        places = range(len(bank)) if bank.index is None else bank.index.tolist()
        paths = [os.path.join(bank.read.root, bank.read.names[place]) for place in places]
    elif os.path.isfile(bank.origin):
        paths = [bank.origin]
    else:
        return ""
    for path in paths:
        with suppress(OSError):
            found = os.stat(path)
            digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def check_parents(bank: PictureBank, parents: dict[str, str], of_pool: bool = False) -> None:
    """Raise InputError naming the first picture of the source, or of a pool, whose SHA-256 is no longer that of
    `parents` (by name).
    """
    for row in range(len(bank)):
        name = _IN_POOL + bank.name(row) if of_pool else bank.name(row)
        if name not in parents:
            continue
        try:
            sha256 = source_sha256(bank, row)
        except UnreadablePicture:
            sha256 = ""
        if sha256 != parents[name]:
            raise InputError(_changed(name))
