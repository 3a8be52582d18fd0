"""Sinks: where made pictures go - class folders, WebDataset shards, or one `.npz`.

Every file is written under another name and renamed, so nothing that bears its final name is cut short.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import platform
import re
import threading
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch

from augforge import chance
from augforge.data.class_names import taken_for_one
from augforge.synth.encode import AS_SOURCE, SUFFIXES, Encoding, encode, encoding_of
from augforge.synth.generate import MadePicture
from augforge.synth.manifest import OF_POOL, REAL, ManifestRow
from augforge.synth.marks import marked, packet
from augforge.synth.written import PARTIAL, is_torn, journal, journal_line
from augforge.types import InputError

Format = Literal["folder", "webdataset", "npz"]
RESERVED = ("manifest.jsonl", "run.json", "report.html")
CLASSES = "classes.txt"  # beside tars
UNITS = {"folder": 64, "webdataset": 1000, "npz": 256}  # rows of one unit of work; of one tar file
_TAKEN = (REAL, *OF_POOL)  # methods whose pictures are real
_TAR_BLOCK = 512
_TAR_END = bytes(2 * _TAR_BLOCK)


@dataclass(frozen=True)
class Sink:
    """Where and how pictures are written; `shape` [h, w, c] of all of them and `total` are known for `.npz` only;
    files of made pictures say that they are of the digital source type `mark`, where there is one.

    A file among the `foreign` ones, by its name below `out`, is someone else's, and is not replaced by other bytes; but
    one that a power cut left empty or cut short, and its journal with it, is.
    """

    out: Path
    format: Format = "folder"
    encoding: Encoding | Literal["source"] = "png"
    quality: int = 95
    shape: tuple[int, int, int] | None = None
    total: int = 0
    mark: str | None = None
    foreign: frozenset[str] = frozenset()

    def write(self, unit: int, made: Iterable[MadePicture]) -> tuple[list[ManifestRow], int]:
        """Write the rows of a unit; their manifest rows, and how many bytes they took.

        Raises InputError where a file cannot be written, naming it.
        """
        writers = {"folder": _write_folder, "webdataset": _write_tar, "npz": _write_npz}
        try:
            return writers[self.format](self, unit, made)
        except OSError as error:
            raise InputError(f"{str(self.out)!r} cannot be written ({error.strerror or error})") from error

    def encoded(self, made: MadePicture) -> tuple[bytes, str]:
        """The bytes of a picture's file and its suffix."""
        encoding = encoding_of(made.row["parent"], self.encoding)
        if made.original is not None and self.encoding == AS_SOURCE:
            return made.original, SUFFIXES[encoding]
        data = encode(made.picture, encoding, self.quality)
        if self.mark and made.row["method"] not in _TAKEN:
            data = marked(data, encoding, packet(self.mark, made.row["method"]))
        return data, SUFFIXES[encoding]

    def size_of(self, made: MadePicture) -> int:
        """How many bytes a picture takes, headers of a tar included."""
        if self.format == "npz":
            return int(np.prod(self.shape or 0))
        size = len(self.encoded(made)[0])
        if self.format == "folder":
            return size
        return 5 * _TAR_BLOCK + -(-size // _TAR_BLOCK) * _TAR_BLOCK  # three headers, the label, and mostly the facts

    def has_unit(self, unit: int) -> bool:
        """Whether a unit that was made, which may be on another machine, was written here."""
        return os.path.exists(pixels_path(self, unit) if self.format == "npz" else journal(self.out, unit))

    def prepare(self, classes: Iterable[str]) -> None:
        """Make the folders; raises InputError."""
        try:
            (self.out / PARTIAL).mkdir(parents=True, exist_ok=True)
            if self.format == "folder":
                for name in classes:
                    (self.out / folder_name(name)).mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{str(self.out)!r} cannot be written ({error.strerror or error})") from error


@functools.lru_cache(maxsize=4096)
def folder_name(name: str) -> str:
    """A class name as one folder's name, each another: what a folder cannot be called is written as %XX.

    >>> folder_name("Greek/character01"), folder_name(".."), folder_name("naïve cat")
    ('Greek%2Fcharacter01', '%2E.', 'naïve cat')
    """
    name = re.sub(r"%(?=[0-9A-Fa-f]{2})|[/\\\x00]", lambda found: f"%{ord(found[0]):02X}", name)
    if not name or name.startswith(".") or name in RESERVED:
        first = name[:1] or " "
        return f"%{ord(first):02X}{name[1:]}"
    return name


def check_folder_names(classes: Iterable[str]) -> None:
    """Raise InputError where two classes would share a folder on a file system that ignores case or Unicode forms."""
    if found := taken_for_one(classes):
        raise InputError(f"the classes {found[0]!r} and {found[1]!r} {found[2]}; rename one of them")


def _own_name() -> str:
    """A name for a file that is being written, which no other process or thread, on any machine, gives its own."""
    return f"{platform.node()}-{os.getpid()}-{threading.get_ident()}"


def _write_folder(sink: Sink, unit: int, made: Iterable[MadePicture]) -> tuple[list[ManifestRow], int]:
    rows, size = [], 0
    out = str(sink.out)
    partial = f"{out}/{PARTIAL}/{_own_name()}"
    with open(journal(sink.out, unit), "ab", buffering=0) as names:
        write_all(names.fileno(), b"\n")  # what a kill cut off ends here
        for one in made:
            data, suffix = sink.encoded(one)
            file = f"{folder_name(one.cls)}/{one.stem}{one.row['index']:05d}{suffix}"
            if file in sink.foreign and not is_torn(Path(out, file).read_bytes(), data):
                raise InputError(f"{out!r} has {file!r}, which this run would make and did not; move it elsewhere")
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                write_all(handle, data)
            finally:
                os.close(handle)
            write_all(names.fileno(), journal_line(file))
            os.rename(partial, f"{out}/{file}")
            rows.append(one.to_row(file, data))
            size += len(data)
    return rows, size


def _write_tar(sink: Sink, unit: int, made: Iterable[MadePicture]) -> tuple[list[ManifestRow], int]:
    """A shard, as WebDataset reads it: of each row `<number>.png`, `<number>.cls` (the label in digits) and
    `<number>.json` (class, method, parent, index and seed; of a pool's rows weight and confidence too).

    The rows lie in the order of a hash of their numbers, so that neighbours are of different classes. They are made
    class by class, so their files go to a file of their own first, not to memory.
    """
    rows: list[ManifestRow] = []
    samples: list[tuple[int, int, str, str, bytes]] = []  # number, bytes, suffix, label, facts
    file, name = f"shard-{unit:06d}.tar", _own_name()
    partial, raw = (sink.out / PARTIAL / f"{name}.{kind}" for kind in ("tar", "data"))
    with open(raw, "w+b") as encoded:
        for one in made:
            data, suffix = sink.encoded(one)
            encoded.write(data)
            row = one.to_row(file, data, f"{one.number:09d}{suffix}")
            facts = {"class": row.cls, "method": row.method, "parent": row.parent, "index": row.index, "seed": row.seed}
            facts |= {name: one.row[name] for name in ("weight", "confidence") if name in one.row}
            samples.append((one.number, len(data), suffix, str(one.label), json.dumps(facts).encode("ascii")))
            rows.append(row)
        starts = list(itertools.accumulate((sample[1] for sample in samples), initial=0))
        with open(partial, "wb") as tar:
            for i in _mixed([sample[0] for sample in samples]):
                number, length, suffix, label, said = samples[i]
                encoded.seek(starts[i])
                _add_member(tar, f"{number:09d}{suffix}", encoded.read(length))
                _add_member(tar, f"{number:09d}.cls", label.encode())
                _add_member(tar, f"{number:09d}.json", said)
            tar.write(_TAR_END)
            size = tar.tell()
    raw.unlink()
    Path(journal(sink.out, unit)).write_bytes(journal_line(file))
    os.replace(partial, sink.out / file)
    return rows, size


def _mixed(numbers: list[int]) -> list[int]:
    """The places of numbers in the order of a hash of them."""
    keys = chance.row_keys(0, "order in a shard", torch.tensor(numbers, dtype=torch.int64))
    return torch.argsort(keys, stable=True).tolist()


def classes_text(classes: Iterable[str]) -> bytes:
    """What `classes.txt` beside tars holds: the name of label 0, 1, ..., one a line; of a line break a space."""
    return "".join(" ".join(name.splitlines()) + "\n" for name in classes).encode("utf-8", "surrogateescape")


def write_classes(out: Path, classes: Iterable[str]) -> None:
    """Write `classes.txt`; raises OSError, and InputError where there is one that no run wrote."""
    path, data = out / CLASSES, classes_text(classes)
    if path.exists() and path.read_bytes() != data:
        raise InputError(f"{str(out)!r} has {CLASSES!r}, which this run would write and did not; move it elsewhere")
    partial = out / PARTIAL / CLASSES
    partial.write_bytes(data)
    os.replace(partial, path)


def _add_member(tar: BinaryIO, name: str, data: bytes) -> None:
    """A ustar member with fixed owner, mode and time, so that the same rows give the same bytes.

    Written by hand, a member of 1.5 kB takes 6 us; `tarfile.TarFile.addfile` takes 120.
    """
    fields = (name.encode().ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % len(data),
              b"%011o\0" % 0, b" " * 8, b"0", bytes(100), b"ustar\x0000", bytes(247))  # fmt: skip
    header = b"".join(fields)
    checksum = b"%06o\0 " % sum(header)
    tar.write(header[:148] + checksum + header[156:] + data + bytes(-len(data) % _TAR_BLOCK))


def _write_npz(sink: Sink, unit: int, made: Iterable[MadePicture]) -> tuple[list[ManifestRow], int]:
    """The pixels of a unit, in a file of their own until all units are there."""
    rows, size = [], 0
    partial = sink.out / PARTIAL / _own_name()
    with open(partial, "wb") as file:
        for one in made:
            picture = one.picture
            if sink.shape and picture.shape[2] < sink.shape[2]:
                picture = picture.repeat(sink.shape[2], axis=2)
            if picture.shape != sink.shape:
                raise InputError(f"a picture of {_by(picture.shape)} does not fit an .npz of {_by(sink.shape)}")
            data = picture.tobytes()
            size += file.write(data)
            rows.append(one.to_row("data.npz", data, f"images[{one.number}]"))
    os.replace(partial, pixels_path(sink, unit))
    return rows, size


def pixels_path(sink: Sink, unit: int) -> Path:
    """Where the pixels of a unit lie until `data.npz` is packed."""
    return sink.out / PARTIAL / f"pixels-{unit:06d}"


def _by(shape: tuple[int, ...] | None) -> str:
    height, width, channels = shape or (0, 0, 0)
    return f"{width}x{height} with {channels} channels"


def pack_npz(sink: Sink, units: int, labels: np.ndarray, classes: list[str]) -> None:
    """Put the pixels of all units, `labels` [n] int64 and `classes` into `data.npz`, stored, not compressed.

    Raises InputError where a unit is not there.
    """
    lacking = [unit for unit in range(units) if not pixels_path(sink, unit).exists()]
    if lacking:
        raise InputError(f"{str(pixels_path(sink, lacking[0]))!r} is missing; expected the pixels of all {units} units")
    partial = sink.out / PARTIAL / "data.npz"
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        fixed = {"labels": labels.astype(np.int64), "classes": np.array(classes)}
        for name, array in fixed.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        with archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True) as member:
            shape = (sink.total, *(sink.shape or (0, 0, 1)))
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for unit in range(units):
                member.write(pixels_path(sink, unit).read_bytes())
    os.replace(partial, sink.out / "data.npz")


def write_all(handle: int, data: bytes) -> None:
    """Write all of `data`, however little of it the system takes at a time; raises OSError."""
    written = os.write(handle, data)
    while written < len(data):
        written += os.write(handle, data[written:])
