"""Runs of every command that goes on: killed or interrupted at random moments, resumed, compared with one left alone.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/kills.py [--runs 200] [--minutes M] [--seed 0]

`synth` into folders, WebDataset shards and .npz, and of features; `fit` of conv4 and image-gan, which write a
checkpoint every 0.2 s here, not every minute; `bench` on pictures. A try is stopped one to three times: by a kill of
all of its processes, or by two Ctrl-C within 0.1 s, which have to end it with exit code 130 and one sentence. Then the
same command ends it. A difference is a file whose bytes are not those of the run that was left alone (times in logs
and result lines do not count), an orphan is a file that this one does not have.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from augforge.cli.main import main as augforge
from augforge.training.loop import Run

_FORK = multiprocessing.get_context("fork")  # a copy of this process has torch imported already
_PATIENCE = 120.0  # seconds in which an interrupted run has to end
_TIMES = ("seconds", "images_per_second", "started", "ended", "time")  # of a line, which differ from run to run


@dataclass
class Case:
    """A command, whether it is told to resume, and what it makes when left alone."""

    name: str
    words: tuple[str, ...]
    resume: bool = True
    whole: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Count:
    """What was found of a case."""

    runs: int = 0
    stops: int = 0
    under_way: int = 0  # stops that met the run before its end
    interrupts: int = 0
    failures: int = 0  # a resumed run, or an interrupted one, that ended otherwise than it should
    differences: int = 0
    orphans: int = 0


def cases(root: Path) -> list[Case]:
    """All commands on sources that are written to `root`."""
    pictures, letters = _pictures(root / "pictures", 3, 64), _pictures(root / "letters", 1, 28)
    synth, labels = ("synth", str(pictures), "--per-class", "150", "--size", "48"), ("--set", "augment=none")
    conv4 = ("fit", "conv4", str(letters), "--set", "epochs=12", "--set", "batch_size=16", *labels, "--device", "cpu")
    small = ("size=16", "width=8", "judge_width=8", "steps=40")
    gan = ("fit", "image-gan", str(letters), *(word for one in small for word in ("--set", one)))
    bench = ("bench", str(letters), "--with", "classical", "--shot", "1,2", "--trials", "20", "--made", "2")
    features = ("--representation", "conv4-glyphs", "--device", "cpu", "--with", "copies", "--per-class", "4000")
    return [
        Case("synth folder", (*synth, "--workers", "2")),
        Case("synth folder, 1 worker", (*synth, "--workers", "1")),
        Case("synth webdataset", (*synth, "--workers", "2", "--format", "webdataset")),
        Case("synth npz", (*synth, "--workers", "2", "--format", "npz")),
        Case("synth features", ("synth", str(letters), *features)),
        Case("fit conv4", conv4),
        Case("fit image-gan", gan),
        Case("bench", bench, resume=False),
    ]


def _pictures(root: Path, channels: int, side: int) -> Path:
    """A folder of soft blobs: 6 classes of 8 pictures."""
    for i in range(48):
        coarse = np.random.default_rng(i).integers(0, 256, (4, 4, channels), dtype=np.uint8)
        (root / "abcdef"[i % 6]).mkdir(parents=True, exist_ok=True)
        soft = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / "abcdef"[i % 6] / f"{i}.png"), soft)
    return root


def _run(words: tuple[str, ...], said: Path) -> None:
    """In a process of its own: the command, in a group of processes as a terminal makes it, with few files in it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with said.open("w") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        augforge(list(words))  # which ends by sys.exit where it is not well


def start(case: Case, out: Path, said: Path) -> multiprocessing.process.BaseProcess:
    """Begin a case, or go on with what is in `out`."""
    resumes = case.resume and out.exists()
    words = (*case.words, "--out", str(out), *(("--resume",) if resumes else ()))
    process = _FORK.Process(target=_run, args=(words, said))
    process.start()
    return process


