"""How much the gate of `hallucinator` moves with the seed of the fit: its gain on novel letters over ten seeds.

    python benchmarks/gate_seeds.py [--seeds 10] [--steps 50] [--trials 100]

Each fit learns from the letters' base and validation classes in features of `conv4-glyphs`; a seed decides how the
validation classes are halved, the episodes, and the order of learning. `--steps` is fewer than the default of 200, to
save time. The gain is over the plain classifier that is best on the same novel episodes. Appends to
benchmarks/results/gate_seeds.jsonl: a row for each number of shots, with the gain of every seed, and the weight of
imagination in the gate.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from data_sets import RESULTS, append

from augforge.episodes import draw_episodes
from augforge.episodes.named_tasks import open_task
from augforge.generators.hallucinator import Hallucinator
from augforge.generators.shared.posterior.gate import PLAIN, plain_scores
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions
from augforge.types import Examples

WAY, QUERIES, AT_ONCE = 20, 10, 10
SHOTS = (1, 2, 5, 10)


def main() -> None:
    """Fit, measure, and append."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--trials", type=int, default=100)
    given = parser.parse_args()
    task, representation = open_task("glyphs"), open_part("conv4-glyphs", None, "representation")
    assert task.val is not None
    base, val, novel = (embed_bank(representation, bank, BankOptions()) for bank in (task.base, task.val, task.novel))
    fitted = []
    for seed in range(given.seeds):
        fitted.append(Hallucinator(steps=given.steps).fit(base, torch.Generator().manual_seed(seed), val))
        print(seed, [(seen["shot"], round(seen["gain"], 2), round(seen["weight"], 2)) for seen in fitted[-1].history],
              flush=True)  # fmt: skip
    rows: list[dict[str, Any]] = []
    for shot in SHOTS:
        drawn = draw_episodes(novel.y, way=WAY, shot=shot, n_query=QUERIES, trials=given.trials, seed=5)
        support, query = (torch.stack([getattr(e, key) for e in drawn]).flatten(1) for key in ("support", "query"))
        plain = [_right(lambda s, q, k=k: plain_scores(k, s, q, fitted[0].centre_), novel.x, support, query, shot)
                 for k in range(len(PLAIN))]  # fmt: skip
        gains = [100 * (_right(part.scores, novel.x, support, query, shot) - max(plain)) for part in fitted]
        rows.append({"way": WAY, "shot": shot, "trials": given.trials, "steps": given.steps, "gains": gains,
                     "best_plain": PLAIN[int(np.argmax(plain))], "plain": 100 * max(plain), "mean": np.mean(gains),
                     "sd": np.std(gains, ddof=1), "least": min(gains), "most": max(gains),
                     "weights": [part.history[SHOTS.index(shot)]["weight"] for part in fitted]})  # fmt: skip
        print({key: value for key, value in rows[-1].items() if key != "gains"}, flush=True)
    append(RESULTS / "gate_seeds.jsonl", rows, {"task": "glyphs", "seed": 5})


def _right(scores: Any, x: torch.Tensor, support: torch.Tensor, query: torch.Tensor, shot: int) -> float:
    """The accuracy (0..1) of scores on episodes of rows [e, way * shot] and queries [e, way * q]."""
    labels, target = torch.arange(WAY).repeat_interleave(shot), torch.arange(WAY).repeat_interleave(QUERIES)
    right = []
    with torch.no_grad():
        for some in torch.arange(len(support)).split(AT_ONCE):
            known = Examples(x[support[some]], labels.expand(len(some), -1))
            right.append((scores(known, x[query[some]]).argmax(-1) == target).float().mean(1))
    return float(torch.cat(right).mean())


if __name__ == "__main__":
    main()
