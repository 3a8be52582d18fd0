"""What ten labels are worth that `augforge suggest` asks for, against ten labels of random pictures of the pool.

    python benchmarks/suggest.py --data-root DIR [--set NAME] [--shots 1,2] [--episodes 40] [--cache DIR]

The sets, episodes and pools are those of pool.py, on classes that nothing was chosen on. Both arms are logistic
regression as `predict` uses it, on the support and ten labelled pictures more. Rows go to results/suggest.jsonl: the
accuracy before, both gains in points, their paired difference with its 95 % interval over episodes, and what `suggest`
had expected.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from pool import SETS, embedded, episode, right
from record import append, facts

from augforge.statistics import episode_interval
from augforge.suggest import suggest_rows
from augforge.types import Examples

LABELS, WAY = 10, 10
POOL = {"caltech101_small": 20, "gtsrb_small": 30, "cifar-fs": 30}


def main() -> None:
    """Measure, append, and show the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--set", dest="sets", action="append", choices=tuple(SETS))
    parser.add_argument("--shots", default="1,2")
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=Path("build/photographs"))
    given = parser.parse_args()
    how = facts(0)
    for name in given.sets or SETS:
        bank, near = embedded(SETS[name], given)
        for shot in map(int, given.shots.split(",")):
            found = []
            for i in range(given.episodes):
                rng = np.random.default_rng((0, shot, i))
                support_rows, pool_rows, query = episode(bank, near, (WAY, shot, False), POOL[name], rng)
                classes = bank.y[support_rows[:, 0]]
                support, asked = bank.examples(support_rows.flatten(), classes), bank.examples(query, classes)
                pool = bank.examples(pool_rows, classes)
                chosen = suggest_rows(support, torch.as_tensor(pool.x), LABELS)
                rows = [torch.tensor([row for row, _ in chosen]), torch.from_numpy(rng.permutation(len(pool))[:LABELS])]
                plain = right(support, asked)
                gains = [right(support + Examples(pool.x[some], pool.y[some]), asked) - plain for some in rows]  # type: ignore[index]
                found.append([100 * plain, 100 * gains[0], 100 * gains[1], sum(gain for _, gain in chosen)])
            plain, ours, drawn, expected = np.array(found).T
            over = episode_interval(ours - drawn)
            append("suggest", [{"set": name, "way": WAY, "shot": shot, "labels": LABELS, "episodes": given.episodes,
                                "plain": plain.mean(), "gain": ours.mean(), "random": drawn.mean(),
                                "over_random": over.value, "over_random_ci95": [over.low, over.high],
                                "expected": expected.mean(), **how}])  # fmt: skip


if __name__ == "__main__":
    main()
