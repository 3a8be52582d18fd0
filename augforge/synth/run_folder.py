"""The folder of a run: who may write there, what is finished, and how shards become one.

While a run goes on its manifest grows in `.partial`, in the order of the plan; when all is done it is renamed to
`manifest.jsonl`. So a finished manifest means a finished run, and a killed run lost only what its manifest lacks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import IO, Any

from augforge.adapters.ray import PROCESSES, check_engine
from augforge.curate.children import MANIFEST
from augforge.data.durable import read_file, sync_files, sync_name
from augforge.data.strict_json import MOST_JSON, parse_json
from augforge.parts.saving import write_json
from augforge.synth.claims import Claimed
from augforge.synth.plan import Plan
from augforge.synth.sinks import CLASSES, classes_text, folder_name
from augforge.synth.written import PARTIAL, mark_synced, refuse_links, synced_units, written_files
from augforge.types import InputError

RUN, REPORT = "run.json", "report.html"
_MANIFEST = re.compile(r"manifest(-\d+-of-\d+)?\.jsonl")
_LEFT_OVER = re.compile(r"(run\.json|\.?contact_sheet\.png|report\.html|features\.safetensors)\.\d+\.part(ial)?")
_PAGE, _PAGE_HEAD = b'<meta name="generator" content="augforge', 1000  # how our pages begin, and within how many bytes
_UNCOMPARED = ("versions", "machine", "pictures", "source_stamp")
_LOCK_SECONDS = 5.0  # that a lock is waited for


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; nothing here changes a byte of what it makes.

    Raises InputError for numbers out of range or options that exclude each other.
    """

    workers: int = 0  # processes; 0: one for each core
    batch_size: int = 64  # rows in one call of the method
    shard: tuple[int, int] = (0, 1)  # (i, n): do the i-th of n parts of the work
    resume: bool = False  # go on with a run
    overwrite: bool = False  # replace a run
    strict: bool = False  # a picture that cannot be read is an error
    verify: bool = False  # with `resume`: read every file and every parent, not their sizes and times alone
    progress: Callable[[int, int], None] | None = None  # called with (rows done, rows in all)
    training: Callable[[str, float, float], None] | None = None  # called with (stage, part done, loss) of a training
    engine: str = PROCESSES  # what shares the work: "processes", "ray", "ray:ADDRESS" (see augforge.adapters.ray)

    def __post_init__(self) -> None:
        """Check what was given."""
        if self.workers < 0 or self.batch_size < 1:
            raise InputError(f"--workers {self.workers} --batch-size {self.batch_size}: expected at least 0 and 1")
        check_engine(self.engine)
        if not 0 <= self.shard[0] < self.shard[1]:
            raise InputError(f"--shards {self.shard[0]}/{self.shard[1]} was given; expected i/N with 0 <= i < N")
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite were given; expected at most one of them")
        if self.verify and not self.resume:
            raise InputError("--verify was given without --resume; it says how a run that goes on is checked")
        if self.overwrite and self.shard[1] > 1:
            raise InputError("--overwrite and --shards were given; expected an empty --out: shards must not overwrite "
                             "each other")  # fmt: skip


def claim(out: Path, record: dict[str, Any], source: Path | None, options: RunOptions) -> None:
    """Make `out` the folder of this run, or find that it is already; writes `run.json` and nothing else.

    Raises InputError where `out` lies inside the source, is no folder, holds something else, another run or links, or
    cannot be written.
    """
    if source is not None:
        check_outside(out, source)
    try:
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {str(out)!r} is a file; expected a folder")
        out.mkdir(parents=True, exist_ok=True)
        with alone(out):
            if (out / RUN).exists():
                refuse_links(out)
            if options.overwrite and (out / RUN).exists():
                _remove_run(out)
                write_json(out / RUN, record)
            elif (out / RUN).exists():
                _check_same(out, record, options)
            elif found := sorted(e.name for e in out.iterdir() if PARTIAL not in e.name):
                raise InputError(f"--out {str(out)!r} is not empty (it has {found[0]!r}) and holds no run of augforge")
            else:
                write_json(out / RUN, record)
    except OSError as error:
        raise InputError(f"--out {str(out)!r} cannot be written ({error.strerror or error})") from error


