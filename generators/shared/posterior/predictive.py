"""What the posterior and the hallucinator share: models of known classes, scores and draws of predictive densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.adaptation import adapted
from augforge.classifiers.feature_transforms import Transform, lengths, restored
from augforge.classifiers.two_covariance import WEIGHT, WEIGHT_SLOPE, Gathered, TwoCovariance
from augforge.classifiers.weighted import as_rows, class_means, like_query
from augforge.generators.shared.support import choose_parents, feature_rows, like_support
from augforge.networks.products import in_tiles, row_product
from augforge.types import Examples, InputError

_ROWS_AT_ONCE = 256  # rows drawn at a time, so that all that is done to them stays in the cache


def predictive_scores(
    models: Sequence[TwoCovariance], support: Examples, query: Tensor, within_rows: float = 0.0
) -> Tensor:
    """The weighted sum of the log predictive densities of queries, [q, way] or [b, q, way], differentiable.

    Rows of the support count by their weight, and adapt S_w, which counts as `within_rows` (`adaptation.adapted`).
    Raises InputError for rows that do not go together.
    """
    rows = as_rows(support, query)
    check_features(models[0], rows.x)
    mapped = [(model.mapped(rows.x), model.mapped(rows.query)) for model in models]
    return like_query(mapped_scores(models, mapped, rows.member, within_rows), query)


def mapped_scores(
    models: Sequence[TwoCovariance], mapped: Sequence[tuple[Tensor, Tensor]], member: Tensor, within_rows: float = 0.0
) -> Tensor:
    """Scores [b, q, way] of rows [b, n, r] and queries [b, q, r] in the coordinates of each model.

    `member` [b, n, way] is the weight of each row in its class; S_w counts as `within_rows` beside them.
    """
    counts = member.sum(1)  # [b, way]
    total = torch.zeros(1, dtype=member.dtype, device=member.device)
    for model, (raw, raw_query) in zip(models, mapped, strict=True):
        turned = adapted(model.psi, raw, member, within_rows)
        x, query = turned.rows(raw), turned.rows(raw_query)
        mean = class_means(x, member)
        scatter = (member.mT @ x.square() - counts[..., None] * mean.square()).clamp(min=0)
        mu, variance = model.predictive(mean, counts, scatter, turned)
        number = model.numbers.to(member)
        share = torch.exp(number[WEIGHT] + number[WEIGHT_SLOPE] * counts.mean(1).log())  # [b]
        total = total + share[:, None, None] * model.log_density(query, mu, variance)
    return total


def check_features(model: TwoCovariance, x: Tensor) -> None:
    """Raise InputError where rows [..., d] are of another width than a model."""
    if x.shape[-1] != len(model.mean):
        raise InputError(f"this part was fitted on {len(model.mean)} features; these rows have {x.shape[-1]}")


def predictive_draws(models: Sequence[TwoCovariance], support: Examples, want: Tensor, keys: Tensor,
                     noise_scale: float, who: str) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Draws [n, d] of the predictive density of the class of each wanted row, from one of the models each, and how
    many real rows, by weight, that class has: [n].

    A row's key chooses the model, as likely as the model weighs, and the support row whose length a transform that
    forgets lengths is given back; a pair of keys (`chance.in_pairs`) has these alike, and opposite noise. No row
    depends on its batch; the result is in the dtype of the support. Rows of weight 0 are none. Raises InputError,
    naming `who`, for pictures and where a wanted class has no row.
    """
    x = feature_rows(support, who)
    check_features(models[0], x)
    weight = torch.ones(len(x), device=x.device) if support.weight is None else support.weight
    there = weight > 0
    known = _known(x[there], support.y[there], weight[there].to(torch.float64))
    pair = chance.pair_of(keys)
    chosen = choose_parents(support.y[there], want, pair)
    label = torch.searchsorted(known.ids, want)
    which = _choose_models(models, known.counts[label], chance.uniform(chance.fork(pair, "model")).to(x.device))
    made = torch.empty(len(want), x.shape[1], dtype=x.dtype, device=x.device)
    sizes = torch.bincount(which, minlength=len(models)).tolist()  # one wait for a device, not one for each model
    for model, mine in zip(models, torch.argsort(which, stable=True).split(sizes), strict=True):
        if len(mine):
            _draw(made, mine, model, known, (label, chosen, keys.to(x.device)), noise_scale)
    return like_support(made, support), known.counts[label]


