"""This checkout against another one, say of the commit before a change: the CPU time of the same work, by turns.

    python benchmarks/speed/trees.py ../before [--json] [--rounds 9] [--only synth]

`../before` is a checkout with a `.venv` of its own (`git worktree add ../before COMMIT`, then `make setup` there). Each
is measured in a process of its own: classical augmentation by both engines, `augforge synth` by one worker, and
episodes of prototypes. Set TMPDIR to a folder in memory, since writing to a disk takes a time of its own. `ratio` is
the other checkout's time over ours, above 1 is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve()


def cases(tree: Path, scratch: Path) -> dict[str, Callable[[], object]]:
    """The work to be timed, with the code of one tree and the inputs of its own benchmarks."""
    sys.path.insert(0, str(tree / "benchmarks" / "speed"))
    import classical
    import cv2
    import numpy as np
    import prototypes
    import synth
    import torch

    from augforge.cli.main import main as command

    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    def run(*arguments: object) -> Callable[[], object]:
        def once() -> None:
            shutil.rmtree(scratch / "out", ignore_errors=True)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                command(["synth", *map(str, arguments), "--workers", "1", "--out", str(scratch / "out")])
            assert (scratch / "out" / "manifest.jsonl").exists()

        return once

    synth.write_photographs(scratch / "photographs")
    source = scratch / "photographs"
    found: dict[str, Callable[[], object]] = {}
    for side, count in classical.COUNTS.items():
        x = classical.pictures(side, count)
        found |= {f"classical {side} px, {engine}": classical.ours(x, engine) for engine in ("cv2", "tensor")}
    found["synth photographs, PNG"] = run(source, "--per-class", 300)
    found["synth photographs, 84 px JPEG shards"] = run(
        source, "--per-class", 500, "--size", 84, "--format", "webdataset", "--encoding", "jpeg"
    )
    found["synth glyphs, PNG"] = run("glyphs", "--split", "test", "--per-class", 20)

    y = torch.arange(prototypes.CLASSES).repeat_interleave(prototypes.EACH)
    rng = torch.Generator().manual_seed(0)
    centres = 0.12 * torch.randn(prototypes.CLASSES, prototypes.WIDTH, generator=rng)
    x = centres[y] + torch.randn(len(y), prototypes.WIDTH, generator=rng)
    target = np.arange(prototypes.WAY)[None, :, None]
    for shot in (1, 5):
        drawn = prototypes.draw_episodes(
            y, way=prototypes.WAY, shot=shot, n_query=prototypes.QUERY, trials=prototypes.TRIALS, seed=1
        )
        columns = ("classes", "support", "query")
        stacked = prototypes.Stacked(*(torch.stack([getattr(episode, k) for episode in drawn]) for k in columns))
        found[f"prototypes {prototypes.WAY}w{shot}s"] = lambda stacked=stacked: float(
            (prototypes.prototype_predictions(prototypes.prepare(x), stacked) == target).mean()
        )
    return found


def work(tree: Path) -> None:
    """In a process of one tree: a case's name comes in, its CPU seconds go out."""
    answers, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as scratch:
        known = cases(tree, Path(scratch))
        print(json.dumps(list(known)), file=answers, flush=True)
        for line in sys.stdin:
            start = time.process_time()
            known[line.strip()]()
            print(time.process_time() - start, file=answers, flush=True)


class Worker:
    """A process that measures the code of one tree."""

    def __init__(self, tree: Path) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "NO_ALBUMENTATIONS_UPDATE": "1",
        }
        command = [str(tree / ".venv" / "bin" / "python"), str(HERE), "--worker", str(tree)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tempfile.gettempdir(),
        )
        self.cases: list[str] = json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def seconds(self, case: str) -> float:
        """CPU seconds of a case, run once."""
        assert self.process.stdin is not None
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        return float(self._line())


def main() -> None:
    """Measure both trees by turns, and show the rows."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("other", type=Path, nargs="?")
    arguments.add_argument("--worker", type=Path)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--only", default="", help="cases whose name holds this text")
    options = arguments.parse_args()
    if options.worker is not None:
        work(options.worker)
        return
    from paired import show

    other, ours = Worker(options.other.resolve()), Worker(HERE.parent.parent.parent)
    rows = []
    for case in (case for case in ours.cases if options.only in case):
        other.seconds(case), ours.seconds(case)  # warms up
        pairs = [(other.seconds(case), ours.seconds(case)) for _ in range(options.rounds)]
        ratios = sorted(theirs / own for theirs, own in pairs)
        rows.append({"case": case, "peer": options.other.name, "ratio": round(statistics.median(ratios), 3),
                     "low": round(ratios[0], 3), "high": round(ratios[-1], 3),
                     "seconds": statistics.median(own for _, own in pairs),
                     "peer_seconds": statistics.median(theirs for theirs, _ in pairs)})  # fmt: skip
    show(rows, options.json)


if __name__ == "__main__":
    main()
