"""Which made rows have which parents, by the manifest that a run of `synth` left beside them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from augforge.data.banks import AnyBank, FeatureBank, row_digests, source_sha256
from augforge.data.durable import read_file
from augforge.data.strict_json import parse_json
from augforge.types import UnreadablePicture

MANIFEST = "manifest.jsonl"


def parents_by_row(bank: AnyBank) -> dict[int, str]:
    """The SHA-256 of the parent of each row that a manifest beside the bank's files knows one of; none without it.

    Of a row that is real itself, the parent is what it is a copy of. Lines that are none of a run are passed over.
    """
    origin = Path(bank.origin)
    path = (origin if origin.is_dir() else origin.parent) / MANIFEST
    if not bank.origin or not path.is_file():
        return {}
    found = {}
    for line in read_file(path).split(b"\n"):
        with suppress(ValueError, KeyError, TypeError):
            row = parse_json(line)
            if row["parent_sha256"]:
                found[str(row["member"] if isinstance(bank, FeatureBank) else row["file"])] = str(row["parent_sha256"])
    rows = range(len(bank)) if found else ()
    names = (f"features[{row}]" if isinstance(bank, FeatureBank) else bank.name(row) for row in rows)
    return {row: found[name] for row, name in enumerate(names) if name in found}


def rows_by_sha256(bank: AnyBank) -> dict[str, int]:
    """The first row that has each SHA-256, as a manifest of what was made from it says it; what cannot be read is not
    there.
    """
    found: dict[str, int] = {}
    if isinstance(bank, FeatureBank):
        for row, digest in enumerate(row_digests(bank, encoded=False)):
            found.setdefault(digest.hex(), row)
        return found
    for row in range(len(bank)):
        with suppress(UnreadablePicture):
            found.setdefault(source_sha256(bank, row), row)
    return found
