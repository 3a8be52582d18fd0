"""`--help`, `list`, `doctor` and `--version`."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Literal

import pytest

import augforge as package
from augforge.parts.catalog import SHIPPED, SYNTHESIZERS, TABLES

_HEAVY = {"torch", "numpy", "cv2", "PIL", "matplotlib", "safetensors", "albumentations", "torchvision", "tqdm"}


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["synth", "--help"], ["fit", "-h"], ["--version"], []])
def test_help_imports_nothing_heavy(arguments, tmp_path):
    code = (
        "import sys, json\n"
        "from augforge.cli.main import main\n"
        "try:\n    main(json.loads(sys.argv[1]))\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=tmp_path)
    imported = set(json.loads(done.stderr.splitlines()[-1]))
    assert not _HEAVY & imported
    assert done.stdout or not arguments


def test_help_names_every_command_and_option(augforge):
    top = augforge("--help")
    assert top.code == 0
    assert all(f"  {name} " in top.out for name in ("synth", "fit", "regen", "list", "doctor"))
    synth = augforge("synth", "--help").out
    for option in ("--out", "--with", "--per-class", "--to", "--counts", "--class", "--split", "--set", "--config",
                   "--seed", "--size", "--format", "--encoding", "--quality", "--include-real", "--device", "--workers",
                   "--batch-size", "--shards", "--strict", "--resume", "--overwrite", "--dry-run", "--data-root",
                   "--json"):  # fmt: skip
        assert f"  {option} " in synth


def test_version(augforge):
    assert augforge("--version").out == f"augforge, version {package.__version__}\n"


def test_list_names_every_method_with_a_line_about_it(augforge):
    found = augforge("list", "--json").json()
    shipped = {name for name, kind in SHIPPED.items() if kind == "synthesizer"}
    assert set(found["synthesizers"]) == set(SYNTHESIZERS) | shipped
    assert all(found["synthesizers"].values())
    assert {"glyphs", "omniglot", "cifar-fs"} <= set(found["sources"])
    reply = augforge("list").out
    assert all(f"  {name} " in reply for name in SYNTHESIZERS)


@dataclass
class Inherited:
    low: float = 0.5  # least share of rows, 0 to 1
    kind: Literal["a", "b"] = "a"


@dataclass
class Commented(Inherited):
    """Does nothing."""

    rate: float = 3e-4  # learning rate of Adam, > 0
    # a line that belongs to no field
    steps: int = 600  # of training; at least 1 (more for many classes)
    spread: tuple[float, float] = (0.0, 1.0)  # fmt: skip
    flip: bool = False
    text: str | None = None  # a file

    learnt_: int | None = field(default=None, init=False)


@pytest.fixture
def commented(monkeypatch):
    monkeypatch.setitem(SYNTHESIZERS, "commented", f"{Commented.__module__}:{Commented.__qualname__}")


def test_list_of_a_name_gives_its_settings_with_their_comments(augforge, commented):
    found = augforge("list", "commented", "--json").json()
    assert (found["name"], found["kind"], found["about"]) == ("commented", "synthesizer", "Does nothing.")
    settings = {setting.pop("name"): setting for setting in found["settings"]}
    assert list(settings) == ["low", "kind", "rate", "steps", "spread", "flip", "text"]
    assert settings["rate"] == {
        "type": "a number", "default": 3e-4, "range": "> 0", "comment": "learning rate of Adam, > 0",
    }  # fmt: skip
    assert settings["low"]["range"] == "0 to 1"
    assert settings["steps"]["range"] == "at least 1"
    assert settings["kind"]["type"] == "a, b"
    assert (settings["spread"]["default"], settings["spread"]["comment"]) == ([0.0, 1.0], "")
    shown = augforge("list", "commented").out.splitlines()
    assert shown[0] == "commented (synthesizer): Does nothing."
    assert "  rate=0.0003     a number; learning rate of Adam, > 0" in shown
    assert "  spread=0.0,1.0  2 numbers with commas" in shown
    assert "  text=none       text; a file" in shown


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table])
def test_every_part_can_be_listed(augforge, kind, name):
    found = augforge("list", name, "--json").json()
    assert (found["kind"], found["fitted"]) == (kind, False)
    assert found["about"]
    assert augforge("list", name).out.startswith(f"{name} ({kind}): ")


def test_a_shipped_part_is_listed_with_what_it_was_fitted_with(augforge):
    found = augforge("list", "conv4-glyphs", "--json").json()
    assert found["fitted"]
    assert {setting["name"]: setting["default"] for setting in found["settings"]}["method"] == "episodic"
    assert "what it was fitted with" in augforge("list", "conv4-glyphs").out


def test_a_name_that_is_not_there_is_one_sentence(augforge):
    assert augforge("list", "nois").error() == "there is no method 'nois'; the nearest is 'noise'"


def test_doctor(augforge, monkeypatch, tmp_path):
    monkeypatch.delenv("AUGFORGE_DATA", raising=False)
    found = augforge("doctor", "--json").json()
    assert {"versions", "machine", "cuda", "optional", "data_root", "sources", "weights", "ruled_out"} <= found.keys()
    assert found["sources"]["glyphs"]
    assert not found["sources"]["cifar-fs"]
    assert any("cifar-fs.zip not found under AUGFORGE_DATA (not set)" in line for line in found["ruled_out"])
    monkeypatch.setenv("AUGFORGE_DATA", str(tmp_path))
    (tmp_path / "cifar-fs.zip").touch()
    assert augforge("doctor", "--json").json()["sources"]["cifar-fs"]
    reply = augforge("doctor")
    assert reply.code == 0
    assert str(tmp_path) in reply.out


def test_synth_json_has_its_keys(augforge, source, tmp_path):
    result = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 2, "--json")
    assert {"made", "per_class", "rejected", "out", "seconds", "images_per_second"} <= result.json().keys()
    assert result.err == "photographs: classical with preset=photographs, files are PNG\n"  # one line
    reply = augforge("synth", source, "--out", tmp_path / "out2", "--per-class", 2)
    assert reply.out.startswith(f"made 4 examples of 2 classes in {tmp_path / 'out2'}: ")
