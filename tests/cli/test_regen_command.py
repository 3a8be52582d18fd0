"""`augforge regen`: the same bytes again from one row, or one sentence that says why not."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image


def _written(out, row) -> bytes:
    if row["file"].endswith(".tar"):
        with tarfile.open(out / row["file"]) as tar:
            return tar.extractfile(row["member"]).read()
    return (out / row["file"]).read_bytes()


@pytest.mark.parametrize(
    "how",
    [
        (),
        ("--encoding", "jpeg", "--quality", 70),
        ("--encoding", "webp"),
        ("--format", "webdataset"),
        ("--with", "noise", "--size", 12),
        ("--with", "copies", "--class", "dog"),
    ],
)
def test_rows_are_made_again_byte_for_byte(augforge, source, manifest_of, tmp_path, how):
    augforge("synth", source, "--out", tmp_path / "out", "--to", 9, "--include-real", "--seed", 4, *how)
    for number, row in enumerate(manifest_of(tmp_path / "out"), 1):
        assert augforge("regen", tmp_path / "out" / "manifest.jsonl", number, "--out", tmp_path / "again").code == 0
        assert (tmp_path / "again").read_bytes() == _written(tmp_path / "out", row)
    assert number >= 9


@pytest.mark.parametrize("sink", ["folder", "webdataset", "npz"])
def test_a_row_is_found_by_its_file(augforge, source, manifest_of, tmp_path, sink):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 9, "--format", sink)
    row = manifest_of(tmp_path / "out")[12]
    name = f"{row['file']}/{row['member']}" if row["member"] else row["file"]
    result = augforge("regen", tmp_path / "out" / "manifest.jsonl", name, "--out", tmp_path / "again", "--json").json()
    assert result == row | {"out": str(tmp_path / "again")}
    if sink == "npz":  # as a PNG file
        with np.load(tmp_path / "out" / "data.npz") as held, Image.open(tmp_path / "again") as again:
            np.testing.assert_array_equal(held["images"][12], np.asarray(again))
    else:
        assert (tmp_path / "again").read_bytes() == _written(tmp_path / "out", row)


def test_a_row_whose_parent_stood_in_is_made_again(augforge, source, manifest_of, tmp_path):
    (source / "cat" / "cat_1.png").write_bytes(b"torn")
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 9)
    for number, row in enumerate(manifest_of(tmp_path / "out"), 1):
        augforge("regen", tmp_path / "out" / "manifest.jsonl", number, "--out", tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == _written(tmp_path / "out", row)


def test_a_fitted_folder_is_used_again(augforge, source, manifest_of, tmp_path):
    augforge("fit", "classical", source, "--out", tmp_path / "part", "--set", "rotate=-3,3")
    augforge("synth", source, "--with", tmp_path / "part", "--out", tmp_path / "out", "--per-class", 2)
    row = manifest_of(tmp_path / "out")[1]
    augforge("regen", tmp_path / "out" / "manifest.jsonl", 2, "--out", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == _written(tmp_path / "out", row)


@pytest.fixture
def run(augforge, source, tmp_path):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 2)
    return tmp_path / "out" / "manifest.jsonl"


def _error(augforge, run, row=1) -> str:
    before = run.read_bytes()
    said = augforge("regen", run, row, "--out", run.parent.parent / "again").error()
    assert not (run.parent.parent / "again").exists()
    assert run.read_bytes() == before
    return said


def test_a_changed_parent_is_refused(augforge, source, run, picture_of):
    Image.fromarray(picture_of(77)).save(source / "cat" / "cat_0.png")
    assert "'cat/cat_0.png' has changed since the run" in _error(augforge, run)


def test_a_parent_that_is_gone_is_refused(augforge, source, run):
    (source / "cat" / "cat_0.png").unlink()
    assert "the parent 'cat/cat_0.png' is no longer in" in _error(augforge, run)


def test_a_torn_parent_is_refused(augforge, source, run):
    (source / "cat" / "cat_0.png").write_bytes(b"")
    assert "'cat/cat_0.png' is empty" in _error(augforge, run)


def test_a_class_or_a_source_that_is_gone_is_refused(augforge, source, run):
    (source / "cat").rename(source / "emu")
    assert "the class 'cat' is no longer in" in _error(augforge, run)
    source.rename(source.with_name("elsewhere"))
    assert "there is no file, folder or source" in _error(augforge, run)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (0, "has no row 0; it has rows 1 to 4"),
        (5, "has no row 5"),
        ("cat/cat_0-m0000.png", "the nearest is 'cat/cat_0-m00000.png'"),
    ],
)
def test_a_row_that_does_not_exist_is_refused(augforge, run, row, said):
    assert said in _error(augforge, run, row)


def test_a_missing_or_damaged_record_is_refused(augforge, run):
    record = (run.parent / "run.json").read_text()
    for text in (
        "[]",
        "{}",
        "{",
        record.replace('"seed"', '"seeed"'),
        record.replace('"order": {', '"order": {"x": 1,'),
    ):
        (run.parent / "run.json").write_text(text)
        assert "run.json" in _error(augforge, run)
    (run.parent / "run.json").unlink()
    assert "run.json" in _error(augforge, run)


def test_a_missing_or_damaged_manifest_is_refused(augforge, run, tmp_path):
    missing = augforge("regen", tmp_path / "no.jsonl", 1, "--out", tmp_path / "again")
    assert "cannot be read (No such file or directory)" in missing.error()
    for line in (b"{}\n", b"[1]\n", b"words\n", b"\xff\n", b'{"file": "a"}\n'):
        run.write_bytes(line)
        assert "line 1 of" in _error(augforge, run)


def test_other_settings_or_another_version_are_refused(augforge, run):
    line = run.read_text().splitlines()[0]
    row = json.loads(line)
    for change in ({"settings": "0" * 16}, {"version": "0.0.1"}):
        run.write_text(json.dumps(row | change) + "\n")
        assert "the row was made by classical" in _error(augforge, run)


def test_another_png_writer_is_refused(augforge, run):
    path = run.parent / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"png_writer": "another"}))
    assert "the run wrote PNG files with another" in _error(augforge, run)


def test_an_output_that_cannot_be_written_is_an_error(augforge, run, snapshot, tmp_path):
    (tmp_path / "there").mkdir()
    before = snapshot(tmp_path)
    for out in (tmp_path / "there", tmp_path / "no" / "again", run / "again"):
        assert "cannot be written" in augforge("regen", run, 1, "--out", out).error()
    assert snapshot(tmp_path) == before


def test_features_are_no_pictures(augforge, tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"features": torch.rand(6, 3), "labels": torch.tensor([0, 0, 0, 1, 1, 1])}, tmp_path / "b.safetensors")
    augforge("synth", tmp_path / "b.safetensors", "--with", "copies", "--per-class", 2, "--out", tmp_path / "out")
    assert "regen makes pictures" in _error(augforge, tmp_path / "out" / "manifest.jsonl")


def test_the_picture_opens(augforge, run, tmp_path):
    augforge("regen", run, 1, "--out", tmp_path / "again.png")
    with Image.open(io.BytesIO((tmp_path / "again.png").read_bytes())) as picture:
        assert picture.size == (24, 20)
