"""`synth --pool` from the command line."""

import json

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("means")
PART = ("--set", "representation=means")


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("blue", (30, 60, 210))):
        for i in range(4):
            pixels = np.clip(np.array(colour) + rng.normal(0, 30, (16, 20, 3)), 0, 255).astype(np.uint8)
            path = tmp_path / "shown" / name / "0.png" if i == 0 else tmp_path / "pool" / f"{name}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path


def test_a_pool_is_the_method(augforge, pictures):
    asked = ("synth", pictures / "shown", "--pool", pictures / "pool", *PART, "--per-class", 5)
    result = augforge(*asked, "--out", pictures / "out", "--workers", 1)
    assert result.code == 0, result.err
    assert "fewer than were wanted for 2 of 2 classes: 3 of 5 for 'blue', 3 of 5 for 'red'" in result.err
    assert result.out.startswith("made 6 examples of 2 classes in ")
    lines = [json.loads(line) for line in (pictures / "out" / "manifest.jsonl").read_text().splitlines()]
    assert {line["method"] for line in lines} == {"pool"}
    assert all(0 < line["weight"] <= line["confidence"] <= 1 for line in lines)
    again = pictures / "again.png"
    assert augforge("regen", pictures / "out" / "manifest.jsonl", 2, "--out", again).code == 0
    assert again.read_bytes() == (pictures / "pool" / lines[1]["parent"]).read_bytes()
    found = augforge(*asked, "--out", pictures / "out", "--resume", "--json", "--workers", 1).json()
    assert (found["made"], found["already"]) == (0, 6)
    assert found["pool"]["rows"] == 6
    near = augforge(*asked, "--with", "retrieved", "--out", pictures / "near", "--json", "--workers", 2).json()
    assert near["per_class"] == {"blue": 5, "red": 5}
    assert "--with 'copies'" in augforge(*asked, "--with", "copies", "--out", pictures / "no").error()
    asked = ("synth", pictures / "shown", "--with", "pool", "--per-class", 5, "--out", pictures / "no")
    assert "without --pool" in augforge(*asked).error()


def test_a_pool_in_a_folder_called_pool_is_no_saved_method(augforge, pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    asked = ("synth", "shown", "--pool", "pool", *PART, "--per-class", 2, "--out", "out", "--workers", 1)
    assert augforge(*asked).code == 0
    assert json.loads((pictures / "out" / "run.json").read_text())["order"]["method"] == "pool"
    assert augforge(*asked, "--resume", "--json").json()["already"] == 4
    assert augforge("regen", "out/manifest.jsonl", 1, "--out", "again.png").code == 0
