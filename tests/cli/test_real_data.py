"""From a real data set to a larger one."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

pytestmark = pytest.mark.data


def test_cifar_fs(augforge, data_root, manifest_of, tmp_path):
    how = ("--class", "apple", "--class", "bee", "--to", 640, "--include-real", "--json")
    found = augforge("synth", "cifar-fs", "--data-root", data_root, "--out", tmp_path / "out", *how).json()
    assert (found["made"], found["real"]) == (80, 1200)
    opened = ImageFolder(tmp_path / "out")
    assert opened.classes == ["apple", "bee"]
    assert np.bincount(opened.targets).tolist() == [640, 640]
    rows = manifest_of(tmp_path / "out")
    number = next(i for i, row in enumerate(rows, 1) if row["method"] == "classical")
    arguments = ("regen", tmp_path / "out" / "manifest.jsonl", number, "--out", tmp_path / "again.png")
    assert augforge(*arguments, "--data-root", data_root).code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "out" / rows[number - 1]["file"]).read_bytes()


def test_dogs_and_cats(augforge, data_root, manifest_of, tmp_path):
    source = data_root / "dogs_vs_cats_small_s160.tar"
    how = ("--per-class", 64, "--size", 64, "--encoding", "jpeg")
    guess = augforge("synth", source, "--out", tmp_path / "out", *how, "--dry-run", "--json").json()
    found = augforge("synth", source, "--out", tmp_path / "out", *how, "--json").json()
    assert found["per_class"] == {"cats": 64, "dogs": 64}
    assert abs(guess["bytes"] / found["bytes"] - 1) < 0.3
    for row in manifest_of(tmp_path / "out"):
        assert row["parent"].startswith(f"train/{row['class']}/")
        with Image.open(tmp_path / "out" / row["file"]) as picture:
            assert picture.size == (64, 64)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["order"]["source"] == os.path.realpath(source)
    assert [c["real"] for c in record["classes"]] == [1000, 1000]
