"""What the sinks hold, read back by Pillow, numpy, webdataset, torchvision and Hugging Face's datasets."""

import hashlib
import itertools
import json
import tarfile

import numpy as np
import pytest
from PIL import Image


def _pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def _by_parent(rows, source):
    return [(row, _pixels(source / row["parent"])) for row in rows]


@pytest.mark.parametrize(("encoding", "quality"), [("png", 1), ("webp", 100), ("webp", 90), ("jpeg", 100)])
def test_copies_are_their_parents(augforge, source, manifest_of, tmp_path, encoding, quality):
    how = ("--with", "copies", "--encoding", encoding, "--quality", quality)
    assert augforge("synth", source, "--out", tmp_path / "out", "--per-class", 6, *how).code == 0
    rows = manifest_of(tmp_path / "out")
    assert len(rows) == 12
    for row, parent in _by_parent(rows, source):
        made = _pixels(tmp_path / "out" / row["file"])
        if encoding == "png" or (encoding, quality) == ("webp", 100):
            np.testing.assert_array_equal(made, parent)
        else:
            assert np.abs(made.astype(int) - parent).mean() < 15


def test_manifest_rows_are_complete_and_true(augforge, source, manifest_of, tmp_path):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 6, "--include-real", "--seed", 5)
    rows = manifest_of(tmp_path / "out")
    for row in rows:
        assert set(row) == {"file", "member", "class", "method", "settings", "parent", "parent_sha256", "seed",
                            "index", "version", "bytes", "sha256"}  # fmt: skip
        assert row["file"].startswith(row["class"] + "/")
        assert row["parent"].startswith(row["class"] + "/")
        assert row["parent_sha256"] == hashlib.sha256((source / row["parent"]).read_bytes()).hexdigest()
        assert row["seed"] == 5
        made = (tmp_path / "out" / row["file"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(made), hashlib.sha256(made).hexdigest())
    made = {row["settings"] for row in rows if row["method"] == "classical"}
    assert made == {json.loads((tmp_path / "out" / "run.json").read_text())["method"]["digest"]}
    assert sorted(row["index"] for row in rows if row["method"] == "classical") == sorted([*range(6)] * 2)
    on_disk = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").glob("*/*")}
    assert {row["file"] for row in rows} == on_disk


def test_real_pictures_are_included_as_they_are(augforge, source, manifest_of, tmp_path):
    augforge("synth", source, "--out", tmp_path / "out", "--to", 9, "--include-real")
    real = [row for row in manifest_of(tmp_path / "out") if row["method"] == "real"]
    assert {row["parent"] for row in real} == {str(p.relative_to(source)) for p in source.glob("*/*")}
    for row, parent in _by_parent(real, source):
        np.testing.assert_array_equal(_pixels(tmp_path / "out" / row["file"]), parent)


def test_size_makes_every_picture_square(augforge, folder_of, manifest_of, tmp_path):
    source = folder_of(folder_of(tmp_path / "s", {"cat": 2}, (10, 31)), {"dog": 2}, (40, 17))
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 3, "--size", 16, "--include-real")
    rows = manifest_of(tmp_path / "out")
    assert {_pixels(tmp_path / "out" / row["file"]).shape for row in rows} == {(16, 16, 3)}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_webdataset_reads_the_shards(augforge, source, manifest_of, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    how = ("--per-class", 700, "--include-real", "--format", "webdataset", "--with", "copies", "--workers", 2)
    assert augforge("synth", source, "--out", tmp_path / "out", *how).code == 0
    rows = manifest_of(tmp_path / "out")
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    assert [shard[-16:] for shard in shards] == ["shard-000000.tar", "shard-000001.tar"]
    read = list(
        webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
        .decode("rgb8")
        .to_tuple("__key__", "png", "cls", "json")
    )
    assert len(read) == len(rows) == 1407
    assert sorted(row["member"] for row in rows) == [f"{i:09d}.png" for i in range(1407)]
    by_member = {row["member"]: row for row in rows}
    for key, picture, label, facts in read:
        row = by_member[f"{key}.png"]
        assert facts == {name: row[name] for name in ("class", "method", "parent", "index", "seed")}
        assert (tmp_path / "out" / "classes.txt").read_text().splitlines()[label] == row["class"]
        np.testing.assert_array_equal(picture, _pixels(source / row["parent"]))


def test_every_shard_has_all_classes_in_a_mixed_order(augforge, folder_of, manifest_of, tmp_path):
    source = folder_of(tmp_path / "s", {f"c{i}": 2 for i in range(5)}, (8, 8))
    how = ("--per-class", 600, "--format", "webdataset", "--with", "copies")
    assert augforge("synth", source, "--out", tmp_path / "out", *how).code == 0
    rows = manifest_of(tmp_path / "out")
    for i in range(3):
        inside = [row["class"] for row in rows if row["file"] == f"shard-{i:06d}.tar"]
        assert len(inside) == 1000
        assert all(150 < inside.count(f"c{c}") < 250 for c in range(5))
        with tarfile.open(tmp_path / "out" / f"shard-{i:06d}.tar") as tar:
            labels = [tar.extractfile(m).read() for m in tar if m.name.endswith(".cls")]
        same = sum(a == b for a, b in itertools.pairwise(labels))
        assert 150 < same < 250  # of 999 neighbours, as where classes are dealt at random


def test_an_npz_holds_images_labels_and_classes(augforge, source, manifest_of, tmp_path):
    how = ("--per-class", 150, "--include-real", "--format", "npz", "--with", "copies")
    assert augforge("synth", source, "--out", tmp_path / "out", *how).code == 0
    rows = manifest_of(tmp_path / "out")
    with np.load(tmp_path / "out" / "data.npz", allow_pickle=False) as held:
        assert held["classes"].tolist() == ["cat", "dog"]
        assert held["images"].shape == (307, 20, 24, 3)
        for i, row in enumerate(rows):
            assert row["member"] == f"images[{i}]"
            assert held["classes"][held["labels"][i]] == row["class"]
            np.testing.assert_array_equal(held["images"][i], _pixels(source / row["parent"]))
    again = augforge("synth", tmp_path / "out" / "data.npz", "--out", tmp_path / "more", "--per-class", 2, "--json")
    assert again.json()["made"] == 4


def test_grey_becomes_colour_beside_colour(augforge, source, picture_of, tmp_path):
    grey = picture_of(50, channels=1)[:, :, 0]
    Image.fromarray(grey).save(source / "cat" / "grey.png")
    how = ("--per-class", 1, "--include-real", "--format", "npz")
    augforge("synth", source, "--out", tmp_path / "out", *how)
    with np.load(tmp_path / "out" / "data.npz") as held:
        assert held["images"].shape == (10, 20, 24, 3)
        assert (held["images"] == grey[:, :, None]).all(axis=(1, 2, 3)).any()
    augforge("synth", source, "--out", tmp_path / "folder", "--per-class", 5)
    made = {_pixels(path).shape for path in (tmp_path / "folder" / "cat").iterdir()}
    assert made == {(20, 24), (20, 24, 3)}


def test_an_npz_of_grey_pictures_has_one_channel(augforge, source, picture_of, tmp_path):
    for i, path in enumerate(source.glob("*/*")):
        Image.fromarray(picture_of(i, channels=1)[:, :, 0]).save(path)
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 1, "--format", "npz")
    with np.load(tmp_path / "out" / "data.npz") as held:
        assert held["images"].shape == (2, 20, 24, 1)


