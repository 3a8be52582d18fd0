"""What every recipe of a run stands on: the task, the features of a representation, and parts fitted once on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from augforge.bench.features import Features, features_of
from augforge.bench.place import Place, RunItems
from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe, part_name
from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank
from augforge.episodes.tasks import Task
from augforge.parts.learning import fitted, sees_validation
from augforge.parts.saving import digest, fitted_tensors, made_by
from augforge.representations.bank import data_digest
from augforge.training.loop import Run
from augforge.types import InputError, NothingToLearn, capabilities

_NO_PICTURES = ArrayPictures(torch.zeros(0, dtype=torch.int64), (), np.zeros((0, 1, 1, 3), np.uint8), "no base classes")


@dataclass(frozen=True, eq=False)
class Workbench:
    """What the recipes of a run share."""

    task: Task
    bank: AnyBank  # the part of the task that episodes are of
    plan: BenchPlan
    cache: Path | None  # the folder in which features, fitted parts and outcomes are kept
    device: str
    shared: RunItems | None = None  # what runs items of work on other machines (bench.place)
    fitted: dict[str, Any] = field(default_factory=dict)  # parts by digest

    def folder(self, name: str) -> Path | None:
        """Where something is kept, if anything is."""
        return None if self.cache is None else self.cache / name

    @property
    def place(self) -> Place:
        """Where things are computed."""
        return Place(self.device, self.shared)

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
    if representation is not None and bench.bank.space == "image" and task.base is None:
        representation = _without_base(task, representation, "representation", _NO_PICTURES, seed)
    elif representation is not None and task.base is not None and task.base.space == "image":
        kept = None
        if bench.cache is not None and not fitted_tensors(representation):
            kept = bench.folder(f"fitted/{digest([made_by(representation), seed, data_digest(task.base)])}")
        representation = fitted(representation, "representation", task.base, seed, kept)
    choosing = with_val or any(sees_validation(part) for r in recipes for part in (r.synthesizer, r.classifier))
    return features_of(representation, task.base, bench.bank, recipe.options, bench.folder("features"), bench.place,
                       bench.val if choosing else None)  # fmt: skip


def check_without_base(task: Task, recipes: Sequence[Recipe]) -> None:
    """Raise InputError for what needs base classes, before anything is embedded: parts that have not learnt yet."""
    none = FeatureBank(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), ())
    for recipe in recipes:
        pictures = capabilities(recipe.synthesizer).space == "image"
        _without_base(task, recipe.synthesizer, "synthesizer", _NO_PICTURES if pictures else none, 0)
        _without_base(task, recipe.classifier, "classifier", none, 0)
        if recipe.representation is not None and task.novel.space == "image":
            _without_base(task, recipe.representation, "representation", _NO_PICTURES, 0)
        if recipe.options.normalise == "centred-l2":
            raise InputError(f"--normalise centred-l2 takes away the mean of base classes, and {task.name!r} has none; "
                             "expected none, l2 or power")  # fmt: skip


def _without_base(task: Task, part: Any, kind: str, none: AnyBank, seed: int) -> Any:
    """A part where there are no base classes: as it is if it has learnt, else fitted on `none`, which has no row.

    Raises InputError for one that learns from base classes.
    """
    try:
        return fitted(part, kind, none, seed, None)
    except NothingToLearn as error:
        raise InputError(
            f"{part_name(part, kind)} learns from base classes, and {task.name!r} has none beside those that it "
            f"is tested on; expected another {kind}, a folder that `augforge fit` made of it on other classes, or a "
            "source with train and test folders of different classes"
        ) from error


def seen_digest(features: Features, *parts: Any) -> list[str]:
    """The digest of the validation features where one of the parts learns from them."""
    return [features.val_digest] if features.val_digest and any(map(sees_validation, parts)) else []


def fit_once(bench: Workbench, part: Any, kind: str, features: Features, pictures: bool = False) -> Any:
    """A part fitted once in a run, on features or on the pictures behind them."""
    base, val = (bench.task.base, bench.val) if pictures else (features.base, features.val)
    name = digest([made_by(part), bench.plan.training_seed, features.digest, *seen_digest(features, part)])
    if name not in bench.fitted and base is None:
        none = _NO_PICTURES if pictures else replace(features.support.only(()), x=features.support.x[:0])
        bench.fitted[name] = _without_base(bench.task, part, kind, none, bench.plan.training_seed)
    elif name not in bench.fitted and base is not None:
        folder = bench.folder(f"fitted/{name}")
        run = Run(bench.device, None if folder is None else folder / "training")
        bench.fitted[name] = fitted(part, kind, base, bench.plan.training_seed, folder, val, run)
    return bench.fitted[name]
