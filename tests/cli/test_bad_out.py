"""Output folders that cannot or must not be written: one sentence, and what was there is as it was."""

import contextlib
import errno
import json
import os
import shutil
import subprocess

import pytest


@pytest.fixture
def order(source, tmp_path):
    return ("synth", source, "--per-class", 70, "--out", tmp_path / "out", "--workers", 1)


def test_an_output_inside_the_source_is_refused(augforge, source, snapshot):
    before = snapshot(source)
    (source.parent / "link").symlink_to(source)
    places = (source, source / "more", source / "cat", source / "a" / "b", source.parent / "link" / "x")
    for out in places:
        assert "lies inside the source" in augforge("synth", source, "--per-class", 1, "--out", out).error()
    assert snapshot(source) == before


def test_an_output_that_is_a_file_is_refused(augforge, source, zip_of, snapshot, tmp_path):
    archive = zip_of(source, tmp_path / "source.zip")
    before = snapshot(tmp_path)
    assert "is a file" in augforge("synth", archive, "--per-class", 1, "--out", archive).error()
    assert "cannot be written" in augforge("synth", archive, "--per-class", 1, "--out", archive / "x").error()
    assert snapshot(tmp_path) == before


def test_an_output_that_is_a_loop_of_links_is_refused(augforge, source, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert "loop" in augforge("synth", source, "--per-class", 1, "--out", tmp_path / "loop").error()


@pytest.mark.parametrize("option", [(), ("--resume",), ("--overwrite",)])
def test_a_folder_of_something_else_is_left_alone(augforge, order, snapshot, tmp_path, option):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    before = snapshot(tmp_path)
    assert "it has 'thesis.txt') and holds no run of augforge" in augforge(*order, *option).error()
    assert snapshot(tmp_path) == before


def test_an_empty_folder_and_one_that_is_not_there_are_made_use_of(augforge, source, snapshot, tmp_path):
    (tmp_path / "empty").mkdir()
    for out in ("empty", "not/there/yet"):
        assert augforge("synth", source, "--per-class", 2, "--out", tmp_path / out).code == 0
    assert snapshot(tmp_path / "empty") == snapshot(tmp_path / "not" / "there" / "yet")


def test_a_finished_run_is_left_alone(augforge, order, snapshot, tmp_path):
    augforge(*order)
    before = snapshot(tmp_path)
    assert "holds a run; --resume goes on with it, --overwrite replaces it" in augforge(*order).error()
    assert "at most one" in augforge(*order, "--resume", "--overwrite").error()
    assert "--overwrite and --shards" in augforge(*order, "--shards", "0/2", "--overwrite").error()
    assert snapshot(tmp_path) == before


def test_what_cannot_be_prepared_leaves_the_old_run_alone(augforge, order, source, snapshot, tmp_path):
    augforge(*order)
    before = snapshot(tmp_path)
    for wrong in (("--with", "clasical"), ("--class", "emu"), ("--set", "rotate=x"), ("--device", "tpu")):
        assert augforge(*order, "--overwrite", *wrong).code in (2, 4)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("sink", ["folder", "webdataset", "npz"])
def test_overwrite_removes_what_a_run_wrote_and_nothing_else(augforge, source, snapshot, tmp_path, sink):
    arguments = ("synth", source, "--format", sink)
    augforge(*arguments, "--per-class", 2, "--out", tmp_path / "fresh")
    augforge(*arguments, "--per-class", 9, "--out", tmp_path / "out", "--include-real")
    own = ["notes.txt", "other/data.png", *(["cat/my own.png"] if sink == "folder" else ["data.npz.bak"])]
    own += ["data.npz"] if sink != "npz" else ["shard-000000.tar"]
    for name in own:
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    (tmp_path / "out" / ".contact_sheet.png.123.partial").write_text("left by a killed run")
    assert augforge(*arguments, "--per-class", 2, "--out", tmp_path / "out", "--overwrite").code == 0
    found = snapshot(tmp_path / "out")
    assert all((tmp_path / "out" / name).read_text() == "mine" for name in own)
    for name in (*own, "other"):
        found.pop(name)
    assert found == snapshot(tmp_path / "fresh")


def test_overwrite_of_another_kind_of_run_leaves_none_of_it(augforge, source, snapshot, tmp_path):
    arguments = ("synth", source, "--out", tmp_path / "out", "--overwrite")
    kept = None
    for sink in ("folder", "webdataset", "npz", "folder"):
        assert augforge(*arguments, "--format", sink, "--per-class", 3).code == 0
        kept = kept or snapshot(tmp_path / "out")
    assert snapshot(tmp_path / "out") == kept


@pytest.mark.parametrize("record", ["[]", "{", "{}", '{"order": 1, "method": 2, "augforge": 3}'])
@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_a_damaged_record_is_refused(augforge, order, snapshot, tmp_path, record, option):
    augforge(*order)
    (tmp_path / "out" / "run.json").write_text(record)
    before = snapshot(tmp_path)
    assert augforge(*order, option).error()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("sink", "after"), [("folder", 0), ("folder", 3), ("folder", 90), ("webdataset", 0), ("npz", 0)]
)
def test_a_full_disk_is_one_sentence_and_the_run_goes_on(augforge, order, snapshot, monkeypatch, tmp_path, sink, after):
    order = (*order, "--format", sink)
    augforge(*order[:-4], "--workers", 1, "--format", sink, "--out", tmp_path / "whole")
    calls = []

    def full(handle, data, write=os.write):
        calls.append(handle)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        said = augforge(*order).error()
    assert said == f"{str(tmp_path / 'out')!r} cannot be written (No space left on device)"
    assert augforge(*order, "--resume").code == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("a small file system can only be mounted by root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("sink", ["folder", "webdataset", "npz"])
@pytest.mark.parametrize("spare", [0, 5_000, 60_000, 230_000])
def test_a_disk_that_is_full(augforge, source, snapshot, small_disk, tmp_path, sink, spare):
    arguments = ("synth", source, "--per-class", 60, "--format", sink, "--with", "copies")
    augforge(*arguments, "--out", tmp_path / "whole")
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - spare))
    assert "No space left on device" in augforge(*arguments, "--out", small_disk / "out").error()
    assert set(snapshot(small_disk / "out")) <= {*snapshot(tmp_path / "whole"), ".partial"} | {
        name for name in snapshot(small_disk / "out") if ".partial" in name
    }
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=3m", small_disk], check=True)
    assert augforge(*arguments, "--out", small_disk / "out", "--resume").code == 0
    assert snapshot(small_disk / "out") == snapshot(tmp_path / "whole")


