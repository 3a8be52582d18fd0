"""A fitted part <-> a folder: `part.json` with its name and settings, `fitted.safetensors` with what it learnt.

Fitted tensors are the attributes whose names end in one underscore. Nothing is unpickled, and a folder can only
name parts of the catalog, so opening a stranger's folder runs none of the stranger's code.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from augforge import __version__, catalog
from augforge.types import InputError

_SETTINGS, _TENSORS = "part.json", "fitted.safetensors"


def save_part(part: Any, folder: Path, kind: str = "synthesizer") -> None:
    """Save a part of the catalog; the folder is made, and each file is written under another name and renamed.

    Raises InputError where the folder cannot be written.
    """
    fitted = {k: v.detach().cpu().contiguous() for k, v in vars(part).items() if is_fitted(k) and v is not None}
    record = {"augforge": __version__, "kind": kind, **catalog.describe(part, kind), "fitted": sorted(fitted)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / _TENSORS, save(fitted))
        _replace(folder / _SETTINGS, (json.dumps(record, indent=2) + "\n").encode())
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be written ({error.strerror})") from error


def load_part(folder: Path, kind: str = "synthesizer") -> Any:
    """The part that `save_part` left in a folder; raises InputError where there is none, or it is damaged."""
    try:
        record = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        name, settings, expected = record["name"], record["settings"], record["fitted"]
        found_kind = record["kind"]
    except FileNotFoundError as error:
        raise InputError(f"{str(folder)!r} has no {_SETTINGS}; expected a folder that `augforge fit` made") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder / _SETTINGS)!r} is damaged ({error})") from error
    if not (isinstance(name, str) and isinstance(settings, dict) and isinstance(expected, list)):
        raise InputError(f"{str(folder / _SETTINGS)!r} is damaged (its entries are of a wrong kind)")
    if found_kind != kind:
        raise InputError(f"{str(folder)!r} holds a {found_kind}; expected a {kind}")
    part = catalog.make(name, settings, kind)
    tensors = _read_tensors(folder / _TENSORS)
    missing = [key for key in expected if key not in tensors]
    if missing:
        raise InputError(f"{str(folder / _TENSORS)!r} lacks {missing[0]!r}, which {_SETTINGS} names")
    for key, value in tensors.items():
        if key not in expected or not is_fitted(key):
            raise InputError(f"{str(folder / _TENSORS)!r} holds {key!r}, which {_SETTINGS} does not name")
        setattr(part, key, value)
    return part


def part_digest(part: Any, kind: str = "synthesizer") -> str:
    """16 hexadecimal digits that change with the name, any setting or any fitted number of a part."""
    hashed = hashlib.sha256(json.dumps(catalog.describe(part, kind), sort_keys=True).encode())
    for key, value in sorted(vars(part).items()):
        if is_fitted(key) and value is not None:
            hashed.update(save({key: value.detach().cpu().contiguous()}))
    return hashed.hexdigest()[:16]


def is_fitted(name: str) -> bool:
    """Whether an attribute is learnt state: it ends in one underscore and does not begin with one."""
    return name.endswith("_") and not name.startswith("_")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error})") from error


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
