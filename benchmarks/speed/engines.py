"""`synth --engine ray` with two workers against `--workers 2`: the same files, alternately.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/engines.py [--json] [--rounds 5]

The source is the 240 crops of `scenes` as JPEG files, and 20 are made of each, in folders of JPEG files. Wall clock of
the whole call, imports aside: in a cluster that is there already, and in one that is started for the run and ended
after it. The digests of both sides' files are compared. Nothing is deleted before the end, as in synth.py.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import ray
import torch
from paired import paired, show

from augforge.adapters.ray import RayRunner
from augforge.inputs import Inputs
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.synth.run_folder import RunOptions

COPIES, WORKERS = 20, 2


def write_source(root: Path) -> int:
    """The training crops of `scenes` as JPEG files; how many."""
    request = Request(Inputs("scenes", method="nothing"), per_class=0, include_real=True, encoding="jpeg")
    return synth(request, root, RunOptions(workers=1)).real


def run_on(engine: str, source: Path, scratch: str, made: list[Path]) -> Callable[[], None]:
    """Run `synth` on an engine into a fresh folder, which is added to `made`."""
    request = Request(Inputs(str(source)), per_class=COPIES * 20)

    def run() -> None:
        made.append(Path(tempfile.mkdtemp(dir=scratch)))
        synth(request, made[-1], RunOptions(workers=WORKERS, engine=engine))

    return run


def digest(folder: Path) -> str:
    """The SHA-256 of all names and bytes of a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _nothing(job: int, item: int) -> None:
    import augforge.synth.run  # noqa: F401, what the workers of a run import


def measure(case: str, source: Path, rounds: int) -> dict[str, object]:
    """A row: Ray's time beside that of processes, and pictures a second of both."""
    with tempfile.TemporaryDirectory() as scratch:
        made: list[Path] = []
        on_ray, on_processes = (run_on(engine, source, scratch, made) for engine in ("ray", "processes"))
        measured = paired(on_ray, on_processes, rounds, time.perf_counter)
        digests = {digest(folder) for folder in made}
        assert len(digests) == 1
        count = len(list(made[0].glob("*/*.jpg")))
    return {"case": case, "peer": f"--workers {WORKERS}", **measured, "pictures": count, "rounds": rounds,
            "images_per_second": round(count / measured["seconds"]),
            "peer_images_per_second": round(count / measured["peer_seconds"]), "sha256": digests.pop(),
            "ray": ray.__version__}  # fmt: skip


def main() -> None:
    """Measure both cases."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        write_source(source)
        with RayRunner("ray", WORKERS) as runner:
            list(runner.in_order(_nothing, 0, range(2 * WORKERS)))
            rows.append(measure("a cluster that runs", source, options.rounds))
        rows.append(measure("a cluster for the run", source, options.rounds))
    busy = f"{os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"
    show([row | {"load_of_5_minutes": busy} for row in rows], options.json)


if __name__ == "__main__":
    main()
