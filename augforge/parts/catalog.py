"""The catalog: the name of every part, where it lives, and how its settings are read.

A table row is a name and "module:Class"; nothing is imported until it is asked for. Adding a method is one file
and one row. Other people's parts go by the name of an entry point, or by "module:Class" itself (`parts/plugins.py`).
"""

from __future__ import annotations

import difflib
import importlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from augforge.parts import plugins
from augforge.types import Family, InputError, Part, capabilities

SYNTHESIZERS = {
    "nothing": "augforge.generators.nothing:Nothing",
    "copies": "augforge.generators.copies:Copies",
    "noise": "augforge.generators.noise:Noise",
    "mixing": "augforge.generators.mixing:Mixing",
    "calibration": "augforge.generators.calibration:Calibration",
    "analogies": "augforge.generators.analogies:Analogies",
    "classical": "augforge.generators.classical:Classical",
    "views": "augforge.generators.views:Views",
    "albumentations": "augforge.generators.albumentations:AlbumentationsCompose",
    "support-gaussian": "augforge.generators.support_gaussian:SupportGaussian",
    "posterior": "augforge.generators.posterior:Posterior",
    "hallucinator": "augforge.generators.hallucinator:Hallucinator",
    "wang-hallucinator": "augforge.generators.wang_hallucinator:WangHallucinator",
    "delta-encoder": "augforge.generators.delta_encoder:DeltaEncoder",
    "feature-gan": "augforge.generators.feature_gan:FeatureGan",
    "feature-vae": "augforge.generators.feature_vae:FeatureVae",
    "conditional-gan": "augforge.generators.conditional_gan:ConditionalGan",
    "image-gan": "augforge.generators.image_gan:ImageGan",
    "translation": "augforge.generators.translation:Translation",
}
CLASSIFIERS = {
    "prototype": "augforge.classifiers.prototype:Prototype",
    "simpleshot": "augforge.classifiers.simpleshot:SimpleShot",
    "matching": "augforge.classifiers.matching:Matching",
    "pmn": "augforge.classifiers.pmn:PrototypeMatching",
    "gaussian": "augforge.classifiers.gaussian:Gaussian",
    "knn": "augforge.classifiers.knn:Neighbours",
    "logistic": "augforge.classifiers.logistic:Logistic",
    "cosine": "augforge.classifiers.cosine:CosineClassifier",
    "mlp": "augforge.classifiers.mlp:Mlp",
}
REPRESENTATIONS = {
    "conv4": "augforge.representations.convnet:ConvNet",
    "resnet10": "augforge.representations.convnet:ConvNet",
    "resnet12": "augforge.representations.convnet:ConvNet",
    "resnet18": "augforge.representations.convnet:ConvNet",
    "siamese": "augforge.representations.metric_net:MetricNet",
    "contrastive": "augforge.representations.metric_net:MetricNet",
    "triplet": "augforge.representations.metric_net:MetricNet",
    "n-pairs": "augforge.representations.metric_net:MetricNet",
    "histogram": "augforge.representations.metric_net:MetricNet",
    "quadruplet": "augforge.representations.metric_net:MetricNet",
    "photos": "augforge.representations.photos:Photos",
    "photos-lite2": "augforge.representations.photos:Photos",
    "photos-parts": "augforge.representations.photo_parts:PhotoParts",
    "photos-lite2-parts": "augforge.representations.photo_parts:PhotoParts",
}
# What a row sets before the settings that are given: names may share a class.
PRESETS: dict[str, dict[str, Any]] = {
    "conv4": {"arch": "conv4"},
    "resnet10": {"arch": "resnet10"},
    "resnet12": {"arch": "resnet12"},
    "resnet18": {"arch": "resnet18"},
    "siamese": {"loss": "siamese"},
    "contrastive": {"loss": "contrastive", "margin": 1.0},
    "triplet": {"loss": "triplet"},
    "n-pairs": {"loss": "n-pairs", "way": 32, "rows": 2},
    "histogram": {"loss": "histogram"},
    "quadruplet": {"loss": "quadruplet"},
    "photos": {"network": "lite0"},
    "photos-lite2": {"network": "lite2"},
    "photos-parts": {"network": "lite0"},
    "photos-lite2-parts": {"network": "lite2"},
}
# Names that begin so are one class each, and the rest of the name is the setting "name".
PREFIXES = {
    "representation": {
        "torchvision:": "augforge.representations.pretrained:Pretrained",
        "timm:": "augforge.representations.timm_networks:TimmNetwork",
    }
}
# Representations with + between them, as "photos+photos-lite2", are one class, and the whole is the setting "name".
JOINED = "augforge.representations.joined:Joined"
# Fitted parts that are shipped in augforge/weights.
SHIPPED = {"conv4-glyphs": "representation", "hallucinator-glyphs": "synthesizer", "image-gan-glyphs": "synthesizer"}
TABLES = {"synthesizer": SYNTHESIZERS, "classifier": CLASSIFIERS, "representation": REPRESENTATIONS}
VERBS = {"synthesizer": "synthesize", "classifier": "scores", "representation": "embed"}


