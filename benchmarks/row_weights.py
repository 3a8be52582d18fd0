"""What made rows gain at their default weights, before each kind of classifier.

    python benchmarks/row_weights.py glyphs --trials 300 [--with hallucinator-glyphs] [--classifier logistic]

Episodes of the novel classes in features of the shipped `conv4-glyphs`; every gain is over the same classifier with
nothing made, on the same episodes, with an interval over classes. What made rows weigh is what `bench` takes without
`--share`. Appends to benchmarks/results/row_weights.jsonl and prints a table. With `--pictures` methods are given
pictures, so that `classical` and `image-gan-glyphs` can be named.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from data_sets import RESULTS, append

from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe
from augforge.bench.run import run
from augforge.episodes.named_tasks import open_task
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions


def main() -> None:
    """Measure, print and append."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("task")
    parser.add_argument("--with", dest="methods", action="append")
    parser.add_argument("--classifier", dest="classifiers", action="append")
    parser.add_argument("--way", type=int, default=20)
    parser.add_argument("--shot", default="1,2,5,10")
    parser.add_argument("--query", type=int, default=10)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--made", type=int, default=20)
    parser.add_argument("--pictures", action="store_true", help="methods make pictures, which are embedded")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    task, representation = open_task(options.task, options.data_root), open_part("conv4-glyphs", None, "representation")
    if not options.pictures:
        banks = {
            part: embed_bank(representation, getattr(task, part), BankOptions()) for part in ("base", "val", "novel")
        }
        task, representation = replace(task, **banks), None
    shots = tuple(map(int, options.shot.split(",")))
    plan = BenchPlan(way=options.way, shots=shots, query=options.query, trials=options.trials)
    recipes = [
        Recipe(representation, open_part(method), open_part(classifier, None, "classifier"), options.made,
               names=(None, method, None))
        for method in options.methods or ["hallucinator-glyphs"]
        for classifier in options.classifiers or ["prototype", "matching", "logistic"]
    ]  # fmt: skip
    rows = [row for row in run(task, recipes, plan).rows if row["gain"] or row["made"]]
    for row in rows:
        low, high = row["gain_ci95"]
        print(f"{row['synthesizer']:32.32} {row['classifier']:10.10} {row['shot']:>3} share {row['made_share']!s:7} "
              f"{row['accuracy']:6.2f} {row['gain']:+6.2f} ({low:+.2f} to {high:+.2f})", flush=True)  # fmt: skip
    append(RESULTS / "row_weights.jsonl", rows, {})


if __name__ == "__main__":
    main()
