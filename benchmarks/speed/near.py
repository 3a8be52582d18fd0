"""Near-duplicates of 100,000 among 100,000 rows of features, against the same by plain blocked products.

    python benchmarks/speed/near.py [--json] [--rows 100000] [--threads 2]

Rows of 1,280 numbers (as those of `photos`) with a spectrum that falls as 1/k^0.8, and the same without any
structure, the worst there is; 100 rows of the second set are near-copies of the first. The plain products are timed
on a quarter of the rows of each set and scaled by 64. `seconds` is wall clock, `cpu_seconds` the time of the process
on all its threads.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from paired import show

from augforge.curate.near import near_pairs

WIDTH, PLANTED, LEAST = 1280, 100, 0.95


def main() -> None:
    """Measure, and print the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", choices=("spectrum", "none"), help="Only this one.")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = []
    for case, slope in (("spectrum 1/k^0.8", 0.4), ("no structure", 0.0)):
        if given.case == ("none" if slope else "spectrum"):
            continue
        rng = torch.Generator().manual_seed(0)
        a, b = (torch.randn(given.rows, WIDTH, generator=rng) for _ in range(2))
        for side in (a, b):
            side *= torch.arange(1, WIDTH + 1).float() ** -slope
        b[:PLANTED] = a[:PLANTED] + 0.1 * b[:PLANTED]
        start, cpu = time.perf_counter(), time.process_time()
        pairs = near_pairs(a, b, LEAST)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        eighth = given.rows // 8
        plain, plain_cpu = _plain(a[:eighth], b[:eighth])
        ratio = round(64 * plain_cpu / cpu_seconds, 2)
        found.append({"case": f"{given.rows:,} x {given.rows:,}, {case}",
                      "peer": "all float32 products, CPU time",
                      "ratio": ratio, "low": ratio, "high": ratio, "pairs": len(pairs), "planted": PLANTED,
                      "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1), "threads": given.threads,
                      "peer_seconds": round(64 * plain, 1), "load": _load()})  # fmt: skip
    show(found, given.json)


def _plain(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """Wall clock and CPU time of all products, block by block."""
    start, cpu = time.perf_counter(), time.process_time()
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    for top in range(0, len(a), 1024):
        for left in range(0, len(b), 4096):
            (a[top : top + 1024] @ b[left : left + 4096].T).amax(1)
    return time.perf_counter() - start, time.process_time() - cpu


def _load() -> float:
    """What else the machine does: its load over a minute."""
    with open("/proc/loadavg", encoding="ascii") as file:
        return float(file.read().split()[0])


if __name__ == "__main__":
    main()
