import json
from dataclasses import dataclass
from typing import Literal

import pytest

from augforge.generators.classical import Classical
from augforge.generators.noise import Noise
from augforge.parts import catalog
from augforge.types import InputError


@dataclass
class Settings:
    """One setting of each kind that a part can have."""

    flag: bool = False
    count: int = 1
    size: float = 1.0
    maybe: float | None = None
    pair: float | tuple[float, float] = 1.0
    mode: Literal["a", "b"] = "a"
    text: str = ""
    tree: dict | str = ""


@pytest.fixture(autouse=True)
def _entry(monkeypatch):
    monkeypatch.setitem(catalog.CLASSIFIERS, "settings", f"{__name__}:Settings")
    monkeypatch.setattr(catalog, "part_class", _part_class(catalog.part_class))


def _part_class(real):
    return lambda name, kind="synthesizer": Settings if name == "settings" else real(name, kind)


@pytest.mark.parametrize(
    ("key", "given", "read"),
    [
        ("flag", "true", True),
        ("flag", "false", False),
        ("flag", True, True),
        ("count", "3", 3),
        ("count", 3, 3),
        ("count", 3.0, 3),
        ("size", "0.5", 0.5),
        ("size", 2, 2.0),
        ("maybe", "none", None),
        ("maybe", None, None),
        ("maybe", "2", 2.0),
        ("pair", "0.5", 0.5),
        ("pair", "0.5,2", (0.5, 2.0)),
        ("pair", [0.5, 2], (0.5, 2.0)),
        ("mode", "b", "b"),
        ("text", "3", "3"),
        ("tree", "file.json", "file.json"),
        ("tree", {"a": 1}, {"a": 1}),
    ],
)
def test_text_and_json_are_read_as_the_field_wants(key, given, read):
    value = getattr(catalog.make("settings", {key: given}, "classifier"), key)
    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("flag", "maybe", "expected true or false"),
        ("count", "2.5", "expected a whole number"),
        ("count", 2.5, "expected a whole number"),
        ("count", float("nan"), "expected a whole number"),
        ("count", True, "expected a whole number"),
        ("size", "big", "expected a number"),
        ("maybe", "x", "expected a number"),
        ("pair", "1,2,3", "expected a number or 2 numbers with commas"),
        ("mode", "c", "expected a, b"),
        ("text", 3, "expected text"),
        ("tree", 3, "expected a JSON object or text"),
    ],
)
def test_values_of_a_wrong_kind_are_refused(key, given, expected):
    with pytest.raises(InputError, match=expected):
        catalog.make("settings", {key: given}, "classifier")


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(InputError, match="no synthesizer 'clasical'; the nearest is 'classical'"):
        catalog.make("clasical")
    with pytest.raises(InputError, match="no setting 'rotation'; the nearest is 'rotate'"):
        catalog.make("classical", {"rotation": 3})
    with pytest.raises(InputError, match="no setting 'factor_'"):
        catalog.make("noise", {"factor_": 3})
    with pytest.raises(InputError, match="no classifier 'classical'"):
        catalog.make("classical", kind="classifier")


def test_descriptions_are_json_and_come_back():
    part = Classical(preset="gentle", rotate=(1, 2), jpeg=0.5)
    described = json.loads(json.dumps(catalog.describe(part)))
    assert described["name"] == "classical"
    assert catalog.make(**described) == part
    assert catalog.describe(Noise(scale=2)) == {"name": "noise", "settings": {"scale": 2, "pixel_deviation": 0.05}}


def test_strangers_are_not_described():
    with pytest.raises(InputError, match="Path is not a synthesizer"):
        catalog.describe(type("Path", (), {})())


def test_assignments():
    assert catalog.read_assignment("rotate = 1,2") == ("rotate", "1,2")
    assert catalog.read_assignment("compose=a=b.json") == ("compose", "a=b.json")
    for wrong in ("rotate", "=3", ""):
        with pytest.raises(InputError, match="expected name=value"):
            catalog.read_assignment(wrong)
