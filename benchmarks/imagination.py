"""What imagined rows are worth on the features of a trained backbone: ours and the controls.

    python benchmarks/imagination.py FOLDER --task cifar-fs --views --trials 2000 --seeds 0,1,2

FOLDER is what train_representation.py left. Every gain is over the plain classifier (nearest mean, its cosine form,
SimpleShot, logistic regression) that was best on the validation classes at that number of shots, on the same
episodes, pooled over training seeds, with an interval over classes; with `--views` also over the best on features of
one view. Appends to benchmarks/results/imagination.jsonl and prints a table. `--arms` takes names of ARMS, by default
all. With a folder `--kept`, what was fitted and predicted stays there, and the same command after a break goes on where
it was. Published methods are compared by rivals.py.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import RESULTS, append, open_data_set

from augforge import statistics
from augforge.bench.accuracy import shot_worth
from augforge.bench.plan import BenchPlan
from augforge.bench.recipe_result import RecipeResult, ends, percent
from augforge.bench.recipes import Recipe
from augforge.bench.run import Results, run, run_seeds
from augforge.bench.table import best_plain
from augforge.episodes.tasks import Task
from augforge.generators.nothing import Nothing
from augforge.parts import catalog

_LOGISTIC = {"C": 5.0, "normalise": "spread"}  # the best on validation letters at every normalisation of features
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "prototype": ("prototype", {}),
    "prototype-cosine": ("prototype", {"distance": "cosine"}),
    "simpleshot": ("simpleshot", {}),
    "logistic": ("logistic", _LOGISTIC),
}
# name: (synthesizer, its settings, classifier); made rows where the classifier is not gaussian
ARMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "hallucinator": ("hallucinator", {}, "gaussian"),
    "posterior": ("posterior", {}, "gaussian"),
    "hallucinator, rows": ("hallucinator", {}, "prototype"),
    "posterior, rows": ("posterior", {}, "prototype"),
}
_KEY = 20180618  # of the bootstrap


def main() -> None:
    """Measure, print and append."""
    options = _options()
    task = open_data_set(options.folder, options.task, options.data_root, options.views)
    shots = tuple(map(int, options.shot.split(",")))
    plan = BenchPlan(way=options.way, shots=shots, query=options.query, trials=options.trials)
    chosen, nothing = _plain(task, plan, options.kept)
    recipes = [_recipe(name) for name in (list(ARMS) if options.arms is None else options.arms.split(";"))]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    found = (run_seeds(task, recipes, plan, seeds, options.kept, _progress) if len(seeds) > 1
             else run(task, recipes, plan, options.kept, _progress))  # fmt: skip
    plain = {"best": chosen}
    if options.views and (options.folder / "train.safetensors").exists():  # what the views are worth by themselves
        alone = open_data_set(options.folder, options.task, options.data_root)
        plain["one_view"] = _plain(alone, plan, options.kept)[0]
    rows = [*_rows(nothing, plain), *_rows(found, plain)]
    for row in rows:
        print(f"{row['synthesizer']:34.34} {row['classifier']:10.10} {row['shot']!s:>3} {row['accuracy']:7.2f} "
              f"{row['gain_best']:+6.2f} {row['gain_best_ci95']} {row['best_plain']} "
              f"{row['worth_best'] if row['exact'] else ''} {row.get('gain_one_view', '')}", flush=True)  # fmt: skip
    append(RESULTS / "imagination.jsonl", rows, {"bed": options.bed or options.folder.name, "views": options.views})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--bed", help="what to call the features [default: the folder's name]")
    parser.add_argument("--views", action="store_true", help="features averaged over ten views, in every arm")
    parser.add_argument("--way", type=int, default=5)
    parser.add_argument("--shot", default="1,2,5,10,20")
    parser.add_argument("--query", type=int, default=15)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", help="names of ARMS with semicolons [default: all]")
    parser.add_argument("--kept", type=Path, help="where to keep what a broken-off run has measured")
    parser.add_argument("--data-root", type=Path)
    return parser.parse_args()


def _progress(done: int, total: int, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {done}/{total} {what}", flush=True)


def _plain(task: Task, plan: BenchPlan, kept: Path | None) -> tuple[dict[Any, RecipeResult], Results]:
    """On novel classes, the plain recipe that was best on validation classes at each number of shots, and all."""
    recipes = [Recipe(None, Nothing(), _classifier(name), names=("features", None, name)) for name in PLAIN]
    val = run(
        task, recipes, BenchPlan(plan.way, plan.shots, min(plan.query, 10), min(600, plan.trials), part="val"), kept
    )
    novel = run(task, recipes, plan, kept)
    by_name = {(arm.recipe.shown()["classifier"], arm.shot): arm for arm in novel.by_recipe}
    chosen = {shot: by_name[arm.recipe.shown()["classifier"], shot] for shot, arm in best_plain(val.by_recipe).items()}
    for row in novel.rows:
        print(f"plain {row['classifier']:20} {row['shot']!s:>3} {row['accuracy']:7.2f} {row['ci95_classes']}")
    return chosen, novel


def _classifier(name: str) -> Any:
    return catalog.make(*PLAIN[name], "classifier")


def _recipe(name: str) -> Recipe:
    synthesizer, settings, classifier = ARMS[name]
    judge = catalog.make(classifier, {}, "classifier")
    return Recipe(None, catalog.make(synthesizer, settings), judge, 20, names=("features", name, classifier))


def _rows(found: Results, plain: dict[str, dict[Any, RecipeResult]]) -> list[dict[str, Any]]:
    """The rows of a table, each with its gain over chosen plain classifiers and what it is worth in their shots.

    `plain` has, by name, one for each number of shots: on the same features ("best"), on those of one view.
    """
    rows = [dict(row) for row in found.rows]
    for name, chosen in plain.items():
        shots = list(chosen)
        curve = np.array([chosen[shot].correct.mean() for shot in shots])
        draws = np.stack([_draws(chosen[shot]) for shot in shots], 1)
        for row, arm in zip(rows, found.by_recipe, strict=True):
            over = statistics.class_interval(arm.correct - chosen[arm.shot].correct, arm.trials.clusters)
            worth = shot_worth(float(arm.correct.mean()), _draws(arm), shots, curve, draws)
            row |= {f"gain_{name}": percent(over.value), f"gain_{name}_ci95": ends(over),
                    f"worth_{name}": worth.words()}  # fmt: skip
            row[f"{name}_plain"] = chosen[arm.shot].recipe.shown()["classifier"]
    return rows


def _draws(arm: RecipeResult) -> np.ndarray:
    return statistics.class_draws(arm.correct[:, :, None], arm.trials.clusters, _KEY)[:, 0]


if __name__ == "__main__":
    main()
