"""Feature banks as `.safetensors` files.

Tensors: `features` [n, d] float and `labels` [n] int64; optional `attributes` [n_classes, a], `parent` [n] int64,
`weight` [n], and `split` [n] int64, which indexes train, val, test. Metadata: "classes", and optionally "names", as
JSON lists of strings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from augforge.data.banks import FeatureBank
from augforge.data.durable import check_regular, replace_file
from augforge.data.labels import by_split, check_finite, number_labels
from augforge.data.strict_json import brief, parse_json
from augforge.types import InputError

_SPLITS = ("train", "val", "test")


def write_features(path: str | Path, banks: FeatureBank | Mapping[str, FeatureBank]) -> None:
    """Write one bank, or those of the splits "train", "val" and "test", in one file.

    The file appears whole or not at all. Raises InputError for features that are not finite, for another split and
    where banks differ in the size of their features.
    """
    table = {"all": banks} if isinstance(banks, FeatureBank) else dict(banks)
    if not table or (set(table) != {"all"} and not set(table) <= set(_SPLITS)):
        raise InputError(f"features of the splits {sorted(table)} cannot be written; expected some of {_SPLITS}")
    if len({bank.x.shape[1] for bank in table.values()}) > 1:
        raise InputError("features of different sizes cannot be written to one file")
    classes = list(dict.fromkeys(name for bank in table.values() for name in bank.classes))
    tensors = _tensors(table, classes)
    check_finite(tensors["features"], repr(os.fspath(path)))
    metadata = {"classes": json.dumps(classes)}
    if all(bank.names is not None for bank in table.values()):
        metadata["names"] = json.dumps([bank.name(i) for bank in table.values() for i in range(len(bank))])
    part = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, part, metadata)
        replace_file(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)


def open_features(path: str | Path) -> dict[str, FeatureBank]:
    """The banks of a file: {"all": ...}, or those of its splits, each with the classes that it has rows of.

    Raises InputError where the file is damaged, its tensors are not as expected, or a feature is not finite.
    """
    path = os.path.abspath(path)
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
        classes, names = (_strings(metadata, key) for key in ("classes", "names"))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path!r} cannot be read as features in .safetensors ({brief(error)})") from error
    _check(tensors, path)
    y, known = number_labels(tensors["labels"].numpy(), classes, repr(path))
    if names is not None and len(names) != len(y):
        raise InputError(f"{path!r}: there are {len(names)} names and {len(y)} labels")
    attributes = tensors.get("attributes")
    if attributes is not None and (attributes.ndim != 2 or len(attributes) != len(known)):
        raise InputError(f"{path!r}: attributes are {list(attributes.shape)}; expected [{len(known)}, a]")
    bank = FeatureBank(
        x=tensors["features"],
        y=y,
        classes=known,
        origin=path,
        names=None if names is None else tuple(names),
        attributes=attributes,
        parent=tensors.get("parent"),
        weight=tensors.get("weight"),
    )
    return by_split(bank, _split_names(tensors.get("split"), path), repr(path))


def _strings(metadata: Mapping[str, str], key: str) -> list[str] | None:
    if key not in metadata:
        return None
    found = parse_json(metadata[key])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"its {key} are not a JSON list of strings")
    return found


def _check(tensors: Mapping[str, Tensor], path: str) -> None:
    if not {"features", "labels"} <= tensors.keys():
        raise InputError(f"{path!r} has the tensors {sorted(tensors)}; expected features and labels")
    x, labels = tensors["features"], tensors["labels"]
    if x.ndim != 2 or not x.is_floating_point():
        raise InputError(f"{path!r}: features are {x.dtype} {list(x.shape)}; expected floats [n, d]")
    if labels.ndim != 1:
        raise InputError(f"{path!r}: labels are {labels.dtype} {list(labels.shape)}; expected integers [n]")
    for key in ("labels", "parent", "split"):
        if key in tensors and (tensors[key].is_floating_point() or tensors[key].is_complex()):
            raise InputError(f"{path!r}: {key} is {tensors[key].dtype}; expected integers [n]")
    for key in ("labels", "parent", "weight", "split"):
        if key in tensors and tensors[key].shape != x.shape[:1]:
            raise InputError(f"{path!r}: {key} is {list(tensors[key].shape)}; expected [{len(x)}], as many as features")
    check_finite(x, repr(path))


def _split_names(split: Tensor | None, path: str) -> list[str] | None:
    if split is None:
        return None
    split = split.to(torch.int64)
    if bool(((split < 0) | (split > 2)).any()):
        raise InputError(f"{path!r}: split has numbers other than 0 (train), 1 (val) and 2 (test)")
    return [_SPLITS[i] for i in split.tolist()]


def _tensors(table: Mapping[str, FeatureBank], classes: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a file, for banks whose labels are renumbered to `classes`."""
    banks = list(table.values())
    ids = {name: i for i, name in enumerate(classes)}
    renumber = [torch.tensor([ids[name] for name in bank.classes], dtype=torch.int64) for bank in banks]
    tensors = {
        "features": torch.cat([bank.x for bank in banks]),
        "labels": torch.cat([new[bank.y] for new, bank in zip(renumber, banks, strict=True)]),
    }
    if "all" not in table:
        tensors["split"] = torch.cat([torch.full_like(bank.y, _SPLITS.index(name)) for name, bank in table.items()])
    if any(bank.parent is not None for bank in banks):
        none = [torch.full_like(bank.y, -1) if bank.parent is None else bank.parent for bank in banks]
        tensors["parent"] = torch.cat(none)
    if any(bank.weight is not None for bank in banks):
        one = [torch.ones(len(bank)) if bank.weight is None else bank.weight for bank in banks]
        tensors["weight"] = torch.cat(one)
    known = [(new, bank.attributes) for new, bank in zip(renumber, banks, strict=True) if bank.attributes is not None]
    if len(known) == len(banks):
        attributes = known[0][1].new_zeros(len(classes), known[0][1].shape[1])
        for new, rows in known:
            attributes[new] = rows
        tensors["attributes"] = attributes
    return tensors
