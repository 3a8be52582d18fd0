"""Choose among candidates by few-fold cross-validation on the support, shrunk towards what our benchmark says.

Few-fold cross-validation is the best selector on a single task (Shimabucoro, Hospedales & Gouk, "Evaluating the
evaluators: are validation methods in few-shot learning fit for purpose?", 2023, arXiv 2307.02732), and says little on
few rows: so each candidate's gain over the plain one is a normal variable with the prior of `candidates.py`, and the
folds are an observation of it, with the variance that their number of rows gives. At one row a class there is no fold,
and the prior decides alone. Classes may have different numbers of rows, and there is no validation set (Silva-Rodríguez
et al., "A closer look at the few-shot adaptation of large vision-language models", 2024, arXiv 2312.12730).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from augforge.auto.candidates import MADE, Candidate, prior, usual_error
from augforge.classifiers.pool import PoolOptions, with_pool
from augforge.imagine import usual_share, weight_of_each
from augforge.parts import catalog
from augforge.parts.saving import open_part
from augforge.types import Classifier, Examples

FOLDS = 5
_WIDTH = 1.96  # standard deviations to each end of a 95 % interval
_LEFT = 0.75  # of the plain one's errors with each doubling of the shots: 0.64 to 0.84 on photographs of six kinds
_MOST = 0.7  # of the errors that any gain takes away
_ERROR_ROWS = 5  # that the mean error of our sets weighs beside what was found on held-out rows
_TUNED_FROM, _TUNED_ABOVE = 20, 10.0  # shots, and percent of errors, from where on fine-tuning may gain
_BY_ANGLES = ("logistic", "prototype")  # read lengths and angles of rows alone


@dataclass(frozen=True, eq=False)
class Shown:
    """Features [n, d] of the support by each network, labels [n], and those of the pool.

    `made` are features [n, m, d] of m rows that were made of each row of the support, by method and network. `group`
    [n] are numbers of near-copies, which are held out together. "" is the network of given features.
    """

    x: Mapping[str, Tensor]
    y: Tensor
    pool: Mapping[str, Tensor] = field(default_factory=dict)
    group: Tensor | None = None
    made: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)

    def take(self, rows: Tensor, y: Tensor) -> Shown:
        """Some rows, with other labels: both [k]. The pool stays."""
        x = {name: part[rows] for name, part in self.x.items()}
        made = {name: part[rows] for name, part in self.made.items()}
        return Shown(x, y, self.pool, None if self.group is None else self.group[rows], made)

    def support(self, candidate: Candidate) -> Examples:
        """The support as a candidate sees it: real rows, and behind them what is made of each in turn.

        What is made of a class is about MADE rows, which weigh one real row together.
        """
        real = Examples(beside(self.x, candidate.networks), self.y)
        if not candidate.made:
            return real
        counts = torch.bincount(self.y)
        made = self.made[candidate.made, candidate.networks[0]]
        made = made[:, : max(1, MADE // int(counts.max()))]
        each = weight_of_each(usual_share("discriminative", counts, pictures=True), counts, counts * made.shape[1])
        labels = self.y.repeat_interleave(made.shape[1])
        return real + Examples(made.flatten(0, 1), labels, weight=each.to(made)[labels])

    def with_pool(self, candidate: Candidate) -> tuple[Examples, float]:
        """The support as a candidate sees it with the pool behind it, and how far that is believed, 0..1.

        The pool is labelled by the real rows alone.
        """
        real = Examples(beside(self.x, candidate.networks), self.y)
        pool = beside(self.pool, candidate.networks)
        near = shorter(torch.cat([torch.as_tensor(real.x), pool]))
        found = with_pool(Examples(near[: len(self.y)], self.y), near[len(self.y) :])
        assert found.weight is not None
        weight = found.weight[len(self.y) :]
        most = PoolOptions().share * len(self.y.unique())
        rows = Examples(pool, found.y[len(self.y) :], weight=weight)
        return self.support(replace(candidate, pool=False)) + rows, min(1.0, float(weight.sum()) / most)


@dataclass(frozen=True)
class Rated:
    """A candidate, what it got right on held-out rows, and the gain in points that is expected of it."""

    candidate: Candidate
    accuracy: float | None  # percent of the held-out rows; None where there are none
    mean: float
    sd: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the gain."""
        return self.mean - _WIDTH * self.sd, self.mean + _WIDTH * self.sd