def test_an_npz_of_several_sizes_is_refused(augforge, source, folder_of, tmp_path):
    folder_of(source, {"emu": 2}, (8, 9))
    arguments = ("synth", source, "--out", tmp_path / "out", "--per-class", 1, "--format", "npz")
    assert "9x8 and 24x20; --size PX" in augforge(*arguments).error()
    assert augforge(*arguments, "--size", 8).code == 0


def test_an_npz_of_nothing_is_an_npz(augforge, source, tmp_path):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 0, "--format", "npz")
    with np.load(tmp_path / "out" / "data.npz") as held:
        assert (len(held["images"]), len(held["labels"]), len(held["classes"])) == (0, 0, 2)


def test_torchvision_opens_the_output(augforge, source, tmp_path):
    from torchvision.datasets import ImageFolder

    augforge("synth", source, "--out", tmp_path / "out", "--to", 8, "--include-real")
    opened = ImageFolder(tmp_path / "out")
    assert opened.classes == ["cat", "dog"]
    assert np.bincount(opened.targets).tolist() == [8, 8]
    assert opened[0][0].size == (24, 20)


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def load(**where):
        return datasets.load_dataset("imagefolder", cache_dir=str(tmp_path / "hf"), split="train", **where)

    return load


def test_hugging_face_opens_the_class_folders(augforge, source, tmp_path, hugging_face):
    augforge("synth", source, "--out", tmp_path / "out", "--to", 8, "--include-real")
    opened = hugging_face(data_files=str(tmp_path / "out" / "*" / "*.png"))
    assert opened.features["label"].names == ["cat", "dog"]
    assert np.bincount(opened["label"]).tolist() == [8, 8]


