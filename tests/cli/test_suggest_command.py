"""`suggest SUPPORT --pool`: names and gains on lines and as JSON, and one sentence for what is missing."""

import numpy as np
import pytest
from PIL import Image


@pytest.mark.usefixtures("means")
def test_from_the_command_line(augforge, tmp_path):
    rng = np.random.default_rng(0)
    colours = {"red": (200, 40, 40), "blue": (30, 60, 210), "green": (20, 190, 60)}
    for name, colour in colours.items():
        for i in range(4):
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (16, 20, 3)), 0, 255).astype(np.uint8)
            shown = i == 0 and name != "green"
            path = tmp_path / "shown" / name / "0.png" if shown else tmp_path / "pool" / f"{name}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    command = ("suggest", tmp_path / "shown", "--pool", tmp_path / "pool", "--representation", "means", "--count", 2)
    found = augforge(*command)
    assert found.code == 0, found.err
    assert found.err == "suggest: means, views none\n"
    lines = found.out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("green-")
    assert ": +" in lines[0]
    rows = augforge(*command, "--json").json()["rows"]
    assert [row["picture"] for row in rows] == [line.split(":")[0] for line in lines]
    assert rows[0]["gain"] > 0
    assert "--pool" in augforge("suggest", tmp_path / "shown").error()
    assert "'nowhere'" in augforge("suggest", tmp_path / "shown", "--pool", "nowhere").error()
