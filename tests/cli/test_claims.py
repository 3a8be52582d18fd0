"""What a run says that it has is there: files that went or changed are made again, sources that changed are named."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from augforge.data.banks import FeatureBank
from augforge.data.features import write_features

ORDER = ("--per-class", 100, "--workers", 1)  # 200 rows: four units of a folder


@pytest.fixture
def finished(augforge, source, tmp_path):
    """The arguments of a finished run, and its digests."""

    def _finished(*how):
        arguments = ("synth", source, "--out", tmp_path / "out", *ORDER, *how)
        assert augforge(*arguments).code == 0
        return arguments

    return _finished


def _growing(out, lines):
    """Make a finished folder one whose run goes on, with these lines of its manifest."""
    (out / "manifest.jsonl").unlink()
    (out / ".partial").mkdir()
    (out / ".partial" / "manifest.jsonl").write_bytes(b"".join(lines))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:10] + lines[11:],
        lambda lines: [*lines[:70], b"garbage\n", *lines[71:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [*lines[:5], b"\n", *lines[5:]],
        lambda lines: [*lines[:-1], lines[-1][:-7]],
        lambda lines: [*lines, lines[0]],
        lambda lines: lines[:64],
        lambda lines: [lines[0].replace(b'"cat/', b'"../'), *lines[1:]],
    ],
)
def test_damaged_lines_of_a_manifest_are_made_again(augforge, finished, snapshot, tmp_path, damage, whole):
    arguments, out = finished(), tmp_path / "out"
    before = snapshot(out)
    lines = damage((out / "manifest.jsonl").read_bytes().splitlines(keepends=True))
    if whole:
        (out / "manifest.jsonl").write_bytes(b"".join(lines))
    else:
        _growing(out, lines)
    assert augforge(*arguments, "--resume").code == 0
    assert snapshot(out) == before


@pytest.mark.parametrize("sink", ["folder", "webdataset", "npz"])
@pytest.mark.parametrize("verify", [False, True])
def test_made_files_that_are_gone_or_changed_are_made_again(augforge, finished, snapshot, tmp_path, sink, verify):
    arguments, out = finished("--format", sink), tmp_path / "out"
    before, option = snapshot(out), ("--verify",) if verify else ()
    made = sorted(
        path for path in out.rglob("*") if path.suffix in (".png", ".tar", ".npz") and "sheet" not in path.name
    )
    data = made[-1].read_bytes()
    changes = [None, data[: len(data) // 2], b""]
    if verify:
        place = len(data) // 2
        changes.append(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    for change in changes:
        made[-1].unlink() if change is None else made[-1].write_bytes(change)
        found = augforge(*arguments, "--resume", *option, "--json").json()
        assert (found["made"], found["repaired"]) == ((8, 8) if sink == "folder" else (200, 200))
        assert found["already"] + found["made"] == 200
        assert snapshot(out) == before
    assert augforge(*arguments, "--resume", *option, "--json").json()["already"] == 200


def test_a_run_whose_files_went_while_it_was_stopped(augforge, finished, snapshot, tmp_path):
    arguments, out = finished(), tmp_path / "out"
    before = snapshot(out)
    lines = (out / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    _growing(out, lines[:128])
    os.unlink(out / json.loads(lines[3])["file"])
    found = augforge(*arguments, "--resume", "--json").json()
    assert (found["already"], found["made"], found["repaired"]) == (64, 136, 64)
    assert snapshot(out) == before


@pytest.mark.parametrize("cut", [64, 128, 200])
@pytest.mark.parametrize("option", [(), ("--verify",)])
def test_a_replaced_source_picture_is_named(augforge, finished, source, picture_of, snapshot, tmp_path, cut, option):
    arguments, out = finished(), tmp_path / "out"
    lines = (out / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    if cut < len(lines):
        _growing(out, lines[:cut])
    Image.fromarray(picture_of(99)).save(source / "cat" / "cat_0.png")
    before = snapshot(out)
    said = augforge(*arguments, "--resume", *option).error()
    assert "the source picture 'cat/cat_0.png' is not what it was" in said
    assert "--overwrite" in said
    assert {k: v for k, v in snapshot(out).items() if "holder" not in k} == before
    assert augforge(*arguments, "--overwrite").code == 0


def test_a_source_with_the_same_size_and_time_is_found_by_verify(augforge, finished, source, tmp_path):
    arguments = finished()
    path = source / "cat" / "cat_1.png"
    was, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-5] + bytes([data[-5] ^ 255]) + data[-4:])
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert augforge(*arguments, "--resume").code == 0
    assert "cat_1.png" in augforge(*arguments, "--resume", "--verify").error()
    assert "--verify was given without --resume" in augforge(*arguments, "--verify").error()


def test_a_source_that_was_copied_or_touched_is_the_same(augforge, finished, source, snapshot, tmp_path):
    arguments, out = finished(), tmp_path / "out"
    before = snapshot(out)
    for path in source.glob("*/*"):
        os.utime(path, (1, 1))
    assert augforge(*arguments, "--resume", "--json").json()["already"] == 200
    assert snapshot(out) == before


def test_a_source_picture_that_changes_during_the_run_ends_it(augforge, source, picture_of, tmp_path, monkeypatch):
    from augforge.synth import run

    write, count = run.write_all, []

    def change(handle, data):
        write(handle, data)
        count.append(1)
        if len(count) == 1:  # cat_2 has rows in the first and in the second unit
            Image.fromarray(picture_of(99)).save(source / "cat" / "cat_2.png")

    monkeypatch.setattr(run, "write_all", change)
    said = augforge("synth", source, "--out", tmp_path / "out", *ORDER).error()
    assert "'cat/cat_2.png' is not what it was" in said


def test_features_that_went_are_made_again_and_their_source_is_compared(augforge, snapshot, tmp_path):
    import torch

    x, y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1, 1, 1])
    source, out = tmp_path / "rows.safetensors", tmp_path / "out"
    write_features(source, FeatureBank(x, y, ("a", "b")))
    arguments = ("synth", source, "--out", out, "--per-class", 5, "--with", "copies")
    assert augforge(*arguments).code == 0
    before, data = snapshot(out), (out / "features.safetensors").read_bytes()
    for damage in (None, data[:-9], data[:-1] + bytes([data[-1] ^ 1])):
        (out / "features.safetensors").unlink()
        if damage is not None:
            (out / "features.safetensors").write_bytes(damage)
        assert augforge(*arguments, "--resume", "--verify").code == 0
        assert snapshot(out) == before
    x[0, 0] += 1
    write_features(source, FeatureBank(x, y, ("a", "b")))
    assert "row 'features[0]' of the source is not what it was" in augforge(*arguments, "--resume").error()
    assert snapshot(out) == before


def test_overwrite_goes_by_the_manifest_and_not_by_names(augforge, finished, tmp_path):
    arguments, out = finished(), tmp_path / "out"
    mine = [out / "cat" / "my-best-m00001.png", out / "dog" / "x-r00000.jpg", out / "shard-000000.tar"]
    for path in mine:
        path.write_bytes(b"years of work")
    assert augforge(*arguments, "--overwrite").code == 0
    assert augforge(*arguments, "--resume").code == 0
    assert {path.read_bytes() for path in mine} == {b"years of work"}


def test_a_file_of_someone_else_is_not_replaced(augforge, finished, source, tmp_path):
    arguments, out = finished(), tmp_path / "out"
    mine = out / "cat" / "my-best-m00004.png"
    mine.write_bytes(b"years of work")
    shutil.move(source / "cat" / "cat_0.png", source / "cat" / "my-best.png")  # the last of 4: its rows are 3, 7, ...
    mine = mine.rename(out / "cat" / "my-best-m00003.png")
    assert "has 'cat/my-best-m00003.png', which this run would make" in augforge(*arguments, "--overwrite").error()
    assert mine.read_bytes() == b"years of work"
    mine.unlink()
    assert augforge(*arguments, "--resume").code == 0


def test_overwrite_after_a_kill_leaves_nothing_of_the_killed_run(augforge, finished, source, snapshot, tmp_path):
    arguments, out = finished(), tmp_path / "out"
    lines = (out / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    _growing(out, lines[:64])
    for unit in range(1, 4):  # killed when these units had their files and not their lines
        names = [json.loads(line)["file"] for line in lines[64 * unit : 64 * unit + 64]]
        (out / ".partial" / f"unit-{unit:06d}.names").write_text("".join(json.dumps(n) + "\n" for n in names) + '"cut')
    assert augforge(*arguments[:4], "--per-class", 2, "--overwrite").code == 0
    assert augforge(*arguments[:2], "--out", tmp_path / "fresh", "--per-class", 2).code == 0
    assert snapshot(out) == snapshot(tmp_path / "fresh")


def test_a_try_with_other_parents_leaves_no_orphan(augforge, source, snapshot, tmp_path):
    arguments = ("synth", source, "--out", tmp_path / "out", *ORDER)
    path = source / "cat" / "cat_3.png"
    data = path.read_bytes()
    path.write_bytes(b"torn")
    assert augforge(*arguments).code == 0
    lines = (tmp_path / "out" / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    _growing(tmp_path / "out", [])
    for unit in range(4):
        names = [json.loads(line)["file"] for line in lines[64 * unit : 64 * unit + 64]]
        (tmp_path / "out" / ".partial" / f"unit-{unit:06d}.names").write_text(
            "".join(json.dumps(n) + "\n" for n in names)
        )
    path.write_bytes(data)
    assert augforge(*arguments, "--resume").code == 0
    made = {json.loads(line)["file"] for line in (tmp_path / "out" / "manifest.jsonl").read_bytes().splitlines()}
    assert {name for name in snapshot(tmp_path / "out") if name.count("/")} == made


@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
@pytest.mark.parametrize("name", ["cat", ".partial", "notes", "manifest.jsonl"])
def test_links_inside_of_out_are_refused(augforge, finished, snapshot, tmp_path, name, option):
    arguments, out = finished(), tmp_path / "out"
    target = tmp_path / "elsewhere"
    if (out / name).exists():
        shutil.move(out / name, target)
    else:
        target.mkdir()
    (out / name).symlink_to(target)
    before = snapshot(tmp_path)
    said = augforge(*arguments, option).error()
    assert f"has {name!r}, a link to {str(target)!r}; expected a folder without links" in said
    assert snapshot(tmp_path) == before


def test_a_manifest_that_names_files_outside_of_out_removes_none(augforge, finished, snapshot, tmp_path):
    arguments, out = finished(), tmp_path / "out"
    (tmp_path / "mine.png").write_bytes(b"years of work")
    lines = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    row = json.loads(lines[0]) | {"file": "../mine.png"}
    for first in (json.dumps(row) + "\n", "garbage\n"):
        (out / "manifest.jsonl").write_text("".join([first, *lines[1:]]))
        before = snapshot(tmp_path)
        assert "line 1 of" in augforge(*arguments, "--overwrite").error()
        assert snapshot(tmp_path) == before


def test_joined_shards_have_all_their_files(augforge, source, tmp_path):
    for i in range(2):
        augforge("synth", source, "--out", tmp_path / f"machine{i}", *ORDER, "--shards", f"{i}/2")
    lost = next((tmp_path / "machine0" / "cat").iterdir())
    lost.unlink()
    shutil.copytree(tmp_path / "machine0", tmp_path / "machine1", dirs_exist_ok=True)
    arguments = ("synth", source, "--out", tmp_path / "machine1", *ORDER, "--resume", "--shards")
    assert "lines or files are missing or damaged" in augforge(*arguments, "1/2").error()
    assert augforge(*arguments, "0/2").code == 0
    assert lost.name in {path.name for path in (tmp_path / "machine1" / "cat").iterdir()}


def test_a_source_of_arrays_that_was_replaced_is_named(augforge, tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 10, 10, 3), dtype=np.uint8), np.repeat([0, 1], 4)
    np.savez(tmp_path / "source.npz", images=images, labels=labels)
    arguments = ("synth", tmp_path / "source.npz", "--out", tmp_path / "out", "--per-class", 5)
    assert augforge(*arguments).code == 0
    images[2] += 1
    np.savez(tmp_path / "source.npz", images=images, labels=labels)
    assert "'images[2]' is not what it was" in augforge(*arguments, "--resume").error()
