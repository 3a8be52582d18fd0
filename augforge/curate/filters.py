"""Filters say of made rows, or of real ones, why they are not worth keeping; what they reject is made again.

A filter gives margins, one for each of its reasons; `verdicts` puts filters after each other, so that they compose.
One by a method's discriminator is here; those by classes, by what a picture looks like and by likeness to real rows lie
beside. Try j of a row is made with the key `chance.fork(key, f"try {j}")` and the same parent, so a row that is kept is
still a pure function of its method, support, filters and key; where rows must be distinct, of the keys before it too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self

import torch
from einops import rearrange
from torch import Tensor

from augforge import chance
from augforge.types import Examples, QuotaError, capabilities

IMPLAUSIBLE, NEARER, FAR = "implausible to the discriminator", "nearer to another class", "far from its class"
NEAR_MADE = "near-duplicate of a made row"
# Rounding changes with the rows that share a batch. So near to a verdict a row is looked at alone, which settles it.
_CLOSE = {IMPLAUSIBLE: 0.01, NEARER: 1e-3, FAR: 1e-3}


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
            support, made = each_its_own(support), replace(made, y=made.parent)
        share = part.plausibility(support, made)
        return rearrange(share, "n -> n 1").double().cpu() - self.least

    def for_class(self, name: str) -> Self:
        """Itself: it compares with the support."""
        return self


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


def good_rows(examples: Examples, filters: Sequence[Filter]) -> tuple[Tensor, dict[int, str]]:
    """The rows [m] int64 of examples that no filter rejects, and the reason for each of the others.

    For filters that ask no method: all but `ByDiscriminator`.
    """
    found = verdicts(None, examples, examples, filters)
    good = torch.tensor([row for row, reason in enumerate(found) if reason is None], dtype=torch.int64)
    return good, {row: reason for row, reason in enumerate(found) if reason is not None}


def counts_text(counts: dict[str, int]) -> str:
    """How many tries were rejected for each reason, the commonest first."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(counts).most_common())


def each_its_own(support: Examples) -> Examples:
    """The support with every row as a class of its own."""
    return replace(support, y=torch.arange(len(support), device=support.y.device))


class Implausible(QuotaError):
    """A row was rejected in all its tries: `row` is its place among the wanted ones, `counts` the reasons."""

    def __init__(self, sentence: str, row: int = 0, counts: dict[str, int] | None = None) -> None:
        super().__init__(sentence)
        self.row, self.counts = row, counts or {}


def synthesize_plausible(
    part: Any,
    support: Examples,
    want: Tensor,
    keys: Tensor,
    filters: Sequence[Filter],
    tries: int,
    distinct: Callable[[Tensor], bool] | None = None,
) -> tuple[Examples, list[Counter[str]]]:
    """Rows labelled `want` [n] that no filter rejects, and how many tries of each [n] were rejected, by reason.

    As `part.synthesize`, where a rejected row is made again, `tries` times in all; row i depends on the support and
    on keys[i] alone. With `distinct`, as `Distinct().takes`, it must also differ from the rows that were taken
    before: rows are decided in their order, so that row i depends on the keys of those before it too. A try counts
    once, for the first reason of the first filter that rejects it. Raises Implausible, a QuotaError, for the first
    row that was rejected in all tries, and QuotaError where the part made fewer rows than were wanted.
    """
    made = part.synthesize(support, want, keys)
    if len(made) != len(want):
        raise QuotaError(f"{type(part).__name__} made {len(made)} of the {len(want)} rows wanted")
    work = _Work(part, support, keys, filters, tries)
    made = work.until_good(made, torch.arange(len(want)), 0)
    if distinct is not None:
        for row in range(len(want)):
            while not distinct(made.x[row]):
                work.reasons[row][NEAR_MADE] += 1
                made = work.until_good(made, torch.tensor([row]), work.attempts.get(row, 0) + 1)
    return made, [work.reasons.get(row, Counter()) for row in range(len(want))]


@dataclass
class _Work:
    """Rows under way: by which keys [n] and filters, `most` tries each; the try that each is at, and why others
    failed.
    """

    part: Any
    support: Examples
    keys: Tensor
    filters: Sequence[Filter]
    most: int
    attempts: dict[int, int] = field(default_factory=dict)
    reasons: dict[int, Counter[str]] = field(default_factory=dict)

    def until_good(self, made: Examples, left: Tensor, attempt: int) -> Examples:
        """`made` with its rows `left` [m] at the first try from `attempt` on that no filter rejects."""
        while attempt < self.most:
            if attempt:
                made = _with_rows(made, left, _again(self.part, self.support, made, left, (self.keys, attempt)))
            found = verdicts(self.part, self.support, made.take(left.to(made.y.device)), self.filters)
            for row, reason in zip(left.tolist(), found, strict=True):
                self.attempts[row] = attempt
                counts = self.reasons.setdefault(row, Counter())
                if reason is not None:
                    counts[reason] += 1
            left = left[torch.tensor([reason is not None for reason in found], dtype=torch.bool)]
            if not len(left):
                return made
            attempt += 1
        row = int(left[0])
        counts = self.reasons[row]
        said = f"row {row}, of class {int(made.y[row])}, was {failure_text(counts, self.most)}"
        raise Implausible(said, row, dict(counts))


def failure_text(counts: dict[str, int], tries: int) -> str:
    """The end of the sentence of a row that was rejected in all tries: how often for what, and what to change."""
    plausible = "a lower --plausible, " if IMPLAUSIBLE in counts else ""
    found = f"rejected in all {tries} tries ({counts_text(counts)})"
    return f"{found}; expected more --tries, {plausible}other real rows or another method"


def _again(part: Any, support: Examples, made: Examples, left: Tensor, how: tuple[Tensor, int]) -> Examples:
    """The rows `left` [m] of `made` once more, by their keys [n] and the number of the try; parents stay."""
    keys, attempt = how
    place = made.y.device
    forked = chance.fork(keys[left.to(keys.device)], f"try {attempt}")
    label = made.y[left.to(place)]
    if not (capabilities(part).one_parent and made.parent is not None):
        return part.synthesize(support, label, forked)
    parent = made.parent[left.to(made.parent.device)]
    tried = part.synthesize(each_its_own(support), parent.to(place), forked)
    return replace(tried, y=label, parent=parent)


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
