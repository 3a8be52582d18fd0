"""Class names that people take for one: they differ by case, or by how an accent is stored, and nothing shows it.

"é" is one character in Unicode's composed form (NFC), which most systems write, and two in the decomposed one (NFD),
which macOS has written in folders and archives.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def key_of(name: str) -> str:
    """What names that are taken for one have in common."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def taken_for_one(names: Iterable[str]) -> tuple[str, str, str] | None:
    """The first two names that are, and what alone they differ by, as "differ by case"; None where there are none.

    >>> taken_for_one(["cat", "dog", "Cat"])
    ('cat', 'Cat', 'differ by case alone')
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(key_of(name), name)
        if other != name:
            composed = {unicodedata.normalize("NFC", one) for one in (name, other)}
            by = "case" if len(composed) > 1 else "their Unicode form (NFC and NFD)"
            return other, name, f"differ by {by} alone"
    return None
