"""What a machine lacks: one sentence, the right exit code, and no traceback."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from augforge.cli.main import of_machine

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(*words, stdout=subprocess.PIPE, limit=None, **more):
    """A command in a process of its own, with a limit (resource, number) where one is given."""
    before = None if limit is None else lambda: resource.setrlimit(limit[0], (limit[1], limit[1]))
    return subprocess.run([sys.executable, "-m", "augforge.cli.main", *map(str, words)], stdout=stdout,
                          stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=before, **more)  # fmt: skip


def one_sentence(done, code):
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("augforge: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return lines[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout_is_a_sentence():
    with open("/dev/full", "w") as full:
        assert "No space left" in one_sentence(run("list", stdout=full), 4)


@pytest.mark.parametrize("count", [5, 7, 9])
def test_with_few_file_handles_a_run_ends_well_or_with_a_sentence(count, source, tmp_path):
    words = ("synth", source, "--per-class", 2, "--workers", 2, "--out", tmp_path / "out")
    done = run(*words, limit=(resource.RLIMIT_NOFILE, count))
    assert done.returncode == 0 or "Too many open files" in one_sentence(done, done.returncode), done.stderr
    assert done.returncode in (0, 2, 4), done.stderr


def test_too_little_memory_is_a_sentence(source, tmp_path):
    done = run("synth", source, "--per-class", 2, "--out", tmp_path / "out", limit=(resource.RLIMIT_AS, 300 << 20))
    assert done.returncode == 4, done.stderr
    assert "memory" in one_sentence(done, 4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("command", [("bench",), ("fit", "noise")])
def test_a_folder_that_cannot_be_written_is_a_sentence(command, tmp_path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in one_sentence(run(*command, "glyphs", "--out", tmp_path / "out"), 2)


def test_a_file_limit_stops_a_run_with_a_sentence_and_resume_ends_it(source, tmp_path):
    out = tmp_path / "out"
    words = ("synth", source, "--per-class", 30, "--size", 96, "--out", out)
    sentence = one_sentence(run(*words, limit=(resource.RLIMIT_FSIZE, 6000)), 2)
    assert "File too large" in sentence
    assert run(*words, "--resume").returncode == 0


@pytest.mark.parametrize("wait", ["for run.json", "for a picture"])
def test_interrupts_one_after_the_other_are_one_sentence(wait, source, tmp_path):
    out = tmp_path / "out"
    words = map(str, ("synth", source, "--per-class", 5000, "--workers", 2, "--out", out))
    process = subprocess.Popen([sys.executable, "-m", "augforge.cli.main", *words], stderr=subprocess.PIPE, text=True,
                               env=ENVIRONMENT, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    try:
        while not ((out / "run.json").exists() if wait == "for run.json" else any(out.glob("cat/*"))):
            time.sleep(0.001)
        for _ in range(5):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
            time.sleep(0.03)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert "interrupted" in one_sentence(subprocess.CompletedProcess([], process.returncode, stderr=said), 130)
    assert "Exception ignored" not in said


def test_errors_of_the_system_and_of_torch_are_sentences_and_bugs_are_not():
    assert of_machine(OSError(errno.ENOSPC, "No space left on device", "out/a.png")) == (
        "'out/a.png': No space left on device; --resume goes on once there is more", 4)  # fmt: skip
    assert of_machine(PermissionError(errno.EACCES, "Permission denied", "x")) == ("'x': Permission denied", 2)
    assert (
        of_machine(MemoryError())[1] == of_machine(RuntimeError("DefaultCPUAllocator: can't allocate memory"))[1] == 4
    )
    assert of_machine(RecursionError("maximum recursion depth exceeded"))[1] == 2
    assert of_machine(RuntimeError("shapes differ")) is None
    assert of_machine(KeyError("a")) is None


_IN_A_CALLBACK = """
import signal, time, weakref
from augforge.cli.main import _one_interrupt

class Module: pass

with _one_interrupt():
    module = Module()
    gone = weakref.ref(module, lambda _: signal.raise_signal(signal.SIGINT))  # as importing has
    try:
        del module
        time.sleep(20)
        print("lost")
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_an_interrupt_that_comes_in_a_callback_is_not_lost():
    found = subprocess.run([sys.executable, "-c", _IN_A_CALLBACK], capture_output=True, text=True,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # fmt: skip
    assert (found.stdout, found.stderr) == ("interrupted\n", "")


_IN_AN_IMPORT = """
import signal, sys
import click
from augforge.cli import main

@click.command
def busy():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("initialization failed")  # as pybind11 does

main.cli.add_command(busy)
main.main(["busy"])
"""


def test_an_interrupt_that_a_library_makes_an_error_of_is_one():
    found = subprocess.run([sys.executable, "-c", _IN_AN_IMPORT], capture_output=True, text=True,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # fmt: skip
    assert found.returncode == 130
    assert found.stderr == "augforge: interrupted; the same command with --resume goes on\n"