def test_hugging_face_opens_the_output_as_it_is(augforge, source, tmp_path, hugging_face):
    augforge("synth", source, "--out", tmp_path / "out", "--to", 8, "--include-real")
    opened = hugging_face(data_dir=str(tmp_path / "out"))
    assert opened.features["label"].names == ["cat", "dog"]
    assert np.bincount(opened["label"]).tolist() == [8, 8]


@pytest.mark.parametrize("sink", ["folder", "webdataset", "npz"])
@pytest.mark.parametrize("method", ["classical", "copies"])
def test_a_dry_run_writes_nothing_and_knows_the_size(augforge, folder_of, snapshot, tmp_path, sink, method):
    source = folder_of(folder_of(tmp_path / "source", {"cat": 9}, (40, 60)), {"dog": 9}, (40, 60))
    arguments = ("synth", source, "--per-class", 80, "--format", sink, "--with", method, "--json")
    before = snapshot(tmp_path)
    guess = augforge(*arguments, "--out", tmp_path / "out", "--dry-run").json()
    assert snapshot(tmp_path) == before
    assert guess["dry_run"]
    found = augforge(*arguments, "--out", tmp_path / "out").json()
    assert guess["made"] == found["made"] == 160
    assert abs(guess["bytes"] / found["bytes"] - 1) < 0.3


@pytest.mark.parametrize("sink", ["folder", "webdataset"])
def test_a_dry_run_knows_the_size_of_a_mixed_source(augforge, folder_of, tmp_path, sink):
    for i in range(10):
        folder_of(tmp_path / "source", {f"c{i}": 3}, (4 + i * i * 2, 4 + i * i * 2))
    arguments = ("synth", tmp_path / "source", "--per-class", 60, "--format", sink, "--json")
    guess = augforge(*arguments, "--out", tmp_path / "out", "--dry-run").json()
    found = augforge(*arguments, "--out", tmp_path / "out").json()
    assert abs(guess["bytes"] / found["bytes"] - 1) < 0.3


def test_the_webp_and_jpeg_files_are_what_they_are_called(augforge, source, tmp_path):
    for encoding, suffix, kind in (("webp", ".webp", "WEBP"), ("jpeg", ".jpg", "JPEG")):
        out = tmp_path / encoding
        augforge("synth", source, "--out", out, "--per-class", 1, "--encoding", encoding)
        files = [path for path in out.glob("*/*") if path.is_file()]
        assert [path.suffix for path in files] == [suffix] * 2
        for path in files:
            with Image.open(path) as picture:
                assert picture.format == kind