def digests(out: Path) -> dict[str, str]:
    """The SHA-256 of each file, hidden ones too; of lines of JSON without their times."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if not p.is_dir()):
        data = path.read_bytes()
        if path.suffix == ".jsonl":
            data = b"\n".join(_timeless(line) for line in data.splitlines())
        elif path.name == "table.csv":
            data = _without_column(data.decode(), "seconds").encode()
        elif path.name == "report.html":
            data = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC", b"TIME", data)
        if path.name == "commands.jsonl" or (path.name == "report.html" and (out / "commands.jsonl").exists()):
            continue  # a line for each command that was given, and the page that shows them
        found[str(path.relative_to(out))] = hashlib.sha256(data).hexdigest()
    return found


def _without_column(text: str, name: str) -> str:
    rows = list(csv.reader(io.StringIO(text)))
    return repr([[cell for cell, head in zip(row, rows[0], strict=True) if head != name] for row in rows])


def _timeless(line: bytes) -> bytes:
    try:
        return json.dumps({key: value for key, value in json.loads(line).items() if key not in _TIMES}).encode()
    except ValueError:
        return line


def stop(process: multiprocessing.process.BaseProcess, chance: random.Random, said: Path, count: Count) -> None:
    """Kill a run that goes, or interrupt it twice within 0.1 s."""
    assert process.pid is not None
    count.stops += 1
    count.under_way += process.is_alive()
    if chance.random() < 0.7 or not process.is_alive():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return
    count.interrupts += 1
    for wait in (chance.uniform(0, 0.1), 0.0):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(wait)
    process.join(_PATIENCE)
    text = said.read_text()
    right = process.exitcode == 0 or (process.exitcode == 130 and text.count("augforge: interrupted") == 1)
    if not right or "Traceback" in text or "Exception ignored" in text:
        count.failures += 1
        print(f"  interrupted, and ended with {process.exitcode}: {text[-600:]!r}", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


def attempt(case: Case, root: Path, chance: random.Random, count: Count) -> None:
    """One run that is stopped, resumed to its end, and compared."""
    out, said = root / "out", root / "said"
    shutil.rmtree(out, ignore_errors=True)
    for _ in range(chance.choice((1, 1, 2, 3))):
        process = start(case, out, said)
        time.sleep(chance.uniform(0.0, 1.1 * case.seconds))
        stop(process, chance, said, count)
    process = start(case, out, said)
    process.join()
    found, count.runs = digests(out), count.runs + 1
    different = [name for name, what in case.whole.items() if found.get(name) != what]
    orphans = sorted(found.keys() - case.whole.keys())
    count.failures += process.exitcode != 0
    count.differences += len(different)
    count.orphans += len(orphans)
    if process.exitcode or different or orphans:
        print(f"  {case.name}: {process.exitcode}, different {different[:5]}, orphans {orphans[:5]}, "
              f"{said.read_text()[-400:]!r}", file=sys.stderr)  # fmt: skip


def measure(runs: int, minutes: float, seed: int, only: str, say: Callable[[str], None]) -> dict[str, Count]:
    """Stop and resume so many runs, or as many as there is time for, the cases in turn."""
    Run.__init__.__defaults__ = tuple(0.2 if value == 60.0 else value for value in Run.__init__.__defaults__ or ())
    end = time.monotonic() + 60 * minutes
    chance, root = random.Random(seed), Path(tempfile.mkdtemp(prefix="augforge-kills-"))
    try:
        chosen = [case for case in cases(root) if only in case.name]
        counts = {case.name: Count() for case in chosen}
        for case in chosen:
            begun = time.monotonic()
            process = start(case, root / "out", root / "said")  # of one name, which pages and figures have
            process.join()
            if process.exitcode:
                raise SystemExit(f"{case.name}: {(root / 'said').read_text()}")
            case.seconds, case.whole = time.monotonic() - begun, digests(root / "out")
            shutil.rmtree(root / "out")
            say(f"{case.name}: {case.seconds:.1f} s, {len(case.whole)} files")
        for number in range(runs):
            if time.monotonic() > end:
                break
            case = chosen[number % len(chosen)]
            attempt(case, root, chance, counts[case.name])
            if number % 20 == 19:
                say(f"{number + 1} runs: {counts}")
        return counts
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    """Measure, and print what was found; exit code 1 where anything was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="at most so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="NAME", help="cases whose name has this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    words = (options.runs, options.minutes, options.seed, options.only)
    counts = measure(*words, lambda text: print(text, file=sys.stderr, flush=True))
    rows = [{"case": name, "seed": options.seed, **vars(count)} for name, count in counts.items()]
    for row in rows if not options.json else []:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.json:
        print(json.dumps({"rows": rows}))
    sys.exit(int(any(count.failures + count.differences + count.orphans for count in counts.values())))


if __name__ == "__main__":
    main()