def part_class(name: str, kind: str = "synthesizer") -> type[Any]:
    """The class of a name: of the catalog, of an entry point, or "module:Class".

    Raises InputError for an unknown name, with the nearest one, and for other people's classes what
    `plugins.load_class` does, or where the class is not of that kind.
    """
    place = TABLES[kind].get(name) or PREFIXES.get(kind, {}).get(_prefix(name))
    if _is_joined(name, kind):
        place = JOINED
    if place is not None:
        module, _, attribute = place.partition(":")
        return getattr(importlib.import_module(module), attribute)
    offered = plugins.installed(kind)
    if name not in offered and not plugins.is_place(name):
        raise InputError(f"there is no {kind} {name!r}{nearest(name, [*_names(kind), *offered])}")
    cls = plugins.load_class(offered.get(name, name))
    if not _is_part(cls, kind):
        raise InputError(f"{name!r} is not a {kind}; expected a dataclass with `fit` and `{VERBS[kind]}`")
    return cls


def _names(kind: str) -> list[str]:
    """The names of a kind that come with augforge."""
    return [*TABLES[kind], *(name for name, of_kind in SHIPPED.items() if of_kind == kind)]


def _is_part(cls: Any, kind: str) -> bool:
    return is_dataclass(cls) and all(callable(getattr(cls, verb, None)) for verb in ("fit", VERBS[kind]))


def make(name: str, settings: dict[str, Any] | None = None, kind: str = "synthesizer") -> Any:
    """A part by name. Settings are its dataclass fields; text is read as the field's type wants it.

    Raises InputError for an unknown name, an unknown setting (with the nearest valid one) or a value of a wrong type.
    """
    cls = part_class(name, kind)
    preset = PRESETS.get(name, {})
    if _prefix(name) in PREFIXES.get(kind, {}):
        preset = {"name": name.removeprefix(_prefix(name))}
    if _is_joined(name, kind):
        preset = {"name": name}
    return with_settings(name, cls, {**preset, **(settings or {})})


def with_settings(name: str, cls: type[Any], given: Mapping[str, Any]) -> Any:
    """An object of a dataclass with the settings that were given, read as `make` reads them; raises InputError."""
    known = [field.name for field in fields(cls) if field.init]
    hints = typing.get_type_hints(cls) if given else {}  # which takes a millisecond, and tables name many parts
    values = {}
    for key, value in given.items():
        if key not in known:
            raise InputError(f"{name} has no setting {key!r}{nearest(key, known)}")
        values[key] = _read(name, key, value, hints[key])
    return cls(**values)


def family_of(classifier: str) -> Family:
    """How a classifier of that name reads rows; raises InputError for an unknown name."""
    return capabilities(part_class(classifier, "classifier")).family


def known_name(part: Part, kind: str) -> str | None:
    """The name of a part in the catalog or among the entry points; None for a class that goes by its module."""
    found = _catalog_name(part, kind)
    if found is not None:
        return found
    where = _place_of(type(part))
    return next((name for name, place in plugins.installed(kind).items() if place == where), None)


def entry_of(part: Part) -> tuple[str, str] | None:
    """The kind and the name of a part, of whatever kind it is; None for a class that goes by its module."""
    for look in (_catalog_name, known_name):  # entry points last, as it takes time to read them
        for kind in TABLES:
            name = look(part, kind)
            if name is not None:
                return kind, name
    return None


def _catalog_name(part: Part, kind: str) -> str | None:
    where = _place_of(type(part))
    names = [name for name, place in TABLES[kind].items() if place == where]
    names += [prefix + cast(Any, part).name for prefix, place in PREFIXES.get(kind, {}).items() if place == where]
    if kind == "representation" and where == JOINED:
        return str(cast(Any, part).name)
    if not names:
        return None
    # Names that share a class differ in their presets.
    return max(names, key=lambda name: sum(getattr(part, k) == v for k, v in PRESETS.get(name, {}).items()))