def check_outside(out: Path, source: Path, what: str = "source") -> None:
    """Raise InputError for an `out` inside of a folder that is read."""
    resolved = Path(os.path.realpath(out))  # Path.resolve raises an error of its own for a loop of links
    if source.is_dir() and resolved.is_relative_to(os.path.realpath(source)):
        raise InputError(f"--out {str(out)!r} lies inside the {what} {str(source)!r}; expected a folder outside of it")


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Let one process at a time decide about `out`; raises OSError where it cannot be opened."""
    folder = os.open(out, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock a folder
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def sheet_path(out: Path, sink: str) -> Path:
    """Where the contact sheet of a run lies.

    Among class folders its name begins with a dot: a picture beside the folders would make Hugging Face's imagefolder
    count it, and drop the labels of all others without a word.
    """
    return out / (".contact_sheet.png" if sink == "folder" else "contact_sheet.png")


def report_path(out: Path) -> Path:
    """Where the page of a run lies. Raises InputError where something that augforge did not draw has that name."""
    path = out / REPORT
    if path.is_file() and not path.is_symlink():
        with open(path, "rb") as file:
            ours = _PAGE in file.read(_PAGE_HEAD)
    else:
        ours = not os.path.lexists(path)
    if not ours:
        raise InputError(f"{str(out)!r} has {REPORT!r}, which augforge did not draw; move it elsewhere")
    return path


def read_run(out: Path) -> dict[str, Any]:
    """What `run.json` in `out` holds; raises InputError where it is missing or damaged."""
    try:
        record = parse_json(read_file(out / RUN, MOST_JSON))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(out / RUN)!r} cannot be read ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("order"), dict) or "method" not in record:
        raise InputError(f"{str(out / RUN)!r} is not the record of a run of augforge")
    return record


def _check_same(out: Path, record: dict[str, Any], options: RunOptions) -> None:
    before = read_run(out)
    begun = (out / MANIFEST, *_manifests(out, options.shard))
    another_shard = options.shard[1] > 1 and not any(path.exists() for path in begun)
    if not options.resume and not another_shard:
        raise InputError(f"--out {str(out)!r} holds a run; --resume goes on with it, --overwrite replaces it")
    now = json.loads(json.dumps(record))
    differing = [key for key in now if key not in _UNCOMPARED and now[key] != before.get(key)]
    if not differing:
        return
    key = "order" if "order" in differing else differing[0]
    old, new = before.get(key), now[key]
    if isinstance(old, dict) and isinstance(new, dict):
        others = [k for k in {**new, **old} if new.get(k) != old.get(k)]
        key = next((k for k in others if k != "mark"), "mark")  # which may follow from another: features have none
        old, new = old.get(key), new.get(key)
    raise InputError(
        f"--out {str(out)!r} holds another run: its {key} is {_brief(old)}, and {_brief(new)} was asked for"
    )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _remove_run(out: Path) -> None:
    """Remove what a run of augforge wrote, as its manifest and journals name it, and nothing that someone else put
    there; `run.json` stays to be replaced. The manifest goes last, so that what a kill left is still known.
    """
    record = read_run(out)
    for growing in (out / PARTIAL).glob("manifest*.jsonl"):
        with open(growing, "ab") as manifest:
            _lock(manifest, out)
    for file in list(written_files(out)):
        (out / file).unlink(missing_ok=True)
    for c in record.get("classes", []):
        with contextlib.suppress(OSError):  # not empty: something else lies there
            (out / folder_name(c["name"])).rmdir()
    sheet_path(out, record["order"].get("format", "folder")).unlink(missing_ok=True)
    with contextlib.suppress(InputError):  # someone else's
        report_path(out).unlink(missing_ok=True)
    listed = out / CLASSES  # of a run into tars, and ours by what it holds
    if listed.is_file() and read_file(listed) == classes_text(c["name"] for c in record.get("classes", [])):
        listed.unlink()
    shutil.rmtree(out / PARTIAL, ignore_errors=True)
    for entry in list(os.scandir(out)):
        if _LEFT_OVER.fullmatch(entry.name) or _MANIFEST.fullmatch(entry.name):
            os.unlink(entry.path)


def foreign_files(out: Path, classes: Iterable[str]) -> frozenset[str]:
    """The files, by their names below `out`, that lie in class folders and that no run of augforge wrote."""
    found: set[str] = set()
    for name in map(folder_name, classes):
        if (out / name).is_dir():
            found.update(f"{name}/{entry.name}" for entry in os.scandir(out / name))
    if found:
        found.difference_update(written_files(out, strict=False))
    return frozenset(found)


def _manifests(out: Path, shard: tuple[int, int]) -> tuple[Path, Path]:
    """The finished manifest of a shard, and the one that grows."""
    name = MANIFEST if shard[1] == 1 else f"manifest-{shard[0]}-of-{shard[1]}.jsonl"
    return out / name, out / PARTIAL / name


def finished(out: Path, shard: tuple[int, int]) -> bool:
    """Whether this shard has nothing left to do. Raises InputError where `out` was shared out otherwise."""
    if (out / MANIFEST).exists():
        _tidy(out)
        return True
    if shard[1] > 1 and (out / PARTIAL / MANIFEST).exists():
        raise InputError(f"--out {str(out)!r} was begun without --shards; expected the same again")
    for entry in (*out.glob("manifest-*-of-*.jsonl"), *(out / PARTIAL).glob("manifest-*-of-*.jsonl")):
        count = int(entry.stem.rpartition("-")[2])
        if count != shard[1]:
            raise InputError(f"--out {str(out)!r} was begun with --shards i/{count}; expected the same again")
    return _manifests(out, shard)[0].exists()


@contextlib.contextmanager
def growing_manifest(
    out: Path, shard: tuple[int, int], check: Callable[[Path], Claimed]
) -> Iterator[tuple[FileIO, Claimed]]:
    """The open, unbuffered manifest of a shard, cut after its last right unit, and what `check` found in it.

    It is locked against a second run. Raises InputError where another process is writing it.
    """
    path = _manifests(out, shard)[1]
    with open(path, "ab", buffering=0) as manifest:
        _lock(manifest, out)
        found = check(path)
        os.truncate(path, found.size)
        manifest.seek(0, os.SEEK_END)
        if found.units < synced_units(path):
            mark_synced(path, found.units)
        yield manifest, found


def reopen(out: Path, shard: tuple[int, int], check: Callable[[Path], Claimed]) -> bool:
    """Make a finished shard one that goes on, where `check` finds lines of its manifest that are not right; whether
    it did.
    """
    path, growing = _manifests(out, (0, 1) if (out / MANIFEST).exists() else shard)
    found = check(path)
    if found.whole and not found.broken:
        return False
    if path.name == MANIFEST and shard[1] > 1:
        raise InputError(f"--out {str(out)!r} is a finished run of which files or lines are missing; --resume without "
                         "--shards makes them again")  # fmt: skip
    growing.parent.mkdir(exist_ok=True)
    os.replace(path, growing)
    return True


def _lock(manifest: IO[bytes], out: Path) -> None:
    """Lock a growing manifest and write down who holds it; InputError where another process does for 5 seconds.

    Workers of a run share its lock, and those of a killed run take a moment to die: that is what is waited for.
    """
    holder = Path(f"{manifest.name}.holder")
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if time.monotonic() >= end:
                raise InputError(f"--out {str(out)!r} is being written by another augforge{_who(holder)}") from error
            time.sleep(0.05)
    holding = {"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):  # a disk that is full: a run has better sentences for that
        holder.write_text(json.dumps(holding), encoding="utf-8")


def _who(holder: Path) -> str:
    """The end of a sentence: which process wrote down that it holds a lock, and since when."""
    try:
        found = parse_json(read_file(holder, MOST_JSON))
        return f": process {found['pid']}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def whole_manifest(out: Path, plan: Plan, shard: tuple[int, int], at_once: int = 1_000_000) -> Path | None:
    """The manifest of all rows, not yet under its name, once a shard and all others are done; None before.

    Lines come in the order of the plan, unit by unit, whichever shard made them; about `at_once` of them are held at a
    time, 400 MB. Raises InputError for a shard's
    manifest that lacks lines.
    """
    final, growing = _manifests(out, shard)
    if shard[1] == 1:
        return growing
    if growing.exists():
        os.replace(growing, final)
    paths = [_manifests(out, (i, shard[1]))[0] for i in range(shard[1])]
    if not all(path.exists() for path in paths):
        return None
    (out / PARTIAL).mkdir(exist_ok=True)
    whole = out / PARTIAL / f"whole.{os.getpid()}.jsonl"
    starts = [0] * len(paths)
    at_once = len(paths) * max(1, at_once // (len(paths) * plan.unit))  # units now, whole rounds of all shards
    with open(whole, "wb") as joined:
        for first in range(0, plan.units, at_once):
            units = range(first, min(first + at_once, plan.units))
            lines = [b""] * len(units)
            for i, path in enumerate(paths):  # one open file at a time: there may be more shards than handles
                mine = range(i, len(units), len(paths))
                with open(path, "rb") as manifest:
                    manifest.seek(starts[i])
                    for k in mine:
                        lines[k] = _lines(manifest, plan.rows_in(units[k]), path)
                    starts[i] = manifest.tell()
            joined.writelines(lines)
    return whole


def _lines(manifest: BufferedReader, count: int, path: Path) -> bytes:
    lines = [manifest.readline() for _ in range(count)]
    if not all(line.endswith(b"\n") for line in lines):
        raise InputError(f"{str(path)!r} is cut short; expected a line for each row")
    return b"".join(lines)


def finish_run(out: Path, whole: Path) -> None:
    """The last step, when all else is in place and on the disk: the manifest gets its name, the scaffolding goes."""
    sync_files(out)
    os.replace(whole, out / MANIFEST)
    sync_name(out / MANIFEST)
    _tidy(out)


def _tidy(out: Path) -> None:
    """Remove what a finished run has no more use for."""
    with contextlib.suppress(OSError):  # a folder that may only be read stays as it is
        for entry in list(os.scandir(out)):
            if _LEFT_OVER.fullmatch(entry.name) or (_MANIFEST.fullmatch(entry.name) and entry.name != MANIFEST):
                os.unlink(entry.path)
    shutil.rmtree(out / PARTIAL, ignore_errors=True)
