"""Logistic regression of many episodes at once against scikit-learn's, episode by episode, on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/logistic.py [--json] [--rounds 9]

Both minimise the same objective (C = 5) on the same support and predict the same 15 queries of each class.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sklearn
import torch
from paired import paired, show
from sklearn.linear_model import LogisticRegression

from augforge.classifiers.logistic import Logistic
from augforge.types import Examples

C, QUERY = 5.0, 15
CASES = ((5, 1, 64, 60), (5, 5, 64, 60), (5, 5, 640, 30), (20, 5, 640, 10))  # way, shot, features, episodes


def main() -> None:
    """Measure each case."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--rounds", type=int, default=9)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    rows = []
    for way, shot, d, episodes in CASES:
        centres = torch.randn(episodes, way, 1, d, generator=rng)
        x, query = (
            ((centres + torch.randn(episodes, way, n, d, generator=rng)) / d**0.5).flatten(1, 2) for n in (shot, QUERY)
        )
        y = torch.arange(way).repeat_interleave(shot).expand(episodes, -1)
        data = [tuple(part.numpy() for part in episode) for episode in zip(x, y, query, strict=True)]

        support = Examples(x, y)

        def ours(support: Examples = support, query: torch.Tensor = query) -> torch.Tensor:
            return Logistic(C=C).scores(support, query).argmax(-1)

        def peer(data: list = data) -> list:
            return [LogisticRegression(C=C, max_iter=1000).fit(x, y).predict(query) for x, y, query in data]

        measured = paired(ours, peer, options.rounds)
        rows.append({"case": f"{way}w{shot}s, {d} features", "peer": f"scikit-learn {sklearn.__version__}", **measured})
    show(rows, options.json)


if __name__ == "__main__":
    main()
