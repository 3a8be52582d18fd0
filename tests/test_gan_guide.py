"""The guide to GANs: its commands print what it says, but for the digits."""

import re
import shlex
from pathlib import Path

import pytest

from augforge.cli.main import main

GUIDE = Path(__file__).parent.parent / "docs" / "gan.md"
TEXT = GUIDE.read_text(encoding="utf-8") if GUIDE.exists() else ""
BLOCKS = re.findall(r"```(console|python)\n(.*?)```", TEXT, re.DOTALL)


def _masked(text: str) -> str:
    """Text without its numbers, which differ a little from machine to machine."""
    return re.sub(r"\s+", " ", re.sub(r"[+-]?\d[\d.,e+-]*(?: [kM]B)?", "N", text))


@pytest.mark.skipif(not BLOCKS, reason="the guide is not beside the tests")
def test_commands_and_code_run_in_order(tmp_path, monkeypatch, capsys):
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
    assert len(list((tmp_path / "more/georgian-an").glob("*.png"))) == 50
    assert names["more"].x.shape == (60, 1, 28, 28)
    assert names["way"].shape == (7, 1, 28, 28)
