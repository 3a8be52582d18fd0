"""Nearest-prototype episodes a second against easyfsl's evaluation, on cached features and one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/prototypes.py [--json] [--rounds 9]

640 features, 20 classes x 600 rows, 5-way 1-shot and 5-shot, 15 queries; our share includes preparing the bank.
easyfsl 1.5.0 is measured twice: its evaluation fed with tensors that an index has gathered, the kindest way to call
it, and fed by its own data set and collate function in a DataLoader, the way its tutorials do. (Its TaskSampler raises
on current torch, so the same episodes are handed to both.) Its distance is not squared; the predictions are the same.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from easyfsl.datasets import FeaturesDataset
from easyfsl.methods import PrototypicalNetworks
from easyfsl.samplers import TaskSampler
from easyfsl.utils import evaluate
from paired import paired, show
from torch import Tensor

from augforge.bench.fast_prototypes import prepare, prototype_predictions
from augforge.episodes import draw_episodes
from augforge.episodes.batch import Stacked

CLASSES, EACH, WIDTH, WAY, QUERY = 20, 600, 640, 5, 15
TRIALS, PEER_TRIALS = 4096, 256  # theirs are fewer, and scaled up: they go one by one


class Gathered:
    """Episodes as easyfsl's evaluation takes them, gathered by index one by one."""

    def __init__(self, x: Tensor, episodes: Stacked, count: int) -> None:
        self.x, self.episodes, self.count = x, episodes, count
        self.support_y = torch.arange(WAY).repeat_interleave(episodes.support.shape[2])
        self.query_y = torch.arange(WAY).repeat_interleave(QUERY)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple]:
        for i in range(self.count):
            support, query = (self.x[rows[i].reshape(-1)] for rows in (self.episodes.support, self.episodes.query))
            yield support, self.support_y, query, self.query_y, []


def collated(x: Tensor, y: Tensor, episodes: Stacked, count: int) -> torch.utils.data.DataLoader:
    """The same episodes through easyfsl's data set and collate function."""
    sampler = TaskSampler.__new__(TaskSampler)  # only for its collate function: its constructor raises
    sampler.n_way, sampler.n_shot, sampler.n_query = WAY, episodes.support.shape[2], QUERY
    rows = torch.cat([episodes.support, episodes.query], 2)[:count].reshape(count, -1).tolist()
    data = FeaturesDataset(y.tolist(), x, [str(i) for i in range(CLASSES)])
    return torch.utils.data.DataLoader(data, batch_sampler=rows, collate_fn=sampler.episodic_collate_fn)


def judged(x: Tensor, episodes: Stacked) -> Callable[[], float]:
    """Our accuracy on all episodes."""
    target = np.arange(WAY)[None, :, None]
    return lambda: float((prototype_predictions(prepare(x), episodes) == target).mean())


def main() -> None:
    """Measure both forms of episode against both ways to feed easyfsl."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--rounds", type=int, default=9)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    y = torch.arange(CLASSES).repeat_interleave(EACH)
    rng = torch.Generator().manual_seed(0)
    centres = 0.12 * torch.randn(CLASSES, WIDTH, generator=rng)
    x = centres[y] + torch.randn(len(y), WIDTH, generator=rng)
    rows = []
    for shot in (1, 5):
        drawn = draw_episodes(y, way=WAY, shot=shot, n_query=QUERY, trials=TRIALS, seed=1)
        episodes = Stacked(*(torch.stack([getattr(e, k) for e in drawn]) for k in ("classes", "support", "query")))
        model = PrototypicalNetworks(torch.nn.Identity())
        loaders = {"gathered by index": Gathered(x, episodes, PEER_TRIALS),
                   "its DataLoader": collated(x, y, episodes, PEER_TRIALS)}  # fmt: skip
        ours = judged(x, episodes)
        for feed, loader in loaders.items():
            measured = paired(ours, partial(evaluate, model, loader, "cpu", False), options.rounds)
            scale = TRIALS / PEER_TRIALS
            measured |= {key: round(measured[key] * scale, 2) for key in ("ratio", "low", "high")}
            rows.append({"case": f"{WAY}w{shot}s", "peer": f"easyfsl 1.5.0, {feed}", **measured,
                         "episodes_per_second": round(TRIALS / measured["seconds"]),
                         "peer_episodes_per_second": round(PEER_TRIALS / measured["peer_seconds"])})  # fmt: skip
    show(rows, options.json)


if __name__ == "__main__":
    main()
