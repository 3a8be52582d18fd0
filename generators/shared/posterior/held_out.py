"""Held-out classes: how `posterior` and `hallucinator` cut classes into folds, draw episodes of what is held out, and
measure accuracy there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.base_statistics import base_rows, check_features
from augforge.classifiers.feature_transforms import Transform, centre_of, transformed
from augforge.classifiers.two_covariance import WEIGHT, WEIGHT_SLOPE, log_density, predictive
from augforge.episodes import draw_episodes
from augforge.types import Bank, InputError

Labelled = tuple[Tensor, Tensor]  # rows [n, d] and labels [n]

SHOTS = (1, 2, 5, 10, 20)  # settings are chosen for each of these; in between, the nearest one counts
_EPISODES_AT_ONCE, _FEWEST_EPISODES = 10, 20
_QUERIES = 5
_FOLDS = 5
_HELD_OUT = 100  # base classes, at least, that are held out in all folds together, where there are so many
_ROWS, _ROWS_OF_CLASS = 8192, 40  # held-out rows: at most in all, and at least of each class
_FEWEST = 10  # validation classes that can be cut in two halves


@dataclass(frozen=True)
class Fold:
    """One way to hold classes out: statistics come from the known parts, accuracy from the held-out rows."""

    known: list[int]  # numbers of the parts that the statistics are taken from
    held_out: Labelled  # rows and labels of classes that are in none of these parts


@dataclass(frozen=True)
class Split:
    """All rows, in parts of whole classes, and the folds over these parts."""

    parts: list[Labelled]  # rows and labels of each part, those of base classes first
    of_base: int  # how many parts hold base classes
    folds: list[Fold]


def split_classes(base: Bank, val: Bank | None, rng: torch.Generator, who: str, halves: bool) -> Split:
    """Hold out classes: the validation classes, or fifths of the base classes where there are none.

    With `halves` and at least ten validation classes there are two folds: each half is held out while the statistics
    come from the base classes and the other half. Raises InputError, naming `who`, for pictures and for fewer than
    four base classes and no others.
    """
    if val is not None:
        (x, y), more = _labelled(base, who), _labelled(val, who)
        classes = torch.unique(more[1])
        if not halves or len(classes) < _FEWEST:
            return Split([(x, y), more], 1, [Fold([0], _some_rows(more, rng))])
        order = classes[torch.randperm(len(classes), generator=rng).to(y.device)]
        first = torch.isin(more[1], order[: len(order) // 2])
        parts = [(more[0][rows], more[1][rows]) for rows in (first, ~first)]
        folds = [Fold([0, 2 - i], _some_rows(parts[i], rng)) for i in range(2)]
        return Split([(x, y), *parts], 1, folds)
    check_features(base, who)
    ids, y = torch.unique(base.y, return_inverse=True)
    count = min(_FOLDS, len(ids) // 2)
    if count < 2:
        raise InputError(
            f"{who} chooses on parts of the base classes where there are no validation classes; there are {len(ids)} "
            "base classes, expected at least 4"
        )
    part_of = (torch.randperm(len(ids), generator=rng) % count).to(y.device)[y]
    order, sizes = torch.argsort(part_of, stable=True), torch.bincount(part_of).tolist()
    x = base_rows(base, who, order).to(torch.float32)  # one copy of all rows and no more
    y = y[order].to(x.device)
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    used = min(count, max(2, -(-_HELD_OUT * count // len(ids))))
    folds = [Fold([j for j in range(count) if j != i], _some_rows(parts[i], rng)) for i in range(used)]
    return Split(parts, count, folds)


def _labelled(bank: Bank, who: str) -> Labelled:
    x = base_rows(bank, who).to(torch.float32)
    return x, bank.y.to(x.device)


def _some_rows(part: Labelled, rng: torch.Generator) -> Labelled:
    """Some rows of each class, as many of each where a class has enough."""
    x, y = part
    counts = torch.bincount(y)
    most = max(_ROWS_OF_CLASS, _ROWS // int((counts > 0).sum()))
    if int(counts.max()) <= most:
        return part
    mixed = torch.randperm(len(y), generator=rng).to(y.device)
    order = mixed[torch.argsort(y[mixed], stable=True)]  # class by class, each in random order
    place = torch.arange(len(y), device=y.device) - (counts.cumsum(0) - counts)[y[order]]
    kept = order[place < most].sort().values
    return x[kept], y[kept]


def transformed_parts(
    split: Split, transforms: Sequence[Transform]
) -> Iterator[tuple[Transform, Tensor, Iterator[Tensor]]]:
    """Each transform, its centre [d] - that of all base rows - and the transformed rows [n, d] of each part in turn.

    A part is transformed as it is taken, so that no second copy of all rows is held.
    """
    for transform in transforms:
        centre = _centre(split, transform)
        yield transform, centre, (transformed(x, transform, centre) for x, _ in split.parts)


def base_centre(split: Split) -> Tensor:
    """The mean [d] of all base rows."""
    return _centre(split, "centred-l2")


def _centre(split: Split, transform: Transform) -> Tensor:
    parts = [x for x, _ in split.parts[: split.of_base]]
    sums = torch.stack([centre_of(x, transform).to(torch.float64) * len(x) for x in parts]).sum(0)
    return (sums / sum(len(x) for x in parts)).to(torch.float32)


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes of one number of shots."""

    shot: int
    support: Tensor  # [e, way, shot], places among the held-out rows
    query: Tensor  # [e, way, q], likewise
    classes: Tensor  # [e, way], the labels of the classes

    @property
    def way(self) -> int:
        """Classes of an episode."""
        return self.support.shape[1]

    def first(self, classes: int) -> EpisodeBatch:
        """The first episodes, with `classes` together, but at least twenty if there are as many."""
        return self.some(max(_FEWEST_EPISODES, classes // self.way))

    def some(self, episodes: int) -> EpisodeBatch:
        """The first so many episodes."""
        return EpisodeBatch(self.shot, self.support[:episodes], self.query[:episodes], self.classes[:episodes])

    def target(self, way: int) -> Tensor:
        """The class of each query of an episode cut down to `way`: [way * q]."""
        return torch.arange(way, device=self.query.device).repeat_interleave(self.query.shape[2])

    def means(self, x: Tensor, episodes: Tensor, way: int) -> Tensor:
        """Means [k, e, way, d] of the support rows among `x` [k, n, d], for some episodes cut down to `way`."""
        start = torch.arange(len(x), device=x.device) * x.shape[1]
        rows = self.support[episodes][:, :way] + start[:, None, None, None]  # [k, e, way, shot]
        means = F.embedding_bag(rows.flatten(0, 2), x.flatten(0, 1), mode="mean")
        return means.view(*rows.shape[:3], -1)

    def queries(self, x: Tensor, episodes: Tensor, way: int) -> Tensor:
        """The queries [k, e, way * q, d] among `x` [k, n, d], for some episodes cut down to `way`."""
        return x[:, self.query[episodes][:, :way].flatten(1)]


def draw_episode_batches(y: Tensor, way: int, episodes: int, seed: int) -> list[EpisodeBatch]:
    """Episodes of the classes of `y` [n] at each number of shots that their rows are enough for.

    `way` 0 is 20 where there are 20 classes, else 5, or as many as there are. Raises InputError for too few rows.
    """
    counts = torch.bincount(y)
    counts = counts[counts > 0]
    usual = 20 if len(counts) >= 20 else min(5, len(counts))
    batches = []
    for shot in SHOTS:
        size = min(way or usual, int((counts >= shot + _QUERIES).sum()))
        if size >= 2:
            drawn = draw_episodes(y.cpu(), way=size, shot=shot, n_query=_QUERIES, trials=episodes, seed=seed)
            support, query = (torch.stack([getattr(e, key) for e in drawn]) for key in ("support", "query"))
            support = support.to(y.device)
            batches.append(EpisodeBatch(shot, support, query.to(y.device), y[support[:, :, 0]]))
    if not batches:
        raise InputError(
            f"settings are chosen on episodes of at least 2 classes with {1 + _QUERIES} rows; the classes kept for it "
            f"have {sorted(counts.tolist())[-3:]} rows at most; expected more"
        )
    return batches


@dataclass(frozen=True)
class MappedRows:
    """The held-out rows in the coordinates of k models."""

    psi: Tensor  # [k, r], the between-class variances of the models
    mapped: Tensor  # [k, n, r]
    squares: Tensor | None = None  # [k, n, r], `mapped` squared, where a class's own spread is used
    mixture: tuple[Tensor, float] | None = None  # class means and tau, for that prior

    def densities(self, parameters: Tensor, batch: EpisodeBatch, episodes: Tensor, way: int) -> Tensor:
        """Log densities [k, e, way * q, way] under `parameters` [k, 8]; rows mapped once serve many parameters."""
        z = batch.means(self.mapped, episodes, way)
        scatter = None
        if self.squares is not None:
            scatter = (batch.means(self.squares, episodes, way) - z.square()).clamp(min=0) * batch.shot
        shot = torch.tensor(float(batch.shot), device=z.device)
        of_models, psi = parameters[:, None, None, None], self.psi[:, None, None]
        mean, variance = predictive(psi, of_models, z, shot, scatter, self.mixture)
        return log_density(of_models, batch.queries(self.mapped, episodes, way), mean, variance)

    def accuracy(self, parameters: Tensor, batch: EpisodeBatch, together: bool) -> Tensor:
        """The accuracy (0..1) of each episode, [k, e], or [1, e] of all models `together`."""
        found = []
        with torch.no_grad():
            for episodes in torch.arange(len(batch.support), device=batch.support.device).split(_EPISODES_AT_ONCE):
                scores = self.densities(parameters, batch, episodes, batch.way)
                scores = weighted_sum(scores, parameters, batch.shot)[None] if together else scores
                found.append(_accuracy(scores, batch))
        return torch.cat(found, 1)


def weighted_sum(densities: Tensor, parameters: Tensor, shot: float) -> Tensor:
    """The sum [e, q, way] of log densities [k, e, q, way], each times the weight of its model at that many shots."""
    share = torch.exp(parameters[:, WEIGHT] + parameters[:, WEIGHT_SLOPE] * torch.tensor(float(shot)).log())
    return (share[:, None, None, None] * densities).sum(0)


def _accuracy(scores: Tensor, batch: EpisodeBatch) -> Tensor:
    """The accuracy (0..1) [..., e] of scores [..., e, q, way]."""
    return (scores.argmax(-1) == batch.target(batch.way)).float().mean(-1)


def error_over(classes: Tensor, gain: Tensor) -> float:
    """The standard error of the mean of gains [n] of `classes` [n], where whole classes are drawn."""
    ids, place = torch.unique(classes, return_inverse=True)
    apart = torch.zeros(len(ids), device=gain.device).index_add(0, place, gain - gain.mean())
    return float(apart.norm()) / len(gain) * (len(ids) / (len(ids) - 1)) ** 0.5


def between_shots(known: Tensor, counts: Tensor) -> Tensor:
    """What is `known` [..., 5] at SHOTS at any numbers of shots [n]: [..., n].

    Straight over their logarithm, and level outside.
    """
    places = torch.tensor(SHOTS, dtype=torch.float32, device=counts.device).log()
    at = counts.float().clamp(min=SHOTS[0], max=SHOTS[-1]).log().contiguous()
    right = torch.searchsorted(places, at).clamp(min=1)
    part = (at - places[right - 1]) / (places[right] - places[right - 1])
    return torch.lerp(known[..., right - 1], known[..., right], part)


def nearest_shot(counts: Tensor) -> Tensor:
    """The place in SHOTS nearest to each count [...], by ratio."""
    known = torch.tensor(SHOTS, dtype=torch.float32, device=counts.device).log()
    return (counts.float().clamp(min=0.5).log()[..., None] - known).abs().argmin(-1)
