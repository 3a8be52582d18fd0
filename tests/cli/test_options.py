"""The one display of progress: a bar on a terminal, a line now and then elsewhere."""

import io
import time

import pytest

from augforge.cli.options import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def said(monkeypatch):
    """Where stderr goes."""

    def _said(stream):
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    return _said


def test_a_terminal_gets_a_bar(said):
    stream = said(Terminal())
    with Progress("images") as progress:
        for done in (64, 128, 147):
            progress.update(done, 147, "dog")
    assert "147/147" in stream.getvalue()
    assert "images" in stream.getvalue()
    assert "\r" in stream.getvalue()


def test_a_file_gets_nothing_of_what_is_short(said):
    stream = said(io.StringIO())
    with Progress("images") as progress:
        for done in range(1000):
            progress.update(done, 1000)
    assert stream.getvalue() == ""


def test_a_file_gets_plain_lines_of_what_is_long(said):
    stream = said(io.StringIO())
    with Progress("images", seconds=0) as progress:
        progress.update(10, 50)
        progress.update(20, 50, "dog")
        progress.update(5, 8)  # another stage
    lines = stream.getvalue().splitlines()
    assert lines == ["10/50 images, 0 s", "20/50 images, dog, 0 s", "5/8 images, 0 s"]
    assert "\r" not in stream.getvalue()


def test_a_step_that_takes_long_is_not_silent(said):
    stream = said(io.StringIO())
    with Progress("rows", seconds=0.02, steady=True) as progress:
        _wait_for(lambda: "at work" in stream.getvalue())
        progress.update(3, 8, "hallucinator, 1 shots")
        _wait_for(lambda: stream.getvalue().count("3/8 rows, hallucinator, 1 shots") > 2)
    assert not progress.speaker.is_alive()  # a thread that is left at the end of the process aborts it


def _wait_for(what):
    for _ in range(500):
        if what():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen in 10 s")


def test_a_line_comes_every_so_many_seconds(said, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = said(io.StringIO())
    with Progress("images") as progress:
        for second in range(0, 100, 4):
            now[0] = second
            progress.update(second, 100)
    assert [line.split(", ")[1] for line in stream.getvalue().splitlines()] == ["32 s", "64 s", "96 s"]
