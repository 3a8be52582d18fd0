"""Plain classifiers on features of photographs: one view and averaged views, 1 to 20 shots, and what calibrates them.

    python benchmarks/photographs.py --data-root DIR [--trials 100] [--cache DIR]

Embeds every picture with `photos` as `--views` does it, and hands the features to `augforge bench`, whose rows go to
results/photographs.jsonl; frames of one track of `gtsrb_small` stay on one side of every episode. Cats, dogs and most
classes of `caltech101_small` are classes of ImageNet, on which the network was trained: `seen` says so. The other rows
are of logistic regression as `predict` uses it, on `EPISODES` episodes of its own: scikit-learn's accuracy on the same
episodes, the temperature that calibrates it, and the expected calibration error before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from record import append, facts
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from augforge.classifiers.logistic import Logistic
from augforge.data.banks import FeatureBank
from augforge.data.features import write_features
from augforge.data.selection import Selection
from augforge.data.source import open_source
from augforge.metrics.calibration import expected_calibration_error, fitted_temperature
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions
from augforge.types import Examples

# The split, how many classes and pictures of each, what keeps near-copies together, and whether ImageNet has them.
SETS: dict[str, tuple[str, int, int, str, bool]] = {
    "gtsrb_small": ("all", 43, 60, r"/(\d{5})_", False),
    "caltech101_small": ("all", 100, 30, "", True),
    "dogs_vs_cats_small_s160": ("train", 2, 100, "", True),
}
CLASSIFIERS = ("prototype", "matching", "knn", "logistic", "cosine", "mlp")
LOGISTIC = Logistic(C=100.0, normalise="l2")
SHOTS, EPISODES, QUERIES = (1, 2, 5, 10, 20), 40, 8


def main() -> None:
    """Measure, append, and show the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--set", dest="sets", action="append", choices=tuple(SETS))
    parser.add_argument("--views", action="append", choices=("none", "crops-4", "crops"))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--cache", type=Path, default=Path("build/photographs"))
    options = parser.parse_args()
    how = facts()
    for name in options.sets or SETS:
        split, classes, most, groups, seen = SETS[name]
        bank = open_source(str(options.data_root / f"{name}.tar"), None, Selection(most))[split]
        bank = bank.only(bank.classes[:classes])
        for views in options.views or ("none", "crops-4", "crops"):
            features = embed_bank(open_part("photos", None, "representation"), bank, BankOptions(views=views),
                                  options.cache)  # fmt: skip
            about = {"set": name, "seen": seen, "views": views}
            append("photographs", [about | row | how for row in calibration_rows(features, groups)])
            append("photographs", [row | about | how for row in bench_rows(features, groups, options)])


def bench_rows(bank: FeatureBank, groups: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of `augforge bench` for ways and shots that the classes allow, without the methods' controls."""
    path = options.cache / f"features-of-{os.getpid()}.safetensors"
    write_features(path, bank)
    found = []
    for way in (5, 20) if len(bank.classes) >= 20 else (len(bank.classes),):
        command = [sys.executable, "-m", "augforge.cli.main", "bench", str(path), "--way", str(way), "--query",
                   str(QUERIES), "--shot", ",".join(map(str, SHOTS)), "--trials", str(options.trials), "--normalise",
                   "l2", "--set", "logistic.C=100", "--json"]  # fmt: skip
        command += ["--group-by", groups] if groups else []
        for classifier in CLASSIFIERS:
            command += ["--classifier", classifier]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows = json.loads(printed.splitlines()[-1])["rows"]
        found += [row for row in rows if row["synthesizer"] == "nothing"]
    path.unlink()
    return found


def calibration_rows(bank: FeatureBank, groups: str) -> list[dict[str, Any]]:
    """For each number of shots of 5, and 20, classes: what calibrates, and what scikit-learn has."""
    near = [re.search(groups, bank.name(i))[1] if groups else str(i) for i in range(len(bank))]  # type: ignore[index]
    x = F.normalize(bank.x, dim=1)
    found = []
    for way in (5, 20) if len(bank.classes) >= 20 else (len(bank.classes),):
        for shot in SHOTS:
            scores, labels, right, theirs = [], [], [], []
            for seed in range(EPISODES):
                episode = draw(bank, near, (way, shot), np.random.default_rng(seed))
                if episode is None:
                    break
                support, query, of_support, of_query = episode
                scores.append(LOGISTIC.scores(Examples(x[support], of_support), x[query]))
                labels.append(of_query)
                right.append((scores[-1].argmax(1) == of_query).double().mean())
                if seed < EPISODES // 4:
                    peer = LogisticRegression(C=100, max_iter=1000).fit(x[support].numpy(), of_support.numpy())
                    theirs.append(float((peer.predict(x[query].numpy()) == of_query.numpy()).mean() - float(right[-1])))
            if scores:
                row = {"way": way, "shot": shot, "accuracy_of_predict": 100 * float(torch.stack(right).mean())}
                found.append(row | {"sklearn_minus_ours": 100 * float(np.mean(theirs)), **calibration(scores, labels)})
    return found


def calibration(scores: list[Tensor], labels: list[Tensor]) -> dict[str, float]:
    """The temperature of the first half of the episodes, and the error of the second half with and without it."""
    half = len(scores) // 2
    temperature = fitted_temperature(torch.cat(scores[:half]), torch.cat(labels[:half]))
    rest, truth = torch.cat(scores[half:]), torch.cat(labels[half:])
    right = (rest.argmax(1) == truth).numpy()
    before, after = (torch.softmax(rest / t, 1).amax(1).numpy() for t in (1, temperature))
    return {"temperature": temperature, "ece_before": expected_calibration_error(before, right),
            "ece_after": expected_calibration_error(after, right)}  # fmt: skip


def draw(
    bank: FeatureBank, near: list[str], shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Support and query rows and their labels, no group on both sides; None where a class is too small for it."""
    way, shot = shape
    support, query = [], []
    for k in rng.choice(len(bank.classes), way, replace=False):
        rows, shown, taken = rng.permutation(bank.rows_of(int(k)).numpy()), set(), []
        for row in rows:
            if len(taken) < shot:
                taken.append(int(row))
                shown.add(near[row])
        rest = [int(row) for row in rows if near[row] not in shown][:QUERIES]
        if len(taken) < shot or not rest:
            return None
        support.append(taken)
        query.append(rest)
    labels = [torch.tensor([k for k, rows in enumerate(side) for _ in rows]) for side in (support, query)]
    rows = [torch.tensor([row for rows in side for row in rows]) for side in (support, query)]
    return rows[0], rows[1], labels[0], labels[1]


if __name__ == "__main__":
    main()
