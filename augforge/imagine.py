"""Enlarge a support set: how many rows to make, what they weigh, and whether a method fits them, is decided here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from augforge.types import Classifier, Doubting, Examples, Family, InputError, Synthesizer, Weighing, capabilities

# What the made rows of a class weigh together, in real rows, where their method has not chosen it. Made features:
# picked in part on novel letters, where noise and mixing gain most at 1 and 2 shots, and lose nothing at 5 and 10.
# Features of made pictures: on validation letters and alphabets (benchmarks/results/picture_shares.jsonl).
_OF_PICTURES = 1.0
_USUAL: dict[Family, float] = {"means": 0.4, "neighbours": 0.25, "discriminative": 0.25, "gaussian": 0.2}
FREE_SPREAD = 1.25  # how much wider than its real rows the made ones of a class may spread, wherever other classes are
_ROWS_AT_ONCE = 8192


def fill_to(y: Tensor, total: int, classes: int | None = None) -> Tensor:
    """The labels wanted so that every class of `y` [n] has `total` rows, real ones counted: [m] int64, sorted.

    `classes` is the number of classes; without it those up to the largest label. A class that has `total` rows or
    more wants none.
    """
    counts = torch.bincount(y, minlength=classes or 0)
    return torch.repeat_interleave(torch.arange(len(counts), device=y.device), (total - counts).clamp(min=0))


def more_of_each(classes: int, count: int) -> Tensor:
    """The labels wanted for `count` more rows of each of `classes` classes: [classes * count] int64, sorted."""
    return torch.arange(classes).repeat_interleave(count)


def check_space(synthesizer: Synthesizer, support: Examples, name: str) -> None:
    """Raise InputError where a method of pictures is given features, or the other way round."""
    kind = "image" if isinstance(support.x, list) or support.x.ndim == 4 else "feature"
    space = capabilities(synthesizer).space
    if space not in ("any", kind):
        raise InputError(f"{name} makes {space}s, and these rows are {kind}s")


def enlarge(
    support: Examples,
    synthesizer: Synthesizer,
    want: Tensor,
    keys: Tensor,
    share: float | None = None,
    classifier: Classifier | None = None,
) -> Examples:
    """The support and what was made of it, joined: S ∪ G(S), in the words of Wang et al. (2018).

    `want` [n] are the labels to make and `keys` [n] their random keys (`chance.draw_keys`, `chance.row_keys`).
    Real rows come first, with parent -1. With a `share` the made rows of a class weigh so much together beside its real
    ones (`with_share`), and without one as much as suits the `classifier` that will read them (`weighed`); None is
    logistic regression. Raises InputError where the method does not fit the rows, or a wanted class has fewer support
    rows than the method needs, and what `with_share` does.
    """
    check_space(synthesizer, support, type(synthesizer).__name__)
    wanted = torch.unique(want)
    counts = torch.bincount(support.y, minlength=int(wanted.max()) + 1 if len(wanted) else 0)
    needed = capabilities(synthesizer).support_needed
    short = wanted[counts[wanted] < needed]
    if len(short):
        raise InputError(
            f"class {int(short[0])} has {int(counts[short[0]])} support rows; "
            f"{type(synthesizer).__name__} needs at least {needed}"
        )
    made = synthesizer.synthesize(support, want, keys)
    if share is not None:
        return support + with_share(made, support, share)
    family: Family = "discriminative" if classifier is None else capabilities(classifier).family
    return support + weighed(made, support, synthesizer, family)


def weighed(
    made: Examples,
    support: Examples,
    synthesizer: Synthesizer,
    family: Family,
    trust: float | None = None,
    apart: float | None = None,
) -> Examples:
    """Made rows [n] with weights that suit the classifiers of a family, so that they never drown the real rows.

    A method that chose its shares on held-out classes (`Weighing`) has these, times the `trust` of the support in what
    it learnt there (None: `trust_of` finds it); rows that come with weights of another method keep them, but for those
    whose weights are relative: these, and rows without, have the `usual_share`, less where they lie farther out than
    rows of other classes do (`within_reach`; `apart` is how far that is, None: `support_spread`). No row weighs
    more than a real one. Rows of a class with no real row stay as they are.
    """
    relative = capabilities(synthesizer).relative_weights
    if not isinstance(synthesizer, Weighing) and made.weight is not None and not relative:
        return made
    own = _weight(made) if relative else torch.ones(len(made), device=made.y.device)
    classes = max((int(side.y.max()) + 1 for side in (made, support) if len(side)), default=0)
    device = made.y.device
    real, count = (torch.zeros(classes, device=device).index_add(0, side.y.to(device), weight.to(device).float())
                   for side, weight in ((support, _weight(support)), (made, own)))  # fmt: skip
    trust = trust_of(synthesizer, support) if trust is None else trust
    share = trust * share_of(synthesizer, family, real)
    if not isinstance(synthesizer, Weighing) and isinstance(made.x, Tensor) and made.x.ndim == 2:
        apart = support_spread(support) if apart is None else apart
        of_class = FREE_SPREAD * _distance(support, support, classes)
        share = share * within_reach(_distance(made, support, classes), of_class.clamp(min=apart))
    each = weight_of_each(share, real, count)
    return replace(made, weight=(own * torch.where(real > 0, each, 1.0)[made.y]).clamp(max=1))


def trust_of(synthesizer: Synthesizer, support: Examples) -> float:
    """How far what a synthesizer learnt from other classes suits a support [n, d], 0..1: 1 where it asks nothing."""
    return float(synthesizer.believed(support)) if isinstance(synthesizer, Doubting) and len(support) else 1.0


def share_of(synthesizer: Synthesizer, family: Family, counts: Tensor) -> Tensor:
    """What made rows of classes of `counts` [...] real rows weigh together before classifiers of a family: [...]."""
    if isinstance(synthesizer, Weighing):
        return synthesizer.share(family, counts)
    return usual_share(family, counts, capabilities(synthesizer).space == "image")


def usual_share(family: Family, counts: Tensor, pictures: bool = False) -> Tensor:
    """What made rows weigh together where nothing better is known, in parts of the real rows: counts [...] -> [...].

    All that is made of a class weighs as a part of one real row, however many real rows there are: imagination is worth
    about so much, and ten real rows know more than it does. Features of made `pictures` weigh as one real row.
    """
    return (_OF_PICTURES if pictures else _USUAL[family]) / counts.float().clamp(min=1)


def support_spread(support: Examples) -> float:
    """How far the rows [n, d] of a support lie from the middle of its classes, root mean square, each class as much as
    another: between class means and within classes together. Infinite where fewer than two classes have rows.
    """
    classes = int(support.y.max()) + 1 if len(support) else 0
    means, total = _means(support, classes)
    known = means[total > 0]
    if len(known) < 2:
        return math.inf
    between = (known - known.mean(0)).square().sum() / (len(known) - 1)
    within = _distance(support, support, classes)[total > 0].square().mean()
    return math.sqrt(float(between + within))


def within_reach(distance: Tensor, apart: Tensor) -> Tensor:
    """What to multiply a share by where made rows lie `distance` from the mean of their class, and real rows of any
    class `apart` from the middle of all, root mean squares [...]: 1 up to there, and beyond the square of their ratio.

    The pull of a row on a classifier grows with its distance, and one that lies farther out than other classes do says
    little of its own: rows of `calibration` as published lie at 2.6 times that on letters.
    """
    return torch.where(distance <= apart, 1.0, (apart / distance.clamp(min=1e-30)).square())


def _distance(made: Examples, support: Examples, classes: int) -> Tensor:
    """How far made rows [n, d] lie from the mean of the real rows of their class, root mean square: [classes]."""
    means, total = _means(support, classes)
    x, far = torch.as_tensor(made.x), torch.zeros(classes, device=made.y.device)
    for rows in torch.arange(len(made), device=made.y.device).split(_ROWS_AT_ONCE):
        apart = x[rows].float() - means.to(x.device)[made.y[rows].to(x.device)]
        far.index_add_(0, made.y[rows], apart.square().sum(1).to(far.device))
    count = torch.bincount(made.y, minlength=classes).clamp(min=1)
    return torch.where(total.to(far) > 0, far / count, 0.0).sqrt()


def _means(rows: Examples, classes: int) -> tuple[Tensor, Tensor]:
    """The weighted mean [classes, d] of each class of rows [n, d], 0 where there is none, and its weight [classes]."""
    x = torch.as_tensor(rows.x).float()
    y, weight = rows.y.to(x.device), _weight(rows).float().to(x.device)
    total = torch.zeros(classes, device=x.device).index_add(0, y, weight)
    weighted = x if rows.weight is None else x * weight[:, None]
    sums = torch.zeros(classes, x.shape[1], device=x.device).index_add(0, y, weighted)
    return sums / total.clamp(min=1e-12)[:, None], total


def weight_of_each(share: Tensor, real: Tensor, made: Tensor) -> Tensor:
    """The weight of a made row, at most 1, where `made` of them weigh `share` of what `real` rows do: all [...]."""
    return (share * real / made.clamp(min=1)).clamp(max=1)


def with_share(made: Examples, support: Examples, share: float) -> Examples:
    """Made rows [n] that weigh together, class by class, `share` times what the real rows of the support do.

    0.5 is half as much. Weights that the made rows have keep their proportions: a row of weight 0 stays at 0, and so do
    those of a class all of whose made rows weigh nothing. Raises InputError for a share that is negative or not finite,
    and for a made row of a class with no real one.
    """
    if not 0 <= share < math.inf:
        raise InputError(f"share={share!r} was given; expected a number of at least 0")
    alone = made.y[~torch.isin(made.y, support.y)]
    if len(alone):
        raise InputError(f"share={share!r} was given, and class {int(alone[0])} has no real row to be weighed beside")
    classes = int(support.y.max()) + 1 if len(support) else 0
    totals = [_weight(rows).new_zeros(classes).index_add(0, rows.y, _weight(rows)) for rows in (made, support)]
    return replace(made, weight=_weight(made) * share_factor(totals[0], totals[1], share)[made.y])


def _weight(rows: Examples) -> Tensor:
    return torch.ones(len(rows), device=rows.y.device) if rows.weight is None else rows.weight


def share_factor(made: Tensor, real: Tensor, share: float) -> Tensor:
    """What to multiply the weights of made rows by, [...], where those of a class sum to `made` and `real` [...]."""
    return share * real / torch.where(made > 0, made, torch.ones_like(made))


def concatenate(parts: Sequence[Examples]) -> Examples:
    """Features of many parts [n_i, d], put together at once; a missing parent is -1 and a missing weight 1, as in `+`.

    Adding part to part copies all that was joined before, which takes minutes for thousands of parts.
    """
    columns: dict[str, Tensor | None] = {"parent": None, "weight": None}
    for name, missing in (("parent", -1), ("weight", 1.0)):
        found = [getattr(part, name) for part in parts]
        known = next((column for column in found if column is not None), None)
        if known is not None:
            columns[name] = torch.cat(
                [known.new_full((len(part),), missing) if column is None else column
                 for part, column in zip(parts, found, strict=True)]
            )  # fmt: skip
    return Examples(torch.cat([torch.as_tensor(part.x) for part in parts]), torch.cat([p.y for p in parts]), **columns)
