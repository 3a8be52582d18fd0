"""Which files a reader opens to follow one command: those whose functions run, in the order of their first call.

    python benchmarks/follow.py synth letters --per-class 3 --workers 1 --out OUT
    python benchmarks/follow.py bench glyphs --with noise --classifier prototype --trials 5 --shot 1 --out OUT

docs/layout.md has the lists of these two.
"""

from __future__ import annotations

import contextlib
import os
import sys
from inspect import CO_NEWLOCALS, CO_OPTIMIZED
from pathlib import Path
from types import FrameType

from augforge.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = tuple(str(ROOT / name) + os.sep for name in ("augforge", "generators", "cli"))


def follow(arguments: list[str]) -> list[str]:
    """Run a command; the files of the project whose functions were called, in order. Class bodies do not count."""
    opened: dict[str, None] = {}
    function = CO_OPTIMIZED | CO_NEWLOCALS

    def look(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(FOLDERS) and code.co_flags & function == function:
            opened.setdefault(os.path.relpath(code.co_filename, ROOT))

    sys.setprofile(look)
    try:
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
            main(arguments)
    finally:
        sys.setprofile(None)
    return list(opened)


if __name__ == "__main__":
    files = follow(sys.argv[1:])
    print(len(files), *files, sep="\n")
