"""`predict` on a folder of photographs of several sizes, with no option at all."""

import json

import numpy as np
import pytest
from PIL import Image

from augforge.predict import load_predictor


@pytest.fixture
def photographs(tmp_path):
    """Two classes of three JPEG files of different sizes, and one picture more of each."""
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("blue", (30, 60, 210))):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.clip(np.array(colour) + rng.normal(0, 30, (60 + 10 * i, 80 + 7 * i, 3)), 0, 255)
            folder = tmp_path / "mine" / name if i < 3 else tmp_path
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}-{i}.jpg")
    return tmp_path / "mine", (tmp_path / "red-3.jpg", tmp_path / "blue-3.jpg")


def test_a_folder_of_photographs_needs_no_option(augforge, photographs, tmp_path):
    folder, pictures = photographs
    result = augforge("predict", folder, *pictures, "--save", tmp_path / "saved")
    assert result.code == 0, result.err
    assert result.err == "predict: photos, logistic, views crops-4\n"
    assert [line.split(": ")[1].split()[0] for line in result.out.splitlines()[1:]] == ["red", "blue"]
    found = augforge("predict", tmp_path / "saved", *pictures, "--json").json()
    assert (found["representation"], found["classifier"], found["views"]) == ("photos", "logistic", "crops-4")
    assert found["temperature"] > 0
    for row, line in zip(found["rows"], result.out.splitlines()[1:], strict=True):
        assert f"{100 * row['classes'][0]['probability']:.1f} %" in line


def test_letters_keep_their_own_representation(augforge, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    result = augforge("predict", tmp_path, tmp_path / "a" / "0.png")
    assert result.code == 0
    assert result.err == "predict: conv4-glyphs, prototype, views none\n"


def test_a_network_of_one_size_gets_pictures_as_they_are_and_not_their_crops(augforge, tmp_path):
    rng = np.random.default_rng(0)
    pictures = []
    for k, name in enumerate(("dark", "light")):
        (tmp_path / "small" / name).mkdir(parents=True)
        for i in range(18):
            pixels = np.clip(60 + 120 * k + rng.normal(0, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            pictures.append(tmp_path / "small" / name / f"{i:02d}.png")
            Image.fromarray(pixels).save(pictures[-1])
    fitted = augforge("fit", "conv4", tmp_path / "small", "--set", "epochs=1", "--out", tmp_path / "net")
    assert fitted.code == 0, fitted.err
    found = augforge("predict", tmp_path / "small", *pictures, "--representation", tmp_path / "net", "--json").json()
    assert found["views"] == "none"
    assert [row["picture"] for row in found["rows"]] == [str(path) for path in pictures]
    assert [row["classes"][0]["class"] for row in found["rows"]] == ["dark"] * 18 + ["light"] * 18


def test_a_predictor_of_before_has_neither_views_nor_temperature(augforge, photographs, tmp_path):
    folder, pictures = photographs
    augforge("predict", folder, "--save", tmp_path / "saved", "--views", "none")
    path = tmp_path / "saved" / "predictor.json"
    record = json.loads(path.read_text())
    assert record["temperature"] != 1
    path.write_text(json.dumps({key: value for key, value in record.items() if key not in ("views", "temperature")}))
    before = load_predictor(tmp_path / "saved")
    assert (before.views, before.temperature) == ("none", 1.0)
    path.write_text(json.dumps({**record, "temperature": -1.0}))
    assert "predictor.json' is damaged" in augforge("predict", tmp_path / "saved", pictures[0]).error()


def test_what_does_not_go_together_is_one_sentence(augforge, photographs, tmp_path):
    folder, pictures = photographs
    missing = augforge("predict", folder, pictures[0], "--representation", "timm:convnext_atto").error(4)
    assert "the weights of timm:convnext_atto are not on this machine; --download gets them" in missing
    for option in (("--download",), ("--weights", pictures[0])):
        alone = augforge("predict", folder, pictures[0], *option).error()
        assert f"{option[0]} was given without --representation; expected one of timm:NAME" in alone
    none = ("--representation", "timm:convnext_atto", "--weights", tmp_path / "none.pth")
    assert "none.pth' was given, and there is no such file" in augforge("predict", folder, pictures[0], *none).error()
    assert "there is no such file" in augforge("bench", folder, *none, "--shot", "1").error()
    unknown = augforge("predict", folder, pictures[0], "--views", "crop").error()
    assert "views='crop' is unknown; expected none, flip" in unknown
