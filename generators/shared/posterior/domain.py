"""Whether statistics of other classes suit the support of an episode: tested before they count.

Three tests. One needs no labels: in the coordinates of a two-covariance model a row of a new class is N(0, 1 + psi), so
the mean of z^2 / (1 + psi) over coordinates is about 1 for base classes, a little else for classes that the backbone
never saw, and something else altogether for rows of another backbone or scale. What held-out classes show of it is the
yardstick. Another asks whether the classes of a support lie round the base classes, or all together beside them, as
those of another domain do. The third asks the support itself, wherever a class has two rows: rows are held out in folds
and named by the predictive densities of the others, and by ridge regression on these, which knows no other classes. All
are closed forms. A module of its own because `posterior` and `hallucinator` share it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.two_covariance import TwoCovariance
from augforge.classifiers.weighted import Rows, as_rows, class_means
from augforge.generators.shared.posterior.predictive import mapped_scores
from augforge.types import Examples

_FREE = 3.0  # standard deviations of classes that the mean of a support may be off
_SMALLEST = 0.05  # deviation of classes, in natural logarithms
_LIKE_WAY = 10  # classes that an offset of their mean is reckoned as of
_FREE_OFFSET, _WIDE_OFFSET = 6.0, 2.0  # deviations of an offset by chance that are free, and in which trust falls
_FOLDS = 5
_MOST_ROWS, _MOST_CLASSES = 5, 40  # of a class, and of a support, that are held out: more take long
_RIDGE = 0.1  # beside the mean square of a row
_SPREAD = 0.02  # nats of spread that are added, so that few alike differences prove little
_FREE_ERRORS = 1.0  # standard errors that held-out rows may lose
_NONE = 0.01  # trust below which there is none
_TEMPERATURES = 2.0 ** torch.arange(-6.0, 6.5, 0.75)  # of scores, in parts of their deviation
_AT_ONCE = 1 << 22  # numbers in the coordinates of a model


def strangeness(models: Sequence[TwoCovariance], x: Tensor) -> Tensor:
    """How far out rows [..., d] lie, [...]: log mean z^2 / (1 + psi), the mean over models."""
    found = [(model.mapped(x).square() / (1 + model.psi.to(x))).mean(-1).clamp(min=1e-12).log() for model in models]
    return torch.stack(found).mean(0)


def domain_of(held_out: Sequence[tuple[Sequence[TwoCovariance], Tensor, Tensor]]) -> Tensor:
    """The mean and the deviation [2] over held-out classes of how far out their rows lie.

    Each fold gives models that do not know the classes, their rows [n, d] and labels [n].
    """
    means = []
    for models, x, y in held_out:
        ids, place = torch.unique(y, return_inverse=True)
        with torch.no_grad():
            sums = torch.zeros(len(ids), device=x.device).index_add(0, place, strangeness(models, x))
        means.append(sums / torch.bincount(place))
    known = torch.cat(means)
    return torch.stack([known.mean(), known.std(correction=min(1, len(known) - 1)).clamp(min=_SMALLEST)]).cpu()


def trusted(domain: Tensor, models: Sequence[TwoCovariance], support: Examples, query: Tensor | None = None) -> Tensor:
    """How much to trust the statistics for each episode, [b] in 0..1: `in_domain` times what held-out rows say.

    Where held-out support rows lose z standard errors of log-likelihood against ridge regression, that is
    exp(-(z - 1)^2 / 2), and 1 up to one standard error, or where no class has two rows. Less than 0.01 is 0.
    """
    query = torch.as_tensor(support.x)[..., :1, :] if query is None else query
    z = held_out_gain(models, as_rows(support, query))
    trust = in_domain(domain, models, support, query) * _fallen(-z - _FREE_ERRORS)
    return torch.where(trust < _NONE, 0.0, trust)


def believed(domain: Tensor | None, models: Sequence[TwoCovariance], support: Examples) -> Tensor:
    """How far rows made of a support [n, d], or those of b episodes [b, n, d], are to count: [1] or [b] in 0..1.

    It is `trusted` times `among_base`; 1 for a method that noted no domain, as older ones, and for no rows.
    """
    known = _with_whole_labels(support)
    if domain is None or not len(known.y):
        return torch.ones(len(known.y) if known.y.ndim > 1 else 1)
    trust = trusted(domain, models, known) * among_base(models, known)
    return torch.where(trust < _NONE, 0.0, trust)


def _with_whole_labels(support: Examples) -> Examples:
    """The rows of a support [n, d] that weigh something, with labels without gaps; several [b, n, d] as they are."""
    if support.y.ndim > 1:
        return support
    some = support if support.weight is None else support.take(support.weight > 0)
    return Examples(some.x, torch.unique(some.y, return_inverse=True)[1], weight=some.weight)


def _fallen(beyond: Tensor) -> Tensor:
    return torch.exp(-beyond.clamp(min=0).square() / 2)


def in_domain(domain: Tensor, models: Sequence[TwoCovariance], support: Examples, query: Tensor) -> Tensor:
    """How much to trust the statistics for each episode, [b] in 0..1: 1 for a support as held-out classes are, and
    smoothly 0 for one that lies out of all that was seen.

    The mean over classes may be off by three deviations of classes; beyond, trust falls as a Gaussian does.
    """
    rows = as_rows(support, query)
    with torch.no_grad():
        far = class_means(strangeness(models, rows.x)[..., None], rows.member).mean((1, 2))  # [b]
    mean, deviation = domain.to(far)
    return _fallen((far - mean).abs() / deviation - _FREE)


@torch.no_grad()
def among_base(models: Sequence[TwoCovariance], support: Examples) -> Tensor:
    """How much to trust made rows for each episode, [b] in 0..1: 1 where its classes lie round the base classes, and
    smoothly 0 where they lie all together beside them.

    With v = 1 / rows + psi, the mean m of w class means z and their scatter s = mean (z - m)^2 / v w / (w - 1), the
    offset is o = max(0, mean m^2 / v / s - 1 / w), over the coordinates, 0 but for chance for classes of the same
    domain. log(1 + 10 o) is that of ten classes. In r coordinates chance moves it by about sqrt(2 / r), by 10 / w times
    that for fewer than ten classes; six of these are free, as classes of one alphabet lie somewhat apart, too.
    """
    rows = as_rows(support, torch.as_tensor(support.x)[..., :1, :])
    way = rows.member.shape[2]
    if way < 2:
        return rows.x.new_ones(len(rows.x))
    found = []
    for model in models:
        z, v = class_means(model.mapped(rows.x), rows.member), model.psi.to(rows.x) + 1 / rows.counts.mean(1)[:, None]
        middle = z.mean(1)
        apart = ((z - middle[:, None]).square() / v[:, None]).mean((1, 2)) * way / (way - 1)
        offset = ((middle.square() / v).mean(1) / apart.clamp(min=1e-12) - 1 / way).clamp(min=0)
        by_chance = math.sqrt(2 / len(model.psi)) * max(1.0, _LIKE_WAY / way)
        found.append((1 + _LIKE_WAY * offset).log() / by_chance)
    return _fallen((torch.stack(found).mean(0) - _FREE_OFFSET) / _WIDE_OFFSET)


@torch.no_grad()
def held_out_gain(models: Sequence[TwoCovariance], rows: Rows) -> Tensor:
    """What held-out support rows gain in log-likelihood by predictive densities over ridge regression, each at the
    temperature that suits it: the mean over rows in its standard errors, [b]; 0 where no class has two rows.

    Up to 5 rows of up to 40 classes are held out in as many folds, those of all classes at once, so that classes keep
    equal numbers; which rows go together is decided by what they hold, not by their order.
    """
    x, member, place = _few(rows)
    folds = min(_FOLDS, int(place.max()) + 1)
    if folds < 1:
        return rows.x.new_zeros(len(rows.x))
    step = max(1, _AT_ONCE // (folds * x.shape[1] * len(models[0].psi)))
    found = [_gains(models, *some, folds) for some in zip(x.split(step), member.split(step), place.split(step),
                                                          strict=True)]  # fmt: skip
    gains, there = torch.cat(found), place >= 0
    number = there.sum(1).clamp(min=1)
    mean = (gains * there).sum(1) / number
    variance = ((gains - mean[:, None]).square() * there).sum(1) / number
    return (mean / ((variance + _SPREAD**2) / number).sqrt()).to(rows.x)


def _few(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [b, m, d] of each episode, their weights [b, m, way] by class, and the place [b, m] of each in its class: -1
    for those that are not held out, as they are the only one or are padding.
    """
    member = rows.member[..., :_MOST_CLASSES]
    there, unit = (member > 0).long(), F.normalize(rows.x.double(), dim=-1)
    order = (unit @ (rows.weight[:, None].double() @ unit).mT)[..., 0].argsort(dim=1, stable=True)
    sorted_ = there.gather(1, order[..., None].expand_as(there))
    number = ((sorted_.cumsum(1) - 1) * sorted_).sum(2)
    place = torch.zeros_like(number).scatter(1, order, number)  # in its class
    kept = (there.sum(2) > 0) & (place < _MOST_ROWS)
    index = (~kept).long().argsort(dim=1, stable=True)[:, : int(kept.sum(1).max())]
    kept, place = kept.gather(1, index), place.gather(1, index)
    x = rows.x.gather(1, index[..., None].expand(-1, -1, rows.x.shape[-1]))
    member = member.gather(1, index[..., None].expand(-1, -1, member.shape[-1])) * kept[..., None]
    several = ((member > 0).sum(1, keepdim=True) > 1) & (member > 0)
    return x, member, torch.where(several.any(2), place, -1)


