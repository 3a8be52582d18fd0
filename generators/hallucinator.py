"""Ours: a hallucinator that starts at the closed-form posterior, learns to do better, and knows where it does not.

It imagines a class in four coordinate systems at once - features as they are, square-rooted, centred at length 1, and
both - each with a two-covariance model (`augforge.classifiers.two_covariance`) whose statistics listen more to
classes that the backbone never saw. Eight numbers of each model are then meta-learnt: how spectra are bent, how much
less a support row is trusted than a query, how much a class's own spread is heard, how the models are weighed
against each other as shots grow. They speak of spectra, ratios and counts and never of raw coordinates, so they
survive a change of classes; they are learnt on episodes of varying way and shot, of validation classes that are kept
out of the statistics meanwhile, as Wang et al., "Low-shot learning from imaginary data", CVPR 2018, learn theirs:
down the cross-entropy of a classifier that reads what is imagined. A gate, from classes that neither the statistics
nor the numbers of its fold have seen, closes where there is no sure gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from augforge import chance
from augforge.classifiers.feature_transforms import TRANSFORMS
from augforge.classifiers.two_covariance import (
    NO_SPREAD,
    NUMBERS,
    SPREAD,
    WEIGHT,
    Gathered,
    TwoCovariance,
    check_enough,
    gather,
    learn,
    subspace,
)
from augforge.generators.shared.posterior.gate import Judged, gated, settle
from augforge.generators.shared.posterior.held_out import (
    SHOTS,
    Folds,
    Lesson,
    Views,
    added,
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
    new_model,
    predictive_draws,
    predictive_scores,
)
from augforge.training.loop import cosine
from augforge.types import Bank, Examples, InputError, Space

_HEARD = math.log(1000.0)  # rows that the guess of a class's spread counts as when learning begins
_AT_ONCE = 12  # episodes of a step
_EPISODES = 200
_CLASSES_JUDGED = 2000  # in the episodes of a lesson by which the gate is set
_MOMENTS = (0.9, 0.999)  # of Adam, for whose import from torch one waits longer than for what it does here


@dataclass(frozen=True)
class Course:
    """One fold: models of what is known of it, the rows that are judged [n, d] and as the models see them, and
    episodes of them.
    """

    models: list[TwoCovariance]
    rows: Tensor
    views: Views
    lessons: list[Lesson]

    def scores(self, numbers: Tensor, lesson: Lesson, episodes: Tensor) -> Tensor:
        """Scores [e, way * q, way] of some episodes of a lesson, by numbers [k, 8]."""
        return added(self.views.densities(numbers, lesson, episodes, lesson.way), numbers, lesson.shot)

    def right(self, numbers: Tensor) -> list[Tensor]:
        """The part of right answers of each episode, [e], of each lesson, by numbers [k, 8]."""
        return [self.views.right(numbers, lesson, together=True)[0] for lesson in self.lessons]


@dataclass
class Hallucinator:
    """Ours: four posteriors bent by meta-learnt numbers, behind a gate that closes where they do not help.

    `trust` (0..1) is how much of S_w comes from validation classes; `shrinkage` (0..1) draws it towards a sphere.
    `steps` of Adam at `lr` on 12 episodes each learn the numbers; `bend=false` leaves them as they start: four
    posteriors, weighed alike. `rank` is how many coordinates are kept of wider features, `way` that of episodes (0:
    20 where there are so many classes, else 5). `noise_scale` multiplies the spread of draws.

    Draws carry a weight each, as those of the posterior do: 0 where nearest means did not surely gain from `made` of
    them. `history` tells what was seen while fitting.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = False
    one_class: ClassVar[bool] = True
    chooses: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    trust: float = 0.5
    shrinkage: float = 0.4
    bend: bool = True
    steps: int = 200
    lr: float = 0.05
    rank: int = 512
    way: int = 0
    made: int = 20
    noise_scale: float = 1.0
    models_: nn.ModuleList | None = field(default=None, init=False, repr=False)
    gate_: Tensor | None = field(default=None, init=False, repr=False)
    centre_: Tensor | None = field(default=None, init=False, repr=False)
    row_weights_: Tensor | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    history: list[dict[str, float]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_numbers(self.rank, self.way, self.made, self.noise_scale)
        if not (0 <= self.trust <= 1 and 0 <= self.shrinkage <= 1):
            raise InputError(f"trust={self.trust}, shrinkage={self.shrinkage} was given; expected numbers from 0 to 1")
        if self.steps < 1 or not self.lr > 0:
            raise InputError(f"steps={self.steps}, lr={self.lr} was given; expected at least 1 step and a rate above 0")

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None) -> Self:
        """Learn from base and validation features; without validation classes, from fifths of the base classes.

        Those are seen by the backbone too, so that what is learnt from them is too bold, and the gate too open.
        Raises InputError for pictures and for too few classes.
        """
        generator = torch.Generator().manual_seed(int(chance.draw_keys(1, rng)))
        folds = folds_of(base, val, rng, "hallucinator", halves=True)
        *of_sides, models = self._models(folds)
        courses = [self._course(of_side, folds.sides[i][1], generator) for i, of_side in enumerate(of_sides)]
        start = self._start().to(folds.parts[0][0].device)
        numbers = [start] * len(courses)
        keep = False
        if self.bend and len(courses) > 1:  # else there is no class left to judge by what was learnt
            crossed = [self._numbers([c for c in courses if c is not course], generator) for course in courses]
            keep = _total(courses, crossed) > _total(courses, numbers)
            numbers = crossed if keep else numbers
        self._judge(courses, numbers, base_centre(folds))
        _give(models, self._numbers(courses, generator) if keep else start)
        self.models_ = nn.ModuleList(models).eval().requires_grad_(False)
        self.facts_ = {"features": models[0].map.shape[0], "rank": models[0].map.shape[1],
                       "classes": len(models[0].classes)}  # fmt: skip
        return self

    def _models(self, folds: Folds) -> list[list[TwoCovariance]]:
        """One model for each transform: of what is known of each side, and, last, of all."""
        known = [*(of_side for of_side, _ in folds.sides), list(range(len(folds.parts)))]
        models: list[list[TwoCovariance]] = [[] for _ in known]
        for transform, centre, rows in moved(folds, TRANSFORMS):
            found = [gather(x, y) for x, (_, y) in zip(rows, folds.parts, strict=True)]
            check_enough(joined(found[: folds.of_base]), "hallucinator")
            whole = subspace(found[0], self.rank) if folds.of_base == 1 else None
            for of_side, parts in zip(models, known, strict=True):
                base, others = (
                    [found[i] for i in parts if (i < folds.of_base) == is_base] for is_base in (True, False)
                )
                every = joined([*base, *others])
                model = new_model(transform, every, centre, self.rank)
                learn(model, every, self._within(base, others), self.shrinkage, whole=whole)
                of_side.append(model)
        return models

    def _within(self, base: list[Gathered], others: list[Gathered]) -> Tensor:
        """S_w [d, d]: that of base classes, and by `trust` that of others where they tell of it."""
        within = joined(base).within()
        if others and joined(others).free >= 1:
            within = (1 - self.trust) * within + self.trust * joined(others).within()
        return within

    def _course(self, models: list[TwoCovariance], judged: tuple[Tensor, Tensor], generator: torch.Generator) -> Course:
        rows, labels = judged
        mapped = torch.stack([model.mapped(rows) for model in models])  # [k, n, r]
        views = Views(torch.stack([model.psi for model in models]), mapped, mapped.square())
        seed = int(torch.randint(1 << 31, (1,), generator=generator))
        return Course(models, rows, views, draw_lessons(labels, self.way, _EPISODES, seed))

    def _start(self) -> Tensor:
        """Numbers [k, 8] at the start: posteriors, each with its part of the weight."""
        numbers = torch.zeros(len(TRANSFORMS), len(NUMBERS))
        numbers[:, SPREAD], numbers[:, WEIGHT] = NO_SPREAD, -math.log(len(TRANSFORMS))
        return numbers

    def _numbers(self, courses: list[Course], generator: torch.Generator) -> Tensor:
        """The numbers [k, 8] of the models, learnt by Adam on episodes of all courses."""
        numbers = self._start().to(courses[0].rows.device)
        numbers[:, SPREAD] = _HEARD
        first, second = torch.zeros_like(numbers), torch.zeros_like(numbers)
        for step in range(self.steps):
            course = courses[step % len(courses)]
            lesson = course.lessons[_drawn(len(course.lessons), generator)]
            way = 2 + _drawn(lesson.way - 1, generator)
            way = lesson.way if way < min(3, lesson.way) else way
            episodes = torch.randint(len(lesson.support), (_AT_ONCE,), generator=generator).to(numbers.device)
            with torch.enable_grad():
                numbers.requires_grad_()
                scores = added(course.views.densities(numbers, lesson, episodes, way), numbers, lesson.shot)
                loss = F.cross_entropy(scores.flatten(0, 1), lesson.target(way).repeat(_AT_ONCE))
                (slope,) = torch.autograd.grad(loss, numbers)
            first.lerp_(slope, 1 - _MOMENTS[0])
            second.lerp_(slope.square(), 1 - _MOMENTS[1])
            down = first / (1 - _MOMENTS[0] ** (step + 1))
            down = down / ((second / (1 - _MOMENTS[1] ** (step + 1))).sqrt() + 1e-8)
            numbers = numbers.detach() - self.lr * cosine(step / self.steps) * down
        return numbers.detach()

    def _judge(self, courses: list[Course], numbers: list[Tensor], centre: Tensor) -> None:
        """Set the gate and what draws weigh, by numbers that each course did not teach."""
        weights = torch.full((len(SHOTS),), math.inf)
        judged: list[Judged] = []
        for course, number in zip(courses, numbers, strict=True):
            _give(course.models, number)
            for lesson in course.lessons:
                some = lesson.first(_CLASSES_JUDGED)
                judged.append((course.rows, some, partial(course.scores, number, some)))
                weight = row_weight(course.models, course.rows, lesson, self.made, self.noise_scale)
                i = SHOTS.index(lesson.shot)
                weights[i] = min(float(weights[i]), weight)
        self.row_weights_ = torch.where(weights.isinf(), 0, weights)
        self.gate_, self.history = settle(judged, centre, with_votes=True)
        self.centre_ = centre

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty models of facts["features"], ["rank"] and ["classes"]."""
        self.facts_ = dict(facts)
        sizes = (facts["features"], facts["rank"], facts["classes"])
        self.models_ = nn.ModuleList(TwoCovariance(t, *sizes) for t in TRANSFORMS).eval().requires_grad_(False)

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way], or [b, q, way], of queries: as of infinitely many rows of each class, and the vote.

        Where the gate is closed they are those of a plain classifier. Raises InputError before `fit`.
        """
        own = predictive_scores(self._ready(), support, query)
        assert self.gate_ is not None
        assert self.centre_ is not None
        return gated(self.gate_, self.centre_, own, support, query)

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Draw features [n, d] of the wanted classes, each with its weight. Raises InputError before `fit`."""
        models, weights = self._ready(), self.row_weights_
        made, counts = predictive_draws(models, support, want, keys, self.noise_scale, "hallucinator")
        assert weights is not None
        return Examples(made, want, torch.full_like(want, -1), weights.to(made.device)[nearest_shot(counts)])

    def _ready(self) -> list[TwoCovariance]:
        if self.models_ is None:
            raise InputError("hallucinator is not fitted yet; expected fit(base, rng, val) or a folder from `fit`")
        return [model for model in self.models_ if isinstance(model, TwoCovariance)]


def _give(models: list[TwoCovariance], numbers: Tensor) -> None:
    """Set the numbers [k, 8] of models."""
    with torch.no_grad():
        for model, number in zip(models, numbers, strict=True):
            model.numbers.copy_(number)


def _total(courses: list[Course], numbers: list[Tensor]) -> float:
    """The accuracy of courses by numbers [k, 8] each, the mean over shots."""
    right = [course.right(number) for course, number in zip(courses, numbers, strict=True)]
    return sum(float(torch.stack([found.mean() for found in of_course]).mean()) for of_course in right)


def _drawn(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))
