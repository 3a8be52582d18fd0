"""What `augforge check` prints and writes: a short table, JSON, and files of all that was found."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augforge.data.durable import write_file
from augforge.types import InputError

KINDS = ("leak", "duplicate", "broken", "not an example", "label")


@dataclass(frozen=True)
class Finding:
    """One thing that was found: its `kind` of KINDS, the `file` that it is about, and the `reason`; the `other` file of
    a pair, or the class that a label should perhaps be; and how sure it is: a cosine or correlation up to 1 of a pair,
    the odds of the other class over that of the label.
    """

    kind: str
    file: str
    reason: str
    other: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Audit:
    """What `check` found: the sides as (title, rows, classes), what embedded them, and the findings by kind."""

    sides: list[tuple[str, int, int]]
    representation: str | None
    findings: list[Finding]
    seconds: float = 0.0

    @property
    def leaks(self) -> list[Finding]:
        """Pairs across two sides."""
        return [one for one in self.findings if one.kind == "leak"]

    def of(self, kind: str) -> list[Finding]:
        """The findings of a kind."""
        return [one for one in self.findings if one.kind == kind]


def as_json(audit: Audit) -> dict[str, Any]:
    """The audit as `check --json` prints it."""
    return {
        "sides": [{"name": title, "rows": rows, "classes": classes} for title, rows, classes in audit.sides],
        "representation": audit.representation,
        "counts": {kind: len(audit.of(kind)) for kind in KINDS},
        "clean": not audit.leaks,
        "findings": [{key: value for key, value in vars(one).items() if value not in ("", None)}
                     for one in audit.findings],
        "seconds": round(audit.seconds, 3),
    }  # fmt: skip


_HEADINGS = {
    "leak": "leaks between {0}", "duplicate": "duplicates within a part", "broken": "files that cannot be read",
    "not an example": "blank, saturated, noise or out of range", "label": "suspicious labels",
}  # fmt: skip


def as_table(audit: Audit, most: int | None = 5) -> str:
    """The audit as a person reads it: a line for each kind, and under it the first `most` findings (None: all)."""
    named = [f"{rows} {'rows' if audit.representation == 'features as given' else 'pictures'}"
             f"{f' of {title}' if title else ''}" for title, rows, _ in audit.sides]  # fmt: skip
    by = "pixels and thumbnails" if audit.representation is None else f"pixels, thumbnails and {audit.representation}"
    by = "their numbers" if audit.representation == "features as given" else by
    lines = [f"checked {' and '.join(named)} by {by}, in {audit.seconds:.1f} s"]
    between = " and ".join(title for title, _, _ in audit.sides)
    for kind in KINDS:
        found = audit.of(kind)
        if (kind == "leak" and len(audit.sides) < 2) or (kind == "label" and not _labelled(audit)):
            continue
        lines.append(f"{_HEADINGS[kind].format(between)}: {len(found) or 'none'}")
        lines += [f"  {_line(one)}" for one in found[:most]]
        if most is not None and len(found) > most:
            lines.append(f"  and {len(found) - most} more")
    return "\n".join(lines)


def _labelled(audit: Audit) -> bool:
    return audit.representation is not None and any(classes > 1 for _, _, classes in audit.sides)


def _line(one: Finding) -> str:
    if one.kind == "label":
        return f"{one.file}: {one.reason}, {one.score:,.0f} times as likely"
    if one.other:
        sure = f" ({one.score:.3f})" if one.score is not None and one.score < 1 else ""
        return f"{one.file}: {one.reason}{sure}: {one.other}"
    return f"{one.file}: {one.reason}"


def check_name(path: Path) -> None:
    """Raise InputError for a file whose suffix says none of the kinds that are written."""
    if path.suffix.lower() not in (".json", ".csv", ".txt"):
        raise InputError(f"--out {str(path)!r} was given; expected a file called .json, .csv or .txt")


def write_report(audit: Audit, path: Path) -> None:
    """All findings in a file: JSON, comma-separated values or text, as its suffix says; raises InputError."""
    check_name(path)
    makers = {".json": _as_json_text, ".csv": _as_csv, ".txt": lambda one: as_table(one, None) + "\n"}
    data = makers[path.suffix.lower()](audit).encode("utf-8", "backslashreplace")
    try:
        write_file(path, data)
    except OSError as error:
        raise InputError(f"--out {str(path)!r} cannot be written ({error.strerror or error})") from error


def _as_json_text(audit: Audit) -> str:
    return json.dumps(as_json(audit), indent=1) + "\n"


def _as_csv(audit: Audit) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "file", "reason", "other", "score"])
    writer.writerows([one.kind, one.file, one.reason, one.other, "" if one.score is None else one.score]
                     for one in audit.findings)  # fmt: skip
    return out.getvalue()