@dataclass(frozen=True)
class Choice:
    """What was chosen, and by what."""

    rated: tuple[Rated, ...]  # all candidates, the plain one first, without the pool
    best: Rated  # what was chosen, with the pool where that is believed
    shots: float  # of a class, the geometric mean
    error: float  # of the plain one in percent: found on held-out rows, and pulled towards that of our sets
    rows: int  # that were held out in turn
    trust: float | None  # what the pool weighs in parts of the most that it may, 0..1; None: there is none
    support: Examples = field(compare=False, repr=False)  # as what was chosen sees it

    @property
    def candidate(self) -> Candidate:
        """What was chosen."""
        return self.best.candidate

    @property
    def plain(self) -> bool:
        """Whether it is the plain candidate, without the pool."""
        return self.candidate == self.rated[0].candidate

    def worth(self, gain: float) -> float:
        """How many shots of the plain classifier a gain in points is worth."""
        return self.shots * 2 ** (math.log(1 - min(_MOST, gain / self.error)) / math.log(_LEFT))

    def says(self) -> str:
        """What was chosen, by what, and what it should gain, in one paragraph."""
        pool = "" if self.trust is None else f" The pool weighs {100 * self.trust:.0f} % of what it may."
        return f"{self._chosen()} {self._by()}{pool}{self._more()}"

    def _more(self) -> str:
        """What was not tried, since it takes minutes, where it might gain."""
        network = next(iter(self.rated[0].candidate.networks), "")
        if network != "photos" or self.shots < _TUNED_FROM or self.error < _TUNED_ABOVE:
            return ""
        return (
            " Not tried: fine-tuning, which gained 1 point at 20 and 3 at 40 pictures of each traffic sign, nothing "
            "on what ImageNet shows (augforge fit photos --set finetune=last; hold pictures out to test it on)."
        )

    def _chosen(self) -> str:
        plain = self.rated[0].candidate
        if self.plain:
            return f"auto: nothing beside the plain classifier ({plain.words()}) is expected to gain."
        low, high = self.best.interval
        worth = f"{self.worth(self.best.mean):.1f} (at {low:+.1f} points {self.worth(low):.1f}, at {high:+.1f} "
        worth += f"{self.worth(high):.1f})"
        return (
            f"auto: {self.candidate.words()}. Expected gain over {plain.words()}: {self.best.mean:+.1f} points "
            f"({low:+.1f} to {high:+.1f}), as much as {worth} pictures of each class in place of {self.shots:.3g}."
        )

    def _by(self) -> str:
        tried = len(self.rated)
        if not self.rows:
            return f"No class has a second picture to hold out, so that our benchmark alone chose among {tried}."
        found = f"{self.rated[0].accuracy:.1f} % right for the plain one"
        if replace(self.candidate, pool=False) != self.rated[0].candidate:
            found = f"{self.best.accuracy:.1f} % right, {found}"
        return (
            f"Of {tried} candidates, by our benchmark and by {self.rows} pictures that were held out in {FOLDS} folds: "
            f"{found}."
        )


def beside(x: Mapping[str, Tensor], networks: Sequence[str]) -> Tensor:
    """The features [n, d_1 + ... + d_k] of several networks as `Joined` has them, whose rows have length 1 together
    where each network's are means of unit rows.
    """
    if len(networks) < 2:
        return x[networks[0] if networks else ""]
    return torch.cat([x[name] for name in networks], 1) / math.sqrt(len(networks))


def shorter(x: Tensor) -> Tensor:
    """Rows [n, d] in n coordinates where that is fewer, with the same lengths and angles, to rounding.

    Classifiers that read nothing else answer the same, several times as fast.
    """
    if len(x) >= x.shape[1]:
        return x
    wide = x.to(torch.float64)
    values, axes = torch.linalg.eigh(wide @ wide.T)
    return (axes * values.clamp(min=0).sqrt()).to(x.dtype)


def open_classifier(candidate: Candidate) -> Classifier:
    """The classifier of a candidate: of the catalog, or a shipped synthesizer with scores of its own."""
    shipped = catalog.SHIPPED.get(candidate.classifier) == "synthesizer"
    return open_part(candidate.classifier, dict(candidate.settings), "synthesizer" if shipped else "classifier")


