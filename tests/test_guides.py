"""The guides: their commands print what they say, and their code runs after them, in order."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from augforge.cli.main import main
from augforge.parts import catalog
from augforge.types import capabilities

DOCS = Path(__file__).parent.parent / "docs"
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the guides are not beside the tests")


def _without_times(text: str) -> str:
    """Text without what differs from machine to machine: sizes, times and digests."""
    text = re.sub(r"[\d.,]+ (kB|MB|s\b|a second)", r"N \1", text)
    return re.sub(r"N (kB|MB)", "N bytes", re.sub(r"\([0-9a-f]{16}\)", "(digest)", text))


def _without_numbers(text: str) -> str:
    """Text without its numbers, where all of them are measured and differ a little."""
    return re.sub(r"\s+", " ", re.sub(r"[+-]?\d[\d.,e+-]*(?: [kM]B)?", "N", text))


def _run(guide: str, masked: Callable[[str], str], capsys) -> dict:
    """Run the console and python blocks of a guide; the names that its code left."""
    names: dict = {}
    text = (DOCS / guide).read_text(encoding="utf-8")
    for kind, block in re.findall(r"```(console|python)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            exec(compile(block, guide, "exec"), names)
            continue
        for step in filter(None, re.split(r"^\$ ", block, flags=re.MULTILINE)):
            command, _, expected = step.partition("\n")
            program, *arguments = shlex.split(command)
            assert program == "augforge"
            main(arguments)
            assert masked(capsys.readouterr().out) == masked(expected), command
    return names


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_imagine(capsys):
    pytest.importorskip("sklearn", "1.6")
    names = _run("imagine.md", _without_times, capsys)
    assert names["loss"].isfinite()
    assert names["y_more"].tolist().count("georgian-an") == 100


def test_measure(capsys):
    names = _run("measure.md", _without_numbers, capsys)
    assert names["report"]["rows"] == {"real": 820, "made": 820, "held_out": 820, "equal_count": 820}
    assert len(names["of_each"].values) == 82


def test_gan(capsys, tmp_path):
    names = _run("gan.md", _without_numbers, capsys)
    assert len(list((tmp_path / "more/georgian-an").glob("*.png"))) == 50
    assert names["more"].x.shape == (60, 1, 28, 28)
    assert names["way"].shape == (7, 1, 28, 28)


def test_every_method_is_told_of():
    told = {guide: set(re.findall(r"^- `([a-z-]+)`", (DOCS / guide).read_text(encoding="utf-8"), re.MULTILINE))
            for guide in ("imagine.md", "gan.md")}  # fmt: skip
    parts = {name: catalog.part_class(name) for name in catalog.SYNTHESIZERS}
    assert told["imagine.md"] | {"copies"} >= {name for name, part in parts.items() if part.space == "feature"}
    assert told["imagine.md"] >= {"nothing", "noise"}
    assert told["gan.md"] >= {name for name, part in parts.items() if capabilities(part).trains}