@dataclass(frozen=True)
class _Support:
    """A support, class by class, with what does not depend on the wanted rows."""

    x: Tensor  # rows [m, d], float32 or float64
    ids: Tensor  # [c], the classes that have rows
    y: Tensor  # [m], the place of each row's class in `ids`
    weight: Tensor  # [m] of the rows, float64
    counts: Tensor  # [c], total weight of each class, float64

    def mean(self, x: Tensor) -> Tensor:
        """The weighted mean of each class of rows [m, d]: [c, d]."""
        return self.sum(x * (self.weight / self.counts[self.y])[:, None])

    def sum(self, x: Tensor) -> Tensor:
        """The sum of each class of rows [m, d]: [c, d]."""
        return torch.zeros(len(self.ids), x.shape[1], dtype=x.dtype, device=x.device).index_add(0, self.y, x)


def _known(x: Tensor, y: Tensor, weight: Tensor) -> _Support:
    ids, y = torch.unique(y, return_inverse=True)
    counts = torch.zeros(len(ids), dtype=weight.dtype, device=x.device).index_add(0, y, weight)
    return _Support(x, ids, y, weight, counts)


def _draw(made: Tensor, mine: Tensor, model: TwoCovariance, known: _Support, wanted: tuple[Tensor, Tensor, Tensor],
          noise_scale: float) -> None:  # fmt: skip
    """Write draws of one model to rows `mine` of `made` [n, d], as wanted: classes [n], support rows [n], keys [n]."""
    (label, chosen, keys), (features, rank), dtype = wanted, model.map.shape, known.x.dtype
    moved = model.transformed(known.x.to(torch.float64))
    whole = known.mean(moved)
    mean = row_product(whole - model.mean.to(moved), model.map.to(moved))
    scatter = _scatter(model, known, moved - whole[known.y])
    known_of_classes = (mean, known.counts) if scatter is None else (mean, known.counts, scatter)
    mu, variance = in_tiles(lambda *some: torch.stack(model.predictive(*some), 1), *known_of_classes).unbind(1)
    place, outside = model.places(mu, whole, mean, known.counts)
    wide = 0 if rank == features else features
    # What is done once for a class is exact; what is done for every row needs no float64, but the cache.
    place, deviation = place.to(dtype), (noise_scale * torch.cat([variance.sqrt(), outside[:, :wide]], 1)).to(dtype)
    centre = model.centre.to(known.x)
    length = lengths(known.x, model.transform, centre)
    for some in mine.split(_ROWS_AT_ONCE):
        noise = chance.paired_noise(keys[some], "noise", (rank + wide,)).to(known.x).mul_(deviation[label[some]])
        drawn = model.project_back(noise[:, :rank], noise[:, rank:] if wide else None).add_(place[label[some]])
        made.index_copy_(0, some, restored(drawn, model.transform, centre, length[chosen[some]]))


def _scatter(model: TwoCovariance, known: _Support, apart: Tensor) -> Tensor | None:
    """The sum of squares [c, r] of each class, of rows [m, d] less their mean; None where the model ignores it."""
    if model.spread_is_ignored():
        return None
    there = model.map.to(known.x)
    z = row_product(apart.to(known.x), there)
    return known.sum(z.square() * known.weight[:, None])


def _choose_models(models: Sequence[TwoCovariance], counts: Tensor, uniform: Tensor) -> Tensor:
    """Which model each row [n] is of, from a number in [0, 1) and how many real rows its class has."""
    with torch.no_grad():
        number = torch.stack([model.numbers for model in models]).to(counts)  # [k, 8]
        level = number[:, WEIGHT] + number[:, WEIGHT_SLOPE] * counts[:, None].clamp(min=1e-6).log()  # [n, k]
        edges = torch.softmax(level, 1).cumsum(1)
        return (uniform[:, None] >= edges[:, :-1]).sum(1)


def all_classes(found: Sequence[Gathered]) -> Gathered:
    """The sums over the classes of all, which are different ones."""
    return reduce(add, found)


def new_model(transform: Transform, found: Gathered, centre: Tensor, rank: int) -> TwoCovariance:
    """An empty model for the features and classes of `found`, with the centre of its transform."""
    features = found.means.shape[1]
    model = TwoCovariance(transform, features, min(rank, features), len(found.means)).to(centre.device)
    model.centre = centre
    return model


def check_settings(rank: int, way: int, made: int, noise_scale: float, within_rows: float) -> None:
    """Raise InputError for settings out of range."""
    if not 0 <= within_rows < math.inf:
        raise InputError(f"within_rows={within_rows} was given; expected a number of at least 0")
    if rank < 1 or made < 1 or way < 0 or way == 1 or not noise_scale >= 0:
        raise InputError(
            f"rank={rank}, way={way}, made={made}, noise_scale={noise_scale} was given; expected a rank and a number "
            "made of at least 1, a way of 0 or at least 2, and no negative noise"
        )