def choose(shown: Shown, options: Sequence[Candidate], seed: int = 0) -> Choice:
    """The candidate with the highest expected gain over the first one, the plain classifier.

    The gain of each is normal(m, s^2), in parts of the plain one's error by `prior`; folds in which it is right on w
    rows where the plain one is wrong and wrong on l where that is right, of n, observe (w - l) / n with the variance
    (w + l + 2) / n^2 (McNemar's, with one row more on each side, so that few rows are never sure). Ties go to the
    earlier.
    """
    counts = torch.bincount(shown.y).double()
    shots = float(counts.log().mean().exp())
    fold = folds(shown.y, seed, shown.group)
    n = int((fold >= 0).sum())
    right = [held_out(shown, one, fold) if n else torch.zeros(0, dtype=torch.bool) for one in options]
    wrong = 100.0 * int((~right[0]).sum()) + _ERROR_ROWS * usual_error(options[0], shots)
    error = wrong / (n + _ERROR_ROWS)
    priors = [[share * error / 100 for share in prior(one.name, shots)] for one in options]
    rated = tuple(_rated(one, own, right[0], *of) for one, own, of in zip(options, right, priors, strict=True))
    best = max(rated, key=lambda one: one.mean)  # the first of equal ones
    support, trust = shown.support(best.candidate), None
    if shown.pool:
        support, trust = shown.with_pool(best.candidate)
        best = _with_pool(best, trust, [share * error / 100 for share in prior("pool", shots)])
        support = support if best.candidate.pool else shown.support(best.candidate)
    return Choice(rated, best, shots, error, n, trust, support)


def _with_pool(best: Rated, trust: float, gain: Sequence[float]) -> Rated:
    """A candidate with the pool beside it, which adds as much of its prior gain as it is believed."""
    if not trust:
        return best
    mean, spread = gain
    sd = math.hypot(best.sd, trust * spread)
    return Rated(replace(best.candidate, pool=True), best.accuracy, best.mean + trust * mean, sd)


def _rated(candidate: Candidate, right: Tensor, plain: Tensor, mean: float, spread: float) -> Rated:
    n = len(right)
    if not n:
        return Rated(candidate, None, mean, spread)
    accuracy = 100 * float(right.double().mean())
    if not spread:
        return Rated(candidate, accuracy, mean, 0.0)
    wins, losses = int((right & ~plain).sum()), int((plain & ~right).sum())
    found, variance = 100 * (wins - losses) / n, 100**2 * (wins + losses + 2) / n**2
    pull = spread**2 / (spread**2 + variance)
    return Rated(candidate, accuracy, mean + pull * (found - mean), math.sqrt(pull * variance))


def folds(y: Tensor, seed: int = 0, group: Tensor | None = None) -> Tensor:
    """The fold [n] in which each row is held out, -1 for never: the rows of a class are dealt to the folds in turn.

    Those of one group go together, and never the last row, or group, of a class.
    """
    group = torch.arange(len(y)) if group is None else group
    found = torch.full_like(y, -1)
    rng = torch.Generator().manual_seed(seed)
    for k in y.unique().tolist():
        own = (y == k).nonzero()[:, 0]
        numbers, of_row = group[own].unique(return_inverse=True)
        if len(numbers) > 1:
            found[own] = torch.randperm(len(numbers), generator=rng)[of_row] % FOLDS
    return found


@torch.no_grad()
def held_out(shown: Shown, candidate: Candidate, fold: Tensor) -> Tensor:
    """Whether a candidate is right on each row that is held out, shown the others: bool, in the order of the rows."""
    classifier, right = open_classifier(candidate), torch.zeros(len(fold), dtype=torch.bool)
    whole = shown.support(candidate)
    x = torch.as_tensor(whole.x)
    x = shorter(x) if candidate.classifier in _BY_ANGLES else x
    n, weight = len(fold), whole.weight
    parent = torch.cat([torch.arange(n), torch.arange(n).repeat_interleave((len(x) - n) // n)])
    for number in fold[fold >= 0].unique().tolist():
        out = fold == number
        kept = (fold != number)[parent]
        known = Examples(x[kept], whole.y[kept], weight=None if weight is None else weight[kept])
        right[out] = classifier.scores(known, x[:n][out]).argmax(1).cpu() == shown.y[out]
    return right[fold >= 0]
