"""Which files a run has written: those that its manifests name, and those in the journals of its units.

A file is in the journal of its unit before it has its name, and in the manifest once its unit is done. So nothing that
a run wrote is unknown after a kill, and nothing else is ever taken for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from augforge.data.durable import sync_files, write_file
from augforge.data.strict_json import parse_json
from augforge.synth.manifest import from_line
from augforge.types import InputError

PARTIAL = ".partial"


def journal(out: Path, unit: int) -> str:
    """The path of the names of files that a unit writes, one JSON string a line."""
    return f"{out}/{PARTIAL}/unit-{unit:06d}.names"


def journal_line(file: str) -> bytes:
    """The line of a file, by its name below OUT."""
    return (json.dumps(file) + "\n").encode("ascii")


def journalled(path: str | Path) -> list[str]:
    """The names in a journal, without a last one that a kill cut off; none where there is no journal."""
    try:
        lines = Path(path).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            name = parse_json(line)
        except ValueError:
            continue  # what a kill cut off, whose file was not written, or the empty line at each start
        if isinstance(name, str) and _is_inside(name):
            found.append(name)
    return found


def written_files(out: Path, strict: bool = True) -> Iterator[str]:
    """The names below OUT of all that its run wrote, as its manifests and journals have them; some come twice.

    Raises InputError for a line that is no manifest row, or that names a file outside of OUT; without `strict` such
    lines are passed over.
    """
    for path in sorted((out / PARTIAL).glob("unit-*.names")):
        yield from journalled(path)
    for path in sorted((*(out / PARTIAL).glob("*.jsonl"), *out.glob("manifest*.jsonl"))):
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break  # what a killed run left half-written; the journal has its files
                try:
                    file = from_line(line, path, number).file
                    if not _is_inside(file):
                        raise InputError(f"line {number} of {str(path)!r} names {file!r}; expected a file in {out}")
                except InputError:
                    if strict:
                        raise
                else:
                    yield file


def mark_synced(manifest: Path, units: int) -> None:
    """Wait until all that a run has written is on the disk, and note that this is so of the first `units` units of its
    growing manifest; raises OSError.
    """
    sync_files(manifest.parent)
    write_file(f"{manifest}.synced", json.dumps(units).encode())


def synced_units(manifest: Path) -> int:
    """How many units `mark_synced` noted; 0 where it did not. What came later may be lost after a power cut."""
    try:
        found = parse_json(Path(f"{manifest}.synced").read_bytes())
    except (OSError, ValueError):
        return 0
    return found if isinstance(found, int) else 0


def is_torn(found: bytes, data: bytes) -> bool:
    """Whether a file is what a power cut leaves of a write of `data`: all or the beginning of it, then zeros."""
    return data.startswith(found.rstrip(b"\0"))


def remove_orphans(out: Path, sizes: Iterable[int], whole: Path) -> None:
    """Remove what a unit wrote in a try that did not count, and under other names than in the one that did.

    `sizes` are the rows of each unit, and `whole` is the manifest of them all, in order. Raises OSError.
    """
    with open(whole, "rb") as lines:
        for unit, size in enumerate(sizes):
            some = [lines.readline() for _ in range(size)]
            names = journalled(journal(out, unit))
            if len(names) > len(some):  # one name for each row, unless it was begun more than once
                kept = {from_line(line, whole, 0).file for line in some}
                for name in set(names) - kept:
                    (out / name).unlink(missing_ok=True)


def _is_inside(file: str) -> bool:
    """Whether a name is that of a file of OUT or of one of its folders."""
    parts = PurePosixPath(file).parts
    return 1 <= len(parts) <= 2 and not file.startswith("/") and ".." not in parts and "\0" not in file


def refuse_links(out: Path) -> None:
    """Raise InputError for a link in OUT: a run that wrote or removed through it would do so outside of OUT."""
    for folder in (out, out / PARTIAL):
        if folder.is_dir():
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if entry.is_symlink():
                    name = os.path.relpath(entry.path, out)
                    raise InputError(
                        f"--out {str(out)!r} has {name!r}, a link to {os.readlink(entry.path)!r}; expected a folder "
                        "without links: nothing outside of it is written or removed"
                    )
