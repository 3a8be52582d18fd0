"""What a part has learnt, as named tensors, and its digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn


def is_fitted(name: str) -> bool:
    """Whether an attribute is learnt state: it ends in one underscore and does not begin with one."""
    return name.endswith("_") and not name.startswith("_")


def fitted_tensors(part: Any) -> dict[str, Tensor]:
    """All that a part has learnt, on the CPU: tensors by attribute, a module's as "net_.layer.weight"."""
    found: dict[str, Tensor] = {}
    for key, value in sorted(vars(part).items()):
        if not is_fitted(key):
            continue
        if isinstance(value, nn.Module):
            found |= {f"{key}.{name}": tensor for name, tensor in value.state_dict().items()}
        elif isinstance(value, Tensor):
            found[key] = value
    return {key: value.detach().cpu().contiguous() for key, value in found.items()}


def hash_tensors(hashed: Any, tensors: dict[str, Tensor]) -> None:
    """Feed tensors, one by one in the order of their names, to a hash."""
    for key, value in sorted(tensors.items()):
        hashed.update(save({key: value}))


def made_by(part: Any) -> str:
    """16 hexadecimal digits that change with the class, any setting or any learnt number of a part."""
    settings = {field.name: getattr(part, field.name) for field in fields(part) if field.init}
    told = [type(part).__module__, type(part).__qualname__, settings]
    hashed = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    hash_tensors(hashed, fitted_tensors(part))
    return hashed.hexdigest()[:16]
