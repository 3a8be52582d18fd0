"""The section of a report page about a folder of `augforge synth`: counts, pictures before and after, where from."""

from __future__ import annotations

import itertools
import json
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augforge.curate.filters import counts_text
from augforge.data.banks import FeatureBank, FilePictures
from augforge.data.decode import decode
from augforge.data.durable import read_file
from augforge.data.layout import MAX_BYTES
from augforge.inputs import open_bank
from augforge.report.parts import Block, Cell, Section, Table, Thumbnail, date_of, facts_of
from augforge.report.thumbnails import SIDE, Written, thumbnail
from augforge.synth.manifest import OF_POOL, REAL, ManifestRow, read_rows
from augforge.synth.request import from_record
from augforge.synth.run_folder import MANIFEST, RUN, read_run, sheet_path
from augforge.types import InputError, LackError, UnreadablePicture

_SHEET = 2400  # pixels of the longer side of a contact sheet
PICTURES = 240  # on a wall at most, so that a page of a large run is not larger
_MOST_CLASSES, _PARENTS, _OF_EACH = 48, 4, 5  # on a wall; real pictures of a class, and made ones of each


@dataclass
class _Seen:
    """What a manifest says: made and real rows of each class, tries that filters rejected, and of some classes the
    first rows of some parents.
    """

    made: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, Counter[str]] = field(default_factory=dict)  # reason -> class -> tries
    real: Counter[str] = field(default_factory=Counter)
    shown: dict[str, dict[str, list[ManifestRow]]] = field(default_factory=dict)
    versions: set[str] = field(default_factory=set)


