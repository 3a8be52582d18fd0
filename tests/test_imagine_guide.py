"""The guide to feature hallucination: its commands print what it says, and its code runs after them, in order."""

import re
import shlex
from pathlib import Path

import pytest

from augforge import catalog
from augforge.cli.main import main

GUIDE = Path(__file__).parent.parent / "docs" / "imagine.md"
TEXT = GUIDE.read_text(encoding="utf-8") if GUIDE.exists() else ""
BLOCKS = re.findall(r"```(console|python)\n(.*?)```", TEXT, re.DOTALL)


def _masked(text: str) -> str:
    """Text without what differs from machine to machine."""
    text = re.sub(r"[\d.,]+ (kB|MB|s\b|a second)", r"N \1", text)
    return re.sub(r"N (kB|MB)", "N bytes", re.sub(r"\([0-9a-f]{16}\)", "(digest)", text))


@pytest.mark.skipif(not BLOCKS, reason="the guide is not beside the tests")
def test_commands_and_code_run_in_order(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn", "1.6")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict = {}
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, str(GUIDE), "exec"), names)
            continue
        for step in filter(None, re.split(r"^\$ ", block, flags=re.MULTILINE)):
            command, _, expected = step.partition("\n")
            program, *arguments = shlex.split(command)
            assert program == "augforge"
            main(arguments)
            assert _masked(capsys.readouterr().out) == _masked(expected), command
    assert names["loss"].isfinite()
    assert names["y_more"].tolist().count("georgian-an") == 100


@pytest.mark.skipif(not BLOCKS, reason="the guide is not beside the tests")
def test_every_feature_method_is_told_of():
    told = set(re.findall(r"^- `([a-z-]+)`", TEXT, re.MULTILINE)) | {"copies"}
    assert told >= {name for name in catalog.SYNTHESIZERS if catalog.part_class(name).space == "feature"}
    assert told >= {"nothing", "noise"}
