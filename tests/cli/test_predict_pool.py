"""`predict --pool`: unlabelled JPEG files in one folder, in class folders, and embeddings."""

import numpy as np
import pytest
from PIL import Image

from augforge.data.embeddings import read_rows
from augforge.predict import load_predictor

pytestmark = pytest.mark.usefixtures("means")
PART = ("--representation", "means")


@pytest.fixture
def pictures(tmp_path):
    """Class folders "shown" of one tiny JPEG each, and a flat folder "pool" of six."""
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("blue", (30, 60, 210))):
        for i in range(4):
            pixels = np.clip(np.array(colour) + rng.normal(0, 30, (16 + i, 20, 3)), 0, 255).astype(np.uint8)
            path = tmp_path / "shown" / name / "0.jpg" if i == 0 else tmp_path / "pool" / f"{name}-{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    Image.new("RGB", (16, 16), (210, 50, 30)).save(tmp_path / "new.jpg")
    return tmp_path


def test_a_flat_folder_is_a_pool(augforge, pictures):
    shown, saved = pictures / "shown", pictures / "saved"
    result = augforge("predict", shown, pictures / "new.jpg", *PART, "--pool", pictures / "pool", "--save", saved)
    assert result.code == 0, result.err
    assert result.err == "predict: means, logistic, views none, pool 6 that weigh 1.9 a class\n"
    found = augforge("predict", saved, pictures / "new.jpg", "--json").json()
    assert found["pool"] == 6
    assert found["rows"][0]["classes"][0]["class"] == "red"
    assert f"{100 * found['rows'][0]['classes'][0]['probability']:.1f} %" in result.out
    support = load_predictor(saved).support
    assert len(support) == 8
    assert support.weight[2:].sum() == pytest.approx(2 * found["pool_weight"], rel=1e-5)
    refused = augforge("predict", saved, pictures / "new.jpg", "--pool", pictures / "pool").error()
    assert "--pool was given for" in refused


def test_class_folders_are_a_pool_and_without_one_there_are_none(augforge, pictures):
    shown = pictures / "shown"
    found = augforge("predict", shown, pictures / "new.jpg", *PART, "--pool", shown, "--json").json()
    assert found["pool"] == 2
    assert augforge("predict", shown, pictures / "new.jpg", *PART, "--json").json()["pool"] == 0


def test_pictures_that_lie_in_the_pool_are_said(augforge, pictures):
    named = (pictures / "pool" / "red-1.jpg", pictures / "new.jpg")
    result = augforge("predict", pictures / "shown", *named, *PART, "--pool", pictures / "pool")
    assert result.code == 0
    assert result.err.splitlines()[0].startswith("predict: 1 of 2 given lie in the pool ")
    assert "transductive" in result.err


def test_embeddings_without_labels_are_a_pool(augforge, tmp_path):
    rng = np.random.default_rng(0)
    rows = np.repeat(np.eye(4)[:2], 5, 0) + rng.normal(0, 0.1, (10, 4))
    np.save(tmp_path / "shown.npy", rows[::5])
    np.save(tmp_path / "shown_labels.npy", np.array(["a", "b"]))
    np.save(tmp_path / "rest.npy", rows)
    result = augforge(
        "predict", tmp_path / "shown.npy", tmp_path / "rest.npy", "--pool", tmp_path / "rest.npy", "--json"
    )
    found = result.json()
    assert found["pool"] == len(read_rows(tmp_path / "rest.npy").x) == 10
    assert [row["classes"][0]["class"] for row in found["rows"]] == ["a"] * 5 + ["b"] * 5
    assert "transductive" in result.err


def test_what_cannot_be_a_pool_is_one_sentence(augforge, pictures):
    shown, new = pictures / "shown", pictures / "new.jpg"
    (pictures / "empty").mkdir()
    assert "'nowhere'" in augforge("predict", shown, new, *PART, "--pool", "nowhere").error()
    assert "no class folders" in augforge("predict", shown, new, *PART, "--pool", pictures / "empty").error()
    np.save(pictures / "rows.npy", np.ones((3, 7)))
    assert "same network made" in augforge("predict", shown, new, *PART, "--pool", pictures / "rows.npy").error()
    (pictures / "pool" / "bad.jpg").write_bytes(b"no picture")
    assert "bad.jpg" in augforge("predict", shown, new, *PART, "--pool", pictures / "pool").error()