def synth_section(folder: Path, data_root: Path | None = None) -> Section:
    """What a folder of `synth` came to; raises InputError where its run is not finished, or its record is damaged.

    Real pictures are read from the source that the run names; where that is gone the page says so.
    """
    record = read_run(folder)
    if not (folder / MANIFEST).is_file():
        raise InputError(f"the run in {str(folder)!r} is not finished; expected {MANIFEST!r} (synth --resume goes on)")
    try:
        planned = {str(one["name"]): int(one["real"]) for one in record["classes"]}
        command = command_of(record["order"], folder)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(folder / RUN)!r} is not the record of this version of synth ({error!r})") from error
    section = Section("synth", folder.resolve().name or str(folder))
    most = min(len(planned), _MOST_CLASSES)
    shown = [name for i, name in enumerate(planned) if (i * most) // len(planned) != ((i - 1) * most) // len(planned)]
    seen = _read(folder, shown)
    names = [*planned, *(name for name in seen.made if name not in planned)]
    made, real = sum(seen.made.values()), sum(planned.values())
    method, share = record["method"].get("name", "?"), made / (made + real) if made + real else 0.0
    count = sum(1 for name in names if seen.made[name])
    section.verdict.append(f"{made:,} examples of {count:,} classes {_verb(method)} from {real:,} real ones: "
                           f"{100 * share:.0f} % of all")  # fmt: skip
    filtered = record["order"].get("keep") or record["order"].get("reject")
    if filtered:
        section.verdict.append(_refused_in_short(seen, made))
    section.tables.append(_counts(names, planned, seen))
    if seen.rejected:
        section.tables.append(_refused(names, seen))
    _add_wall(section, folder, record, (shown, len(planned), seen), data_root)
    if filtered:
        section.sheet = _sheet(sheet_path(folder, record["order"].get("format", "folder")))
    section.facts += _facts(record, folder, command, seen)
    return section


def _verb(method: str) -> str:
    return "taken from a pool" if method in OF_POOL else f"made with {method}"


def _read(folder: Path, shown: list[str]) -> _Seen:
    """Count the rows of a manifest, and keep those that have room on the wall."""
    seen, room = _Seen(), Counter({name: PICTURES // max(1, len(shown)) for name in shown})
    for row in read_rows(folder / MANIFEST):
        seen.versions.add(row.version)
        if row.method == REAL:
            seen.real[row.cls] += 1
            continue
        seen.made[row.cls] += 1
        for reason, tries in (row.rejected or {}).items():
            seen.rejected.setdefault(reason, Counter())[row.cls] += tries
        groups = seen.shown.setdefault(row.cls, {}) if row.cls in room else {}
        key = "" if row.method in OF_POOL else row.parent
        cost = 1 if key in groups else 2 if key else 1 + _PARENTS  # a new group has its real pictures
        if room[row.cls] < cost or (key not in groups and len(groups) == _PARENTS):
            continue
        rows = groups.setdefault(key, [])
        if len(rows) < (_OF_EACH if key else _OF_EACH * _PARENTS):
            rows.append(row)
            room[row.cls] -= cost
    return seen


def _counts(names: list[str], planned: dict[str, int], seen: _Seen) -> Table:
    """Real and made rows of each class, and the share of the made ones."""
    lines = []
    for name in names:
        real, made = planned.get(name, 0), seen.made[name]
        share = 100 * made / (real + made) if real + made else 0.0
        lines.append([Cell(name), Cell(f"{real:,}", real), Cell(f"{made:,}", made), Cell(f"{share:.1f} %", share)])
    note = "Real: what the source has of a class, as the run read it."
    if written := sum(seen.real.values()):
        note += f" {written:,} of them are written beside the made ones."
    return Table("Classes", ["class", "real", "made", "made of all"], lines, note)


def _refused_in_short(seen: _Seen, made: int) -> str:
    """How many tries filters refused, of all, and why."""
    counts = {reason: sum(of_class.values()) for reason, of_class in seen.rejected.items()}
    refused = sum(counts.values())
    if not refused:
        return "Filters refused no try."
    return f"Filters refused {refused:,} of {refused + made:,} tries: {counts_text(counts)}"


def _refused(names: list[str], seen: _Seen) -> Table:
    """The tries that filters refused, by class and reason, and their share of all tries of the class."""
    reasons = sorted(seen.rejected, key=lambda reason: (-sum(seen.rejected[reason].values()), reason))
    lines = []
    found = [name for name in names if any(seen.rejected[reason][name] for reason in reasons)]
    for name in found:
        counts = [seen.rejected[reason][name] for reason in reasons]
        share = 100 * sum(counts) / (seen.made[name] + sum(counts))
        lines.append([Cell(name), *(Cell(f"{count:,}", count) for count in counts), Cell(f"{share:.1f} %", share)])
    note = "Tries that filters refused, by the first reason of each; what was refused was made again."
    if rest := sum(1 for name in names if seen.made[name] and name not in found):
        note += f" Of {rest} other {'class' if rest == 1 else 'classes'} none was."
    return Table("Refused tries", ["class", *reasons, "refused of all tries"], lines, note)


# Pictures before and after


def _add_wall(
    section: Section, folder: Path, record: dict[str, Any], what: tuple[list[str], int, _Seen], data_root: Path | None
) -> None:  # fmt: skip
    """Thumbnails of real pictures, and of what was made of each."""
    shown, classes, seen = what
    if not any(seen.shown.values()):
        return
    if any(row.file.endswith(".safetensors") for row in _rows_of(seen)):
        section.notes.append("The run made features: there are no pictures to show.")
        return
    reals = _reals(section, record, shown, seen, data_root)
    with Written(folder) as written:
        for name in shown:
            groups, free = [], iter(reals.get((name, ""), []))
            for parent, rows in seen.shown.get(name, {}).items():
                before = reals.get((name, parent), []) if parent else list(itertools.islice(free, _PARENTS))
                groups.append([*before, *(found for row in rows if (found := _made(written, row)) is not None)])
            if any(groups):
                section.wall.append(Block(name, [group for group in groups if group]))
        if written.lost:
            section.notes.append(f"{written.lost} of the pictures on this page cannot be read any more.")
    below = "what was taken for its class" if record["method"].get("name") in OF_POOL else "what was made of it"
    of = f"{len(shown)} of {classes} classes. " if len(shown) < classes else ""
    section.wall_says = f"{of}A real picture has a strong frame; beside it is {below}."


def _rows_of(seen: _Seen) -> list[ManifestRow]:
    return [row for groups in seen.shown.values() for rows in groups.values() for row in rows]


def _made(written: Written, row: ManifestRow) -> Thumbnail | None:
    picture = written.picture(row)
    if picture is None:
        return None
    words = [f"weight {row.weight:.2g}"] if row.weight is not None else []
    words += [f"{100 * row.confidence:.0f} % sure"] if row.confidence is not None else []
    origin = f"from {row.parent}" if row.parent else f"number {row.index}"
    return thumbnail(picture, f"{row.cls}: made {origin} by {row.method}", caption=", ".join(words))


def _reals(
    section: Section, record: dict[str, Any], shown: list[str], seen: _Seen, data_root: Path | None
) -> dict[tuple[str, str], list[Thumbnail]]:  # fmt: skip
    """The real pictures that are wanted, by class and name; of a class whose rows have no parent its first ones."""
    found: dict[tuple[str, str], list[Thumbnail]] = {}
    source = record["order"].get("source")
    try:
        bank = open_bank(from_record(record, data_root).inputs)
    except (InputError, LackError, OSError) as error:
        section.notes.append(f"Real pictures are not shown: the source {source!r} cannot be opened ({error}).")
        return found
    if isinstance(bank, FeatureBank):
        return found
    bank = bank.reduced(2 * SIDE) if isinstance(bank, FilePictures) else bank
    lost = 0
    for label, name in enumerate(bank.classes):
        if name not in seen.shown or name not in shown:
            continue
        wanted, first = set(seen.shown[name]) - {""}, _PARENTS if "" in seen.shown[name] else 0
        for place in bank.rows_of(label).tolist():
            key = bank.name(place)
            if key not in wanted and len(found.get((name, ""), [])) >= first:
                continue
            try:
                small = thumbnail(bank.load(place)[0], f"{name}: the real picture {key}", real=True)
            except UnreadablePicture:
                lost += 1
                continue
            found.setdefault((name, key if key in wanted else ""), []).append(small)
    lost += sum((name, key) not in found for name in seen.shown for key in seen.shown[name] if key)
    if lost:
        section.notes.append(f"{lost} real pictures that were to be shown are not in {source!r} any more.")
    return found


def _sheet(path: Path) -> Thumbnail | None:
    """The contact sheet of a run, on which pictures that filters refused stand with the reasons."""
    try:
        picture = decode(read_file(path, MAX_BYTES), path.name)
    except (OSError, UnreadablePicture):
        return None
    return thumbnail(picture, "contact sheet: at its end what filters refused, with reasons", side=_SHEET)


# Where it is from


def command_of(order: dict[str, Any], out: Path) -> str:
    """The command of a run, from what its `run.json` keeps of it; what is as by default is left out."""
    words = ["augforge", "synth", str(order["source"])]
    plain = {"per_class": "--per-class", "to": "--to", "split": "--split", "representation": "--representation",
             "max_per_class": "--max-per-class", "size": "--size", "pool": "--pool",
             "classifier": "--classifier"}  # fmt: skip
    usual = {"method": "classical", "seed": 0, "format": "folder", "encoding": "source", "quality": 95, "tries": 10,
             "plausible": 0.05}  # fmt: skip
    flags = {"method": "--with"} | {name: f"--{name}" for name in usual if name != "method"} | plain
    for name, flag in flags.items():
        if order.get(name) is not None and order[name] != usual.get(name):
            words += [flag, str(order[name])]
    for name, flag in (("classes", "--class"), ("keep", "--keep"), ("reject", "--reject")):
        words += [word for value in order.get(name) or () for word in (flag, str(value))]
    for key, value in (order.get("settings") or {}).items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    words += ["--include-real"] if order.get("include_real") else []
    marks = order.get("format") != "npz" and order.get("pool") is None and order.get("representation") is None
    words += ["--no-mark"] if marks and not order.get("mark") else []
    counts = order.get("counts")
    said = "" if counts is None else f"  # counts.json: {json.dumps(counts)}"
    words += [] if counts is None else ["--counts", "counts.json"]
    return shlex.join([*words, "--out", str(out)]) + said


def _facts(record: dict[str, Any], folder: Path, command: str, seen: _Seen) -> list[tuple[str, str]]:
    method = record["method"]
    facts = [("command", command), ("augforge", ", ".join(sorted(seen.versions)) or str(record.get("augforge", "?"))),
             ("seed", str(record["order"].get("seed"))),
             ("method", f"{method.get('name')}, digest {method.get('digest')}")]  # fmt: skip
    if settings := method.get("settings"):
        facts.append(("settings", json.dumps(settings)))
    rows = record.get("rows")
    if isinstance(rows, dict):
        facts.append(("rows of the source", f"{rows.get('count')}, digest {rows.get('digest')}"))
    facts += facts_of(record)
    return [*facts, ("written", date_of(folder / MANIFEST))]