def _as_nobody(function) -> int:
    """Call in a forked process without root's rights; its exit code."""
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            function()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def unprivileged(tmp_path):
    """Let nobody look into the folders above."""
    if os.geteuid():
        pytest.skip("only root can become nobody")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("test_", "pytest-", "popen-")):
            folder.chmod(0o755)


def test_an_output_without_the_right_to_write_is_one_sentence(augforge, order, unprivileged, snapshot, tmp_path):
    augforge(*order)
    (tmp_path / "closed").mkdir(mode=0o755)
    before = snapshot(tmp_path)
    (tmp_path / "said").touch()
    (tmp_path / "said").chmod(0o666)

    def attempt():
        said = []
        for out, option in (("new", ()), ("closed", ()), ("closed/in", ()), ("out", ("--overwrite",))):
            said.append(augforge(*order[:4], "--out", tmp_path / out, *option).error())
        assert augforge(*order, "--resume").code == 0  # nothing is left to do
        (tmp_path / "said").write_text(json.dumps(said))

    assert _as_nobody(attempt) == 0
    said = json.loads((tmp_path / "said").read_text())
    assert [sentence.rpartition("/")[2] for sentence in said] == [
        f"{name}' cannot be written (Permission denied)" for name in ("new", "closed", "in", "out")
    ]
    (tmp_path / "said").unlink()
    assert snapshot(tmp_path) == before


def test_a_picture_without_the_right_to_read_is_skipped(augforge, source, unprivileged, tmp_path):
    (source / "cat" / "cat_1.png").chmod(0o000)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    def attempt():
        arguments = ("synth", source, "--per-class", 8, "--out", tmp_path / "open" / "out", "--json")
        found = augforge(*arguments).json()
        assert found["skipped"] == [{"file": "cat/cat_1.png", "reason": "cannot be read (Permission denied)"}]
        assert found["made"] == 16
        source_closed = augforge("synth", "/root", "--per-class", 1, "--out", tmp_path / "open" / "x")
        assert "cannot be opened" in source_closed.error()

    assert _as_nobody(attempt) == 0
