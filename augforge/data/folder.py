"""A folder of pictures as a source: `root/class/**/picture` or `root/{train,val,test}/class/**/picture`.

Indexing lists names only; no picture is opened. Hidden files and folders and files with other suffixes are
ignored. Links are followed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from augforge.data.banks import FilePictures
from augforge.data.decode import decode
from augforge.data.layout import MAX_BYTES, arrange, is_hidden, is_picture
from augforge.types import InputError

_Identity = tuple[int, int]


@dataclass(frozen=True)
class FileReader:
    """Reads the files of rows."""

    root: str
    names: tuple[str, ...]  # [n] paths below `root`

    def __call__(self, row: int) -> bytes:
        """The bytes of a file; raises OSError."""
        with open(os.path.join(self.root, self.names[row]), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise OSError(f"it has {size:,} bytes, more than {MAX_BYTES:,}")
            return file.readall()


@dataclass
class _Found:
    pictures: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def open_folder(path: str | Path) -> dict[str, FilePictures]:
    """The banks of a folder: {"all": ...}, or "train" and, where there are such folders, "val" and "test".

    Each bank has its own classes, sorted by name; a class folder without pictures is a class without rows. What
    could not be used (loops of links, dangling links, pipes, folders that cannot be opened) is in `skipped` of
    the first bank. Raises InputError where the folder cannot be opened or is not laid out as expected.
    """
    root = os.path.abspath(path)
    found = _walk(root)
    banks = {}
    for name, split in arrange(found.pictures, found.folders, tuple(sorted(found.skipped)), root).items():
        reader = FileReader(root, split.names)
        banks[name] = FilePictures(split.y, split.classes, split.names, root, reader, decode, skipped=split.skipped)
    return banks


def _walk(root: str) -> _Found:
    """Paths below `root`, with "/" between the parts, in no particular order."""
    found = _Found()
    try:
        top = os.stat(root)
        os.scandir(root).close()
    except OSError as error:
        raise InputError(f"the folder {root!r} cannot be opened: {error.strerror}") from error
    todo: list[tuple[str, frozenset[_Identity]]] = [("", frozenset([(top.st_dev, top.st_ino)]))]
    while todo:
        prefix, above = todo.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:
                for entry in entries:
                    if not is_hidden(entry.name):
                        _take(entry, prefix + entry.name, above, found, todo)
        except OSError as error:
            found.skipped.append((prefix.rstrip("/"), f"cannot be opened ({error.strerror})"))
    return found


def _take(
    entry: os.DirEntry[str],
    name: str,
    above: frozenset[_Identity],
    found: _Found,
    todo: list[tuple[str, frozenset[_Identity]]],
) -> None:
    """Sort one entry into pictures, folders to walk, and things to skip."""
    try:
        if entry.is_dir():
            status = os.stat(entry.path)  # DirEntry.stat leaves device and inode zero on some systems
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                found.skipped.append((name, "is a link to a folder that it lies in"))
                return
            found.folders.append(name)
            todo.append((name + "/", above | {identity}))
        elif is_picture(entry.name):
            if entry.is_file():
                found.pictures.append(name)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                found.skipped.append((name, "is a link to nothing"))
            else:
                found.skipped.append((name, "is not a regular file"))
    except OSError as error:
        found.skipped.append((name, f"cannot be opened ({error.strerror})"))
