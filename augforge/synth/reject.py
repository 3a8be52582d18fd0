"""Rejection of made rows: a row that is found implausible is made again from other random numbers, a few times.

A discriminator says how many real rows look less real than a made one; or a made row is compared with the classes of
a source in a representation. Try j of a row is made with the key `chance.fork(key, f"try {j}")` and the same parent,
so a row that is kept is still a pure function of its method, support, filters and key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from augforge import chance
from augforge.types import Examples, InputError, QuotaError, capabilities

DISCRIMINATOR = "discriminator"  # what `--reject` calls the first of the filters below
IMPLAUSIBLE, NEARER, FAR = "implausible to the discriminator", "nearer to another class", "far from its class"
_QUANTILE = 0.99  # of the distances of real rows to the rest of their class: as far as a made row may be
# Rounding changes with the rows that share a batch. So near to a verdict a row is looked at alone, which settles it.
_CLOSE = {IMPLAUSIBLE: 0.01, NEARER: 1e-3, FAR: 1e-3}


class Implausible(QuotaError):
    """A row was rejected in all its tries: `row` is its place among the wanted ones, `counts` the reasons."""

    def __init__(self, sentence: str, row: int = 0, counts: dict[str, int] | None = None) -> None:
        super().__init__(sentence)
        self.row, self.counts = row, counts or {}


class Filter(Protocol):
    """Says of made rows how far they are from being rejected."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """What a row can be rejected for."""
        ...

    def margins(self, part: Any, support: Examples, made: Examples) -> Tensor:
        """How far rows [n] are from being rejected for each reason [n, reasons]; below 0 a row is rejected.

        Row i depends on the support and on made row i alone. `part` is what made them.
        """
        ...

    def for_class(self, name: str) -> Self:
        """The same filter for rows that are all of one class of the source, however they are labelled."""
        ...


@dataclass(frozen=True)
class ByDiscriminator:
    """The discriminator of a part with `plausibility(support, made)`, which gives the share [n] of real rows that it
    finds less plausible; rows under the share `least` are rejected.
    """

    reasons: ClassVar[tuple[str, ...]] = (IMPLAUSIBLE,)

    least: float = 0.05

    def margins(self, part: Any, support: Examples, made: Examples) -> Tensor:
        """The share of each row, less `least`: [n, 1]. A row of one parent is shown with that parent alone."""
        if capabilities(part).one_parent and made.parent is not None:
            support, made = _each_its_own(support), replace(made, y=made.parent)
        share = part.plausibility(support, made)
        return rearrange(share, "n -> n 1").double().cpu() - self.least

    def for_class(self, name: str) -> Self:
        """Itself: it compares with the support."""
        return self


@dataclass(frozen=True, eq=False)
class ByClasses:
    """The classes of a source in a representation, in which every row is centred at the source's mean and has length 1.

    `mean` [d] is that of the source, `means` [k, d] those of its classes after that (not finite where a class has no
    row), `far` the distance to the mean of its class that a row may have, None where no class has two rows. `classes`
    [k] are their names, where they are known by name; rows are all of class number `own`, or of that of their label.
    """

    reasons: ClassVar[tuple[str, ...]] = (NEARER, FAR)

    representation: Any
    mean: Tensor
    means: Tensor
    far: float | None
    classes: tuple[str, ...] = ()
    own: int | None = None

    def margins(self, part: Any, support: Examples, made: Examples) -> Tensor:
        """How much nearer a row is to its own class than to any other, and than it may be: [n, 2]."""
        x = _centred(embedded(self.representation, made.x), self.mean)
        away = distances(x, self.means)  # [n, k]
        label = made.y.cpu() if self.own is None else torch.full((len(made),), self.own)
        own = away.gather(1, label[:, None])[:, 0]
        other = away.scatter(1, label[:, None], torch.inf).amin(1)
        margin = torch.full_like(own, torch.inf) if self.far is None else self.far - own
        return torch.stack([other - own, margin], 1)

    def for_class(self, name: str) -> Self:
        """For rows of the class `name`; raises InputError where the source has no row of it."""
        own = self.classes.index(name) if name in self.classes else -1
        if own < 0 or not bool(self.means[own].isfinite().all()):
            raise InputError(f"class {name!r} has no picture that can be read; --reject needs at least 1 of it")
        return replace(self, own=own)


def by_classes(representation: Any, x: Tensor, y: Tensor, classes: Sequence[str]) -> ByClasses:
    """The filter by the real rows of a source: their embeddings `x` [n, d] and classes `y` [n].

    A made row may be as far from its class as the 99th percentile of what real rows are from the mean of the others
    of their class. Raises InputError where there are neither two classes nor two rows of one, as nothing could be
    rejected then.
    """
    mean = reduce(x.double(), "n d -> d", "mean").float()
    x, y = _centred(x, mean).double(), y.cpu()
    counts = torch.bincount(y, minlength=len(classes))
    sums = torch.zeros(len(classes), x.shape[1], dtype=torch.float64).index_add(0, y, x)
    means = torch.where(counts[:, None] > 0, sums / counts[:, None], torch.inf)
    paired = counts[y] > 1
    far = None
    if bool(paired.any()):
        others = (sums[y] - x)[paired] / (counts[y] - 1)[paired][:, None]  # [m, d] means without the row itself
        far = float(torch.quantile((x[paired] - others).norm(dim=1), _QUANTILE))
    if far is None and int((counts > 0).sum()) < 2:
        raise InputError("--reject by a representation compares classes; expected two classes, or two rows of one")
    return ByClasses(representation, mean, means.float(), far, tuple(classes))


def embedded(representation: Any, x: Tensor | list[Tensor]) -> Tensor:
    """Pictures [n, c, h, w], or a list of them, as features [n, d] float32 on the CPU; grey goes beside colour."""
    if isinstance(x, list):
        channels = max((len(picture) for picture in x), default=0)
        x = [picture.expand(channels, -1, -1) if len(picture) == 1 else picture for picture in x]
    return representation.embed(x).float().cpu()


def _centred(x: Tensor, mean: Tensor) -> Tensor:
    """Embeddings [n, d] minus the mean [d], at length 1."""
    return F.normalize(x.float() - mean, dim=1)


def distances(x: Tensor, means: Tensor) -> Tensor:
    """Euclidean distances [n, k] of rows [n, d] to means [k, d]; infinite for a mean that is not finite."""
    known = means.isfinite().all(1)
    # The default takes matrix products for many rows, whose rounding is far coarser.
    away = torch.cdist(x, means.nan_to_num(0, 0, 0), compute_mode="donot_use_mm_for_euclid_dist")
    return away.masked_fill(~known, torch.inf)


def synthesize_plausible(
    part: Any, support: Examples, want: Tensor, keys: Tensor, filters: Sequence[Filter], tries: int
) -> tuple[Examples, dict[str, int]]:
    """Rows labelled `want` [n] that no filter rejects, and how many tries were rejected for each reason.

    As `part.synthesize`, where a rejected row is made again, `tries` times in all; row i depends on the support and on
    keys[i] alone. A try counts once, for the first reason of the first filter that rejects it. Raises Implausible, a
    QuotaError, for the first row that was rejected in all tries, and QuotaError where the part made fewer rows than
    were wanted.
    """
    made = part.synthesize(support, want, keys)
    if len(made) != len(want):
        raise QuotaError(f"{type(part).__name__} made {len(made)} of the {len(want)} rows wanted")
    reasons: dict[int, Counter[str]] = {}
    left = torch.arange(len(want))
    for attempt in range(tries):
        if attempt:
            made = _with_rows(made, left, _again(part, support, made, left, (keys, attempt)))
        found = verdicts(part, support, made.take(left.to(made.y.device)), filters)
        for row, reason in zip(left.tolist(), found, strict=True):
            if reason is not None:
                reasons.setdefault(row, Counter())[reason] += 1
        left = left[torch.tensor([reason is not None for reason in found], dtype=torch.bool)]
        if not len(left):
            return made, dict(sum(reasons.values(), Counter()))
    row = int(left[0])
    counts = dict(reasons[row])
    raise Implausible(f"row {row}, of class {int(want[row])}, was {failure_text(counts, tries)}", row, counts)


def verdicts(part: Any, support: Examples, made: Examples, filters: Sequence[Filter]) -> list[str | None]:
    """Why each made row is rejected; None where it is not. Rows that are close to a verdict are looked at alone."""
    found: list[str | None] = [None] * len(made)
    for one in filters:
        left = [row for row, reason in enumerate(found) if reason is None]
        if not left:
            break
        some = made.take(torch.tensor(left, device=made.y.device))
        margins = one.margins(part, support, some)
        close = torch.tensor([_CLOSE.get(reason, 0.0) for reason in one.reasons])
        for i in (margins.abs() < close).any(1).nonzero()[:, 0].tolist():
            alone = some.take(torch.tensor([i], device=some.y.device))
            margins[i] = one.margins(part, support, alone)[0]
        for row, bad in zip(left, (~(margins >= 0)).tolist(), strict=True):  # what is not a number is bad
            found[row] = next((reason for reason, b in zip(one.reasons, bad, strict=True) if b), None)
    return found


def failure_text(counts: dict[str, int], tries: int) -> str:
    """The end of the sentence of a row that was rejected in all tries: how often for what, and what to change."""
    plausible = "a lower --plausible, " if IMPLAUSIBLE in counts else ""
    found = f"rejected in all {tries} tries ({counts_text(counts)})"
    return f"{found}; expected more --tries, {plausible}other real rows or another method"


def counts_text(counts: dict[str, int]) -> str:
    """How many tries were rejected for each reason, the commonest first."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(counts).most_common())


