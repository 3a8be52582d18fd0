"""How much memory an expansion of 60,000 pictures to 240,000 takes above the imported libraries.

    python benchmarks/speed/memory.py [--json]

All of CIFAR-100 as class folders of the archive (60,000 pictures of 32 px, read in place), three made of each and the
real ones written too, PNG folder, two workers. The proportional set sizes of this process and its workers are added up
twenty times a second; the figure is the largest sum less that after the imports. Needs about 2 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
import zipfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import torch

from augforge.inputs import Inputs
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.synth.run_folder import RunOptions

DATA = Path(os.environ.get("AUGFORGE_DATA", "../shared/data"))


def resident() -> int:
    """Bytes of this process and its children, shared pages split among those that share them."""
    total = 0
    for process in (p for p in Path("/proc").iterdir() if p.name.isdigit()):
        try:
            status = (process / "stat").read_text().rpartition(")")[2].split()
            if process.name == str(os.getpid()) or status[1] == str(os.getpid()):
                rollup = (process / "smaps_rollup").read_text()
                total += 1024 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except (OSError, IndexError):
            continue  # it ended meanwhile
    return total


class Watch(threading.Thread):
    """Samples the memory until it is asked to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.going = 0, True

    def run(self) -> None:
        """Keep the largest sum."""
        while self.going:
            self.peak = max(self.peak, resident())
            time.sleep(0.05)


def without_splits(archive: Path, out: Path) -> None:
    """The same members in a stored zip without train, val and test, so that all 60,000 are one source."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for member in source.infolist():
            parts = member.filename.split("/")
            target.writestr(f"all/{parts[-2]}/{parts[-1]}", source.read(member))


def main() -> None:
    """Run once and print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "cifar100.zip"
        without_splits(DATA / "cifar-fs.zip", source)
        before, watch = resident(), Watch()
        watch.start()
        request = Request(Inputs(str(source)), per_class=1800, include_real=True)
        report = synth(request, f"{scratch}/out", RunOptions(workers=2))
        watch.going = False
        watch.join()
    row = {
        "case": "60,000 pictures to 240,000", "made": report.made, "real": report.real,
        "libraries_mib": round(before / 2**20), "above_libraries_mib": round((watch.peak - before) / 2**20),
        "seconds": round(report.seconds, 1), "images_per_second": round(report.images_per_second),
    }  # fmt: skip
    print(json.dumps({"rows": [row]}) if options.json else "\n".join(f"{k}: {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
