"""The closed-form answer: a new class is the posterior predictive of the two-covariance model of base classes.

See `augforge.classifiers.two_covariance` for the model and its papers. No network is trained: the transform of the
features, how far S_w is drawn towards a sphere, the scale of S_b, and the prior - one Gaussian, or a mixture round
the class means - are chosen by accuracy on validation classes that are kept out of the statistics meanwhile; then the
statistics are taken again with them. Where there are no validation classes, fifths of the base classes take their
place in turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from augforge import chance
from augforge.classifiers.feature_transforms import TRANSFORMS, Transform, transformed
from augforge.classifiers.two_covariance import (
    PARAMETERS,
    SCALE,
    Gathered,
    TwoCovariance,
    check_enough,
    gather,
    learn,
    subspace,
)
from augforge.generators.shared.posterior.domain import believed, domain_of, trusted
from augforge.generators.shared.posterior.gate import fit_gate, gated
from augforge.generators.shared.posterior.held_out import (
    EpisodeBatch,
    MappedRows,
    Split,
    base_centre,
    draw_episode_batches,
    split_classes,
    transformed_parts,
)
from augforge.generators.shared.posterior.predictive import (
    all_classes,
    check_settings,
    mapped_scores,
    new_model,
    predictive_draws,
    predictive_scores,
)
from augforge.generators.shared.posterior.shares import chosen_shares, readings, share_at
from augforge.imagine import usual_share, weight_of_each
from augforge.types import Bank, Examples, Family, InputError, Space

Prior = Literal["gaussian", "mixture"]

_EPISODES = 100
_CLASSES_TRIED = 1000  # classes of all episodes of all folds together
_TAU = 0.5  # how far a class lies from one of the mixture, in parts of psi
_WELL = 0.01  # a shrinkage from which on float32 is enough
_SHRINKAGES, _SCALES = (0.1, 0.4, 0.7), (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class TransformedSplit:
    """A split of the classes under one transform of the features."""

    transform: Transform
    centre: Tensor  # [d], what the transform takes away
    found: list[Gathered]  # sums over the classes of each part
    held_out: list[Tensor]  # [n, d], the transformed held-out rows of each fold
    spaces: list[Tensor | None]  # the subspace [d, rank] of each fold and, last, of all base classes; None: all of it


@dataclass
class Posterior:
    """A new class as the posterior predictive of base classes, in closed form: draws, and exact scores.

    What draws weigh is chosen for each family of classifiers and number of shots on held-out classes (`share`); as they
    come from `synthesize` they suit logistic regression, if `made` of each class are made. `scores` needs no rows: it
    is what infinitely many of weight 1 say, together, of a query; with `gated` plain classifiers have their say, as
    much as held-out classes gained by it.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = False
    one_class: ClassVar[bool] = True
    chooses: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    transform: Literal["chosen", "raw", "sqrt", "centred-l2", "both"] = "chosen"  # of features, before the model
    shrinkage: float | None = None  # how far S_w is drawn towards a sphere, 0..1; None: chosen
    between_scale: float | None = None  # what S_b is multiplied by, > 0; None: chosen
    prior: Literal["chosen", "gaussian", "mixture"] = "chosen"  # of class means: one Gaussian, or round base classes
    rank: int = 512  # coordinates kept of wider features, >= 1; the rest is diagonal
    way: int = 0  # classes of the episodes that choose; 0: 20 where there are so many classes, else 5
    made: int = 20  # rows made of each class when shares are chosen, >= 1
    noise_scale: float = 1.0  # multiplies the spread of draws, >= 0
    within_rows: float = 300.0  # rows that S_w counts as beside the support's own scatter in scores; 0: it stays
    gated: bool = True  # whether the scores of plain classifiers are added, as held-out classes gained by it
    model_: nn.Module | None = field(default=None, init=False, repr=False)
    shares_: Tensor | None = field(default=None, init=False, repr=False)  # [family, 5]; None in parts of before
    gate_: Tensor | None = field(default=None, init=False, repr=False)
    plain_gate_: Tensor | None = field(default=None, init=False, repr=False)
    domain_: Tensor | None = field(default=None, init=False, repr=False)  # [2]; None in parts of before
    centre_: Tensor | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    history: list[Mapping[str, float | str]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_settings(self.rank, self.way, self.made, self.noise_scale, self.within_rows)
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise InputError(f"shrinkage={self.shrinkage} was given; expected a number from 0 to 1")
        if self.between_scale is not None and not self.between_scale > 0:
            raise InputError(f"between_scale={self.between_scale} was given; expected a number above 0")

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None) -> Self:
        """Choose settings, and learn from base and validation features; `history` lists what was tried.

        Raises InputError for pictures and for too few classes.
        """
        seed = int(chance.draw_keys(1, rng)) & 0x7FFFFFFF
        split = split_classes(base, val, rng, "posterior", halves=False)
        drawn = [draw_episode_batches(fold.held_out[1], self.way, _EPISODES, seed) for fold in split.folds]
        batches = [[batch.first(_CLASSES_TRIED // len(drawn)) for batch in of_fold] for of_fold in drawn]
        self.history, best = [], -1.0
        for transform, centre, parts in transformed_parts(
            split, TRANSFORMS if self.transform == "chosen" else (self.transform,)
        ):
            now = self._transformed_split(transform, centre, parts, split)
            for shrinkage in _SHRINKAGES if self.shrinkage is None else (self.shrinkage,):
                accuracy = self._accuracy(now, split, batches, shrinkage, "gaussian")
                if float(accuracy.max()) > best:
                    best, chosen = float(accuracy.max()), (now, shrinkage, accuracy)
        now, shrinkage, accuracy = chosen
        prior: Prior = "gaussian"
        if self.prior != "gaussian":
            mixed = self._accuracy(now, split, batches, shrinkage, "mixture")
            if self.prior == "mixture" or float(mixed.max()) > best:
                prior, accuracy = "mixture", mixed
        scale = self._scales()[int(accuracy.argmax())]
        self._fit_weights_and_gate(self._model_of(now, split, 0, shrinkage, scale, prior), split, seed + 1)
        model = self._model_of(now, split, None, shrinkage, scale, prior)
        self.model_ = model.eval().requires_grad_(False)
        self.facts_ = facts_of(model) | {"transform": 1 + TRANSFORMS.index(now.transform)}
        return self

    def _scales(self) -> tuple[float, ...]:
        return _SCALES if self.between_scale is None else (self.between_scale,)

    def _transformed_split(
        self, transform: Transform, centre: Tensor, parts: Iterable[Tensor], split: Split
    ) -> TransformedSplit:
        found = [gather(x, y) for x, (_, y) in zip(parts, split.parts, strict=True)]
        check_enough(all_classes(found[: split.of_base]), "posterior")
        held_out = [transformed(fold.held_out[0], transform, centre) for fold in split.folds]
        every = subspace(all_classes(found[: split.of_base]), self.rank)
        spaces = [
            # with validation classes every fold knows all base classes and no others
            every if split.of_base == 1 else subspace(all_classes([found[i] for i in fold.known]), self.rank)
            for fold in split.folds
        ]
        return TransformedSplit(transform, centre, found, held_out, [*spaces, every])

    def _accuracy(
        self, now: TransformedSplit, split: Split, batches: list[list[EpisodeBatch]], shrinkage: float, prior: Prior
    ) -> Tensor:
        """The accuracy (0..1) of each scale [k] on held-out classes, the mean over folds and shots."""
        scales = self._scales()
        parameters = torch.zeros(len(scales), len(PARAMETERS), device=now.centre.device)
        parameters[:, SCALE] = torch.tensor(scales).log()
        total = torch.zeros(len(scales), device=parameters.device)
        for i, of_fold in enumerate(batches):
            model = self._model_of(now, split, i, shrinkage, 1.0, prior)
            mapped = (now.held_out[i] - model.mean) @ model.map
            mixture = (model.classes, _TAU) if prior == "mixture" else None
            rows = MappedRows(model.psi[None], mapped[None], mixture=mixture)
            total += sum(rows.accuracy(parameters, batch, together=False).mean(1) for batch in of_fold) / len(of_fold)
        accuracy = total / len(batches)
        tried: Mapping[str, float | str] = {"transform": now.transform, "shrinkage": shrinkage}
        self.history += [
            {**tried, "between_scale": scale, "prior": prior, "right": found}
            for scale, found in zip(scales, (100 * accuracy).tolist(), strict=True)
        ]
        return accuracy

    def _model_of(
        self, now: TransformedSplit, split: Split, fold: int | None, shrinkage: float, scale: float, prior: Prior
    ) -> TwoCovariance:
        """The model of what is known in a fold, or of all parts; the transform's centre is that of all base rows."""
        known = range(len(split.parts)) if fold is None else split.folds[fold].known
        found = all_classes([now.found[i] for i in known])
        model = new_model(now.transform, found, now.centre, self.rank)
        rough = fold is not None and shrinkage > _WELL  # half the time, for a model that only chooses settings
        within = found.within().to(torch.float32 if rough else torch.float64)
        learn(model, found, within, shrinkage, whole=now.spaces[-1 if fold is None else fold])
        set_prior(model, scale, prior)
        return model

    def _fit_weights_and_gate(self, model: TwoCovariance, split: Split, seed: int) -> None:
        """Choose what made rows weigh and, with `gated`, the gate, on the held-out classes of the first fold."""
        x, labels = split.folds[0].held_out
        batches = draw_episode_batches(labels, self.way, _EPISODES, seed)
        read = [(batch.shot, readings([model], x, batch, self.made, self.noise_scale)) for batch in batches]
        self.shares_ = chosen_shares(read)
        self.domain_ = domain_of([([model], x, labels)])
        if self.gated:
            batches = [batch.first(_CLASSES_TRIED) for batch in batches]
            mapped = model.mapped(x)
            candidates = [(x, batch, partial(_scores, model, mapped, batch, self.within_rows)) for batch in batches]
            self.centre_ = base_centre(split)
            self.gate_, self.plain_gate_, seen = fit_gate(candidates, self.centre_)
            self.history += seen

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty model of facts["features"], ["rank"], ["classes"], and ["transform"], which counts from 1."""
        self.facts_ = dict(facts)
        model = TwoCovariance(TRANSFORMS[facts["transform"] - 1], facts["features"], facts["rank"], facts["classes"])
        self.model_ = model.eval().requires_grad_(False)

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Log predictive densities [q, way], or [b, q, way], of queries: as of infinitely many rows.

        With `gated`, those of plain classifiers are added as the gate weighs them; logistic regression decides alone
        where the support does not bear out what was learnt (`domain.trusted`). Raises InputError before `fit`.
        """
        own = predictive_scores([self._ready()], support, query, self.within_rows)
        if self.gate_ is None or self.centre_ is None:
            return own
        doubt = None
        if self.plain_gate_ is not None and self.domain_ is not None:
            doubt = (self.plain_gate_, trusted(self.domain_, [self._ready()], support, query))
        return gated(self.gate_, self.centre_, own, support, query, doubt)

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Draw features [n, d] of the wanted classes, each with its weight. Raises InputError before `fit`."""
        made, counts = predictive_draws([self._ready()], support, want, keys, self.noise_scale, "posterior")
        weight = weight_of_each(self.share("discriminative", counts), counts, torch.tensor(float(self.made)))
        return Examples(made, want, torch.full_like(want, -1), weight.float())

    def share(self, family: Family, counts: Tensor) -> Tensor:
        """What made rows of classes of `counts` [...] real rows weigh together, in parts of these: [...]."""
        return usual_share(family, counts) if self.shares_ is None else share_at(self.shares_, family, counts)

    def believed(self, support: Examples) -> Tensor:
        """How far statistics of other classes suit a support [n, d] or [b, n, d]: [1] or [b], 0..1 (`trusted`)."""
        return believed(self.domain_, [self._ready()], support)

    def _ready(self) -> TwoCovariance:
        """The fitted model."""
        if not isinstance(self.model_, TwoCovariance):
            raise InputError("posterior is not fitted yet; expected fit(base, rng, val) or a folder from `fit`")
        return self.model_


def _scores(model: TwoCovariance, mapped: Tensor, batch: EpisodeBatch, within_rows: float, episodes: Tensor) -> Tensor:
    """Scores [e, way * q, way] of some episodes of a batch of rows in the model's coordinates [n, r]."""
    rows, query = batch.support[episodes].flatten(1), batch.query[episodes].flatten(1)
    labels = torch.arange(batch.way, device=mapped.device).repeat_interleave(batch.shot)
    member = F.one_hot(labels).to(mapped).expand(len(rows), -1, -1)
    return mapped_scores([model], [(mapped[rows], mapped[query])], member, within_rows)


def set_prior(model: TwoCovariance, scale: float, prior: Prior) -> None:
    """Set the scale of S_b and the prior of a model."""
    with torch.no_grad():
        model.numbers[SCALE] = math.log(scale)
        model.tau.fill_(_TAU if prior == "mixture" else 0.0)


def facts_of(model: TwoCovariance) -> dict[str, int]:
    """The sizes that make an empty model."""
    return {"features": model.map.shape[0], "rank": model.map.shape[1], "classes": len(model.classes)}
