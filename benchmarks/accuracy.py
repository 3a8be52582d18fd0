"""Accuracy of plain classifiers on the features of a trained backbone: no example is made.

    python benchmarks/accuracy.py FOLDER --task omniglot --way 5,20 --shot 1,5 --trials 1000

FOLDER is what train_representation.py left. Appends to benchmarks/results/accuracy.jsonl.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from data_sets import RESULTS, append, open_data_set

from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe
from augforge.bench.run import run
from augforge.generators.nothing import Nothing
from augforge.parts import catalog

CLASSIFIERS = {
    "prototype": {},
    "simpleshot": {},
    "simpleshot-cosine": {"distance": "cosine"},
    "matching": {},
    "pmn": {},
    "logistic": {"C": 5.0, "normalise": "spread"},
    "gaussian": {},
    "knn": {},
}


def main() -> None:
    """Measure and append."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--views", action="store_true")
    parser.add_argument("--classifier", default="prototype")
    parser.add_argument("--way", default="5")
    parser.add_argument("--shot", default="1,5")
    parser.add_argument("--query", type=int, default=15)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--part", choices=("novel", "val"), default="novel")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    task = open_data_set(options.folder, options.task, options.data_root, options.views)
    made_by = json.loads((options.folder / "score.json").read_text())
    names = options.classifier.split(",")
    recipes = [Recipe(None, Nothing(), _classifier(name), names=("features", None, name)) for name in names]
    for way in map(int, options.way.split(",")):
        shots = tuple(map(int, options.shot.split(",")))
        plan = BenchPlan(way=way, shots=shots, query=options.query, trials=options.trials, part=options.part)
        rows: list[dict[str, Any]] = run(task, recipes, plan).rows
        for row in rows:
            del row["machine"], row["versions"]
            print(row["classifier"], way, row["shot"], row["accuracy"], row["ci95_classes"], flush=True)
        append(RESULTS / "accuracy.jsonl", rows, {"views": options.views, "trained": made_by["command"],
                                                  "backbone": made_by["made_by"]})  # fmt: skip


def _classifier(name: str) -> Any:
    return catalog.make(name.partition("-")[0], CLASSIFIERS[name], "classifier")


if __name__ == "__main__":
    main()
