"""The closed-form answer: a new class is the posterior predictive of the two-covariance model of base classes.

See `augforge.classifiers.two_covariance` for the model and its papers. Nothing is trained: the transform of the
features, how far S_w is drawn towards a sphere, the scale of S_b, and the prior - one Gaussian, or a mixture round
the class means - are chosen on validation classes that are kept out of the statistics meanwhile, which are then taken
again with them. Where there are no validation classes, fifths of the base classes take their place in turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from augforge import chance
from augforge.classifiers.feature_transforms import TRANSFORMS, Transform, transformed
from augforge.classifiers.two_covariance import (
    NUMBERS,
    SCALE,
    Gathered,
    TwoCovariance,
    check_enough,
    gather,
    learn,
    subspace,
)
from augforge.generators.shared.posterior.gate import gated, settle
from augforge.generators.shared.posterior.held_out import (
    SHOTS,
    Folds,
    Lesson,
    Views,
    base_centre,
    draw_lessons,
    folds_of,
    moved,
    nearest_shot,
    row_weight,
)
from augforge.generators.shared.posterior.predictive import (
    check_numbers,
    joined,
    mapped_scores,
    new_model,
    predictive_draws,
    predictive_scores,
)
from augforge.types import Bank, Examples, InputError, Space

Prior = Literal["gaussian", "mixture"]

_EPISODES = 100
_CLASSES_TRIED = 1000  # in the episodes of all sides
_TAU = 0.5  # how far a class lies from one of the mixture, in parts of psi
_WELL = 0.01  # a shrinkage from which on float32 is enough
_SHRINKAGES, _SCALES = (0.1, 0.4, 0.7), (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Room:
    """What one transform makes of the folds: sums of each part, the transformed rows that each side judges, and the
    subspace of each side and, last, of all base classes.
    """

    transform: Transform
    centre: Tensor
    found: list[Gathered]
    judged: list[Tensor]
    spaces: list[Tensor | None]


@dataclass
class Posterior:
    """A new class as the posterior predictive of base classes, in closed form: draws, and exact scores.

    `transform`, `shrinkage` (0..1), `between_scale` (above 0) and `prior` are chosen where they are "chosen" or None.
    `rank` is how many coordinates are kept of wider features; the rest is diagonal. `way` is that of the episodes
    that choose (0: 20 where there are so many classes, else 5). `noise_scale` multiplies the spread of draws.

    Draws carry a weight each: the one with which nearest means gained most on the held-out classes when `made` rows
    were made of each class, or 0 where that gain was not sure. `scores` needs no rows: it is what infinitely many of
    weight 1 say, together, of a query; with `gated`, only at numbers of shots where held-out classes gained by it over
    the best plain classifier, which speaks elsewhere.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = False
    one_class: ClassVar[bool] = True
    chooses: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    transform: Literal["chosen", "raw", "sqrt", "centred-l2", "both"] = "chosen"
    shrinkage: float | None = None
    between_scale: float | None = None
    prior: Literal["chosen", "gaussian", "mixture"] = "chosen"
    rank: int = 512
    way: int = 0
    made: int = 20
    noise_scale: float = 1.0
    gated: bool = True
    model_: nn.Module | None = field(default=None, init=False, repr=False)
    row_weights_: Tensor | None = field(default=None, init=False, repr=False)
    gate_: Tensor | None = field(default=None, init=False, repr=False)
    centre_: Tensor | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    history: list[Mapping[str, float | str]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_numbers(self.rank, self.way, self.made, self.noise_scale)
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise InputError(f"shrinkage={self.shrinkage} was given; expected a number from 0 to 1")
        if self.between_scale is not None and not self.between_scale > 0:
            raise InputError(f"between_scale={self.between_scale} was given; expected a number above 0")

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None) -> Self:
        """Choose, and learn from base and validation features. Raises InputError for pictures and too few classes."""
        seed = int(chance.draw_keys(1, rng)) & 0x7FFFFFFF
        folds = folds_of(base, val, rng, "posterior", halves=False)
        lessons = [draw_lessons(labels, self.way, _EPISODES, seed) for _, (_, labels) in folds.sides]
        lessons = [[lesson.first(_CLASSES_TRIED // len(lessons)) for lesson in of_side] for of_side in lessons]
        self.history, best, chosen = [], -1.0, None
        for transform, centre, parts in moved(folds, TRANSFORMS if self.transform == "chosen" else (self.transform,)):
            room = self._room(transform, centre, parts, folds)
            for shrinkage in _SHRINKAGES if self.shrinkage is None else (self.shrinkage,):
                right = self._right(room, folds, lessons, shrinkage, "gaussian")
                if float(right.max()) > best:
                    best, chosen = float(right.max()), (room, shrinkage, right)
        assert chosen is not None
        room, shrinkage, right = chosen
        prior: Prior = "gaussian"
        if self.prior != "gaussian":
            mixed = self._right(room, folds, lessons, shrinkage, "mixture")
            if self.prior == "mixture" or float(mixed.max()) > best:
                prior, right = "mixture", mixed
        scale = self._scales()[int(right.argmax())]
        self._weigh(self._model_of(room, folds, 0, shrinkage, scale, prior), folds, seed + 1)
        model = self._model_of(room, folds, None, shrinkage, scale, prior)
        self.model_ = model.eval().requires_grad_(False)
        self.facts_ = facts_of(model) | {"transform": 1 + TRANSFORMS.index(room.transform)}
        return self

    def _scales(self) -> tuple[float, ...]:
        return _SCALES if self.between_scale is None else (self.between_scale,)

    def _room(self, transform: Transform, centre: Tensor, parts: list[Tensor], folds: Folds) -> Room:
        found = [gather(x, y) for x, (_, y) in zip(parts, folds.parts, strict=True)]
        check_enough(joined(found[: folds.of_base]), "posterior")
        judged = [transformed(x, transform, centre) for _, (x, _) in folds.sides]
        alike = folds.of_base == 1  # what is known of each side is all base classes
        every = subspace(joined(found[: folds.of_base]), self.rank)
        spaces = [
            every if alike else subspace(joined([found[i] for i in known]), self.rank) for known, _ in folds.sides
        ]
        return Room(transform, centre, found, judged, [*spaces, every])

    def _right(self, room: Room, folds: Folds, lessons: list[list[Lesson]], shrinkage: float, prior: Prior) -> Tensor:
        """The accuracy of each scale [k] on the held-out classes, the mean over sides and shots."""
        scales = self._scales()
        numbers = torch.zeros(len(scales), len(NUMBERS), device=room.centre.device)
        numbers[:, SCALE] = torch.tensor(scales).log()
        total = torch.zeros(len(scales), device=numbers.device)
        for side, of_side in enumerate(lessons):
            model = self._model_of(room, folds, side, shrinkage, 1.0, prior)
            mapped = (room.judged[side] - model.mean) @ model.map
            mixture = (model.classes, _TAU) if prior == "mixture" else None
            views = Views(model.psi[None], mapped[None], mixture=mixture)
            total += sum(views.right(numbers, lesson, together=False).mean(1) for lesson in of_side) / len(of_side)
        right = total / len(lessons)
        self.history += [
            {
                "transform": room.transform,
                "shrinkage": shrinkage,
                "between_scale": scale,
                "prior": prior,
                "right": found,
            }
            for scale, found in zip(scales, (100 * right).tolist(), strict=True)
        ]
        return right

    def _model_of(
        self, room: Room, folds: Folds, side: int | None, shrinkage: float, scale: float, prior: Prior
    ) -> TwoCovariance:
        """The model of what is known of a side, or of all; the transform's centre is that of all base rows."""
        known = range(len(folds.parts)) if side is None else folds.sides[side][0]
        found = joined([room.found[i] for i in known])
        model = new_model(room.transform, found, room.centre, self.rank)
        rough = side is not None and shrinkage > _WELL  # half the time, for what is only looked at
        within = found.within().to(torch.float32 if rough else torch.float64)
        learn(model, found, within, shrinkage, whole=room.spaces[-1 if side is None else side])
        bend(model, scale, prior)
        return model

    def _weigh(self, model: TwoCovariance, folds: Folds, seed: int) -> None:
        """Set the gate and what made rows weigh, by what is judged of the first side."""
        x, labels = folds.sides[0][1]
        self.row_weights_ = torch.zeros(len(SHOTS))
        lessons = draw_lessons(labels, self.way, _EPISODES, seed)
        for lesson in lessons:
            weight = row_weight([model], x, lesson, self.made, self.noise_scale)
            self.row_weights_[SHOTS.index(lesson.shot)] = weight
        if self.gated:
            lessons = [lesson.first(_CLASSES_TRIED) for lesson in lessons]
            mapped = model.mapped(x)
            judged = [(x, lesson, partial(_scores, model, mapped, lesson)) for lesson in lessons]
            self.centre_ = base_centre(folds)
            self.gate_, seen = settle(judged, self.centre_, with_votes=False)
            self.history += seen

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty model of facts["features"], ["rank"], ["classes"], and ["transform"], which counts from 1."""
        self.facts_ = dict(facts)
        model = TwoCovariance(TRANSFORMS[facts["transform"] - 1], facts["features"], facts["rank"], facts["classes"])
        self.model_ = model.eval().requires_grad_(False)

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Log predictive densities [q, way], or [b, q, way], of queries: as of infinitely many rows.

        Where the gate is closed they are the scores of a plain classifier. Raises InputError before `fit`.
        """
        own = predictive_scores([self._model()], support, query)
        if self.gate_ is None or self.centre_ is None:
            return own
        return gated(self.gate_, self.centre_, own, support, query)

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Draw features [n, d] of the wanted classes, each with its weight. Raises InputError before `fit`."""
        model, weights = self._model(), self.row_weights_
        made, counts = predictive_draws([model], support, want, keys, self.noise_scale, "posterior")
        assert weights is not None
        return Examples(made, want, torch.full_like(want, -1), weights.to(made.device)[nearest_shot(counts)])

    def _model(self) -> TwoCovariance:
        if not isinstance(self.model_, TwoCovariance):
            raise InputError("posterior is not fitted yet; expected fit(base, rng, val) or a folder from `fit`")
        return self.model_


def _scores(model: TwoCovariance, mapped: Tensor, lesson: Lesson, episodes: Tensor) -> Tensor:
    """Scores [e, way * q, way] of some episodes of a lesson of rows in the model's coordinates [n, r]."""
    rows, query = lesson.support[episodes].flatten(1), lesson.query[episodes].flatten(1)
    labels = torch.arange(lesson.way, device=mapped.device).repeat_interleave(lesson.shot)
    member = F.one_hot(labels).to(mapped).expand(len(rows), -1, -1)
    return mapped_scores([model], [(mapped[rows], mapped[query])], member)


def bend(model: TwoCovariance, scale: float, prior: Prior) -> None:
    """Set the scale of S_b and the prior of a model."""
    with torch.no_grad():
        model.numbers[SCALE] = math.log(scale)
        model.tau.fill_(_TAU if prior == "mixture" else 0.0)


def facts_of(model: TwoCovariance) -> dict[str, int]:
    """The sizes that make an empty model."""
    return {"features": model.map.shape[0], "rank": model.map.shape[1], "classes": len(model.classes)}
