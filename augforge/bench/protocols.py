"""Protocols of the literature beside episodes, on the features of a task: low-shot in one label space, verification.

What is measured is in `augforge.protocols`; here features are made, parts fitted, rows made and tables written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from augforge import __version__, chance, statistics
from augforge.bench.features import Features, banks_digest
from augforge.bench.fitting import Workbench, fit_once, recipe_features
from augforge.bench.plan import BenchPlan
from augforge.bench.predictions import Scorer
from augforge.bench.recipe_result import TableRow, ends, percent
from augforge.bench.recipes import Recipe, with_controls
from augforge.data.banks import FeatureBank
from augforge.episodes.tasks import Task
from augforge.imagine import enlarge, more_of_each
from augforge.parts.saving import digest, made_by
from augforge.protocols.low_shot import (
    SHOTS,
    LowShot,
    LowShotResult,
    Scores,
    concatenate_banks,
    draw_low_shot,
    evaluate,
    held_out,
    mean_priors,
)
from augforge.protocols.verification import verify
from augforge.types import Examples, InputError, capabilities

_QUERIES_AT_ONCE = 1000
_COLUMNS = ("novel", "base", "all", "all_prior")


@dataclass(frozen=True)
class LowShotPlan:
    """How low-shot recognition in one label space is run. Raises InputError for numbers out of range."""

    shots: tuple[int, ...] = SHOTS  # training rows of each novel class, in turn
    query: int = 15  # rows of each class held out as queries
    draws: int = 5  # of the training rows of novel classes, at least 2
    seed: int = 0  # of the held-out rows, the draws, fitting and making
    val: bool = False  # whether the validation classes stand for the novel ones, to choose settings by

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.shots, default=0) < 1 or self.query < 1 or self.draws < 2:
            raise InputError(
                f"shots={self.shots}, query={self.query}, draws={self.draws} was given for low-shot recognition; "
                "expected at least 1 shot, 1 query and 2 draws"
            )


@dataclass(frozen=True, eq=False)
class LowShotPair:
    """The task that is reported, and the one with validation classes that priors are tuned on (None: on halves)."""

    name: str
    test: LowShot
    tuning: LowShot | None


def low_shot_features(task: Task, recipe: Recipe, plan: LowShotPlan, device: str, cache: Path | None) -> LowShotPair:
    """The low-shot tasks in the features of a recipe's representation: base and novel classes, base and validation.

    Of every class `plan.query` rows are held out as queries. Raises InputError where a class has too few rows.
    """
    bank = task.val if plan.val else task.novel
    if task.base is None:
        raise InputError(
            f"--protocol low-shot tells base and novel classes apart, and {task.name!r} has no base classes; expected "
            "a source with train and test folders of different classes"
        )
    if bank is None:
        raise InputError(f"the task {task.name!r} has no validation classes to run on")
    bench = Workbench(task, bank, BenchPlan(seed=plan.seed, part="val" if plan.val else "novel"), cache, device)
    features = recipe_features(bench, [recipe], with_val=True)
    base, novel, val = (_on_cpu(b) for b in (features.base, features.support, features.val))
    assert base is not None
    assert novel is not None
    return LowShotPair(task.name, _low_shot(base, novel, plan), None if val is None else _low_shot(base, val, plan))


def _on_cpu(bank: FeatureBank | None) -> FeatureBank | None:
    return None if bank is None else replace(bank, x=bank.x.cpu(), y=bank.y.cpu())


def _low_shot(base: FeatureBank, novel: FeatureBank, plan: LowShotPlan) -> LowShot:
    fewest, needed = min(int(base.counts().min()), int(novel.counts().min()) - max(plan.shots) + 1), plan.query + 1
    if fewest < needed:
        raise InputError(
            f"classes of {base.origin!r} and {novel.origin!r} have too few rows for {max(plan.shots)} shots and "
            f"{plan.query} queries; expected lower numbers with --shot and --query"
        )
    train, test = held_out(concatenate_banks(base, novel), plan.query, plan.seed)
    return draw_low_shot(train, test, novel.classes, draws=plan.draws, most=max(max(plan.shots), 1), seed=plan.seed)


def run_low_shot(pair: LowShotPair, recipes: Sequence[Recipe], plan: LowShotPlan) -> list[TableRow]:
    """Recipes and controls on the same draws: a row for each recipe and number of shots, accuracies in percent.

    Made rows are added to novel classes; base classes keep their real rows. Synthesizers and classifiers are fitted on
    the training rows of the base classes. A gain is the paired difference to nothing made, of all queries with the
    prior, with Student's 95 % interval over the draws: queries and classes stay the same in it. Raises InputError for
    a method that makes pictures.
    """
    pictures = [recipe for recipe in recipes if capabilities(recipe.synthesizer).space == "image"]
    if pictures:
        raise InputError(
            f"{pictures[0].shown()['synthesizer']} makes pictures, and the low-shot protocol adds rows to features; "
            "expected a method that makes features"
        )
    base = _real_rows(pair.test, pair.test.base)
    val = None if pair.tuning is None else _real_rows(pair.tuning, pair.tuning.novel)
    options = recipes[0].options
    features = Features(base, base, base, None, banks_digest([base], options), "", val,
                        "" if val is None else banks_digest([val], options))  # fmt: skip
    task = Task(pair.name, base, val, _real_rows(pair.test, pair.test.novel))
    bench = Workbench(task, task.novel, BenchPlan(seed=plan.seed), None, "cpu")
    rows: list[TableRow] = []
    plain: dict[tuple[str, int], list[LowShotResult]] = {}
    with torch.no_grad():
        for recipe, control in with_controls(recipes, task.novel):
            scores = _scores(bench, recipe, features, len(base.classes))
            priors = None if pair.tuning is None else mean_priors(evaluate(pair.tuning, scores, plan.shots))
            found = evaluate(pair.test, scores, plan.shots, priors)
            for shot in plan.shots:
                results = [result for result in found if result.shot == shot]
                if recipe.plain:
                    plain[recipe.shown()["classifier"], shot] = results
                nothing = plain[recipe.shown()["classifier"], shot]
                facts = {"task": pair.name, "seed": plan.seed, **_facts(recipe, control), "shot": shot,
                         "draws": len(results), "query": plan.query, "base_classes": len(pair.test.base),
                         "novel_classes": len(pair.test.novel)}  # fmt: skip
                name = [__version__, features.digest, made_by(recipe.synthesizer), made_by(recipe.classifier), facts]
                rows.append(facts | _accuracies(results, nothing) | {"digest": digest(name)})
    return rows


def _real_rows(task: LowShot, ids: Tensor) -> FeatureBank:
    """The training rows of some of the classes of a low-shot task, as a bank of these classes alone."""
    position = torch.full((len(task.train.classes),), -1, dtype=torch.int64)
    position[ids] = torch.arange(len(ids))
    labels = position[task.train.y]
    known = (labels >= 0).nonzero(as_tuple=True)[0]
    names = tuple(task.train.classes[i] for i in ids.tolist())
    return FeatureBank(task.train.x[known], labels[known], names, task.train.origin)


def _facts(recipe: Recipe, control: bool) -> TableRow:
    return {**recipe.shown(), "made": recipe.made, "weights": recipe.weights, "share": recipe.share,
            "exact": recipe.exact, "control": control, "normalise": recipe.options.normalise,
            "views": recipe.options.views}  # fmt: skip


def _scores(bench: Workbench, recipe: Recipe, features: Features, n_base: int) -> Scores:
    """How a recipe scores queries, its parts fitted on the base classes."""
    part: Any = None if recipe.plain else fit_once(bench, recipe.synthesizer, "synthesizer", features)
    scorer: Scorer = part if recipe.exact else fit_once(bench, recipe.classifier, "classifier", features)

    def scores(support: Examples, query: Tensor) -> Tensor:
        known = support if recipe.plain or recipe.exact else _enlarged(recipe, part, support, n_base, bench.plan.seed)
        return torch.cat([scorer.scores(known, some) for some in query.split(_QUERIES_AT_ONCE)])

    return scores


def _enlarged(recipe: Recipe, part: Any, support: Examples, n_base: int, seed: int) -> Examples:
    """The support with rows made of the novel classes, weighted as the recipe says."""
    novel, classes = support.y >= n_base, int(support.y.max()) + 1
    want = n_base + more_of_each(classes - n_base, recipe.made)
    keys = chance.pair_keys(seed, "made rows", torch.arange(len(want)))
    found = support.take(~novel) + enlarge(support.take(novel), part, want, keys, recipe.share, recipe.classifier)
    if recipe.weights == "each":
        return found
    weight = torch.ones(len(found)) if found.weight is None else found.weight.float()
    together = torch.bincount(found.y, weight, minlength=classes)
    real = torch.bincount(support.y, minlength=classes)
    return replace(found, weight=weight * (real / together).float()[found.y])


def _accuracies(results: Sequence[LowShotResult], nothing: Sequence[LowShotResult]) -> TableRow:
    """Means over draws of top-1 and top-5 accuracies in percent, priors, and gains over nothing made."""
    row: TableRow = {}
    for top in ("top1", "top5"):
        found, plain = ([getattr(result, top) for result in some] for some in (results, nothing))
        row |= {f"{top}_{column}": percent(mean(getattr(one, column) for one in found)) for column in _COLUMNS}
        row[f"{top}_prior"] = round(mean(one.prior for one in found), 4)
        gain = [one.all_prior - other.all_prior for one, other in zip(found, plain, strict=True)]
        interval = statistics.episode_interval(gain)
        row |= {f"gain_{top}": percent(interval.value), f"gain_{top}_ci95": ends(interval)}
    return row


def run_verification(task: Task, recipe: Recipe, seed: int, device: str, cache: Path | None) -> list[TableRow]:
    """Verification of the novel people of a task in the features of a recipe, by cosine and by Euclidean distance.

    The threshold is found on the validation people. Rates are in percent; an interval is over people, by bootstrap.
    Raises InputError for a task without validation classes, and what `verify` raises.
    """
    if task.val is None:
        raise InputError(f"the task {task.name!r} has no validation classes to find the threshold on")
    bench = Workbench(task, task.novel, BenchPlan(seed=seed), cache, device)
    features = recipe_features(bench, [recipe], with_val=True)
    novel, val = _on_cpu(features.support), _on_cpu(features.val)
    assert novel is not None
    assert val is not None
    rows: list[TableRow] = []
    for similarity in ("cosine", "euclidean"):
        found = verify(novel, val, similarity=similarity, seed=seed)
        row: TableRow = {"task": task.name, "seed": seed, "representation": recipe.shown()["representation"],
                         "normalise": recipe.options.normalise, "views": recipe.options.views,
                         "similarity": similarity}  # fmt: skip
        for name in ("auc", "equal_error_rate", "accuracy"):
            row[name] = percent(getattr(found, name))
            row[f"{name}_ci95"] = [percent(end) for end in getattr(found, f"{name}_ci95")]
        row |= {"threshold": found.threshold, "val_accuracy": percent(found.val_accuracy), "people": found.people,
                "pairs": found.pairs, "bank": features.digest, "maker": features.made_by}  # fmt: skip
        rows.append(row | {"digest": digest([__version__, features.digest, features.val_digest, seed, similarity])})
    return rows