def describe(part: Part, kind: str = "synthesizer") -> dict[str, Any]:
    """The name and settings of a part, as JSON values: {"name": ..., "settings": {...}}; `make` takes them back.

    Raises InputError for an object that is not of that kind, one whose class cannot be found again by its name, and
    settings that are no JSON values.
    """
    name = known_name(part, kind)
    if name is None:
        cls, name = type(part), _place_of(type(part))
        if not _is_part(cls, kind):
            raise InputError(f"{cls.__qualname__} is not a {kind}; expected a dataclass with `fit` and `{VERBS[kind]}`")
        if not plugins.is_place(name):
            raise InputError(f"{cls.__qualname__} is defined inside of a function; expected a class of a module")
    settings = {field.name: getattr(part, field.name) for field in fields(cast(Any, part)) if field.init}
    try:
        return {"name": name, "settings": json.loads(json.dumps(settings))}
    except TypeError as error:
        raise InputError(f"the settings of {name} are no JSON values ({error})") from error


def _place_of(cls: type[Any]) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def kind_of(name: str) -> str:
    """Which kind of part a name is; raises InputError for an unknown one, with the nearest name."""
    for kind, table in TABLES.items():
        if (
            name in table
            or _prefix(name) in PREFIXES.get(kind, {})
            or SHIPPED.get(name) == kind
            or _is_joined(name, kind)
        ):
            return kind
    offered = {kind: plugins.installed(kind) for kind in TABLES}
    for kind, names in offered.items():
        if name in names:
            return kind
    if not plugins.is_place(name):
        known = [known for kind, names in offered.items() for known in (*TABLES[kind], *names)]
        raise InputError(f"there is no method {name!r}{nearest(name, [*known, *SHIPPED])}")
    cls = plugins.load_class(name)
    kinds = [kind for kind in TABLES if _is_part(cls, kind)]
    if not kinds:
        raise InputError(f"{name!r} is no part; expected a dataclass with `fit` and one of {', '.join(VERBS.values())}")
    return kinds[0]


def _is_joined(name: str, kind: str) -> bool:
    return kind == "representation" and "+" in name


def _prefix(name: str) -> str:
    """What stands before the first colon of a name, with the colon; nothing where there is none."""
    return name[: name.find(":") + 1]


def nearest(word: str, known: list[str]) -> str:
    """The end of an error sentence: which known word is nearest to `word`."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
    return f"; the nearest is {near[0]!r}" if near else ""


def read_assignment(text: str) -> tuple[str, str]:
    """Split the `k=v` of `--set`; raises InputError where there is no `=`."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set {text!r} was given; expected name=value")
    return key.strip(), value.strip()


def _read(name: str, key: str, value: Any, hint: Any) -> Any:
    """`value` as one of the types of `hint`, from text or JSON; InputError where none fits."""
    for wanted in _alternatives(hint):
        try:
            return _convert(value, wanted)
        except (ValueError, TypeError, OverflowError):
            continue
    raise InputError(f"{name}: {key}={value!r} was given; expected {type_text(hint)}")


def _alternatives(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(hint) for kind in _alternatives(part)]
    return [hint]


_LARGEST = {int: 2**63, float: math.inf}  # what tensors hold


def _convert(value: Any, wanted: Any) -> Any:
    """`value` as `wanted`: None, bool, int, float, str, Literal, dict or a tuple of floats; ValueError otherwise."""
    if wanted is type(None):
        if value is None or value == "none":
            return None
    elif typing.get_origin(wanted) is typing.Literal:
        if value in typing.get_args(wanted):
            return value
    elif typing.get_origin(wanted) is tuple:
        parts = value.split(",") if isinstance(value, str) else list(value)
        if len(parts) == len(typing.get_args(wanted)):
            return tuple(_convert(part, kind) for part, kind in zip(parts, typing.get_args(wanted), strict=True))
    elif wanted is bool:
        if value in (True, False, "true", "false"):
            return value in (True, "true")
    elif wanted in (int, float) and not isinstance(value, bool):
        if not isinstance(value, float) or wanted(value) == value:  # 2.5 is no whole number
            number = wanted(value)
            if math.isfinite(number) and abs(number) < _LARGEST[wanted]:
                return number
    elif wanted in (str, dict) and isinstance(value, wanted):
        return value
    raise ValueError(value)


def type_text(hint: Any) -> str:
    """A type as a user reads it."""
    words = {"NoneType": "none", "float": "a number", "int": "a whole number", "str": "text", "bool": "true or false",
             "dict": "a JSON object"}  # fmt: skip
    spelt = []
    for kind in _alternatives(hint):
        if typing.get_origin(kind) is typing.Literal:
            spelt.append(", ".join(map(str, typing.get_args(kind))))
        elif typing.get_origin(kind) is tuple:
            spelt.append(f"{len(typing.get_args(kind))} numbers with commas")
        else:
            spelt.append(words.get(getattr(kind, "__name__", ""), str(kind)))
    return " or ".join(dict.fromkeys(word for word in spelt if word != "none"))
