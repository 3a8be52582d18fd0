"""A recipe file: what `auto` chose, as JSON that `predict`, `bench` and `synth` take in place of `auto`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from augforge import __version__
from augforge.auto.candidates import PRIOR, Candidate
from augforge.data.durable import read_file
from augforge.data.strict_json import MOST_JSON, brief, parse_json
from augforge.parts import catalog
from augforge.parts.saving import write_json
from augforge.types import InputError

SUFFIX, NAME = ".json", "recipe.json"
METHOD = "classical"  # what `synth` makes pictures with, where there is no pool


@dataclass(frozen=True)
class RecipeFile:
    """How to name pictures of one source: a candidate, and the views of a picture to average."""

    candidate: Candidate
    views: str
    method: str = METHOD  # of `synth`
    says: str = ""  # why

    def write(self, path: Path) -> None:
        """Write to a file that appears whole or not at all; raises InputError where it cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"augforge": __version__, "kind": "recipe", **asdict(self)})
        except OSError as error:
            raise InputError(f"{str(path)!r} cannot be written ({error.strerror})") from error


def is_recipe(name: str) -> bool:
    """Whether what `--with` was given is `auto` or a recipe file."""
    return name == "auto" or name.endswith(SUFFIX)


def read_recipe(path: Path) -> RecipeFile:
    """The recipe of a file that `augforge auto` or `predict --save` wrote; InputError for anything else."""
    try:
        record = parse_json(read_file(path, MOST_JSON))
        if not isinstance(record, dict) or record.get("kind") != "recipe":
            raise ValueError("it is no recipe")
        found = RecipeFile(_candidate(record["candidate"]), record["views"], record["method"], record["says"])
        if not all(isinstance(text, str) for text in (found.views, found.method, found.says)):
            raise ValueError("its entries are of a wrong kind")
    except OSError as error:
        raise InputError(f"--with {str(path)!r} cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--with {str(path)!r} is no file that `augforge auto` wrote ({brief(error)})") from error
    if found.method not in catalog.SYNTHESIZERS:
        raise InputError(f"--with {str(path)!r} names the method {brief(found.method)!r}, which is not of the catalog")
    return found


def _candidate(record: dict[str, Any]) -> Candidate:
    found = Candidate(**{**record, "networks": tuple(record["networks"])})
    known = catalog.SHIPPED.get(found.classifier) == "synthesizer" or found.classifier in catalog.CLASSIFIERS
    networks = all(isinstance(name, str) for name in found.networks)
    made = found.made in ("", *catalog.SYNTHESIZERS)
    if found.name not in PRIOR or not known or not networks or not made or not isinstance(found.pool, bool):
        raise ValueError("its candidate is not known")
    if not isinstance(found.settings, dict):
        raise ValueError("its settings are no JSON object")
    return found


def method_of(name: str, pooled: bool) -> tuple[str, str]:
    """The method that `synth --with` takes for `auto` or a recipe file, and why in one sentence."""
    if pooled:
        return "pool", "auto: pool, since real pictures that nobody has labelled gain more than any that are made."
    method = METHOD if name == "auto" else read_recipe(Path(name)).method
    return method, f"auto: {method}, since no method that was measured makes pictures that gain more."
