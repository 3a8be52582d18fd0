"""A folder of pictures as a source: `root/class/**/picture` or `root/{train,val,test}/class/**/picture`.

Indexing lists names; no picture is opened, and of files whose suffix says nothing the first bytes are. Hidden files
and folders are ignored. Links are followed.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from augforge.data.banks import FilePictures
from augforge.data.containers import HEAD_BYTES, is_picture, is_unknown, looks_like_picture
from augforge.data.decode import decode
from augforge.data.layout import MAX_BYTES, Listing, arrange, count_unread, is_hidden, without_wrapping
from augforge.types import InputError

_Identity = tuple[int, int]
_MOST_PATHS = 100  # to one folder: links to folders of links to folders multiply them


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


def open_folder(path: str | Path) -> dict[str, FilePictures]:
    """The banks of a folder: {"all": ...}, or "train" and, where there are such folders, "val" and "test".

    Each bank has its own classes, sorted by name. Names are without the folder that everything lies in, if there is
    one. What could not be used (loops of links, dangling links, pipes, folders that cannot be opened) is in `skipped`
    of the first bank; folders without pictures and files that are not read are said in a note. Raises InputError where
    the folder cannot be opened or is not laid out as expected.
    """
    root = os.path.abspath(path)
    top, found = without_wrapping(_walk(root))
    banks = {}
    for name, split in arrange(found, root).items():
        reader = FileReader(os.path.join(root, top), split.names)
        banks[name] = FilePictures(split.y, split.classes, split.names, root, reader, decode, skipped=split.skipped)
    return banks


def open_flat(path: str | Path) -> FilePictures | None:
    """All pictures in and below a folder that has pictures of its own, as one class ""; None for a folder without any.

    Raises InputError where the folder cannot be opened.
    """
    root = os.path.abspath(path)
    found = _walk(root)
    if all("/" in name for name in found.pictures):
        return None
    names = tuple(sorted(found.pictures))
    y = torch.zeros(len(names), dtype=torch.int64)
    return FilePictures(y, ("",), names, root, FileReader(root, names), decode, skipped=tuple(sorted(found.skipped)))


def _walk(root: str) -> Listing:
    """What lies below `root`; raises InputError where it cannot be opened, or links multiply what is in it."""
    found, times = Listing(), Counter[_Identity]()
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
                        _take(entry, prefix + entry.name, above, found, todo, times)
                    elif not entry.name.startswith(".") and entry.is_dir():
                        found.folders.add(prefix + entry.name)
        except OSError as error:
            found.skipped.append((prefix.rstrip("/"), f"cannot be opened ({error.strerror})"))
    return found


def _take(
    entry: os.DirEntry[str],
    name: str,
    above: frozenset[_Identity],
    found: Listing,
    todo: list[tuple[str, frozenset[_Identity]]],
    times: Counter[_Identity],
) -> None:
    """Sort one entry into pictures, folders to walk, and things to skip; `times` counts the paths to each folder."""
    try:
        if entry.is_dir():
            status = os.stat(entry.path)  # DirEntry.stat leaves device and inode zero on some systems
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                found.skipped.append((name, "is a link to a folder that it lies in"))
                return
            times[identity] += 1
            if times[identity] > _MOST_PATHS:
                raise InputError(f"{os.path.realpath(entry.path)!r} is reached by more than {_MOST_PATHS} paths, by "
                                 "way of links; expected each picture once")  # fmt: skip
            found.folders.add(name)
            todo.append((name + "/", above | {identity}))
        elif is_picture(entry.name):
            if entry.is_file():
                found.pictures.append(name)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                found.skipped.append((name, "is a link to nothing"))
            else:
                found.skipped.append((name, "is not a regular file"))
        elif entry.is_file() and "/" in name:
            if is_unknown(entry.name) and looks_like_picture(_head(entry.path)):
                found.pictures.append(name)
            else:
                count_unread(found.unread, name)
    except OSError as error:
        found.skipped.append((name, f"cannot be opened ({error.strerror})"))


def _head(path: str) -> bytes:
    """The first bytes of a file; none of one that cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""
