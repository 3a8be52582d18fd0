"""Checkpoints: one safetensors file of named tensors with JSON facts in its header; nothing is unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from augforge.types import InputError

Groups = dict[str, dict[str, Tensor]]


def write_checkpoint(path: Path, facts: dict[str, Any], groups: Groups) -> None:
    """Write tensors "GROUP.name" and JSON facts under another name, and rename the file when it is whole."""
    tensors = {f"{group}.{name}": value for group, named in groups.items() for name, value in named.items()}
    # clone: safetensors refuses tensors that share memory
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    partial = f"{path}.partial"
    save_file(tensors, partial, {"facts": json.dumps(facts)})
    os.replace(partial, path)


def read_checkpoint(path: Path, settings: dict[str, Any]) -> tuple[dict[str, Any], Groups]:
    """The facts and tensors of a checkpoint whose facts hold the same "settings".

    Raises InputError for a damaged file, and for other settings, with the first that differs.
    """
    groups: Groups = {}
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            found = facts["settings"]
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                group, _, name = key.partition(".")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a checkpoint ({error})") from error
    wanted = json.loads(json.dumps(settings))
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise InputError(
                f"{str(path)!r} was begun with {key}={found.get(key)!r}, and now {key}={wanted.get(key)!r} is asked "
                "for; expected the same, or another folder"
            )
    return facts, groups
