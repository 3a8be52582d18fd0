"""Sources with something wrong in them: skipped and named, or one sentence and exit code 2; nothing is harmed."""

import io
import os
import struct
import tarfile
import zipfile
import zlib

import pytest


def _bomb(side: int) -> bytes:
    """A PNG file of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def _cut(path, part=0.5):
    data = path.read_bytes()
    return data[: int(len(data) * part)]


@pytest.fixture
def spoil(source, folder_of, tmp_path):
    """Put a bad picture of some kind among the cats; its name."""
    jpeg = folder_of(tmp_path / "jpeg", {"x": 1}, (40, 40), ".jpg") / "x" / "x_0.jpg"

    def _spoil(kind: str) -> str:
        place = source / "cat" / f"bad.{'jpg' if kind == 'cut.jpg' else 'png'}"
        if kind == "dangling link":
            place.symlink_to(source / "nowhere.png")
        elif kind == "pipe":
            os.mkfifo(place)
        elif kind == "loop of files":
            place.symlink_to(place.name)
        else:
            content = {
                "cut.jpg": _cut(jpeg),
                "cut.png": _cut(source / "cat" / "cat_0.png"),
                "empty": b"",
                "text": b"no picture",
                "bomb": _bomb(50_000),
                "large": _bomb(20_000),
            }
            place.write_bytes(content[kind])
        return f"cat/{place.name}"

    return _spoil


@pytest.mark.parametrize(
    "kind", ["cut.jpg", "cut.png", "empty", "text", "bomb", "large", "dangling link", "pipe", "loop of files"]
)
def test_a_bad_picture_is_skipped_or_with_strict_an_error(
    augforge, source, spoil, manifest_of, snapshot, tmp_path, kind
):
    name = spoil(kind)
    before = snapshot(source)
    arguments = ("synth", source, "--per-class", 10)
    assert name in augforge(*arguments, "--out", tmp_path / "strict", "--strict").error()
    assert not (tmp_path / "strict").exists()
    result = augforge(*arguments, "--out", tmp_path / "out", "--json")
    found = result.json()
    assert [entry["file"] for entry in found["skipped"]] == [name]
    assert result.err.startswith(f"skipped {name!r}: ")
    assert found["made"] == len(manifest_of(tmp_path / "out")) == 20
    assert snapshot(source) == before


def test_a_loop_of_links_is_told_of(augforge, source, tmp_path):
    (source / "cat" / "inner").symlink_to(source)
    found = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 1, "--json").json()
    assert found["skipped"] == [{"file": "cat/inner", "reason": "is a link to a folder that it lies in"}]


def test_classes_that_differ_by_case_alone_are_refused(augforge, source, tmp_path):
    (source / "Cat").mkdir()
    said = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 1).error()
    assert "'Cat'" in said
    assert "'cat'" in said
    assert not (tmp_path / "out").exists()


def test_arrays_whose_classes_differ_by_case_alone_are_refused(augforge, tmp_path):
    import numpy as np

    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=[0, 1], classes=["a/B", "A/b"])
    assert "case" in augforge("synth", tmp_path / "a.npz", "--out", tmp_path / "out", "--per-class", 1).error()


def test_only_junk_is_refused(augforge, folder_of, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "junk.png").write_text("junk")
    said = augforge("synth", tmp_path / "source", "--out", tmp_path / "out", "--per-class", 1).error()
    assert said.startswith("class 'a' has no picture that can be read")
    for junk in (tmp_path / "source").glob("*/*"):
        junk.rename(junk.with_suffix(".txt"))
    assert "no picture" in augforge("synth", tmp_path / "source", "--out", tmp_path / "out", "--per-class", 1).error()
    assert not (tmp_path / "out").exists()


_OUTWARD = ("../evil/1.png", "/tmp/augforge-evil/1.png", "cat/../../evil/2.png", "..\\evil\\3.png")


def _archive(path, picture: bytes):
    names = ("cat/1.png", "dog/1.png", *_OUTWARD)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, picture)
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(picture)
                archive.addfile(member, io.BytesIO(picture))
            link = tarfile.TarInfo("cat/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return path


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_members_that_lead_out_of_an_archive_are_not_followed(augforge, source, snapshot, tmp_path, kind):
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = _archive(inner / f"a{kind}", (source / "cat" / "cat_0.png").read_bytes())
    before = snapshot(tmp_path)
    found = augforge("synth", archive, "--out", inner / "out", "--to", 4, "--include-real", "--json").json()
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("inner/out") for name in after.keys() - before.keys())
    assert not os.path.exists("/tmp/augforge-evil")
    assert {"../evil/1.png", "/tmp/augforge-evil/1.png"} <= {entry["file"] for entry in found["skipped"]}


@pytest.mark.parametrize("kind", [".zip", ".tar", ".npz", ".safetensors", ".tar.gz", ".txt", ""])
def test_a_source_that_is_something_else_is_refused(augforge, tmp_path, kind):
    (tmp_path / f"source{kind}").write_bytes(b"neither this nor that")
    said = augforge("synth", tmp_path / f"source{kind}", "--out", tmp_path / "out", "--per-class", 1).error()
    assert f"source{kind}" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut", [0.1, 0.3, 0.45])
@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_a_torn_archive_is_refused(augforge, source, tmp_path, kind, cut):
    archive = _archive(tmp_path / f"a{kind}", (source / "cat" / "cat_0.png").read_bytes())
    archive.write_bytes(_cut(archive, cut))
    said = augforge("synth", archive, "--out", tmp_path / "out", "--per-class", 1).error()
    assert "damaged" in said
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_there_is_refused(augforge, tmp_path):
    said = augforge("synth", tmp_path / "nowhere", "--out", tmp_path / "out", "--per-class", 1).error()
    assert "there is no file, folder or source" in said
    assert "'glyphs'" in augforge("synth", "glyph", "--out", tmp_path / "out", "--per-class", 1).error()


def test_a_source_without_class_folders_is_refused(augforge, source, tmp_path):
    said = augforge("synth", source / "cat", "--out", tmp_path / "out", "--per-class", 1).error()
    assert "no class folders" in said


def test_a_source_on_which_a_picture_is_torn_while_the_run_goes_on(augforge, source, monkeypatch, tmp_path):
    from augforge.data.banks import FilePictures
    from augforge.types import UnreadablePicture

    load, seen = FilePictures.load, set()

    def once(self, row):
        if row in seen:
            raise UnreadablePicture(self.name(row), "is torn")
        seen.add(row)
        return load(self, row)

    monkeypatch.setattr(FilePictures, "load", once)
    arguments = ("synth", source, "--out", tmp_path / "out", "--to", 9, "--workers", 1)
    said = augforge(*arguments, "--include-real").error()
    assert said == "the picture 'cat/cat_0.png' is torn"


def test_a_picture_too_large_for_its_encoding_is_refused(augforge, source, tmp_path):
    from PIL import Image

    Image.new("L", (17_000, 2)).save(source / "cat" / "cat_0.png")
    arguments = ("synth", source, "--out", tmp_path / "out", "--per-class", 4, "--encoding", "webp", "--with", "copies")
    assert augforge(*arguments).error() == "webp holds at most 16383 px a side; a picture has 17000x2"
