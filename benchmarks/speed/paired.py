"""Time ours and a peer alternately in one process, and say the median ratio with its range.

The clock is the CPU time of this process, so that what else runs on the machine disturbs little; for work done by
other processes pass `clock=time.perf_counter`.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable


def paired(
    ours: Callable[[], object],
    peer: Callable[[], object],
    rounds: int = 9,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Run both once to warm up, then alternately; `ratio` is the peer's time over ours, above 1 is faster."""
    ours()
    peer()
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        start = clock()
        ours()
        middle = clock()
        peer()
        times.append((middle - start, clock() - middle))
    ratios = sorted(theirs / own for own, theirs in times)
    return {
        "ratio": round(statistics.median(ratios), 2),
        "low": round(ratios[0], 2),
        "high": round(ratios[-1], 2),
        "seconds": statistics.median(own for own, _ in times),
        "peer_seconds": statistics.median(theirs for _, theirs in times),
    }


def show(rows: list[dict], as_json: bool) -> None:
    """Print the rows as one JSON object, or as lines that a person reads."""
    if as_json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        print(f"{row['case']:28s} {row['peer']:36s} {row['ratio']:8.2f}x  ({row['low']:.2f} to {row['high']:.2f})")
