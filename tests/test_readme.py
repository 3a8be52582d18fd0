"""The README's console blocks are run, in order, and print what they say - figures of time, size and digests aside."""

import re
import shlex
from pathlib import Path

import pytest

from augforge.cli.main import main

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def _steps() -> list[tuple[str, str]]:
    """Each command line with the output that stands below it."""
    parts = [part for block in BLOCKS for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def _masked(text: str) -> str:
    """Text without what differs from machine to machine."""
    text = re.sub(r"[\d.,]+ (kB|MB|s\b|a second|%)", r"N \1", text)
    return re.sub(r"N (kB|MB)", "N bytes", re.sub(r"\([0-9a-f]{16}\)", "(digest)", text))


@pytest.mark.skipif(not BLOCKS, reason="the README is not beside the tests")
def test_every_command_prints_what_the_readme_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    steps = _steps()
    assert len(steps) >= 8
    for command, expected in steps:
        program, *arguments = shlex.split(command)
        assert program == "augforge"
        if expected.startswith("augforge: "):
            with pytest.raises(SystemExit) as stopped:
                main(arguments)
            assert stopped.value.code == 2
        else:
            main(arguments)
        printed = capsys.readouterr()
        assert _masked(printed.out + printed.err) == _masked(expected), command
