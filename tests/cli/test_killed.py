"""Runs that are killed, interrupted or started twice lose nothing, double nothing and leave nothing behind."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

ORDER = ("--per-class", 500, "--size", 48)  # 1,000 rows in 16 units: about a second
_FORK = multiprocessing.get_context("fork")  # a copy of this process has torch imported already


@pytest.fixture(scope="module")
def whole(augforge, folder_of, snapshot, tmp_path_factory):
    """A source, the digests of an uninterrupted run on it, and the seconds that it took."""
    root = tmp_path_factory.mktemp("killed")
    source = folder_of(root / "source", {"cat": 30, "dog": 30}, (64, 64), ".jpg")
    start = time.perf_counter()
    assert augforge("synth", source, "--out", root / "out", *ORDER, "--workers", 2).code == 0
    return source, snapshot(root / "out"), time.perf_counter() - start


@pytest.fixture
def begin(augforge):
    """Start a run in a process of its own that is still running when the test looks."""
    started = []

    def _begin(*arguments):
        process = _FORK.Process(target=_exit_with, args=(augforge, arguments))
        process.start()
        started.append(process)
        return process

    yield _begin
    for process in started:
        process.kill()
        process.join()


def _exit_with(augforge, arguments):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(augforge(*arguments).code)


def _wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def _children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(status.parent.name))
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _check_whole(out: Path, expected: dict[str, str], snapshot, manifest_of) -> None:
    assert snapshot(out) == expected
    rows = manifest_of(out)
    assert len({row["file"] for row in rows}) == len(rows) == 1000
    for row in rows:
        with Image.open(out / row["file"]) as picture:
            assert picture.size == (48, 48)


def _growing(out: Path) -> Path:
    return out / ".partial" / "manifest.jsonl"


@pytest.mark.parametrize("seed", range(10))
def test_a_killed_run_goes_on(augforge, begin, whole, snapshot, manifest_of, tmp_path, seed):
    source, expected, seconds = whole
    delay = random.Random(seed).uniform(0, seconds)
    print(f"seed {seed}: killed {delay:.3f} s after the manifest began")
    arguments = ("synth", source, "--out", tmp_path / "out", *ORDER, "--workers", 2)
    process = begin(*arguments)
    _wait_for(lambda: _growing(tmp_path / "out").exists() or not process.is_alive())
    time.sleep(delay)
    process.kill()
    process.join()
    result = augforge(*arguments, "--resume", "--json").json()
    assert result["made"] + result["already"] == 1000
    _check_whole(tmp_path / "out", expected, snapshot, manifest_of)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06])
def test_a_run_killed_at_its_start_goes_on(augforge, begin, whole, snapshot, manifest_of, tmp_path, delay):
    source, expected, _ = whole
    arguments = ("synth", source, "--out", tmp_path / "out", *ORDER, "--workers", 2)
    process = begin(*arguments)
    time.sleep(delay)
    process.kill()
    process.join()
    assert augforge(*arguments, "--resume").code == 0
    _check_whole(tmp_path / "out", expected, snapshot, manifest_of)


@pytest.mark.parametrize(
    "step",
    ["augforge.synth.run.draw_sheet", "augforge.synth.run_folder._tidy", "os.replace"],
)
def test_a_run_killed_between_its_last_or_first_steps_goes_on(
    augforge, begin, source, snapshot, tmp_path, monkeypatch, step
):
    order = ("--per-class", 20)
    augforge("synth", source, "--out", tmp_path / "whole", *order)
    arguments = ("synth", source, "--out", tmp_path / "out", *order, "--workers", 1)
    with monkeypatch.context() as patched:
        patched.setattr(step, lambda *given: os.kill(os.getpid(), signal.SIGKILL))
        process = begin(*arguments)
        process.join()
    assert process.exitcode == -signal.SIGKILL
    result = augforge(*arguments, "--resume", "--json").json()
    assert result["already"] == (0 if step.endswith("replace") else 40)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


@pytest.mark.parametrize("sink", ["webdataset", "npz"])
def test_a_killed_run_into_one_file_goes_on(augforge, begin, whole, snapshot, tmp_path, sink):
    source = whole[0]
    order = ("--per-class", 1500, "--size", 48, "--format", sink, "--with", "copies")
    augforge("synth", source, "--out", tmp_path / "whole", *order)
    arguments = ("synth", source, "--out", tmp_path / "out", *order, "--workers", 2)
    process = begin(*arguments)
    _wait_for(lambda: _growing(tmp_path / "out").exists() and _growing(tmp_path / "out").stat().st_size)
    process.kill()
    process.join()
    assert augforge(*arguments, "--resume", "--json").json()["already"] > 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_workers_die_with_their_parent(begin, whole, tmp_path):
    process = begin("synth", whole[0], "--out", tmp_path / "out", *ORDER, "--workers", 2)
    _wait_for(lambda: len(_children(process.pid)) == 2)
    workers = _children(process.pid)
    process.kill()
    process.join()
    _wait_for(lambda: not any(map(_alive, workers)))


def test_ctrl_c_gives_130_and_the_run_can_go_on(augforge, whole, snapshot, manifest_of, tmp_path):
    source, expected, _ = whole
    arguments = ("synth", source, "--out", tmp_path / "out", *ORDER, "--workers", 2, "--batch-size", 1)
    command = [sys.executable, "-m", "augforge.cli.main", *map(str, arguments)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path,
        # what a shell started with & ignores SIGINT, and so would this process if these tests were
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    with contextlib.ExitStack() as started:
        started.callback(process.kill)
        _wait_for(lambda: _growing(tmp_path / "out").exists() and _growing(tmp_path / "out").stat().st_size, 30)
        started.pop_all()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.split("\n")[-2] == "augforge: interrupted; the same command with --resume goes on"
    assert "Traceback" not in said
    assert augforge(*arguments, "--resume").code == 0
    _check_whole(tmp_path / "out", expected, snapshot, manifest_of)


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_two_runs_at_once_are_refused(augforge, begin, whole, snapshot, manifest_of, tmp_path, option):
    source, expected, _ = whole
    arguments = ("synth", source, "--out", tmp_path / "out", *ORDER, "--workers", 1)
    process = begin(*arguments)
    _wait_for(lambda: _growing(tmp_path / "out").exists() and _growing(tmp_path / "out").stat().st_size)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        said = augforge(*arguments, option).error()
        assert f"is being written by another augforge: process {process.pid}, since 20" in said
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.join()
    assert process.exitcode == 0
    _check_whole(tmp_path / "out", expected, snapshot, manifest_of)


def test_a_lock_of_a_run_that_is_dying_is_waited_for(augforge, begin, whole, snapshot, manifest_of, tmp_path):
    source, expected, _ = whole
    arguments = ("synth", source, "--out", tmp_path / "out", *ORDER, "--workers", 2)
    process = begin(*arguments)
    _wait_for(lambda: _growing(tmp_path / "out").exists() and _growing(tmp_path / "out").stat().st_size)
    process.kill()
    process.join()
    with open(_growing(tmp_path / "out"), "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        threading.Timer(1.0, held.close).start()
        assert augforge(*arguments, "--resume").code == 0
        assert held.closed
    _check_whole(tmp_path / "out", expected, snapshot, manifest_of)


def test_shards_that_run_at_once_finish_together(augforge, begin, whole, snapshot, manifest_of, tmp_path):
    source, expected, _ = whole
    arguments = ("synth", source, "--out", tmp_path / "out", *ORDER, "--workers", 1)
    processes = [begin(*arguments, "--shards", f"{i}/4") for i in range(4)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    _check_whole(tmp_path / "out", expected, snapshot, manifest_of)


def test_a_half_written_line_is_cut_off(augforge, source, snapshot, tmp_path):
    arguments = ("synth", source, "--out", tmp_path / "out", "--per-class", 70)
    augforge(*arguments)
    expected = snapshot(tmp_path / "out")
    lines = (tmp_path / "out" / "manifest.jsonl").read_bytes()
    (tmp_path / "out" / "manifest.jsonl").unlink()
    for cut in (0, 1, lines.index(b"\n") + 1, len(lines) // 2, len(lines) - 1, len(lines)):
        (tmp_path / "out" / ".partial").mkdir()
        _growing(tmp_path / "out").write_bytes(lines[:cut])
        augforge(*arguments, "--resume")
        assert snapshot(tmp_path / "out") == expected
        (tmp_path / "out" / "manifest.jsonl").unlink()


def test_resuming_a_finished_run_does_nothing(augforge, source, snapshot, tmp_path):
    arguments = ("synth", source, "--out", tmp_path / "out", "--per-class", 9)
    augforge(*arguments)
    before = snapshot(tmp_path / "out")
    changed = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    result = augforge(*arguments, "--resume", "--json").json()
    assert (result["made"], result["already"], result["finished"]) == (0, 18, True)
    assert snapshot(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == changed


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("--per-class", 8), "its per_class is 9, and 8 was asked for"),
        (("--per-class", 9, "--seed", 1), "its seed is 0, and 1 was asked for"),
        (("--per-class", 9, "--with", "copies"), 'its method is "classical", and "copies" was asked for'),
        (("--per-class", 9, "--size", 8), "its size is null, and 8 was asked for"),
        (("--per-class", 9, "--set", "rotate=1,2"), 'its settings is {}, and {"rotate": "1,2"} was asked for'),
        (("--per-class", 9, "--class", "cat"), 'its classes is [], and ["cat"] was asked for'),
    ],
)
def test_another_order_is_refused_naming_what_differs(augforge, source, snapshot, tmp_path, given, named):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 9)
    before = snapshot(tmp_path / "out")
    result = augforge("synth", source, "--out", tmp_path / "out", *given, "--resume")
    assert named in result.error()
    assert snapshot(tmp_path / "out") == before


def test_a_source_that_gained_a_picture_is_another(augforge, source, picture_of, tmp_path):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 9)
    Image.fromarray(picture_of(99)).save(source / "cat" / "more.png")
    result = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 9, "--resume")
    assert "count is 7, and 8 was asked for" in result.error()


def test_run_json_says_what_was_resolved(augforge, source, tmp_path):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 2, "--set", "rotate=-5,5")
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["order"]["source"] == str(source)
    assert run["method"]["name"] == "classical"
    assert run["method"]["settings"]["rotate"] == [-5.0, 5.0]
    assert run["classes"] == [{"name": "cat", "real": 4, "make": 2}, {"name": "dog", "real": 3, "make": 2}]
    assert {"python", "torch", "numpy"} <= run["versions"].keys()
    assert {"processor", "cores"} <= run["machine"].keys()
