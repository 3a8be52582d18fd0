"""`--help`, `list`, `doctor` and `--version`."""

import json
import subprocess
import sys

import pytest

import augforge as package
from augforge.parts.catalog import SHIPPED, SYNTHESIZERS

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
    told = augforge("list").out
    assert all(f"  {name} " in told for name in SYNTHESIZERS)


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
    told = augforge("doctor")
    assert told.code == 0
    assert str(tmp_path) in told.out


def test_synth_json_has_its_keys(augforge, source, tmp_path):
    result = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 2, "--json")
    assert {"made", "per_class", "rejected", "out", "seconds", "images_per_second"} <= result.json().keys()
    assert result.err == ""
    told = augforge("synth", source, "--out", tmp_path / "out2", "--per-class", 2)
    assert told.out.startswith(f"made 4 examples of 2 classes in {tmp_path / 'out2'}: ")
