"""The manifest: one JSON line for each made example, and the only truth about what a run has finished.

A line holds all that is needed to make the same bytes again, beside the settings that `run.json` keeps for the
whole run: class, parent and its SHA-256, seed, and index within the class.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augforge.data.durable import check_regular
from augforge.data.strict_json import brief, parse_json
from augforge.types import InputError

REAL = "real"
OF_POOL = ("pool", "retrieved")  # methods whose rows are pictures, or features, of a pool


@dataclass(frozen=True)
class ManifestRow:
    """One example of a run.

    `file` is relative to the folder of the manifest, `member` the place inside of it where a file holds many;
    `cls` the class name; `method` the catalog name ("real" for a real one) and `settings` its digest; `parent` the
    name in the source of the real example it was made from and `parent_sha256` of its bytes ("" where there is no
    single parent); `index` the number within the class, from 0; `version` that of augforge; `size` (the key "bytes")
    and `sha256` tell of what was written of the row: its file, the picture in a tar, its pixels or its features (-1 and
    "" in manifests of before). A row of a pool has the name that its `parent` has there, a `weight` in real rows, and
    the `confidence` of its class, 0 to 1; lines of others have neither. A row that filters made be made again has its
    `rejected` tries by reason.
    """

    file: str
    member: str
    cls: str
    method: str
    settings: str
    parent: str
    parent_sha256: str
    seed: int
    index: int
    version: str
    size: int = -1
    sha256: str = ""
    weight: float | None = None
    confidence: float | None = None
    rejected: dict[str, int] | None = None

    def to_line(self) -> bytes:
        """The JSON line, newline included; only ASCII, so undecodable file names survive."""
        return (_to_json(as_dict(self)) + "\n").encode("ascii")


_to_json = json.JSONEncoder().encode  # what json.dumps calls, without its choice of encoder for every line
_KEYS = {"cls": "class", "size": "bytes"}
_NAMES = {key: name for name, key in _KEYS.items()}
_REJECTED = b'"rejected": '
_NUMBERS = ("seed", "index", "size")
_OPTIONAL = {"weight": float, "confidence": float, "rejected": dict}


def from_line(line: bytes, path: Path, number: int) -> ManifestRow:
    """Read a line back; raises InputError naming the manifest and the line (counted from 1)."""
    try:
        row = ManifestRow(**{_NAMES.get(k, k): v for k, v in parse_json(line).items()})
        for key, value in row.__dict__.items():
            expected = _OPTIONAL.get(key, int if key in _NUMBERS else str)
            if type(value) is not expected and not (key in _OPTIONAL and value is None):
                raise TypeError(f"its {key} is {type(value).__name__}")
        if any(type(count) is not int or count < 1 for count in (row.rejected or {}).values()):
            raise TypeError("its rejected counts are not whole numbers above 0")
        if not (-(2**63) <= row.seed < 2**64 and 0 <= row.index < 2**31 and -1 <= row.size < 2**63):
            raise ValueError(brief(f"no run writes seed {row.seed}, index {row.index}, bytes {row.size}"))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"line {number} of {str(path)!r} is not a manifest row ({brief(error)})") from error
    return row


def read_rows(path: Path) -> Iterator[ManifestRow]:
    """The rows of a finished manifest, one at a time; raises InputError where it is missing or damaged."""
    try:
        check_regular(path)
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                yield from_line(line, path, number)
    except OSError as error:
        raise InputError(f"the manifest {str(path)!r} cannot be read ({error.strerror})") from error


def rejected_tries(path: Path) -> Counter[str]:
    """The rejected tries of a manifest's rows by reason; lines of rows without any are not parsed."""
    counts: Counter[str] = Counter()
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if _REJECTED in line:
                counts.update(from_line(line, path, number).rejected or {})
    return counts


def as_dict(row: ManifestRow) -> dict[str, Any]:
    """A row as the JSON object of its line."""
    return {_KEYS.get(k, k): v for k, v in row.__dict__.items() if v is not None}
