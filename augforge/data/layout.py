"""Paths of pictures -> splits, classes and rows: one rule for folders and archives.

`root/class/**/picture`, or `root/{train,val,test}/class/**/picture`. The second is recognised when there is a
folder "train" and every other folder of the root is named like a split too ("valid" and "validation" are "val").
The result depends on the paths alone, not on the order in which they were found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from augforge.types import InputError

PICTURE_SUFFIXES = frozenset(["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm"])
MAX_BYTES = 1 << 30  # a file larger than this is no picture that anyone would train on
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

Skipped = tuple[tuple[str, str], ...]
_EXPECTED = "expected root/class/picture or root/{train,val,test}/class/picture"
_STRAY = "lies outside of every class folder"


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of one split; a class may have none."""

    classes: tuple[str, ...]  # sorted
    names: tuple[str, ...]  # [n] by class and then by name
    y: Tensor  # [n] int64
    skipped: Skipped  # (name, reason)


def is_picture(name: str) -> bool:
    """Whether the last part of a path has a picture's suffix, in any case."""
    return name[name.rfind(".") + 1 :].lower() in PICTURE_SUFFIXES if "." in name else False


def is_hidden(part: str) -> bool:
    """Whether one part of a path is ignored: hidden ones, and the folder that macOS adds to archives."""
    return part.startswith(".") or part == "__MACOSX"


def arrange(pictures: Iterable[str], folders: Iterable[str], skipped: Skipped, origin: str) -> dict[str, Split]:
    """Splits of `pictures` (paths with "/" below the root) and `folders` (at least those of the upper two levels).

    Returns {"all": ...} or some of {"train": ..., "val": ..., "test": ...}. `skipped` goes to the first split.
    Raises InputError where there are no class folders or no pictures, where two folders are the same split, and
    where two classes differ by case alone.
    """
    folders = set(folders)
    tops = {folder.partition("/")[0] for folder in folders}
    strays: dict[str, list[str]] = {}
    by_folder = _group(pictures, strays)
    if not tops:
        raise InputError(_nothing(origin, strays.get("")))
    if "train" not in tops or not tops <= SPLITS.keys():
        table = {"all": _class_lists(tops, by_folder)}
    else:
        table, more = _split_lists(tops, folders, by_folder, strays, origin)
        skipped = (*skipped, *more)
    skipped = (*skipped, *((name, _STRAY) for name in sorted(strays.get("", []))))
    if not any(names for lists in table.values() for names in lists.values()):
        raise InputError(f"{origin!r} holds no picture that can be used: {_EXPECTED}")
    first = next(iter(table))
    return {split: number_rows(lists, skipped if split == first else (), origin) for split, lists in table.items()}


def common_top(pictures: Iterable[str], folders: Collection[str]) -> str:
    """The one folder that everything in an archive lies in and that is no class or split ("pets/"), or "".

    A folder that has pictures of its own is a class and stays.
    """
    tops = {folder.partition("/")[0] for folder in folders}
    if len(tops) != 1 or tops == {"train"}:
        return ""
    top = tops.pop() + "/"
    if not any(folder.startswith(top) for folder in folders):
        return ""
    if any("/" not in name.removeprefix(top) or not name.startswith(top) for name in pictures):
        return ""
    return top


def parents(name: str) -> list[str]:
    """The folders that a path lies in: "a/b/c.png" -> ["a", "a/b"]."""
    places = [i for i, letter in enumerate(name) if letter == "/"]
    return [name[:i] for i in places]


def _group(pictures: Iterable[str], strays: dict[str, list[str]]) -> dict[str, list[str]]:
    by_top: dict[str, list[str]] = {}
    for name in pictures:
        top, slash, _ = name.partition("/")
        if slash:
            by_top.setdefault(top, []).append(name)
        else:
            strays.setdefault("", []).append(name)
    return by_top


def _class_lists(classes: Iterable[str], by_folder: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: by_folder.get(name, []) for name in sorted(classes)}


def _split_lists(
    tops: set[str], folders: set[str], by_top: dict[str, list[str]], strays: dict[str, list[str]], origin: str
) -> tuple[dict[str, dict[str, list[str]]], Skipped]:
    """{split: {class: names}} in the order train, val, test, and the splits that have no classes."""
    table: dict[str, dict[str, list[str]]] = {}
    found: dict[str, str] = {}
    skipped: list[tuple[str, str]] = []
    for top in sorted(tops, key=lambda top: (("train", "val", "test").index(SPLITS[top]), top)):
        split = SPLITS[top]
        if split in found:
            raise InputError(f"{origin!r} has both {found[split]!r} and {top!r}, and both are the split {split!r}")
        found[split] = top
        classes = {folder.split("/")[1] for folder in folders if folder.startswith(top + "/")}
        lists: dict[str, list[str]] = {name: [] for name in sorted(classes)}
        for name in by_top.get(top, []):
            parts = name.split("/", 2)
            if len(parts) == 3:
                lists.setdefault(parts[1], []).append(name)
            else:
                strays.setdefault("", []).append(name)
        if lists:
            table[split] = lists
        elif split == "train":
            raise InputError(_nothing(f"{origin}/{top}", by_top.get(top)))
        else:
            skipped.append((top, "has no class folders, so there is no such split"))
    return table, tuple(skipped)


def _nothing(place: str, pictures: list[str] | None) -> str:
    if pictures:
        return f"{place!r} has pictures such as {min(pictures)!r} but no class folders: {_EXPECTED}"
    return f"{place!r} has no class folders: {_EXPECTED}"


def number_rows(lists: dict[str, list[str]], skipped: Skipped, origin: str) -> Split:
    """A split of {class: names}; raises InputError where two classes differ by case alone."""
    folded: dict[str, str] = {}
    for name in lists:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(f"{origin!r} has classes {other!r} and {name!r}, whose names differ by case alone")
    sizes = torch.tensor([len(names) for names in lists.values()], dtype=torch.int64)
    names = tuple(name for part in lists.values() for name in sorted(part))
    return Split(tuple(lists), names, torch.repeat_interleave(torch.arange(len(lists)), sizes), skipped)
