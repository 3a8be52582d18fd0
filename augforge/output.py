"""The folder of a run: who may write there, what is finished, and how shards become one.

While a run goes on its manifest grows in `.partial`, in the order of the plan; when all is done it is renamed to
`manifest.jsonl`. So a finished manifest means a finished run, and a killed run lost only what its manifest lacks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from augforge.export import PARTIAL, folder_name
from augforge.manifest import recover, write_json
from augforge.orders import Options
from augforge.plan import Plan
from augforge.types import InputError

MANIFEST, RUN, SHEET = "manifest.jsonl", "run.json", "contact_sheet.png"
_MADE_FILE = re.compile(r"-[mr]\d{5,}\.(png|jpg|webp)$")
_OURS = re.compile(r"(shard-\d{6,}\.tar|data\.npz|features\.safetensors|manifest(-\d+-of-\d+)?\.jsonl)$")
_UNCOMPARED = ("versions", "machine")


def claim(out: Path, record: dict[str, Any], source: Path | None, options: Options) -> None:
    """Make `out` the folder of this run, or find that it is already; writes `run.json` and nothing else.

    Raises InputError where `out` lies inside the source, is no folder, holds something else or another run, or
    cannot be written.
    """
    resolved = out.resolve()
    if source is not None and source.is_dir() and resolved.is_relative_to(source.resolve()):
        raise InputError(f"--out {str(out)!r} lies inside the source {str(source)!r}; expected a folder outside of it")
    try:
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {str(out)!r} is a file; expected a folder")
        out.mkdir(parents=True, exist_ok=True)
        if options.overwrite and (out / RUN).exists():
            _remove_run(out)
        if (out / RUN).exists():
            _check_same(out, record, options)
        elif found := sorted(e.name for e in out.iterdir() if PARTIAL not in e.name):
            raise InputError(f"--out {str(out)!r} is not empty (it has {found[0]!r}) and holds no run of augforge")
        else:
            write_json(out / RUN, record)
    except OSError as error:
        raise InputError(f"--out {str(out)!r} cannot be written ({error.strerror or error})") from error


def read_run(out: Path) -> dict[str, Any]:
    """What `run.json` in `out` holds; raises InputError where it is missing or damaged."""
    try:
        record = json.loads((out / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(out / RUN)!r} cannot be read ({error})") from error
    if not isinstance(record, dict) or not {"order", "method", "augforge"} <= record.keys():
        raise InputError(f"{str(out / RUN)!r} is not the record of a run of augforge")
    return record


def _check_same(out: Path, record: dict[str, Any], options: Options) -> None:
    before = read_run(out)
    another_shard = options.shard[1] > 1 and not any(p.exists() for p in _manifests(out, options.shard))
    if not options.resume and not another_shard:
        raise InputError(f"--out {str(out)!r} holds a run; --resume goes on with it, --overwrite replaces it")
    now = json.loads(json.dumps(record))
    differing = [key for key in now if key not in _UNCOMPARED and now[key] != before.get(key)]
    if not differing:
        return
    key = "order" if "order" in differing else differing[0]
    old, new = before.get(key), now[key]
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(k for k in new if new[k] != old.get(k))
        old, new = old.get(key), new[key]
    raise InputError(
        f"--out {str(out)!r} holds another run: its {key} is {_brief(old)}, and {_brief(new)} was asked for"
    )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _remove_run(out: Path) -> None:
    """Remove what a run of augforge wrote, and nothing that someone else put there."""
    classes = [c["name"] for c in read_run(out).get("classes", [])]
    for folder in (out / folder_name(name) for name in classes):
        if folder.is_dir():
            for entry in os.scandir(folder):
                if _MADE_FILE.search(entry.name):
                    os.unlink(entry.path)
            with contextlib.suppress(OSError):  # not empty: something else lies there
                folder.rmdir()
    for entry in list(os.scandir(out)):
        if _OURS.fullmatch(entry.name) or entry.name in (RUN, SHEET):
            os.unlink(entry.path)
    shutil.rmtree(out / PARTIAL, ignore_errors=True)


def _manifests(out: Path, shard: tuple[int, int]) -> tuple[Path, Path]:
    """The finished manifest of a shard, and the one that grows."""
    name = MANIFEST if shard[1] == 1 else f"manifest-{shard[0]}-of-{shard[1]}.jsonl"
    return out / name, out / PARTIAL / name


def finished(out: Path, shard: tuple[int, int]) -> bool:
    """Whether this shard has nothing left to do. Raises InputError where `out` was shared out otherwise."""
    for entry in (*out.glob("manifest-*-of-*.jsonl"), *(out / PARTIAL).glob("manifest-*-of-*.jsonl")):
        count = int(entry.stem.rpartition("-")[2])
        if count != shard[1]:
            raise InputError(f"--out {str(out)!r} was begun with --shards i/{count}; expected the same again")
    return (out / MANIFEST).exists() or _manifests(out, shard)[0].exists()


@contextlib.contextmanager
def growing_manifest(out: Path, plan: Plan, shard: tuple[int, int]) -> Iterator[tuple[BinaryIO, int]]:
    """The open manifest of a shard and how many of its units are finished; locked against a second run.

    What a killed run left half-written is cut off. Raises InputError where another process is writing it.
    """
    path = _manifests(out, shard)[1]
    with open(path, "ab") as manifest:
        try:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"--out {str(out)!r} is being written by another augforge") from error
        sizes = [plan.rows_in(unit) for unit in range(shard[0], plan.units, shard[1])]
        done = recover(path, sizes)
        manifest.seek(0, os.SEEK_END)
        yield manifest, done


def finish_shard(out: Path, plan: Plan, shard: tuple[int, int]) -> bool:
    """Rename a shard's manifest; whether all shards are done, so that their manifests are one now.

    Lines come in the order of the plan, unit by unit, whichever shard made them.
    """
    final, partial = _manifests(out, shard)
    if partial.exists():
        os.replace(partial, out / PARTIAL / "whole.jsonl" if shard[1] == 1 else final)
    if shard[1] == 1:
        return True
    paths = [_manifests(out, (i, shard[1]))[0] for i in range(shard[1])]
    if not all(path.exists() for path in paths):
        return False
    with contextlib.ExitStack() as opened:
        manifests = [opened.enter_context(open(path, "rb")) for path in paths]
        partial = out / PARTIAL / f"whole.{os.getpid()}.jsonl"
        with open(partial, "wb") as whole:
            for unit in range(plan.units):
                for _ in range(plan.rows_in(unit)):
                    whole.write(manifests[unit % shard[1]].readline())
    os.replace(partial, out / PARTIAL / "whole.jsonl")
    return True


def finish_run(out: Path) -> None:
    """The last step, when all else is in place: the manifest gets its name, and the scaffolding goes."""
    os.replace(out / PARTIAL / "whole.jsonl", out / MANIFEST)
    for path in out.glob("manifest-*-of-*.jsonl"):
        path.unlink()
    shutil.rmtree(out / PARTIAL, ignore_errors=True)
