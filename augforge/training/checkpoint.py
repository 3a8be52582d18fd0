"""Checkpoints: one safetensors file of named tensors with JSON facts in its header; nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from augforge.data.durable import replace_file
from augforge.data.strict_json import parse_json
from augforge.types import InputError

LOG = "log.jsonl"  # beside the checkpoints of a run
Groups = dict[str, dict[str, Tensor]]


def write_checkpoint(path: Path, facts: dict[str, Any], groups: Groups) -> None:
    """Write tensors "GROUP.name" and JSON facts under another name, and rename the file when it is whole.

    It notes how long the log beside it is.
    """
    tensors = {f"{group}.{name}": value for group, named in groups.items() for name, value in named.items()}
    # clone: safetensors refuses tensors that share memory
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    partial, log = f"{path}.partial", path.with_name(LOG)
    logged = log.stat().st_size if log.exists() else 0
    save_file(tensors, partial, {"facts": json.dumps(facts | {"logged": logged})})
    replace_file(partial, path)


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


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that an optimiser remembers, as tensors by "NUMBER.name" of its parameters; to be copied, not kept."""
    return {f"{i}.{key}": torch.as_tensor(value) for i, state in optimiser.state_dict()["state"].items()
            for key, value in state.items() if value is not None}  # fmt: skip


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser back what `optimiser_state` returned.

    What belongs to a parameter is laid out in memory as it is: fused optimisers walk both in the order of memory, and
    a file keeps rows first where a network has its channels last.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        like = parameters[int(number)]
        laid = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value.clone()
        states.setdefault(int(number), {})[key] = laid
    optimiser.load_state_dict(optimiser.state_dict() | {"state": states})


def resume_checkpoint(path: Path, settings: dict[str, Any], stage: str | None) -> tuple[dict[str, Any], Groups]:
    """As `read_checkpoint`; nothing where there is none. What a killed run of `stage` logged after it is dropped.

    It is logged again. A stage that has ended has left a checkpoint, so that without one the last lines of the log
    that are of this stage are dropped. With None the log stays.
    """
    facts, groups = read_checkpoint(path, settings) if path.exists() else ({}, {})
    log = path.with_name(LOG)
    if stage is None or not log.exists() or (facts and "logged" not in facts):  # one of before, which does not say
        return facts, groups
    data = log.read_bytes()
    if facts:
        known, later = data[: facts["logged"]], data[facts["logged"] :].splitlines(keepends=True)
        kept = known + b"".join(line for line in later if _stage_of(line) not in (stage, None))
    else:
        lines = data.splitlines(keepends=True)
        while lines and _stage_of(lines[-1]) in (stage, None):
            lines.pop()
        kept = b"".join(lines)
    if len(kept) < len(data):
        log.write_bytes(kept)
    return facts, groups


def _stage_of(line: bytes) -> str | None:
    """The stage of a line of a log; None for one that was cut off."""
    try:
        return str(parse_json(line)["stage"]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
