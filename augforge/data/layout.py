"""Paths of pictures -> splits, classes and rows: one rule for folders and archives.

`root/class/**/picture`, or `root/{train,val,test}/class/**/picture`; `splits` says which names are splits. One folder
that everything lies in is left off. Folders without pictures are left out and named, all in one note. The result
depends on the paths alone, not on the order in which they were found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from augforge.data.class_names import taken_for_one
from augforge.data.containers import READ_BY
from augforge.data.notes import listed, note
from augforge.data.splits import EXPECTED, ORDER, find_splits, says_nothing, split_of, splits_among
from augforge.types import InputError, LackError

MAX_BYTES = 400_000_000  # a file larger than this is no picture that anyone would train on

Skipped = tuple[tuple[str, str], ...]
_STRAY = "lies outside of every class folder"
_SYSTEM_FOLDERS = frozenset(["__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"])
_SYSTEM_FILES = frozenset(["thumbs.db", "desktop.ini"])
_RECORDS = ("manifest.jsonl", "run.json", "report.html")  # what `synth` writes beside class folders
_NAMED = 10  # folders and suffixes in a note


@dataclass
class Listing:
    """What was found below a root, by paths with "/" between the parts, in no particular order."""

    pictures: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)  # at least those of the upper two levels
    unread: Counter[str] = field(default_factory=Counter)  # how many files of each suffix are no pictures
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (name, reason)


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of one split."""

    classes: tuple[str, ...]  # sorted
    names: tuple[str, ...]  # [n] by class and then by name
    y: Tensor  # [n] int64
    skipped: Skipped  # (name, reason)


def is_hidden(part: str) -> bool:
    """Whether one part of a path is ignored: hidden ones, and what macOS, Windows and storage boxes add."""
    return part.startswith(".") or part in _SYSTEM_FOLDERS or part.lower() in _SYSTEM_FILES


def suffix_of(name: str) -> str:
    """What is counted of a file that is no picture: ".txt" for "a/b.TXT", "" where there is none."""
    leaf = name[name.rfind("/") + 1 :]
    return leaf[leaf.rfind(".") :].lower() if "." in leaf[1:] else ""


def count_unread(unread: Counter[str], name: str) -> None:
    """Count a file that is no picture by its suffix, unless it is a record of one of our own runs."""
    if name[name.rfind("/") + 1 :] not in _RECORDS:
        unread[suffix_of(name)] += 1


def without_wrapping(listing: Listing) -> tuple[str, Listing]:
    """The folder that all pictures lie in and that is no class or split ("pets/"), or "", and the listing without it.

    A folder with pictures of its own is a class and stays. Two such folders in each other are left off where the
    inner one holds splits, is called as the outer one is, or "images" or the like.
    """
    top = _single_top(listing.pictures)
    below = [name.removeprefix(top) for name in listing.pictures]
    inner = _single_top(below) if top else ""
    children = {name.removeprefix(inner).partition("/")[0] for name in below}
    if inner and (says_nothing(inner[:-1], top[:-1]) or splits_among(children)):
        top += inner
    if not top:
        return "", listing
    outer = top[: top.index("/") + 1]
    folders = {name.removeprefix(top if name.startswith(top) else outer) for name in listing.folders
               if not top.startswith(name + "/")}  # fmt: skip
    pictures = [name.removeprefix(top) for name in listing.pictures]
    return top, Listing(pictures, folders, listing.unread, listing.skipped)


def _single_top(pictures: Collection[str]) -> str:
    tops = {name.partition("/")[0] for name in pictures}
    if len(tops) != 1:
        return ""
    top = tops.pop() + "/"
    if any(name.count("/") < 2 for name in pictures):
        return ""
    inner = splits_among({name.split("/", 2)[1] for name in pictures})
    return "" if split_of(top[:-1]) and len(set(inner.values())) < 2 else top


def parents(name: str) -> list[str]:
    """The folders that a path lies in: "a/b/c.png" -> ["a", "a/b"]."""
    places = [i for i, letter in enumerate(name) if letter == "/"]
    return [name[:i] for i in places]


