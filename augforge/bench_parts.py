"""The parts of a recipe made ready, and its outcome: fitted once, rows made, queries judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augforge import __version__
from augforge.bench.features import Features, features_of
from augforge.bench.made_rows import Rows, check_support, from_features, from_parents, from_pictures, sharing
from augforge.bench.plan import Plan
from augforge.bench.predictions import Outcome, is_fast, load_outcome, predict, predict_fast, prepared
from augforge.bench.recipes import Recipe, part_name
from augforge.data.banks import AnyBank
from augforge.episodes.batch import Trials
from augforge.episodes.tasks import Task
from augforge.imagine import check_space
from augforge.parts.learning import fitted, sees_validation
from augforge.parts.saving import digest, fitted_tensors, made_by
from augforge.representations.bank import data_digest
from augforge.training.loop import Run
from augforge.types import Examples, capabilities


@dataclass(frozen=True, eq=False)
class Bench:
    """What every recipe of a run stands on: the task, the part of it that is judged, and where things are kept."""

    task: Task
    bank: AnyBank
    plan: Plan
    cache: Path | None
    device: str
    ready: dict[str, Any] = field(default_factory=dict)  # fitted parts

    def folder(self, name: str) -> Path | None:
        """Where something is kept, if anything is."""
        return None if self.cache is None else self.cache / name

    @property
    def val(self) -> AnyBank | None:
        """The validation classes, for parts that choose by them; None where they are the ones that are judged."""
        return self.task.val if self.plan.part == "novel" else None


def recipe_features(bench: Bench, recipes: list[Recipe]) -> Features:
    """The features of recipes with the same representation and options, which is fitted first where it has to be."""
    recipe, task, seed = recipes[0], bench.task, bench.plan.training_seed
    representation = recipe.representation
    if representation is not None and task.base.space == "image":
        kept = None
        if bench.cache is not None and not fitted_tensors(representation):
            kept = bench.folder(f"fitted/{digest([made_by(representation), seed, data_digest(task.base)])}")
        representation = fitted(representation, "representation", task.base, seed, kept)
    choosing = any(sees_validation(part) for r in recipes for part in (r.synthesizer, r.classifier))
    return features_of(representation, task.base, bench.bank, recipe.options, bench.folder("features"), bench.device,
                       bench.val if choosing else None)  # fmt: skip


def outcome_digest(bench: Bench, recipe: Recipe, features: Features, trials: Trials) -> str:
    """What an outcome depends on: the numbers, the episodes, the parts before they are fitted, and the seed."""
    parts = [recipe.synthesizer] if recipe.exact else [recipe.synthesizer, recipe.classifier]
    how: tuple[Any, ...] = ("exact",) if recipe.exact else (recipe.made, recipe.weights)
    if recipe.share is not None and not recipe.exact:
        how = (*how, float(recipe.share))  # only where one is given, so that what was kept before is still known
    told = [__version__, features.digest, features.maker, trials.digest(), *map(made_by, parts), *how,
            bench.plan.training_seed]  # fmt: skip
    return digest(told + _seen(features, *parts))


def _seen(features: Features, *parts: Any) -> list[str]:
    """The digest of the validation features where one of the parts learns from them."""
    return [features.val_digest] if features.val_digest and any(map(sees_validation, parts)) else []


def kept_outcome(bench: Bench, name: str, trials: Trials) -> Outcome | None:
    """What was measured before under this digest."""
    path = bench.folder(f"outcomes/{name}.npz")
    return None if path is None else load_outcome(path, tuple(trials.target.shape))


def keep_outcome(bench: Bench, name: str, outcome: Outcome) -> None:
    """Keep what was measured under this digest, if anything is kept."""
    path = bench.folder(f"outcomes/{name}.npz")
    if path is not None:
        outcome.save(path)


def measure(bench: Bench, recipes: list[Recipe], features: Features, trials: Trials) -> list[Outcome]:
    """The outcomes of recipes that differ in their classifier alone; rows are made once for all."""
    first, outcomes = recipes[0], dict[int, Outcome]()
    exact = [i for i, recipe in enumerate(recipes) if recipe.exact]
    if exact:
        check_support(first.synthesizer, trials)
        scorer = _fit(bench, first.synthesizer, "synthesizer", features)
        (found,) = predict([scorer], features, trials, None, True)  # the classifier has no say in it
        outcomes |= dict.fromkeys(exact, found)
    judged = [i for i in range(len(recipes)) if i not in outcomes]
    ready = {i: _fit(bench, recipes[i].classifier, "classifier", features) for i in judged}
    if first.plain:
        fast = [i for i in judged if is_fast(ready[i], features, trials)]
        outcomes |= {i: predict_fast(prepared(features), trials) for i in fast}
    slow = [i for i in judged if i not in outcomes]
    if slow:
        made = None if first.plain else sharing(_rows(bench, first, features, trials), first.share)
        found_slow = predict([ready[i] for i in slow], features, trials, made, first.weights == "constant")
        outcomes |= dict(zip(slow, found_slow, strict=True))
    return [outcomes[i] for i in range(len(recipes))]


def _rows(bench: Bench, recipe: Recipe, features: Features, trials: Trials) -> Rows:
    """The rows that the synthesizer of a recipe makes, fitted first, for any batch of `trials`."""
    seed, synthesizer = bench.plan.training_seed, recipe.synthesizer
    check_support(synthesizer, trials)
    if capabilities(synthesizer).space != "image":
        part = _fit(bench, synthesizer, "synthesizer", features)
        return from_features(part, features.support.x, recipe.made, seed)
    if features.embed is None:
        check_space(
            synthesizer, Examples(features.base.x[:1], features.base.y[:1]), part_name(synthesizer, "synthesizer")
        )
    assert features.embed is not None
    part = _fit(bench, synthesizer, "synthesizer", features, pictures=True)
    device = (
        bench.device if capabilities(part).trains else "cpu"
    )  # a network is worth the way there; what is not stays here
    if capabilities(part).one_parent:
        return from_parents(part, bench.bank, features.embed, trials, recipe.made, seed, device)
    return from_pictures(part, bench.bank, features.embed, recipe.made, seed, device)


def _fit(bench: Bench, part: Any, kind: str, features: Features, pictures: bool = False) -> Any:
    """A part fitted once in a run, on features or on the pictures behind them."""
    base, val = (bench.task.base, bench.val) if pictures else (features.base, features.val)
    name = digest([made_by(part), bench.plan.training_seed, features.digest, *_seen(features, part)])
    if name not in bench.ready:
        folder = bench.folder(f"fitted/{name}")
        run = Run(bench.device, None if folder is None else folder / "training")
        bench.ready[name] = fitted(part, kind, base, bench.plan.training_seed, folder, val, run)
    return bench.ready[name]
