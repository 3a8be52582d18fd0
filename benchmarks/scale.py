"""What breaks first with 100 million pictures on 1,000 workers: a simulation, and the coordinator's work measured.

    OMP_NUM_THREADS=1 python benchmarks/scale.py [--pictures 100000000] [--workers 1000] [--json]

Workers make `--rate` pictures a second each, times a log-normal factor of their own (sigma 0.2), 1 % of them a tenth of
it; a worker dies once in `--hours` hours on average and comes back after two minutes, and what it had not finished is
made again. Compared are fixed shares (`--shards i/N`: the last share ends the run), and units handed out one by one,
with and without a second copy of the slowest. Joining and reading manifests is timed on a million lines of a real
run's length.
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from augforge.synth.manifest import ManifestRow, as_dict, from_line
from augforge.synth.plan import ClassPlan, Plan
from augforge.synth.run_folder import whole_manifest

BACK = 120.0  # seconds until a worker that died works again
MEASURED = 1_000_000  # lines


def main() -> None:
    """Simulate and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pictures", type=int, default=100_000_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1500.0, help="pictures a second a worker, 64 px PNG")
    parser.add_argument("--hours", type=float, default=100.0, help="between deaths of a worker")
    parser.add_argument("--unit", type=int, default=256, help="pictures of a unit of work")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    speed = options.rate * np.exp(rng.normal(0, 0.2, options.workers))
    speed[: max(1, options.workers // 100)] *= 0.1
    ideal = options.pictures / speed.sum()
    shares = float((options.pictures / options.workers / speed).max())
    row = {"workers": options.workers, "pictures": options.pictures, "ideal_seconds": ideal,
           "shares_seconds": shares + BACK, **{f"units_of_{unit}_seconds": handed_out(options, speed, unit, copies)
           + 0.0 for unit, copies in ((options.unit, False), (40 * options.unit, False))},
           "with_copies_seconds": handed_out(options, speed, 40 * options.unit, True), **measured()}  # fmt: skip
    row["units_a_second"] = options.pictures / options.unit / row[f"units_of_{options.unit}_seconds"]
    print(json.dumps({"rows": [row]}) if options.json else "\n".join(f"{k:28s} {v:,.4g}" for k, v in row.items()))


def handed_out(options: argparse.Namespace, speed: np.ndarray, unit: int, copies: bool) -> float:
    """Seconds until all units are made, each given to the first worker that is free."""
    rng = np.random.default_rng(1)
    free = [(0.0, worker) for worker in range(options.workers)]
    heapq.heapify(free)
    ends: list[float] = []
    left = options.pictures // unit
    while left:
        now, worker = heapq.heappop(free)
        took = unit / speed[worker]
        if rng.random() < took / (3600 * options.hours):  # dead before the end: the unit is made again
            heapq.heappush(free, (now + took / 2 + BACK, worker))
            continue
        left -= 1
        ends.append(now + took)
        heapq.heappush(free, (now + took, worker))
    if not copies:
        return max(ends)
    # When no unit is left, free workers make what is still under way a second time; the first to end counts.
    last_given = min(start for start, _ in free)
    return min(max(ends), last_given + 2 * unit / float(np.median(speed)))


def measured() -> dict[str, float]:
    """Bytes of a manifest line, and seconds of one core to join and to read a million of them."""
    row = ManifestRow("arabic-e/02-m00000.png", "", "arabic-e", "classical", "0" * 16, "arabic-e/02", "0" * 64, 0, 0,
                      "0.1.0", 349, "0" * 64)  # fmt: skip
    line = (json.dumps(as_dict(row)) + "\n").encode()
    shards, unit = 100, 256
    plan = Plan((ClassPlan("a", 0, np.arange(1), MEASURED, 0),), unit)
    with tempfile.TemporaryDirectory() as folder:
        for shard in range(shards):
            rows = sum(plan.rows_in(k) for k in range(shard, plan.units, shards))
            (Path(folder) / f"manifest-{shard}-of-{shards}.jsonl").write_bytes(line * rows)
        begun = time.process_time()
        whole = whole_manifest(Path(folder), plan, (0, shards))
        joined = time.process_time() - begun
        assert whole is not None
        begun = time.process_time()
        for number, text in enumerate(whole.open("rb"), 1):
            from_line(text, whole, number)
        read = time.process_time() - begun
    return {"line_bytes": len(line), "join_seconds_a_million": joined, "read_seconds_a_million": read}


if __name__ == "__main__":
    main()
