"""A zip or tar of pictures as a source, read in place: indexed once, never extracted.

The layouts are those of a folder; one folder that everything lies in ("pets/cat/1.png") is left off. Reading a
member is one `pread` on a file that is opened for it, so banks can be pickled, forked and shared by threads.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augforge.data.banks import Columns, FilePictures
from augforge.data.containers import HEAD_BYTES, is_picture, is_unknown, looks_like_picture
from augforge.data.decode import decode
from augforge.data.layout import MAX_BYTES, Listing, Split, arrange, count_unread, is_hidden, parents, without_wrapping
from augforge.data.strict_json import brief
from augforge.types import InputError

COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_LOCAL_HEADER = 30  # bytes of a zip member's local header before its name
_HIDDEN = "."  # no cleaned path is this
_STORED, _DEFLATED, _TAR = 0, 8, -1
_MEMBER = np.dtype([("start", "i8"), ("packed", "i8"), ("size", "i8"), ("crc", "u4"), ("method", "i2")])


@dataclass(frozen=True, eq=False)
class MemberReader:
    """Reads members of an archive."""

    path: str
    stamp: tuple[int, int]  # the archive's size and time of change in ns when it was indexed
    members: np.ndarray  # [n] of _MEMBER: where each lies

    def __call__(self, row: int) -> bytes:
        """The bytes of a member; raises OSError where it cannot be read or its checksum is wrong."""
        start, packed, size, crc, method = self.members[row].tolist()
        if size > MAX_BYTES or packed > MAX_BYTES:
            raise OSError(f"it has {max(size, packed):,} bytes, more than {MAX_BYTES:,}")
        file = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            if _stamp(file) != self.stamp:
                raise OSError(f"the archive {self.path!r} has changed since it was indexed")
            if method == _TAR:
                return _read(file, start, size)
            return _inflate(_read_zipped(file, start, packed), size, crc, method)
        finally:
            os.close(file)

    def head(self, row: int) -> bytes:
        """The first bytes of a member; none of one that cannot be read."""
        start, packed, _, _, method = self.members[row].tolist()
        file = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            if method == _TAR:
                return _read(file, start, min(packed, HEAD_BYTES))
            data = _read_zipped(file, start, min(packed, 4096))
            return data[:HEAD_BYTES] if method == _STORED else zlib.decompressobj(-15).decompress(data, HEAD_BYTES)
        except (OSError, zlib.error):
            return b""
        finally:
            os.close(file)

    def take(self, rows: np.ndarray) -> MemberReader:
        """A reader whose row i is this one's row `rows[i]`."""
        return MemberReader(self.path, self.stamp, self.members[rows])


@dataclass(frozen=True, eq=False)
class Index:
    """What an archive holds."""

    pictures: dict[str, int]  # name -> place in `read`
    listing: Listing
    read: MemberReader


def open_archive(path: str | Path) -> dict[str, FilePictures]:
    """The banks of a zip or an uncompressed tar: {"all": ...}, or some of "train", "val" and "test".

    Names are those of the members without the folder that everything lies in. Links, encrypted members and names
    that are absolute or contain ".." are in `skipped` of the first bank. Raises InputError where the archive is
    damaged, compressed as a whole, or not laid out as expected.
    """
    index = index_archive(path)
    splits = arrange(index.listing, index.read.path)
    return {name: bank_of(index, split) for name, split in splits.items()}


def bank_of(index: Index, split: Split, groups: Columns | None = None) -> FilePictures:
    """The bank of one split of an archive, with further columns [n]."""
    read = index.read.take(np.array([index.pictures[name] for name in split.names], dtype=np.int64))
    return FilePictures(
        split.y, split.classes, split.names, read.path, read, decode, skipped=split.skipped, groups=groups or {}
    )


def index_archive(path: str | Path) -> Index:
    """List an archive without reading its pictures; raises InputError where that is not possible."""
    path = os.path.abspath(path)
    if path.lower().endswith(COMPRESSED_TARS):
        raise InputError(f"{path!r} is a compressed tar, which cannot be read in place: decompress it to a .tar first")
    try:
        with open(path, "rb") as file:
            stamp = _stamp(file.fileno())
        rows = list(_zip_members(path) if path.lower().endswith(".zip") else _tar_members(path, stamp[0]))
    except OSError as error:
        raise InputError(f"the archive {path!r} cannot be opened: {error.strerror or error}") from error
    except (MemoryError, OverflowError):  # a name is read in one go, however long a header says that it is
        raise InputError(f"the archive {path!r} is damaged: it has a name that is longer than the memory") from None
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, ValueError, EOFError) as error:
        raise InputError(f"the archive {path!r} is damaged or of another format ({brief(error)})") from error
    return _index(path, stamp, rows)


_Listed = tuple[str, bool, str, tuple[int, int, int, int, int]]  # name, is a folder, reason to skip or "", where