def _gains(models: Sequence[TwoCovariance], x: Tensor, member: Tensor, place: Tensor, folds: int) -> Tensor:
    """What each row [b, m] gains by predictive densities, where it is held out; anything elsewhere."""
    b, m, way = member.shape
    known = place[:, None] % folds != torch.arange(folds, device=x.device)[:, None]  # [b, fold, m]
    known |= place[:, None] < 0
    left = member[:, None] * known[..., None]  # [b, fold, m, way]
    mapped = [model.mapped(x).repeat_interleave(folds, 0) for model in models]
    own = mapped_scores(models, [(z, z) for z in mapped], left.flatten(0, 1)).view(b, folds, m, way)
    target, fold = (member > 0).long().argmax(2), (place.clamp(min=0) % folds)[:, None, :, None].expand(-1, 1, -1, way)
    held_out = (scores.double().gather(1, fold)[:, 0] for scores in (own, _ridge(x, left)))
    better, plain = (_log_likelihood(scores, target, place >= 0) for scores in held_out)
    return better - plain


def _ridge(x: Tensor, member: Tensor) -> Tensor:
    """Scores [b, fold, m, way] of all rows [b, m, d] by ridge regression on those that weigh in a fold."""
    rows = F.normalize(x.double(), dim=-1)
    there = (member.sum((1, 3)) > 0)[..., None]
    rows = (rows - (rows * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)) * there
    kernel = rows @ rows.mT
    size = kernel.diagonal(dim1=1, dim2=2).sum(1) / there.sum((1, 2))
    kernel = (kernel / size.clamp(min=1e-30)[:, None, None])[:, None]
    weight = member.sum(-1, keepdim=True).double()
    wanted = (member > 0).double() - member.sum(2, keepdim=True) / weight.sum(2, keepdim=True)
    root = weight.sqrt()
    ridge = _RIDGE * torch.eye(x.shape[1], dtype=kernel.dtype, device=x.device)
    return kernel @ (root * torch.linalg.solve(root * kernel * root.mT + ridge, root * wanted))


def _log_likelihood(scores: Tensor, target: Tensor, there: Tensor) -> Tensor:
    """Log-likelihoods [b, m] of labels [b, m] at the temperature that suits the scores [b, m, way] that are there."""
    size = (scores.var(2, correction=0) * there).sum(1) / there.sum(1).clamp(min=1)
    scores = scores / size.sqrt().clamp(min=1e-12)[:, None, None]
    found = torch.stack([
        torch.log_softmax(scores / temperature, 2).gather(2, target[..., None])[..., 0]
        for temperature in _TEMPERATURES.tolist()
    ])  # [t, b, m]  # fmt: skip
    best = (found * there).sum(2).argmax(0)
    return found[best, torch.arange(len(target), device=target.device)]