def _again(part: Any, support: Examples, made: Examples, left: Tensor, how: tuple[Tensor, int]) -> Examples:
    """The rows `left` [m] of `made` once more, by their keys [n] and the number of the try; parents stay."""
    keys, attempt = how
    place = made.y.device
    forked = chance.fork(keys[left.to(keys.device)], f"try {attempt}")
    label = made.y[left.to(place)]
    if not (capabilities(part).one_parent and made.parent is not None):
        return part.synthesize(support, label, forked)
    parent = made.parent[left.to(made.parent.device)]
    tried = part.synthesize(_each_its_own(support), parent.to(place), forked)
    return replace(tried, y=label, parent=parent)


def _each_its_own(support: Examples) -> Examples:
    """The support with every row as a class of its own."""
    return replace(support, y=torch.arange(len(support), device=support.y.device))


def _with_rows(made: Examples, rows: Tensor, new: Examples) -> Examples:
    """`made` with `new` [m] in the place of its rows `rows` [m]."""
    columns: dict[str, Any] = {"x": _put(made.x, rows, new.x)}
    for name in ("parent", "weight"):
        before, after = getattr(made, name), getattr(new, name)
        columns[name] = before if before is None or after is None else _put(before, rows, after)
    return replace(made, **columns)


def _put(before: Any, rows: Tensor, after: Any) -> Any:
    """A column with other entries at `rows`; a list where pictures have become different in shape."""
    if isinstance(before, Tensor) and isinstance(after, Tensor) and before.shape[1:] == after.shape[1:]:
        return before.index_copy(0, rows.to(before.device), after)
    mixed = list(before)
    for row, one in zip(rows.tolist(), after, strict=True):
        mixed[row] = one
    return mixed