def _index(path: str, stamp: tuple[int, int], rows: Iterable[_Listed]) -> Index:
    pictures: dict[str, int] = {}
    unknown: dict[str, int] = {}
    unread: Counter[str] = Counter()
    cleaned: dict[str, str | None] = {}
    folders: set[str] = set()
    skipped: list[tuple[str, str]] = []
    where: list[tuple[int, int, int, int, int]] = []
    for raw, is_folder, reason, place in rows:
        head = raw.rstrip("/") + "/" if is_folder else raw[: raw.rfind("/") + 1]
        leaf = raw[len(head) :]
        if head not in cleaned:  # once for each folder: an archive may have a million members
            cleaned[head] = _clean(head)
            folder = cleaned[head]
            if folder and folder != _HIDDEN:
                folders.update(parents(folder + "/"))
            elif folder == _HIDDEN:
                folders |= _system_folder(head)
        folder = cleaned[head]
        known = is_picture(leaf)
        if folder == _HIDDEN or is_hidden(leaf) or not leaf or not (known or folder):
            continue
        if folder is None or reason:
            if known:
                skipped.append((raw, reason or "has a name that leads out of the archive"))
            continue
        if known or is_unknown(leaf):
            names = pictures if known else unknown
            names[f"{folder}/{leaf}" if folder else leaf] = len(where)  # the last of a name counts, as when extracting
            where.append(place)
        else:
            count_unread(unread, leaf)
    read = MemberReader(path, stamp, np.array(where, dtype=_MEMBER))
    for name, row in unknown.items():
        if looks_like_picture(read.head(row)):
            pictures[name] = row
        else:
            count_unread(unread, name)
    top, listing = without_wrapping(Listing(list(pictures), folders, unread, sorted(skipped)))
    return Index({name.removeprefix(top): row for name, row in pictures.items()}, listing, read)


def _system_folder(folder: str) -> set[str]:
    """The path of the ignored folder that another lies in, to be named; none where it begins with a dot."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    place = next(i for i, part in enumerate(parts) if is_hidden(part))
    return set() if parts[place].startswith(".") or ".." in parts else {"/".join(parts[: place + 1])}


def _clean(folder: str) -> str | None:
    """A folder's path without empty parts and "."; _HIDDEN where it is ignored, None where it leads out."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    if any(is_hidden(part) for part in parts if part != ".."):
        return _HIDDEN
    return None if folder.startswith("/") or ".." in parts else "/".join(parts)


def _zip_members(path: str) -> Iterator[_Listed]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.replace("\\", "/") if info.create_system == 0 else info.filename
            reason = ""
            if (info.external_attr >> 16) & 0o170000 == 0o120000:
                reason = "is a link"
            elif info.flag_bits & 1:
                reason = "is encrypted"
            elif info.compress_type not in (_STORED, _DEFLATED):
                reason = f"is compressed by method {info.compress_type}; only stored and deflated members can be read"
            elif max(info.header_offset, info.compress_size, info.file_size) >= 1 << 63:
                reason = "has a size by the archive's index that no file has"
            place = (info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type)
            yield name, name.endswith("/"), reason, place if not reason else (0, 0, 0, 0, 0)


def _tar_members(path: str, size: int) -> Iterator[_Listed]:
    with tarfile.open(path, "r:") as archive:
        end = 0
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
            end = max(end, info.offset_data + (info.size if info.isreg() else 0))
            if end > size:
                raise ValueError("it is cut short")
            reason = ""
            if info.issym() or info.islnk():
                reason = "is a link"
            elif not (info.isdir() or (info.isreg() and not info.issparse())):
                reason = "is not a regular file"
            yield info.name, info.isdir(), reason, (info.offset_data, info.size, info.size, 0, _TAR)
    with open(path, "rb") as file:
        file.seek((end + 511) // 512 * 512)
        mark = file.read(512)
    if len(mark) < 512 or any(mark):
        raise ValueError("it is cut short: the end mark is missing")


def _stamp(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_size, status.st_mtime_ns


def _read(file: int, start: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(file, size, start)):
        parts.append(part)
        start, size = start + len(part), size - len(part)
    if size:
        raise OSError("the archive is cut short")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_zipped(file: int, start: int, packed: int) -> bytes:
    """The packed bytes of a member, whose local header is as long as it says itself."""
    header = _read(file, start, _LOCAL_HEADER)
    if header[:4] != b"PK\x03\x04":
        raise OSError("the archive is damaged: its header is not where it should be")
    extra = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return _read(file, start + _LOCAL_HEADER + extra, packed)


def _inflate(data: bytes, size: int, crc: int, method: int) -> bytes:
    if method == _DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except zlib.error as error:
            raise OSError(f"the archive is damaged: {error}") from error
    if len(data) != size or zlib.crc32(data) != crc:
        raise OSError("the archive is damaged: its checksum is wrong")
    return data
