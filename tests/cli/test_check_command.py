"""`augforge check`: leaks, copies, blanks, broken files and labels, by command, from Python and in the report."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from augforge.check.audit import check
from augforge.check.sides import CheckRequest
from augforge.data.banks import FeatureBank
from augforge.data.features import write_features


def _picture(seed):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (48, 48), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def folder(tmp_path):
    """Four pictures of each of two classes in train and in test, all different."""
    for number in range(16):
        path = tmp_path / "set" / ("train" if number < 8 else "test") / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), _picture(number))
    return tmp_path / "set"


def test_a_clean_folder_is_exit_code_0(augforge, folder):
    found = augforge("check", folder, "--fast")
    assert found.code == 0, found.err
    assert "checked 8 pictures of train and 8 pictures of test by pixels and thumbnails" in found.out
    assert "leaks between train and test: none" in found.out


def test_leaks_are_exit_code_3_with_files_and_reasons(augforge, folder, tmp_path):
    shutil.copy(folder / "train" / "a" / "0.png", folder / "test" / "b" / "copy.png")
    cv2.imwrite(str(folder / "test" / "a" / "coded.jpg"), _picture(2), [cv2.IMWRITE_JPEG_QUALITY, 80])
    cv2.imwrite(str(folder / "train" / "b" / "blank.png"), np.full((30, 30, 3), 7, np.uint8))
    (folder / "train" / "b" / "torn.png").write_bytes((folder / "train" / "b" / "1.png").read_bytes()[:200])
    result = augforge("check", folder, "--fast", "--json", "--out", tmp_path / "all.csv")
    assert result.code == 3
    found = json.loads(result.out)
    assert found["counts"] == {"leak": 2, "duplicate": 0, "broken": 1, "not an example": 1, "label": 0}
    assert not found["clean"]
    leaks = {one["file"]: one for one in found["findings"] if one["kind"] == "leak"}
    assert leaks["test/b/copy.png"]["other"] == "train/a/0.png"
    assert leaks["test/b/copy.png"]["reason"] == "same pixels, there of class 'a'"
    assert leaks["test/a/coded.jpg"]["reason"] == "same picture"
    assert [one["file"] for one in found["findings"] if one["kind"] == "not an example"] == ["train/b/blank.png"]
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["file"] for row in rows] == [one["file"] for one in found["findings"]]
    said = augforge("check", folder, "--fast").out
    assert "test/b/copy.png: same pixels, there of class 'a'" in said
    assert "train/b/torn.png: " in said


def test_children_of_test_pictures_are_leaks_by_the_manifest(augforge, folder, tmp_path):
    made = tmp_path / "made"
    strong = ("--set", "preset=keras", "--seed", 1)
    assert augforge("synth", folder / "test", "--out", made, "--per-class", 3, *strong).code == 0
    result = augforge("check", made, folder / "test", "--fast", "--json")
    assert result.code == 3
    leaks = [one for one in json.loads(result.out)["findings"] if one["kind"] == "leak"]
    assert len(leaks) == 6
    assert {one["reason"] for one in leaks} <= {"made of it, by the manifest", "its mirror image", "same picture"}
    assert augforge("check", made, folder / "train", "--fast").code == 0


def test_a_flat_folder_and_one_that_is_not_there(augforge, folder, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(5):
        cv2.imwrite(str(flat / f"{number}.png"), _picture(number))
    shutil.copy(flat / "3.png", flat / "4b.png")
    found = check(CheckRequest(str(flat), fast=True))
    assert [(one.kind, one.file, one.other) for one in found.findings] == [("duplicate", "4b.png", "3.png")]
    assert "expected one of them" in augforge("check", flat, "--fast", "--representation", "photos").error()
    assert augforge("check", tmp_path / "none").code == 2
    assert "expected a file called" in augforge("check", flat, "--out", tmp_path / "x.doc").error()


def test_features_are_checked_by_their_numbers(augforge, tmp_path):
    rng = torch.Generator().manual_seed(0)
    centres = 5 * torch.randn(4, 12, generator=rng)
    y = torch.arange(4).repeat_interleave(15)
    x = centres[y] + torch.randn(60, 12, generator=rng)
    test = centres[y] + torch.randn(60, 12, generator=rng)
    test[7], wrong = x[3], y.clone()
    wrong[20] = 3
    for name, rows, labels in (("a", x, wrong), ("b", test, y)):
        write_features(tmp_path / f"{name}.safetensors", FeatureBank(rows, labels, tuple("wxyz")))
    result = augforge("check", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--json", "--near", 0.9999)
    found = json.loads(result.out)
    assert result.code == 3
    assert found["counts"]["leak"] == 1
    labels = [one for one in found["findings"] if one["kind"] == "label"]
    assert [(one["file"], one["other"]) for one in labels] == [("a.safetensors/features[20]", "x")]
    assert "label" in augforge("check", tmp_path / "a.safetensors").out
