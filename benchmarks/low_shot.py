"""Hariharan and Girshick's protocol on the features of a trained backbone: base and novel classes in one label space.

    python benchmarks/low_shot.py FOLDER --task cifar-fs --views

FOLDER is what train_representation.py left. Of every class 100 rows are queries and the others support: all of a base
class's, n = 1, 2, 5, 10, 20 of a novel one's, in five fixed draws. The prior that is added to the scores of novel
classes is tuned in the same way on the validation classes, and so is logistic regression's C, on their first draw;
every class weighs the same to it. Base rows were seen by the backbone, queries among them too. `--methods` takes names
with semicolons, by default all. Appends to benchmarks/results/low_shot.jsonl: means over draws, in percent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from data_sets import RESULTS, append, open_data_set
from torch import Tensor

from augforge.chance import row_keys
from augforge.data.banks import FeatureBank
from augforge.generators.shared.posterior.predictive import predictive_scores
from augforge.imagine import fill_to
from augforge.parts import catalog
from augforge.protocols.low_shot import (
    SHOTS,
    LowShot,
    concatenate_banks,
    draw_low_shot,
    evaluate,
    held_out,
    mean_priors,
)
from augforge.types import Examples

Scores = Callable[[Examples, Tensor], Tensor]
_QUERIES_AT_ONCE = 1000
_STRENGTHS = (0.5, 5.0, 50.0)  # the C of logistic regression


def main() -> None:
    """Measure and append."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--views", action="store_true")
    parser.add_argument("--methods", help="names with semicolons [default: all]")
    parser.add_argument("--shots", default=",".join(map(str, SHOTS)))
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    task = open_data_set(options.folder, options.task, options.data_root, options.views)
    assert isinstance(task.base, FeatureBank)
    assert isinstance(task.val, FeatureBank)
    assert isinstance(task.novel, FeatureBank)
    shots = tuple(map(int, options.shots.split(",")))
    tuning, reported = (_low_shot(task.base, bank) for bank in (task.val, task.novel))
    methods = _methods(task.base, task.val, tuning)
    for name in list(methods) if options.methods is None else options.methods.split(";"):
        rows, scores = [], methods[name]
        priors = mean_priors(evaluate(tuning, scores, shots))
        found = evaluate(reported, scores, shots, priors)
        for shot in dict.fromkeys(result.shot for result in found):
            row: dict[str, Any] = {"method": name, "shot": shot}
            for k, top in ((1, "top1"), (5, "top5")):
                of_shot = [getattr(result, top) for result in found if result.shot == shot]
                for column in ("novel", "base", "all", "all_prior"):
                    row[f"{top}_{column}"] = round(100 * mean(getattr(one, column) for one in of_shot), 2)
                row[f"prior_{top}"] = round(priors[shot, k], 4)
            rows.append(row)
            print(name, {key: value for key, value in row.items() if key.startswith("top")}, flush=True)
        append(RESULTS / "low_shot.jsonl", rows, {"bed": options.folder.name, "views": options.views, "draws": 5})


def _low_shot(base: FeatureBank, novel: FeatureBank) -> LowShot:
    train, test = held_out(concatenate_banks(base, novel), 100)
    return draw_low_shot(train, test, novel.classes)


def _methods(base: FeatureBank, val: FeatureBank, tuning: LowShot) -> dict[str, Scores]:
    """Ways to score: plain classifiers, the posterior's and the hallucinator's densities, and made rows."""
    prototype = catalog.make("prototype", {}, "classifier")
    simpleshot = catalog.make("simpleshot", {}, "classifier").fit(base, torch.Generator().manual_seed(0))

    @cache
    def fitted(synthesizer: str) -> Any:
        settings: dict[str, Any] = {"gated": False} if synthesizer == "posterior" else {}
        return catalog.make(synthesizer, settings).fit(base, torch.Generator().manual_seed(0), val)

    @cache
    def logistic() -> Scores:
        return _logistic(tuning)

    return {
        "prototype": prototype.scores,
        "simpleshot": simpleshot.scores,
        "posterior, exact": _in_parts(lambda s, q: fitted("posterior").scores(s, q)),
        "hallucinator, exact, no vote": _in_parts(
            lambda s, q: predictive_scores(list(fitted("hallucinator").models_), s, q)
        ),
        "wang-hallucinator, prototype": lambda s, q: prototype.scores(_filled(fitted("wang-hallucinator"), s), q),
        "hallucinator rows, prototype": lambda s, q: prototype.scores(_filled(fitted("hallucinator"), s), q),
        "logistic": lambda s, q: logistic()(s, q),
        "hallucinator rows, logistic": lambda s, q: logistic()(_filled(fitted("hallucinator"), s), q),
    }


def _logistic(tuning: LowShot) -> Scores:
    """Logistic regression to which every class weighs the same; C is best by all classes, top-5 with the prior."""
    first = replace(tuning, draws=tuning.draws[:1])
    found = {}
    for strength in _STRENGTHS:
        results = evaluate(first, _balanced(strength), (1, 20))
        found[strength] = mean(result.top5.all_prior for result in results)
    print("C of logistic regression on validation classes", found, flush=True)
    return _balanced(max(found, key=lambda strength: found[strength]))


def _balanced(strength: float) -> Scores:
    classifier = catalog.make("logistic", {"C": strength, "normalise": "spread"}, "classifier")

    def scores(support: Examples, query: Tensor) -> Tensor:
        weight = torch.ones(len(support.y)) if support.weight is None else support.weight
        of_class = torch.bincount(support.y, weight)
        share = weight * (of_class.mean() / of_class)[support.y]
        return classifier.scores(replace(support, weight=share.float()), query)

    return scores


def _in_parts(scores: Scores) -> Scores:
    def of_all(support: Examples, query: Tensor) -> Tensor:
        return torch.cat([scores(support, part) for part in query.split(_QUERIES_AT_ONCE)])

    return of_all


def _filled(part: Any, support: Examples) -> Examples:
    """The support with classes of fewer than 20 rows filled up to 20."""
    want = fill_to(support.y, 20)
    if not len(want):
        return support
    few = torch.isin(support.y, want)
    with torch.no_grad():
        made = part.synthesize(support.take(few), want, row_keys(0, "made", torch.arange(len(want))))
    return support + made


if __name__ == "__main__":
    main()
