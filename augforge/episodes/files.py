"""Episodes as JSON lines, so that anyone can repeat a comparison elsewhere, on the very same rows.

The first line says what follows: task, way, shot, n_query, trials, seed, a digest of the class names and one of the
rows of the bank, and the SHA-256 of all the rest. Each further line is an episode: {"classes": [way], "support":
[way][shot], "query": [lines][q]}, row numbers from 0 with -1 for padding, as in `augforge.types.Episode`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from augforge.data.banks import AnyBank
from augforge.data.durable import read_file, write_file
from augforge.data.strict_json import parse_json
from augforge.episodes import check_episode
from augforge.parts.saving import canonical, digest
from augforge.types import Episode, InputError

FORMAT, VERSION = "augforge-episodes", 1
_NUMBERS = ("way", "shot", "n_query", "trials", "seed")


@dataclass(frozen=True)
class EpisodeFile:
    """What a file of episodes holds: the task and seed it was drawn for, its form, and the episodes."""

    task: str
    way: int
    shot: int
    n_query: int
    seed: int
    episodes: list[Episode]


def rows_digest(bank: AnyBank) -> str:
    """16 hexadecimal digits for what the rows of a bank are: class names, the label of each row, and its name.

    A feature bank that was embedded from pictures has the digest of those pictures' bank.
    """
    hashed = hashlib.sha256(canonical(list(bank.classes)).encode())
    hashed.update(bank.y.to(torch.int64).cpu().numpy().astype("<i8").tobytes())
    hashed.update(canonical([bank.name(row) for row in range(len(bank))]).encode())
    return hashed.hexdigest()[:16]


def class_digest(bank: AnyBank) -> str:
    """16 hexadecimal digits for the class names of a bank, in their order."""
    return digest(list(bank.classes))


def write_episodes(path: str | Path, episodes: Sequence[Episode], bank: AnyBank, *, task: str, seed: int) -> None:
    """Write the episodes of a bank; the file appears whole or not at all.

    `task` and `seed` say where they come from. Raises InputError for none, for episodes of different forms, and for
    one that is not of this bank.
    """
    for episode in episodes:
        check_episode(episode, bank.y)
    forms = {(*e.support.shape, e.query.shape[1]) for e in episodes}
    if len(forms) != 1:
        raise InputError(f"{len(episodes)} episodes of {len(forms)} forms cannot be written to one file; expected one")
    way, shot, n_query = forms.pop()
    header = {
        "format": FORMAT,
        "version": VERSION,
        "task": task,
        "way": way,
        "shot": shot,
        "n_query": n_query,
        "trials": len(episodes),
        "seed": seed,
        "classes": class_digest(bank),
        "rows": rows_digest(bank),
    }
    body = "".join(_to_line(episode) for episode in episodes).encode()
    first = json.dumps(header | {"sha256": _content_digest(header, body)}) + "\n"
    write_file(path, first.encode() + body)


def read_episodes(path: str | Path, bank: AnyBank) -> EpisodeFile:
    """Read episodes of `bank` back: of the same pictures, or of features of them.

    Raises InputError where the file is none of ours, was cut short or changed, or was written for other rows.
    """
    where = repr(os.fspath(path))
    header, body = _read(path, where)
    lines = body.splitlines()
    if len(lines) < header["trials"]:
        raise InputError(
            f"{where} was cut short: it has {len(lines)} of the {header['trials']} episodes it was written with"
        )
    expected = header.pop("sha256")
    if expected != _content_digest(header, body):
        raise InputError(f"{where} was changed after it was written: its SHA-256 is not that of its first line")
    if header["classes"] != class_digest(bank):
        raise InputError(f"the episodes in {where} are of other classes than those of {bank.origin!r}")
    if header["rows"] != rows_digest(bank):
        raise InputError(
            f"the episodes in {where} are of other rows than those of {bank.origin!r}: the classes are the same, but "
            "the labels or names of the rows differ"
        )
    episodes = [_from_line(line) for line in lines]
    for episode in episodes:
        check_episode(episode, bank.y)
    return EpisodeFile(header["task"], header["way"], header["shot"], header["n_query"], header["seed"], episodes)


def _read(path: str | Path, where: str) -> tuple[dict[str, Any], bytes]:
    """The header and the bytes behind it; raises InputError where there is no header of ours."""
    try:
        data = read_file(path)
    except OSError as error:
        raise InputError(f"the episodes {where} cannot be read ({error.strerror})") from error
    first, _, body = data.partition(b"\n")
    try:
        header = parse_json(first)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{where} is no file of episodes; expected a first line with the format {FORMAT!r}")
    if header.get("version") != VERSION:
        raise InputError(f"{where} is of version {header.get('version')!r}; this augforge reads version {VERSION}")
    for key, kind in [
        *((key, int) for key in _NUMBERS),
        *((key, str) for key in ("task", "classes", "rows", "sha256")),
    ]:
        if not isinstance(header.get(key), kind):
            raise InputError(f"{where} was changed after it was written: its first line has no usable {key!r}")
    return header, body


def _content_digest(header: dict[str, Any], body: bytes) -> str:
    return hashlib.sha256(canonical(header).encode() + b"\n" + body).hexdigest()


def _to_line(episode: Episode) -> str:
    record = {key: getattr(episode, key).tolist() for key in ("classes", "support", "query")}
    return json.dumps(record, separators=(",", ":")) + "\n"


def _from_line(line: bytes) -> Episode:
    record = parse_json(line)
    return Episode(*(torch.tensor(record[key], dtype=torch.int64) for key in ("classes", "support", "query")))
