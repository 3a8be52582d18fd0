"""Ours: a hallucinator that starts at the closed-form posterior, learns to do better, and knows where it does not.

It imagines a class in four coordinate systems at once - features as they are, square-rooted, centred at length 1, and
both - each with a two-covariance model (`augforge.classifiers.two_covariance`) whose statistics give more weight to
classes that the backbone never saw. Eight parameters of each model are then meta-learnt: how spectra are bent, how much
less a support row is trusted than a query, how much a class's own spread counts, how the models are weighed against
each other as shots grow. They act on spectra, ratios and counts and never on raw coordinates, so they survive a change
of classes; they are learnt on episodes of varying way and shot, of validation classes that are kept out of the
statistics meanwhile, as Wang et al., "Low-shot learning from imaginary data", CVPR 2018, learn theirs: down the
cross-entropy of a classifier that reads what is imagined. A gate, set on classes that neither the statistics nor the
parameters of its fold have seen, says how much that counts beside plain classifiers on the same support.
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
    IGNORE_SPREAD,
    PARAMETERS,
    SPREAD,
    WEIGHT,
    Gathered,
    TwoCovariance,
    check_enough,
    gather,
    learn,
    subspace,
)
from augforge.generators.shared.posterior.domain import believed, domain_of, trusted
from augforge.generators.shared.posterior.gate import Candidate, fit_gate, gated
from augforge.generators.shared.posterior.held_out import (
    EpisodeBatch,
    Fold,
    MappedRows,
    Split,
    base_centre,
    draw_episode_batches,
    split_classes,
    transformed_parts,
    weighted_sum,
)
from augforge.generators.shared.posterior.predictive import (
    all_classes,
    check_settings,
    mapped_scores,
    new_model,
    predictive_draws,
    predictive_scores,
)
from augforge.generators.shared.posterior.shares import Reading, chosen_shares, readings, share_at
from augforge.imagine import usual_share, weight_of_each
from augforge.training.loop import cosine, minimise
from augforge.types import Bank, Examples, Family, InputError, Space

_START_SPREAD = math.log(1000.0)  # rows that the guess of a class's spread counts as when learning begins
_EPISODES_A_STEP = 12
_EPISODES = 200
_IN_GATE = 100  # episodes of a batch, where the gate is set


@dataclass(frozen=True)
class FittedFold:
    """One fold: models of what is known in it, the rows that are held out, and episodes of them."""

    models: list[TwoCovariance]
    x: Tensor  # [n, d], the held-out rows
    y: Tensor  # [n], their labels
    rows: MappedRows  # the same in the coordinates of the models
    batches: list[EpisodeBatch]  # one for each number of shots

    def scores(self, parameters: Tensor, batch: EpisodeBatch, episodes: Tensor, way: int | None = None) -> Tensor:
        """Scores [e, way * q, way] of some episodes of a batch, or of `way` of their classes, by parameters [k, 8]."""
        densities = self.rows.densities(parameters, batch, episodes, way or batch.way)
        return weighted_sum(densities, parameters, batch.shot)

    def adapted_scores(self, batch: EpisodeBatch, within_rows: float, episodes: Tensor) -> Tensor:
        """Scores [e, way * q, way] of some episodes by the models as they are, with S_w adapted by each support."""
        support, query = batch.support[episodes].flatten(1), batch.query[episodes].flatten(1)
        labels = torch.arange(batch.way, device=self.x.device).repeat_interleave(batch.shot)
        member = F.one_hot(labels).to(self.x).expand(len(support), -1, -1)
        mapped = [(rows[support], rows[query]) for rows in self.rows.mapped]
        return mapped_scores(self.models, mapped, member, within_rows)

    def accuracy(self, parameters: Tensor) -> float:
        """The accuracy (0..1) on the held-out classes under parameters [k, 8], the mean over shots."""
        found = [self.rows.accuracy(parameters, batch, together=True)[0].mean() for batch in self.batches]
        return float(torch.stack(found).mean())


@dataclass
class Hallucinator:
    """Ours: four posteriors with meta-learnt parameters, stacked with plain classifiers.

    What draws weigh is chosen for each family of classifiers and number of shots on held-out classes (`share`); as they
    come from `synthesize` they suit logistic regression, if `made` of each class are made. `history` holds what the
    gate was set by: for each number of shots the gain on held-out classes over the best plain classifier, its standard
    error (both in percent), and how far the gate went from plain classifiers alone (0) to imagination with them (1).
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = False
    one_class: ClassVar[bool] = True
    chooses: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    trust: float = 0.5  # share of S_w that comes from validation classes, 0..1
    shrinkage: float = 0.4  # how far S_w is drawn towards a sphere, 0..1
    bend: bool = True  # whether parameters are learnt; false leaves four posteriors, weighed alike
    steps: int = 200  # of Adam, on 12 episodes each, >= 1
    lr: float = 0.05  # learning rate of Adam, > 0, falling along a cosine
    rank: int = 512  # coordinates kept of wider features, >= 1
    way: int = 0  # classes of an episode; 0: 20 where there are so many classes, else 5
    made: int = 20  # rows made of each class when shares are chosen, >= 1
    noise_scale: float = 1.0  # multiplies the spread of draws, >= 0
    within_rows: float = 300.0  # rows that S_w counts as beside the support's own scatter in scores; 0: it stays
    models_: nn.ModuleList | None = field(default=None, init=False, repr=False)
    gate_: Tensor | None = field(default=None, init=False, repr=False)
    plain_gate_: Tensor | None = field(default=None, init=False, repr=False)
    domain_: Tensor | None = field(default=None, init=False, repr=False)  # [2]; None in parts of before
    centre_: Tensor | None = field(default=None, init=False, repr=False)
    shares_: Tensor | None = field(default=None, init=False, repr=False)  # [family, 5]; None in parts of before
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    history: list[dict[str, float]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_settings(self.rank, self.way, self.made, self.noise_scale, self.within_rows)
        if not (0 <= self.trust <= 1 and 0 <= self.shrinkage <= 1):
            raise InputError(f"trust={self.trust}, shrinkage={self.shrinkage} was given; expected numbers from 0 to 1")
        if self.steps < 1 or not self.lr > 0:
            raise InputError(f"steps={self.steps}, lr={self.lr} was given; expected at least 1 step and a rate above 0")

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None) -> Self:
        """Learn from base and validation features; without validation classes, from fifths of the base classes.

        The backbone has seen those too, so that what is learnt from them is too bold, and imagination counts too much.
        Raises InputError for pictures and for too few classes.
        """
        generator = torch.Generator().manual_seed(int(chance.draw_keys(1, rng)))
        split = split_classes(base, val, rng, "hallucinator", halves=True)
        *of_folds, models = self._models(split)
        folds = [self._fitted_fold(*pair, generator) for pair in zip(of_folds, split.folds, strict=True)]
        start = self._start().to(split.parts[0][0].device)
        parameters = [start] * len(folds)
        keep = False
        if self.bend and len(folds) > 1:  # else no class is left to test what was learnt on
            crossed = [self._learnt([other for other in folds if other is not fold], generator) for fold in folds]
            keep = _total(folds, crossed) > _total(folds, parameters)
            parameters = crossed if keep else parameters
        self._fit_weights_and_gate(folds, parameters, base_centre(split))
        _set_parameters(models, self._learnt(folds, generator) if keep else start)
        self.models_ = nn.ModuleList(models).eval().requires_grad_(False)
        self.facts_ = {"features": models[0].map.shape[0], "rank": models[0].map.shape[1],
                       "classes": len(models[0].classes)}  # fmt: skip
        return self

    def _models(self, split: Split) -> list[list[TwoCovariance]]:
        """One model for each transform: of what is known in each fold, and, last, of all classes."""
        known = [*(fold.known for fold in split.folds), list(range(len(split.parts)))]
        models: list[list[TwoCovariance]] = [[] for _ in known]
        for transform, centre, rows in transformed_parts(split, TRANSFORMS):
            found = [gather(x, y) for x, (_, y) in zip(rows, split.parts, strict=True)]
            check_enough(all_classes(found[: split.of_base]), "hallucinator")
            whole = subspace(found[0], self.rank) if split.of_base == 1 else None
            for of_fold, parts in zip(models, known, strict=True):
                base, others = (
                    [found[i] for i in parts if (i < split.of_base) == is_base] for is_base in (True, False)
                )
                every = all_classes([*base, *others])
                model = new_model(transform, every, centre, self.rank)
                learn(model, every, self._within(base, others), self.shrinkage, whole=whole)
                of_fold.append(model)
        return models

    def _within(self, base: list[Gathered], others: list[Gathered]) -> Tensor:
        """S_w [d, d]: that of base classes, and by `trust` that of others."""
        within = all_classes(base).within()
        if others:
            within = (1 - self.trust) * within + self.trust * all_classes(others).within()
        return within

    def _fitted_fold(self, models: list[TwoCovariance], fold: Fold, generator: torch.Generator) -> FittedFold:
        x, labels = fold.held_out
        mapped = torch.stack([model.mapped(x) for model in models])  # [k, n, r]
        rows = MappedRows(torch.stack([model.psi for model in models]), mapped, mapped.square())
        seed = int(torch.randint(1 << 31, (1,), generator=generator))
        return FittedFold(models, x, labels, rows, draw_episode_batches(labels, self.way, _EPISODES, seed))

    def _start(self) -> Tensor:
        """Parameters [k, 8] at the start: posteriors, all of the same weight."""
        parameters = torch.zeros(len(TRANSFORMS), len(PARAMETERS))
        parameters[:, SPREAD], parameters[:, WEIGHT] = IGNORE_SPREAD, -math.log(len(TRANSFORMS))
        return parameters

    def _learnt(self, folds: list[FittedFold], generator: torch.Generator) -> Tensor:
        """The parameters [k, 8] of the models, learnt by Adam on episodes of all folds."""
        parameters = nn.Parameter(self._start().to(folds[0].x.device))
        with torch.no_grad():
            parameters[:, SPREAD] = _START_SPREAD
        optimiser = torch.optim.Adam([parameters], self.lr)
        for step in range(self.steps):
            fold = folds[step % len(folds)]
            batch = fold.batches[_drawn(len(fold.batches), generator)]
            way = 2 + _drawn(batch.way - 1, generator)
            way = batch.way if way < min(3, batch.way) else way
            episodes = torch.randint(len(batch.support), (_EPISODES_A_STEP,), generator=generator).to(parameters.device)
            optimiser.param_groups[0]["lr"] = self.lr * cosine(step / self.steps)
            with torch.enable_grad():
                scores = fold.scores(parameters, batch, episodes, way)
                target = batch.target(way).repeat(_EPISODES_A_STEP)
                minimise(F.cross_entropy(scores.flatten(0, 1), target), optimiser)
        return parameters.detach()

    def _fit_weights_and_gate(self, folds: list[FittedFold], parameters: list[Tensor], centre: Tensor) -> None:
        """Set the gate and the weights of draws, by parameters that were not learnt on the fold that they score."""
        candidates: list[Candidate] = []
        read: list[tuple[int, dict[Family, Reading]]] = []
        for fold, of_fold in zip(folds, parameters, strict=True):
            _set_parameters(fold.models, of_fold)
            for batch in fold.batches:
                some = batch.some(_IN_GATE)
                candidates.append((fold.x, some, partial(fold.adapted_scores, some, self.within_rows)))
                read.append((batch.shot, readings(fold.models, fold.x, batch, self.made, self.noise_scale)))
        self.shares_ = chosen_shares(read)
        self.gate_, self.plain_gate_, self.history = fit_gate(candidates, centre)
        self.domain_ = domain_of([(fold.models, fold.x, fold.y) for fold in folds])
        self.centre_ = centre

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty models of facts["features"], ["rank"] and ["classes"]."""
        self.facts_ = dict(facts)
        sizes = (facts["features"], facts["rank"], facts["classes"])
        self.models_ = nn.ModuleList(TwoCovariance(t, *sizes) for t in TRANSFORMS).eval().requires_grad_(False)

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way], or [b, q, way], of queries: as of infinitely many rows of each class.

        Those of plain classifiers are added as the gate weighs them; logistic regression decides alone where the
        support does not bear out what was learnt (`domain.trusted`). Raises InputError before `fit`.
        """
        models, gate, centre = self._ready()
        own, doubt = predictive_scores(models, support, query, self.within_rows), None
        if self.plain_gate_ is not None and self.domain_ is not None:
            doubt = (self.plain_gate_, trusted(self.domain_, models, support, query))
        return gated(gate, centre, own, support, query, doubt)

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Draw features [n, d] of the wanted classes, each with its weight. Raises InputError before `fit`."""
        models, _, _ = self._ready()
        made, counts = predictive_draws(models, support, want, keys, self.noise_scale, "hallucinator")
        weight = weight_of_each(self.share("discriminative", counts), counts, torch.tensor(float(self.made)))
        return Examples(made, want, torch.full_like(want, -1), weight.float())

    def share(self, family: Family, counts: Tensor) -> Tensor:
        """What made rows of classes of `counts` [...] real rows weigh together, in parts of these: [...]."""
        return usual_share(family, counts) if self.shares_ is None else share_at(self.shares_, family, counts)

    def believed(self, support: Examples) -> Tensor:
        """How far statistics of other classes suit a support [n, d] or [b, n, d]: [1] or [b], 0..1 (`trusted`)."""
        return believed(self.domain_, self._ready()[0], support)

    def _ready(self) -> tuple[list[TwoCovariance], Tensor, Tensor]:
        """The fitted models, the gate and the mean of base features."""
        if self.models_ is None or self.gate_ is None or self.centre_ is None:
            raise InputError("hallucinator is not fitted yet; expected fit(base, rng, val) or a folder from `fit`")
        models = [model for model in self.models_ if isinstance(model, TwoCovariance)]
        return models, self.gate_, self.centre_


def _set_parameters(models: list[TwoCovariance], parameters: Tensor) -> None:
    """Set the parameters [k, 8] of models."""
    with torch.no_grad():
        for model, of_model in zip(models, parameters, strict=True):
            model.numbers.copy_(of_model)


def _total(folds: list[FittedFold], parameters: list[Tensor]) -> float:
    """The accuracies of folds, each under its parameters [k, 8], added up."""
    return sum(fold.accuracy(of_fold) for fold, of_fold in zip(folds, parameters, strict=True))


def _drawn(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))
