"""Random command lines, made of the commands' own options: each ends with 0, 2, 3 or 4, and an error is one sentence.

A few dozen here; `make fuzz` goes on for SECONDS, and prints how to repeat what it found.
"""

import json
import multiprocessing
import os
import random
import shlex
import time
import traceback

import click
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from augforge.cli.main import cli

SECONDS = float(os.environ.get("AUGFORGE_FUZZ", 0))
TRIES, LONGEST = 30, 6  # seconds that one command has: what goes on by then is none that ends with an error at once
_FORK = multiprocessing.get_context("fork")  # a copy of this process has torch imported already
WORDS = ("", " ", "0", "1", "2", "-1", "1.5", "nan", "inf", "1e999", "9" * 24, "x", "val", "train", "novel", "logistic",
         "prototype", "classical", "hallucinator-glyphs", "photos", "conv4-glyphs", "glyphs", "scenes", "auto", "none",
         "nothing", "copies", "noise", "a=b", "size=3", "C=nan", "=", "/proc", "/dev/null", "all", "0/2", "3/2",
         "1,2", "5,5", "\u0665", "\udc80", "[" * 300, "{}", "png", "no:Class", "os:system", "--", "-h")  # fmt: skip
LEFT_OUT = {"--download"}  # it would


@pytest.fixture
def paths(source, tmp_path):
    """What a command may be given: folders, files of several kinds, and what does not exist."""
    np.savez(tmp_path / "a.npz", images=np.zeros((6, 8, 8), np.uint8), labels=np.arange(6) % 2)
    rows = {"features": torch.arange(60.0).reshape(12, 5) % 7, "labels": torch.arange(12) % 3}
    save_file(rows, tmp_path / "rows.safetensors", {"classes": '["a", "b", "c"]'})
    (tmp_path / "text.json").write_text("[1, 2")
    (tmp_path / "empty").mkdir()
    names = ("a.npz", "rows.safetensors", "text.json", "empty", "none", "out")
    return [str(source), str(source / "cat"), str(source / "cat" / "cat_0.png"), *(str(tmp_path / n) for n in names)]


def _line(dice, paths):
    """A command line: a command, mostly what it asks for, and a few of its options with values of all kinds."""
    name, command = dice.choice(sorted(cli.commands.items()))
    words = [name]
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            many = dice.randrange(3) if parameter.nargs == -1 else dice.random() < 0.95
            words += [dice.choice(paths[:6] if dice.random() < 0.8 else WORDS) for _ in range(many)]
    options = [p for p in command.params if isinstance(p, click.Option) and not LEFT_OUT.intersection(p.opts)]
    wanted = [p for p in options if p.required or dice.random() < 2 / len(options)]
    for option in wanted:
        words.append(dice.choice([*option.opts, *option.secondary_opts]))
        if not option.is_flag:
            words += [_value(dice, option, paths) for _ in range(option.nargs)]
    return words


def _value(dice, option, paths):
    if isinstance(option.type, click.Choice) and dice.random() < 0.7:
        return str(dice.choice(option.type.choices))
    if isinstance(option.type, click.Path) or "PATH" in str(option.type).upper() or dice.random() < 0.3:
        return dice.choice(paths)
    return dice.choice(WORDS)


def _complaint(augforge, words, path):
    """What is wrong with how a command ended, in a process of its own; "" where nothing is, or it goes on."""
    path.write_text("")
    process = _FORK.Process(target=_report, args=(augforge, words, path))
    process.start()
    process.join(LONGEST)
    if process.is_alive():
        process.kill()
        process.join()
        return ""
    if process.exitcode:
        return f"the process ended with {process.exitcode}"
    code, err = json.loads(path.read_text())
    if code in (0, None):
        return ""
    if code not in (2, 3, 4):
        return f"exit code {code}: {err[-2000:]}"
    lines = [line for line in err.splitlines() if line.startswith("augforge: ")]
    if len(lines) != 1 or "Traceback" in err or len(lines[0]) > 1500:
        return f"no one sentence: {err[:600]!r}"
    return ""


def _report(augforge, words, path):
    try:
        result = augforge(*words)
        found = result.code, result.err
    except Exception:
        found = 1, traceback.format_exc()
    path.write_text(json.dumps(found))


def test_random_command_lines_end_with_one_sentence(augforge, paths, tmp_path, monkeypatch):
    import timm  # noqa: F401 - once, not in each process

    monkeypatch.chdir(tmp_path)
    start, seed, found = time.monotonic(), int(SECONDS and time.time()), []
    tries = 0
    while tries < TRIES or time.monotonic() - start < SECONDS:
        words = _line(random.Random(seed + tries), paths)
        tries += 1
        complaint = _complaint(augforge, words, tmp_path / "found.json")
        if complaint:
            found.append(f"{shlex.join(words)!r}\n{complaint}")
    print(f"{tries} commands from seed {seed}")
    assert not found, f"{len(found)} of {tries}, from seed {seed}:\n" + "\n".join(found[:20])
