"""`synth` with nothing but SOURCE and a number, on folders of photographs: its defaults, and how files are coded."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

SUFFIXES = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}


@pytest.fixture
def photographs(folder_of, tmp_path):
    """Two classes of JPEG files of two sizes."""
    root = folder_of(tmp_path / "photographs", {"cat": 2}, (60, 44), ".jpg")
    return folder_of(root, {"dog": 2}, (48, 80), ".JPG")


@pytest.fixture
def mixed(folder_of, tmp_path):
    """A class each of JPEG, PNG, BMP and WebP."""
    for suffix in (".jpeg", ".png", ".bmp", ".webp"):
        folder_of(tmp_path / "mixed", {suffix[1:]: 2}, (40, 60), suffix)
    return tmp_path / "mixed"


def made_files(out):
    return sorted(path for path in out.glob("*/*") if path.is_file())


def record(out):
    return json.loads((out / "run.json").read_text())


def test_photographs_have_their_own_defaults_which_are_said_and_recorded(augforge, photographs, tmp_path):
    result = augforge("synth", photographs, "--per-class", 3, "--out", tmp_path / "out")
    assert result.code == 0
    assert result.err == "photographs: classical with preset=photographs, files are JPEG\n"
    assert record(tmp_path / "out")["pictures"] == "photographs"
    assert record(tmp_path / "out")["order"]["settings"] == {}  # as it was asked for
    settings = record(tmp_path / "out")["method"]["settings"]
    assert settings["padding"] == "reflect"
    assert [path.suffix for path in made_files(tmp_path / "out")] == [".jpg"] * 6
    again = augforge("synth", photographs, "--per-class", 3, "--out", tmp_path / "again", "--set",
                     "preset=photographs", "--encoding", "jpeg")  # fmt: skip
    assert again.err == ""
    for one, other in zip(made_files(tmp_path / "out"), made_files(tmp_path / "again"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_letters_have_the_ranges_of_letters(augforge, tmp_path):
    some = ("--class", "georgian-an", "--split", "test", "--per-class", 3)
    result = augforge("synth", "glyphs", *some, "--out", tmp_path / "out")
    assert result.err == "letters: classical with preset=handwriting, files are PNG\n"
    assert record(tmp_path / "out")["pictures"] == "letters"
    order = record(tmp_path / "out")["order"]
    assert (order["settings"], order["encoding"]) == ({}, "png")
    augforge("synth", "glyphs", *some, "--out", tmp_path / "again", "--set", "preset=handwriting", "--encoding", "png")
    for one, other in zip(made_files(tmp_path / "out"), made_files(tmp_path / "again"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_what_is_given_is_kept(augforge, photographs, tmp_path):
    given = ("--set", "preset=keras", "--set", "rotate=5")
    augforge("synth", photographs, "--per-class", 1, "--out", tmp_path / "a", *given)
    assert record(tmp_path / "a")["method"]["settings"]["padding"] == "edge"
    augforge("synth", photographs, "--per-class", 1, "--out", tmp_path / "b", *given[2:])
    settings = record(tmp_path / "b")["method"]["settings"]
    assert (settings["padding"], settings["rotate"]) == ("reflect", [-5.0, 5.0])


@pytest.mark.parametrize("sink", ["folder", "webdataset"])
def test_made_files_are_coded_as_their_parents_are(augforge, mixed, manifest_of, tmp_path, sink):
    out = tmp_path / "out"
    result = augforge("synth", mixed, "--per-class", 2, "--out", out, "--include-real", "--format", sink)
    assert result.err == "photographs: classical with preset=photographs, files are JPEG and PNG and WEBP\n"
    expected = {"jpeg": ".jpg", "png": ".png", "bmp": ".png", "webp": ".webp"}
    for row in manifest_of(out):
        suffix = expected[row["class"]]
        assert (row["member"] or row["file"]).endswith(suffix)
        if sink == "folder":
            data = (out / row["file"]).read_bytes()
        else:
            with tarfile.open(out / row["file"]) as tar:
                data = tar.extractfile(row["member"]).read()
        assert Image.open(io.BytesIO(data)).format == SUFFIXES[suffix]
        if row["method"] == "real" and suffix != ".png":
            assert data == (mixed / row["parent"]).read_bytes()  # coding it again would lose detail


def test_every_row_is_made_again_and_a_resumed_or_shared_run_has_the_same_files(
    augforge, mixed, manifest_of, snapshot, tmp_path
):
    arguments = ("synth", mixed, "--per-class", 20, "--include-real")
    augforge(*arguments, "--out", tmp_path / "out", "--workers", 1)
    for number, row in list(enumerate(manifest_of(tmp_path / "out"), 1))[::7]:
        assert augforge("regen", tmp_path / "out" / "manifest.jsonl", number, "--out", tmp_path / "again").code == 0
        assert (tmp_path / "again").read_bytes() == (tmp_path / "out" / row["file"]).read_bytes()
    for shard in ("1/2", "0/2"):
        assert augforge(*arguments, "--out", tmp_path / "shared", "--shards", shard).code == 0
    whole, shared = snapshot(tmp_path / "out"), snapshot(tmp_path / "shared")
    assert {name: whole[name] for name in whole if name != "run.json"} == {
        name: shared[name] for name in shared if name != "run.json"
    }
    resumed = augforge(*arguments, "--out", tmp_path / "out", "--resume", "--json").json()
    assert (resumed["made"], resumed["already"]) == (0, 88)


def test_an_encoding_that_is_given_is_that_of_all_files(augforge, mixed, tmp_path):
    augforge("synth", mixed, "--per-class", 1, "--include-real", "--encoding", "png", "--out", tmp_path / "out")
    assert {path.suffix for path in made_files(tmp_path / "out")} == {".png"}


def test_size_makes_the_real_ones_square_too(augforge, photographs, tmp_path):
    augforge("synth", photographs, "--per-class", 1, "--include-real", "--size", 32, "--out", tmp_path / "out")
    assert len(made_files(tmp_path / "out")) == 6
    for path in made_files(tmp_path / "out"):
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("JPEG", (32, 32))


def test_photographs_do_not_grow_by_being_coded_anew(augforge, tmp_path):
    """A hundred more of each of 17 flowers were 718 MB from 6 MB."""
    pytest.importorskip("skimage", reason="scikit-image, which carries the photographs, is not installed")
    few = ("--class", "coffee", "--class", "gravel", "--class", "rocket")
    augforge("synth", "scenes", *few, "--with", "nothing", "--include-real", "--per-class", 0, "--encoding", "jpeg",
             "--out", tmp_path / "source")  # fmt: skip
    real = np.mean([path.stat().st_size for path in made_files(tmp_path / "source")])
    guess = augforge("synth", tmp_path / "source", "--per-class", 40, "--out", tmp_path / "out", "--dry-run", "--json")
    made = augforge("synth", tmp_path / "source", "--per-class", 40, "--out", tmp_path / "out", "--json").json()
    assert made["bytes"] / made["made"] < 1.3 * real
    assert abs(guess.json()["bytes"] / made["bytes"] - 1) < 0.3


def test_splits_written_by_two_runs_are_one_source_without_a_word(augforge, photographs, tmp_path):
    for split in ("train", "test"):
        augforge("synth", photographs, "--with", "nothing", "--include-real", "--per-class", 0, "--out",
                 tmp_path / "whole" / split)  # fmt: skip
    result = augforge("synth", tmp_path / "whole", "--per-class", 1, "--out", tmp_path / "out")
    assert result.err == "photographs: classical with preset=photographs, files are JPEG\n"
    assert len(made_files(tmp_path / "out")) == 2
