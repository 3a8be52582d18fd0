"""Folders as people have them, at the command line: splits are found, and what is left out is said on stderr."""

import json
import shutil

import pytest


@pytest.fixture
def messy(tmp_path, folder_of):
    root = tmp_path / "messy"
    for split in ("Training", "test_set"):
        folder_of(root / split, {"cat": 3, "dog": 3}, suffix=".jfif")
    folder_of(root, {"sample_images": 2})
    (root / "annotations").mkdir()
    (root / "Training" / "cat" / "@eaDir").mkdir()
    shutil.copy(root / "Training" / "cat" / "cat_0.jfif", root / "Training" / "cat" / "@eaDir" / "thumb.jfif")
    (root / "Training" / "cat" / "cat_0.xml").write_text("<a/>")
    return root


def test_test_pictures_are_not_expanded(augforge, messy, tmp_path, manifest_of):
    result = augforge("synth", messy, "--per-class", 3, "--out", tmp_path / "out", "--json")
    assert result.json()["per_class"] == {"cat": 3, "dog": 3}
    assert {row["parent"].split("/")[0] for row in manifest_of(tmp_path / "out")} == {"Training"}
    assert result.err.splitlines() == [
        f"note: {str(messy)!r}: folders are left out, without pictures of a class: 'annotations'; beside the splits: "
        "'sample_images'",
        f"note: {str(messy)!r}: 1 file is not read (1 .xml)",
        "photographs: classical with preset=photographs, files are JPEG",
    ]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["rows"]["count"] == 6


@pytest.mark.parametrize("folders", [("train", "cats"), ("Test", "Train", "cats")])
def test_what_may_be_a_split_or_a_class_is_refused(augforge, folder_of, tmp_path, folders):
    for name in folders[:-1]:
        folder_of(tmp_path / "source" / name, {"steam": 1, "diesel": 1} if len(folders) == 2 else {})
    for name in folders if len(folders) > 2 else folders[1:]:
        folder_of(tmp_path / "source", {name: 2})
    said = augforge("synth", tmp_path / "source", "--per-class", 1, "--out", tmp_path / "out").error()
    assert "root/{train,val,test}/class/picture" in said
    assert not (tmp_path / "out").exists()


def test_a_source_without_the_usual_split_says_which_there_are(augforge, folder_of, tmp_path):
    for split in ("valid", "test"):
        folder_of(tmp_path / "source" / split)
    arguments = ("synth", tmp_path / "source", "--per-class", 1, "--out", tmp_path / "out")
    assert augforge(*arguments).error() == (
        f"{str(tmp_path / 'source')!r} has the splits 'val', 'test'; expected --split with one of them"
    )
    assert augforge(*arguments, "--split", "val").code == 0