def arrange(listing: Listing, origin: str) -> dict[str, Split]:
    """Splits of a listing: {"all": ...}, or some of {"train": ..., "val": ..., "test": ...}, in this order.

    What was skipped goes to the first. Says in one note which folders are left out, and in another what is not read.
    Raises LackError where all pictures are of formats that a missing package reads, and InputError where there are no
    class folders or no pictures, for folders that may be splits or classes, where two folders are the same split, and
    where two classes differ by case alone.
    """
    by_top: dict[str, list[str]] = {}
    strays: list[str] = []
    for name in listing.pictures:
        top, slash, _ = name.partition("/")
        by_top.setdefault(top, []).append(name) if slash else strays.append(name)
    tops = {folder.partition("/")[0] for folder in listing.folders} | by_top.keys()
    if not tops:
        raise InputError(_nothing(origin, strays))
    if not by_top:
        lacking = [hint for suffix in listing.unread if (hint := READ_BY.get(suffix)) is not None]
        kind = LackError if lacking else InputError
        raise kind(f"{origin!r} holds no picture that can be used{_unread(listing.unread)}: {EXPECTED}")
    try:
        found = find_splits(by_top)
    except ValueError as error:
        raise InputError(f"{origin!r} {error}") from None
    skipped = sorted(listing.skipped)
    if found:
        table, empty = _split_lists(found, listing.folders, by_top, strays, origin)
        beside = by_top.keys() - found.keys()
    else:
        _check_case(tops, origin)
        table, empty, beside = {"all": {name: by_top[name] for name in sorted(by_top)}}, set(), set()
    skipped += [(name, _STRAY) for name in sorted(strays)]
    _say(origin, empty | (tops - by_top.keys()), beside, listing.unread)
    first = next(iter(table))
    return {split: number_rows(lists, tuple(skipped) if split == first else (), origin)
            for split, lists in table.items()}  # fmt: skip


def _split_lists(
    found: dict[str, str], folders: set[str], by_top: dict[str, list[str]], strays: list[str], origin: str
) -> tuple[dict[str, dict[str, list[str]]], set[str]]:
    """{split: {class: names}} in the order train, val, test, and the folders without pictures of a class.

    Pictures of a split that are of no class, as "val/images/1.png", are added to the strays.
    """
    table: dict[str, dict[str, list[str]]] = {}
    empty: set[str] = set()
    for top in sorted(found, key=lambda top: ORDER.index(found[top])):
        start = top + "/" + _inner(top, by_top[top])
        lists: dict[str, list[str]] = {}
        for name in by_top[top]:
            inner, slash, _ = name[len(start) :].partition("/")
            lists.setdefault(inner, []).append(name) if slash else strays.append(name)
        if len(lists) == 1 and says_nothing(min(lists), top):
            strays += lists.popitem()[1]
        known = {folder[len(start) :].partition("/")[0] for folder in folders if folder.startswith(start)}
        _check_case(known | lists.keys(), origin)
        empty |= {start + name for name in known - lists.keys()}
        if lists:
            table[found[top]] = {name: lists[name] for name in sorted(lists)}
        else:
            empty = {name for name in empty if not name.startswith(top + "/")} | {top}
    if not table:
        raise InputError(_nothing(f"{origin}/{next(iter(found))}" if len(found) == 1 else origin, strays))
    return table, empty


def _inner(top: str, names: list[str]) -> str:
    """The folder "train/" or "images/" in which all classes of the split "train" lie, as in some archives, or ""."""
    inner = {name.split("/", 2)[1] for name in names}
    single = len(inner) == 1 and all(name.count("/") > 2 for name in names)
    return min(inner) + "/" if single and says_nothing(min(inner), top) else ""


def _nothing(place: str, pictures: list[str]) -> str:
    if pictures:
        return f"{place!r} has pictures such as {min(pictures)!r} but no class folders: {EXPECTED}"
    return f"{place!r} has no class folders: {EXPECTED}"


def _say(origin: str, empty: set[str], beside: set[str], unread: Counter[str]) -> None:
    """One note on all folders that are left out, and one on all files that are not read."""
    parts = [f"without pictures of a class: {listed(empty)}"] if empty else []
    parts += [f"beside the splits: {listed(beside)}"] if beside else []
    if parts:
        note(f"{origin!r}: folders are left out, {'; '.join(parts)}")
    if unread:
        count = sum(unread.values())
        note(f"{origin!r}: {count} {'file is' if count == 1 else 'files are'} not read{_unread(unread)}")


def _unread(unread: Counter[str]) -> str:
    """How many files of each suffix were not read, and what reads them if anything does."""
    if not unread:
        return ""
    kinds = ", ".join(
        f"{count} {suffix or 'without a suffix'}"
        for suffix, count in sorted(unread.items(), key=lambda pair: (-pair[1], pair[0]))[:_NAMED]
    )
    hints = dict.fromkeys(hint for suffix in unread if (hint := READ_BY.get(suffix)) is not None)
    return f" ({kinds}{''.join(f'; {hint}' for hint in hints)})"


def _check_case(names: Iterable[str], origin: str) -> None:
    """Raise InputError where two classes differ by case or by Unicode form alone."""
    if found := taken_for_one(sorted(names)):
        raise InputError(f"{origin!r} has classes {found[0]!r} and {found[1]!r}, whose names {found[2]}")


def number_rows(lists: dict[str, list[str]], skipped: Skipped, origin: str) -> Split:
    """A split of {class: names}; raises InputError where two classes differ by case or Unicode form."""
    _check_case(lists, origin)
    sizes = torch.tensor([len(names) for names in lists.values()], dtype=torch.int64)
    names = tuple(name for part in lists.values() for name in sorted(part))
    return Split(tuple(lists), names, torch.repeat_interleave(torch.arange(len(lists)), sizes), skipped)
