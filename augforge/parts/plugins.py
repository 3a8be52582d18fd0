"""Other people's parts: classes named as "module:Class", and those that installed packages offer by entry point.

A name can stand in a file that came from elsewhere - the `part.json` of a saved part, the `run.json` of a run - and
importing a module runs it. So a module is imported only where its class is an entry point of an installed package, or
where the user named that class: in the very command (`--with module:Class`, or `--trust module:Class` beside a folder),
or in Python by `trusting`. All other modules wait behind an error that says what to type.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import metadata
from typing import Any

from augforge.types import InputError

GROUPS = {
    "synthesizer": "augforge.synthesizers",
    "classifier": "augforge.classifiers",
    "representation": "augforge.representations",
}
_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())


def is_place(name: str) -> bool:
    """Whether a name reads as "module:Class", as "my_noise:Jitter" or "package.module:Class" do."""
    return _PLACE.fullmatch(name) is not None


@contextmanager
def trusting(*places: str) -> Iterator[None]:
    """While entered, the modules of these classes, "module:Class" each, may be imported; other words are let be."""
    token = _trusted.set(_trusted.get() | {place for place in places if is_place(place)})
    try:
        yield
    finally:
        _trusted.reset(token)


def installed(kind: str) -> dict[str, str]:
    """The parts of a kind that installed packages offer: {name: "module:Class"}. Nothing is imported.

    A name that two packages offer for different classes is left out, as it says neither.
    """
    return dict(_offered(kind, tuple((folder, _changed(folder)) for folder in sys.path)))


@cache
def _offered(kind: str, folders: tuple[tuple[str, int], ...]) -> dict[str, str]:
    """What `installed` says; reading every package takes 10 ms and more, so it is read again where a folder changed."""
    found: dict[str, set[str]] = {}
    for entry in metadata.entry_points(group=GROUPS[kind]):
        if is_place(entry.value.strip()):
            found.setdefault(entry.name, set()).add(entry.value.strip())
    return {name: min(places) for name, places in sorted(found.items()) if len(places) == 1}


def _changed(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def origin(kind: str, name: str) -> str:
    """The package, with its version, that offers a name of `installed`; "" where none does."""
    for entry in metadata.entry_points(group=GROUPS[kind], name=name):
        if entry.dist is not None:
            return f"{entry.dist.name} {entry.dist.version}"
    return ""


def load_class(place: str) -> type[Any]:
    """The class of "module:Class"; its module is imported if it has to be, from the working folder too.

    Raises InputError for a class that is neither trusted nor an entry point of an installed package, a module that
    cannot be imported, and an attribute that is no class.
    """
    if place not in _trusted.get() and not any(place in installed(kind).values() for kind in GROUPS):
        raise InputError(
            f"{place!r} is a class of somebody else's module, which is imported only where you name it; where you "
            f"trust it, type --trust {place}"
        )
    module, _, attribute = place.partition(":")
    found: Any = _import(module, place)
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if not isinstance(found, type):
        raise InputError(f"{place!r} was given, and the module {module!r} has no class {attribute!r}")
    return found


def _import(module: str, place: str) -> Any:
    """The module; the working folder is looked in last, so that nothing in it stands in for what is installed."""
    here = os.getcwd()
    path_before = list(sys.path)
    sys.path.append(here)
    try:
        importlib.invalidate_caches()  # the file may have been written a moment ago
        return importlib.import_module(module)
    except Exception as error:  # whatever that module raises while it is imported
        raise InputError(f"{place!r} was given, and {module!r} cannot be imported ({error})") from error
    finally:
        sys.path[:] = path_before
