"""Class and file names with whatever a file system allows: the output opens, and the manifest is right."""

import json
import os
import zipfile

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

ODD = [
    "two words", " leading space", "trailing dot.", "-dash", "--with", "quote'd", 'double "quoted"', "new\nline",
    "tab\there", "emoji 🐈", "naïve", "中文", "100%", "%41", "%2Fx", "back\\slash", "$HOME", "*", "a;b|c&d", "a" * 200,
    "猫" * 60, "manifest.jsonl", "run.json", "contact_sheet.png", "data.npz", os.fsdecode(b"caf\xe9"),
    os.fsdecode(b"\xff\xfe"), "train", "x-m00001.png",
]  # fmt: skip


def _make(root, names, picture_of):
    for i, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for j, stem in enumerate((name[:60], "-rf", "🐈 \n'x'", os.fsdecode(b"\xe9"))):
            Image.fromarray(picture_of(10 * i + j)).save(root / name / f"{stem}.png")
    return root


def test_odd_class_and_file_names(augforge, picture_of, manifest_of, tmp_path):
    source = _make(tmp_path / "source", ODD, picture_of)
    how = ("--per-class", 5, "--include-real", "--with", "copies", "--json")
    found = augforge("synth", source, "--out", tmp_path / "out", *how).json()
    assert found["made"] == 5 * len(ODD)
    assert found["skipped"] == []
    rows = manifest_of(tmp_path / "out")
    assert {row["class"] for row in rows} == set(ODD)
    for row in rows:
        with Image.open(tmp_path / "out" / row["file"]) as made, Image.open(source / row["parent"]) as parent:
            np.testing.assert_array_equal(np.asarray(made), np.asarray(parent))
        assert os.path.dirname(row["parent"]) == row["class"]
    opened = ImageFolder(tmp_path / "out")
    assert np.bincount(opened.targets).tolist() == [9] * len(ODD)
    assert {os.path.relpath(path, tmp_path / "out") for path, _ in opened.samples} == {row["file"] for row in rows}
    assert (tmp_path / "out" / ".contact_sheet.png").exists()


@pytest.mark.parametrize("name", ODD)
def test_a_row_of_an_odd_name_is_made_again(augforge, picture_of, manifest_of, tmp_path, name):
    source = _make(tmp_path / "source", [name, "other"], picture_of)
    arguments = ("synth", source, "--out", tmp_path / "out", "--per-class", 2)
    assert augforge(*arguments, "--class", name).code == 0
    row = manifest_of(tmp_path / "out")[1]
    for which in (2, row["file"]):
        reply = augforge("regen", "--out", tmp_path / "again.png", "--", tmp_path / "out" / "manifest.jsonl", which)
        assert reply.code == 0, reply.err
        assert reply.out.count("\n") == 1
        assert (tmp_path / "again.png").read_bytes() == (tmp_path / "out" / row["file"]).read_bytes()
    assert augforge(*arguments, "--class", name, "--resume").code == 0
    assert augforge(*arguments, "--class", name, "--overwrite").code == 0
    assert not [path for path in (tmp_path / "out" / row["file"]).parent.glob("*") if not path.is_file()]


@pytest.mark.parametrize("name", ["new\nline", os.fsdecode(b"\xff"), 'q"uote'])
def test_odd_paths_of_source_and_output(augforge, source, name, tmp_path):
    source.rename(tmp_path / f"source{name}")
    arguments = ("synth", tmp_path / f"source{name}", "--out", tmp_path / f"out{name}", "--per-class", 1)
    assert augforge(*arguments).code == 0
    augforge(*arguments).error()
    assert augforge(*arguments, "--resume", "--json").json()["out"] == str(tmp_path / f"out{name}")
    record = json.loads((tmp_path / f"out{name}" / "run.json").read_text())
    assert record["order"]["source"] == str(tmp_path / f"source{name}")
    (tmp_path / f"source{name}" / "cat" / f"{name}.png").write_bytes(b"junk")
    said = augforge(*arguments[:3], tmp_path / "strict", *arguments[-2:], "--strict").error()
    assert repr(f"cat/{name}.png") in said


def test_names_of_classes_in_arrays_may_be_paths(augforge, picture_of, manifest_of, snapshot, tmp_path):
    names = ["..", ".", "/etc/passwd", "a/b", "a%2Fb", "../../x", ".hidden", "nul\x00l", ""]
    images = np.stack([picture_of(i) for i in range(len(names))])
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(len(names)), classes=np.array(names))
    before = snapshot(tmp_path)
    result = augforge("synth", tmp_path / "a.npz", "--out", tmp_path / "out", "--per-class", 2, "--with", "copies")
    if result.code == 2:
        assert "a.npz" in result.error()
        return
    after = snapshot(tmp_path)
    assert all(name.startswith("out") for name in after.keys() - before.keys())
    rows = manifest_of(tmp_path / "out")
    assert len({os.path.dirname(row["file"]) for row in rows}) == len(names)
    assert len(ImageFolder(tmp_path / "out").classes) == len(names)


def test_names_that_are_the_same_but_for_their_folder_or_suffix_do_not_collide(
    augforge, picture_of, manifest_of, tmp_path
):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i, name in enumerate(("x/a.png", "x/a.PNG", "x/deep/a.png", "x/deep/deeper/a.png", "y/a.png", "x/a.b.png")):
            Image.fromarray(picture_of(i)).save(tmp_path / "p.png")
            archive.write(tmp_path / "p.png", name)
    augforge("synth", tmp_path / "a.zip", "--out", tmp_path / "out", "--to", 12, "--include-real")
    rows = manifest_of(tmp_path / "out")
    assert len({row["file"].casefold() for row in rows}) == len(rows) == 24
    assert all((tmp_path / "out" / row["file"]).exists() for row in rows)
