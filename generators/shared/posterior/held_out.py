"""How the posterior and the hallucinator choose: which classes are kept out, episodes of them, and what those say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from augforge import chance
from augforge.classifiers.base_statistics import base_rows
from augforge.classifiers.feature_transforms import Transform, centre_of, signed_root, transformed
from augforge.classifiers.two_covariance import WEIGHT, WEIGHT_SLOPE, TwoCovariance, log_density, predictive
from augforge.episodes import draw_episodes
from augforge.generators.shared.posterior.predictive import predictive_draws
from augforge.types import Bank, Examples, InputError

Labelled = tuple[Tensor, Tensor]  # rows [n, d] and labels [n]

SHOTS = (1, 2, 5, 10, 20)  # what is chosen is chosen for each; in between, for the nearest
_EPISODES_AT_ONCE, _FEWEST_EPISODES = 10, 20
_CLASSES_DRAWN = 600  # of all episodes of a lesson, where rows are drawn for them
_QUERIES = 5
_WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)  # what a made row may weigh
_SURE = 2.6  # standard errors: 99 %, as the best of five weights is looked at
_FOLDS = 5
_JUDGED = 100  # base classes, at least, of all folds that are judged, where there are so many
_ROWS, _ROWS_OF_CLASS = 8192, 40  # rows that are judged: at most, and at least of each class
_FEWEST = 10  # validation classes that can be cut in two halves


@dataclass(frozen=True)
class Folds:
    """All rows in parts of whole classes, of which the first `of_base` are base classes, and for each side the parts
    that are known and what is judged meanwhile.
    """

    parts: list[Labelled]
    of_base: int
    sides: list[tuple[list[int], Labelled]]


def folds_of(base: Bank, val: Bank | None, rng: torch.Generator, who: str, halves: bool) -> Folds:
    """Validation classes are judged by what base classes tell, or each half by base classes and the other half where
    `halves` is asked for and there are ten; without them, fifths of the base classes by the rest of these.

    Raises InputError, naming `who`, for pictures and for fewer than four base classes and no others.
    """
    x, y = _labelled(base, who)
    if val is not None:
        more = _labelled(val, who)
        classes = torch.unique(more[1])
        if not halves or len(classes) < _FEWEST:
            return Folds([(x, y), more], 1, [([0], _some(more, rng))])
        order = classes[torch.randperm(len(classes), generator=rng).to(y.device)]
        first = torch.isin(more[1], order[: len(order) // 2])
        parts = [(more[0][rows], more[1][rows]) for rows in (first, ~first)]
        sides = [([0, 2 - i], _some(parts[i], rng)) for i in range(2)]
        return Folds([(x, y), *parts], 1, sides)
    ids, y = torch.unique(y, return_inverse=True)
    count = min(_FOLDS, len(ids) // 2)
    if count < 2:
        raise InputError(
            f"{who} chooses on parts of the base classes where there are no validation classes; there are {len(ids)} "
            "base classes, expected at least 4"
        )
    fold = (torch.randperm(len(ids), generator=rng) % count).to(y.device)[y]
    order, sizes = torch.argsort(fold, stable=True), torch.bincount(fold).tolist()
    x, y = x[order], y[order]
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    judged = min(count, max(2, -(-_JUDGED * count // len(ids))))
    sides = [([j for j in range(count) if j != i], _some(parts[i], rng)) for i in range(judged)]
    return Folds(parts, count, sides)


def _labelled(bank: Bank, who: str) -> Labelled:
    x = base_rows(bank, who).to(torch.float32)
    return x, bank.y.to(x.device)


def _some(part: Labelled, rng: torch.Generator) -> Labelled:
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


def moved(folds: Folds, transforms: Sequence[Transform]) -> Iterator[tuple[Transform, Tensor, list[Tensor]]]:
    """Each transform, its centre [d] - that of all base rows - and the transformed rows [n, d] of each part."""
    plain, roots = [x for x, _ in folds.parts], None
    for transform in transforms:
        if transform in ("sqrt", "both"):
            roots = [signed_root(x) for x in plain] if roots is None else roots
        parts = plain if roots is None or transform not in ("sqrt", "both") else roots
        left: Transform = "centred-l2" if transform in ("centred-l2", "both") else "raw"
        centre = _centre(parts[: folds.of_base], left)
        yield transform, centre, [transformed(x, left, centre) for x in parts]


def base_centre(folds: Folds) -> Tensor:
    """The mean [d] of all base rows."""
    return _centre([x for x, _ in folds.parts[: folds.of_base]], "centred-l2")


def _centre(parts: Sequence[Tensor], transform: Transform) -> Tensor:
    sums = torch.stack([centre_of(x, transform).to(torch.float64) * len(x) for x in parts]).sum(0)
    return (sums / sum(len(x) for x in parts)).to(torch.float32)


@dataclass(frozen=True)
class Lesson:
    """Episodes of one number of shots: `support` [e, way, shot] and `query` [e, way, q], rows of what is judged, and
    `classes` [e, way], their labels.
    """

    shot: int
    support: Tensor
    query: Tensor
    classes: Tensor

    @property
    def way(self) -> int:
        """Classes of an episode."""
        return self.support.shape[1]

    def first(self, classes: int) -> Lesson:
        """The first episodes, with `classes` together, but at least twenty if there are as many."""
        most = max(_FEWEST_EPISODES, classes // self.way)
        return Lesson(self.shot, self.support[:most], self.query[:most], self.classes[:most])

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


def draw_lessons(y: Tensor, way: int, episodes: int, seed: int) -> list[Lesson]:
    """Episodes of the classes of `y` [n] at each number of shots that their rows are enough for.

    `way` 0 is 20 where there are 20 classes, else 5, or as many as there are. Raises InputError for too few rows.
    """
    counts = torch.bincount(y)
    counts = counts[counts > 0]
    usual = 20 if len(counts) >= 20 else min(5, len(counts))
    lessons = []
    for shot in SHOTS:
        size = min(way or usual, int((counts >= shot + _QUERIES).sum()))
        if size >= 2:
            drawn = draw_episodes(y.cpu(), way=size, shot=shot, n_query=_QUERIES, trials=episodes, seed=seed)
            support, query = (torch.stack([getattr(e, key) for e in drawn]) for key in ("support", "query"))
            support = support.to(y.device)
            lessons.append(Lesson(shot, support, query.to(y.device), y[support[:, :, 0]]))
    if not lessons:
        raise InputError(
            f"settings are chosen on episodes of at least 2 classes with {1 + _QUERIES} rows; the classes kept for it "
            f"have {sorted(counts.tolist())[-3:]} rows at most; expected more"
        )
    return lessons


@dataclass(frozen=True)
class Views:
    """What is judged as k models map it, `mapped` [k, n, r], with their `psi` [k, r].

    `squares` [k, n, r] are needed where a class's own spread is heard, `mixture` for that prior.
    """

    psi: Tensor
    mapped: Tensor
    squares: Tensor | None = None
    mixture: tuple[Tensor, float] | None = None

    def densities(self, numbers: Tensor, lesson: Lesson, episodes: Tensor, way: int) -> Tensor:
        """Log densities [k, e, way * q, way] by `numbers` [k, 8]; one view can be read by many numbers."""
        z = lesson.means(self.mapped, episodes, way)
        scatter = None
        if self.squares is not None:
            scatter = (lesson.means(self.squares, episodes, way) - z.square()).clamp(min=0) * lesson.shot
        shot = torch.tensor(float(lesson.shot), device=z.device)
        of_models, psi = numbers[:, None, None, None], self.psi[:, None, None]
        mean, variance = predictive(psi, of_models, z, shot, scatter, self.mixture)
        return log_density(of_models, lesson.queries(self.mapped, episodes, way), mean, variance)

    def right(self, numbers: Tensor, lesson: Lesson, together: bool) -> Tensor:
        """The part of right answers of each episode, [k, e], or [1, e] of all models `together`."""
        found = []
        with torch.no_grad():
            for episodes in torch.arange(len(lesson.support), device=lesson.support.device).split(_EPISODES_AT_ONCE):
                scores = self.densities(numbers, lesson, episodes, lesson.way)
                found.append(_hits(added(scores, numbers, lesson.shot)[None] if together else scores, lesson))
        return torch.cat(found, 1)


def added(densities: Tensor, numbers: Tensor, shot: float) -> Tensor:
    """The weighted sum [e, q, way] of log densities [k, e, q, way]."""
    share = torch.exp(numbers[:, WEIGHT] + numbers[:, WEIGHT_SLOPE] * torch.tensor(float(shot)).log())
    return (share[:, None, None, None] * densities).sum(0)


def _hits(scores: Tensor, lesson: Lesson) -> Tensor:
    """The part of right answers [..., e] by scores [..., e, q, way]."""
    return (scores.argmax(-1) == lesson.target(lesson.way)).float().mean(-1)


def right_by_means(x: Tensor, lesson: Lesson) -> Tensor:
    """The part of right answers of each episode, [e], by the nearest mean of features [n, d]."""
    found = []
    for episodes in torch.arange(len(lesson.support), device=x.device).split(_EPISODES_AT_ONCE):
        means = lesson.means(x[None], episodes, lesson.way)[0]
        found.append(_by_means(means, lesson.queries(x[None], episodes, lesson.way)[0], lesson))
    return torch.cat(found)


def _by_means(means: Tensor, query: Tensor, lesson: Lesson) -> Tensor:
    return _hits(2 * query @ means.mT - means.square().sum(-1)[..., None, :], lesson)


def is_sure(gain: Tensor) -> bool:
    """Whether a gain, by episode [e], is above zero beyond chance."""
    return bool(gain.mean() > _SURE * gain.std() / len(gain) ** 0.5)


def row_weight(models: Sequence[TwoCovariance], x: Tensor, lesson: Lesson, made: int, noise_scale: float) -> float:
    """What a made row should weigh, so that nearest means of `x` [n, d] gain most from `made` of each class.

    0 where no gain is sure.
    """
    shot, found, lesson = lesson.shot, [], lesson.first(_CLASSES_DRAWN)
    for episodes in torch.arange(len(lesson.support), device=x.device).split(_EPISODES_AT_ONCE):
        extra = _drawn(models, x, lesson, episodes, made, noise_scale)
        plain, query = lesson.means(x[None], episodes, lesson.way), lesson.queries(x[None], episodes, lesson.way)
        weight = torch.tensor((0.0, *_WEIGHTS), device=x.device)[:, None, None, None] * made
        found.append(_by_means((shot * plain + weight * extra) / (shot + weight), query, lesson))  # [6, e]
    right = torch.cat(found, 1)
    gains = right[1:] - right[:1]
    best = int(gains.mean(1).argmax())
    return _WEIGHTS[best] if is_sure(gains[best]) else 0.0


def _drawn(models: Sequence[TwoCovariance], x: Tensor, lesson: Lesson, episodes: Tensor, made: int,
           noise_scale: float) -> Tensor:  # fmt: skip
    """The mean [e, way, d] of `made` rows of each class of some episodes."""
    e, way = len(episodes), lesson.way
    labels = torch.arange(e * way, device=x.device)
    support = Examples(x[lesson.support[episodes].flatten()], labels.repeat_interleave(lesson.shot))
    index = repeat(episodes * way, "e -> e way made", way=way, made=made) * made
    index = index + rearrange(torch.arange(way * made, device=x.device), "(way made) -> way made", way=way)
    keys = chance.row_keys(0, "row weight", index.flatten())
    with torch.no_grad():
        rows, _ = predictive_draws(models, support, labels.repeat_interleave(made), keys, noise_scale, "imagination")
    return rearrange(rows, "(e way made) d -> e way made d", e=e, way=way).mean(2)


def nearest_shot(counts: Tensor) -> Tensor:
    """The place in SHOTS nearest to each count [...], by ratio."""
    known = torch.tensor(SHOTS, dtype=torch.float32, device=counts.device).log()
    return (counts.float().clamp(min=0.5).log()[..., None] - known).abs().argmin(-1)
