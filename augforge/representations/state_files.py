"""Files of weights, read as tensors alone.

A module of its own because two libraries' networks read such files, and neither should know of the other.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from augforge.types import InputError


def given_file(weights: str) -> Path | None:
    """The file of the setting `weights`, None for ""; raises InputError where there is no such file."""
    if weights and not Path(weights).is_file():
        raise InputError(f"weights={weights!r} was given, and there is no such file")
    return Path(weights) if weights else None


def read_state(path: Path) -> dict[str, Tensor]:
    """Named tensors from .safetensors, .pth or .bin; nothing but tensors is read, and no code in a file is run.

    Raises InputError for a file that is damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes many kinds of either reader
        reason = str(error).split("\n", 1)[0][:200]
        raise InputError(f"{str(path)!r} cannot be read as tensors alone ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{str(path)!r} is no table of tensors; expected a saved state_dict")
    return state
