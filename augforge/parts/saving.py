"""A fitted part <-> a folder: `part.json` with its name and settings, `fitted.safetensors` with what it learnt.

Fitted tensors are the attributes whose names end in one underscore. Nothing is unpickled, and a folder can only name
parts of the catalog, entry points of installed packages, and classes that the user trusts by name
(`parts/plugins.py`), so opening a stranger's folder runs none of the stranger's code.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from augforge import __version__
from augforge.data.durable import read_file, write_file
from augforge.data.strict_json import MOST_JSON, parse_json
from augforge.parts import catalog
from augforge.types import Built, InputError, Part, capabilities

_SETTINGS, _TENSORS = "part.json", "fitted.safetensors"
# Where classes lay when digests were first kept. The names of these go into digests by that module and class, wherever
# the class lies now, so that the features and caches of those days are still known. Never edit a row, and add none: a
# newer class goes by its kind and name.
_FIRST_PLACES = {
    "nothing": ("nothing", "Nothing"),
    "copies": ("copies", "Copies"),
    "noise": ("noise", "Noise"),
    "mixing": ("mixing", "Mixing"),
    "calibration": ("calibration", "Calibration"),
    "analogies": ("analogies", "Analogies"),
    "classical": ("classical", "Classical"),
    "albumentations": ("albumentations_compose", "AlbumentationsCompose"),
    "posterior": ("posterior", "Posterior"),
    "hallucinator": ("hallucinator", "Hallucinator"),
    "wang-hallucinator": ("wang_hallucinator", "WangHallucinator"),
    "delta-encoder": ("delta_encoder", "DeltaEncoder"),
    "feature-gan": ("feature_gan", "FeatureGan"),
    "feature-vae": ("feature_vae", "FeatureVae"),
    "conditional-gan": ("conditional_gan", "ConditionalGan"),
    "image-gan": ("image_gan", "ImageGan"),
    "translation": ("translation", "Translation"),
    "prototype": ("prototype", "Prototype"),
    "simpleshot": ("simpleshot", "SimpleShot"),
    "matching": ("matching", "Matching"),
    "pmn": ("pmn", "PrototypeMatching"),
    "gaussian": ("gaussian", "Gaussian"),
    "knn": ("knn", "Neighbours"),
    "logistic": ("logistic", "Logistic"),
    "cosine": ("cosine", "CosineClassifier"),
    "mlp": ("mlp", "Mlp"),
    "conv4": ("convnet", "ConvNet"),
    "resnet10": ("convnet", "ConvNet"),
    "resnet12": ("convnet", "ConvNet"),
    "resnet18": ("convnet", "ConvNet"),
    "torchvision": ("pretrained", "Pretrained"),
}
_PACKAGES = {"synthesizer": "generators", "classifier": "classifiers", "representation": "representations"}
_WEIGHTS = Path(__file__).parent.parent / "weights"


def is_fitted(name: str) -> bool:
    """Whether an attribute is learnt state: it ends in one underscore and does not begin with one."""
    return name.endswith("_") and not name.startswith("_")


def fitted_tensors(part: Part) -> dict[str, Tensor]:
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


def made_by(part: Part) -> str:
    """16 hexadecimal digits that change with the name, any setting or any learnt number of a part.

    The name is that of the catalog or of an entry point, so that a class may move to another file; a class without one
    goes by its module.
    """
    settings = {field.name: getattr(part, field.name) for field in fields(cast(Any, part)) if field.init}
    facts = [*_identity(part), settings]
    hashed = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    hash_tensors(hashed, fitted_tensors(part))
    return hashed.hexdigest()[:16]


def _identity(part: Part) -> list[str]:
    entry = catalog.entry_of(part)
    if entry is None:
        return [type(part).__module__, type(part).__qualname__]
    kind, name = entry
    first = _FIRST_PLACES.get(name.partition(":")[0])
    return [kind, name] if first is None else [f"augforge.{_PACKAGES[kind]}.{first[0]}", first[1]]


def save_part(part: Part, folder: Path, kind: str = "synthesizer") -> None:
    """Save a part; the folder is made, and each file is written under another name and renamed.

    Raises InputError where the folder cannot be written, and for a part that could not be made again (`describe`).
    """
    fitted = fitted_tensors(part)
    record = {"augforge": __version__, "kind": kind, **catalog.describe(part, kind), "fitted": sorted(fitted)}
    if isinstance(part, Built):
        record["facts"] = part.facts_
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / _TENSORS, save(fitted))
        write_file(folder / _SETTINGS, (json.dumps(record, indent=2) + "\n").encode())
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be written ({error.strerror})") from error


def load_part(folder: Path, kind: str = "synthesizer") -> Any:
    """The part that `save_part` left in a folder.

    Raises InputError where there is none, where it is damaged, and where it is of somebody else's class that is neither
    installed nor trusted: the folder alone never causes an import.
    """
    try:
        record = parse_json(read_file(folder / _SETTINGS, MOST_JSON))
        name, settings, expected = record["name"], record["settings"], record["fitted"]
        found_kind = record["kind"]
    except FileNotFoundError as error:
        raise InputError(f"{str(folder)!r} has no {_SETTINGS}; expected a folder that `augforge fit` made") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder / _SETTINGS)!r} is damaged ({error})") from error
    strings = isinstance(expected, list) and all(isinstance(key, str) for key in expected)
    if not (isinstance(name, str) and isinstance(settings, dict) and strings):
        raise InputError(f"{str(folder / _SETTINGS)!r} is damaged (its entries are of a wrong kind)")
    if found_kind != kind:
        raise InputError(f"{str(folder)!r} holds a {found_kind}; expected a {kind}")
    part = catalog.make(name, settings, kind)
    tensors = _read_tensors(folder / _TENSORS)
    missing = [key for key in expected if key not in tensors]
    if missing:
        raise InputError(f"{str(folder / _TENSORS)!r} lacks {missing[0]!r}, which {_SETTINGS} names")
    unnamed = [key for key in tensors if key not in expected or not is_fitted(key.partition(".")[0])]
    if unnamed:
        raise InputError(f"{str(folder / _TENSORS)!r} holds {unnamed[0]!r}, which {_SETTINGS} does not name")
    for key, value in tensors.items():
        if "." not in key:
            setattr(part, key, value)
    modules = {key: value for key, value in tensors.items() if "." in key}
    if modules:
        _fill_modules(part, modules, record.get("facts"), folder)
    return part


def _fill_modules(part: Part, tensors: dict[str, Tensor], facts: Any, folder: Path) -> None:
    """Build the empty networks of a part from its facts, and load their numbers ("net_.layer.weight")."""
    known = isinstance(facts, dict) and all(isinstance(v, int) and 0 < v < 1 << 20 for v in facts.values())
    if not known or not isinstance(part, Built):
        raise InputError(f"{str(folder / _SETTINGS)!r} is damaged (its facts do not describe a network)")
    try:
        part.build(facts)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{str(folder / _SETTINGS)!r} is damaged (its facts do not describe a network)") from error
    for attribute in sorted({key.partition(".")[0] for key in tensors}):
        net = getattr(part, attribute, None)
        mine = {key.partition(".")[2]: value for key, value in tensors.items() if key.partition(".")[0] == attribute}
        if not isinstance(net, nn.Module):
            raise InputError(f"{str(folder / _TENSORS)!r} holds {attribute!r}, and the part has no such network")
        try:
            net.load_state_dict(mine)
        except RuntimeError as error:
            raise InputError(
                f"{str(folder / _TENSORS)!r} does not fit the network that {_SETTINGS} describes"
            ) from error


def is_folder(method: str) -> bool:
    """Whether a method is a folder that `fit` made; one that is called like a method is given as "./name"."""
    return method not in catalog.SYNTHESIZERS and Path(method).is_dir()


def open_part(name: str, settings: dict[str, Any] | None = None, kind: str = "synthesizer") -> Any:
    """A part by what a user calls it: a name of the catalog or of an entry point, "module:Class", a shipped fitted
    part, or a folder that `fit` made.

    A name goes before a folder of the same name, which is given as "./name". One with pretrained weights has read them,
    or raises LackError where they are not on this machine. Raises InputError for an unknown name, a
    class that is neither installed nor trusted, and settings with a part that is fitted already.
    """
    shipped = catalog.SHIPPED.get(name) == kind
    if not shipped and (name in catalog.TABLES[kind] or not Path(name).is_dir()):
        part = catalog.make(name, settings, kind)
        return cast(Any, part).fit(None, None) if capabilities(part).pretrained else part
    if settings:
        raise InputError(f"settings were given for {name!r}, which was fitted with settings of its own")
    return load_part(_WEIGHTS / name if shipped else Path(name), kind)


def part_digest(part: Part, kind: str = "synthesizer") -> str:
    """16 hexadecimal digits that change with the name, any setting or any fitted number of a part."""
    hashed = hashlib.sha256(json.dumps(catalog.describe(part, kind), sort_keys=True).encode())
    hash_tensors(hashed, fitted_tensors(part))
    return hashed.hexdigest()[:16]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON under a temporary name, then rename: a reader sees the old file or the whole new one."""
    write_file(path, (json.dumps(value, indent=2) + "\n").encode())


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        # Cloned, so that they lie as tensors made here do: what safetensors gives begins anywhere in memory.
        return {key: value.clone() for key, value in load(read_file(path)).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error})") from error
