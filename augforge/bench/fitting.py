"""What every recipe of a run stands on: the task, the features of a representation, and parts fitted once on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augforge.bench.features import Features, features_of
from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe
from augforge.data.banks import AnyBank
from augforge.episodes.tasks import Task
from augforge.parts.learning import fitted, sees_validation
from augforge.parts.saving import digest, fitted_tensors, made_by
from augforge.representations.bank import data_digest
from augforge.training.loop import Run


@dataclass(frozen=True, eq=False)
class Workbench:
    """What the recipes of a run share."""

    task: Task
    bank: AnyBank  # the part of the task that episodes are of
    plan: BenchPlan
    cache: Path | None  # the folder in which features, fitted parts and outcomes are kept
    device: str
    fitted: dict[str, Any] = field(default_factory=dict)  # parts by digest

    def folder(self, name: str) -> Path | None:
        """Where something is kept, if anything is."""
        return None if self.cache is None else self.cache / name

    @property
    def val(self) -> AnyBank | None:
        """The validation classes, for parts that choose by them; None where the episodes are of these."""
        return self.task.val if self.plan.part == "novel" else None


def recipe_features(bench: Workbench, recipes: list[Recipe], with_val: bool = False) -> Features:
    """The features of recipes with the same representation and options; the representation is fitted if it has to be.

    They hold those of the validation classes where a part chooses by them, or `with_val`.
    """
    recipe, task, seed = recipes[0], bench.task, bench.plan.training_seed
    representation = recipe.representation
    if representation is not None and task.base.space == "image":
        kept = None
        if bench.cache is not None and not fitted_tensors(representation):
            kept = bench.folder(f"fitted/{digest([made_by(representation), seed, data_digest(task.base)])}")
        representation = fitted(representation, "representation", task.base, seed, kept)
    choosing = with_val or any(sees_validation(part) for r in recipes for part in (r.synthesizer, r.classifier))
    return features_of(representation, task.base, bench.bank, recipe.options, bench.folder("features"), bench.device,
                       bench.val if choosing else None)  # fmt: skip


def seen_digest(features: Features, *parts: Any) -> list[str]:
    """The digest of the validation features where one of the parts learns from them."""
    return [features.val_digest] if features.val_digest and any(map(sees_validation, parts)) else []


def fit_once(bench: Workbench, part: Any, kind: str, features: Features, pictures: bool = False) -> Any:
    """A part fitted once in a run, on features or on the pictures behind them."""
    base, val = (bench.task.base, bench.val) if pictures else (features.base, features.val)
    name = digest([made_by(part), bench.plan.training_seed, features.digest, *seen_digest(features, part)])
    if name not in bench.fitted:
        folder = bench.folder(f"fitted/{name}")
        run = Run(bench.device, None if folder is None else folder / "training")
        bench.fitted[name] = fitted(part, kind, base, bench.plan.training_seed, folder, val, run)
    return bench.fitted[name]
