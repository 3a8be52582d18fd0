"""The gate: how much the scores of imagination count beside those of plain classifiers.

Imagination says where a class lies; logistic regression, on the same support, where classes part. Generative and
discriminative models err differently, so their scores are added (Raina et al., "Classification with hybrid
generative/discriminative models", NIPS 2003), with weights as in stacking (Wolpert, "Stacked generalization", 1992).
For each number of shots there are four such sums: logistic regression on rows of length 1, which suits features of any
kind, alone and with imagination, and every plain classifier, without imagination and with it. All are fitted by
cross-entropy on episodes of held-out classes. What is used lies between them: as far along as the gains on classes that
they were not fitted on make it likely, averaged over several splits of the classes. So nothing is open or closed, and
other episodes, or another split, move the weights a little only. Sums of all plain classifiers have to gain two
standard errors more: how nearest means and logistic regression compare is a matter of the features, and on classes of
another kind such a sum lost what it had gained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.matching import Matching
from augforge.classifiers.prototype import Prototype
from augforge.classifiers.weighted import as_rows, class_means, like_query, squared_distances
from augforge.generators.shared.posterior.held_out import SHOTS, EpisodeBatch, between_shots, error_over, nearest_shot
from augforge.types import Classifier, Examples

# Every plain classifier that learns nothing from base classes, is not trained by descent and has derivatives, by what
# it is built on: `knn` is a step function, and `pmn` without its context the nearest mean by cosines. Their places are
# in files.
PLAIN = (
    "nearest mean", "nearest mean, centred-l2", "logistic", "nearest mean, cosine", "matching", "logistic, l2",
)  # fmt: skip
_LOGISTIC_AT, _SAFE = PLAIN.index("logistic"), PLAIN.index("logistic, l2")
_OF_BEFORE = 3  # columns of a gate that was open or closed
_EPISODES_AT_ONCE = 25
_PARTS: dict[str, Classifier] = {
    "logistic": Logistic(C=5.0, normalise="spread"),
    "nearest mean, cosine": Prototype("cosine"),
    "matching": Matching(),
    "logistic, l2": Logistic(C=100.0, normalise="l2"),
}
_SPLITS = 3  # of the held-out classes into halves
_QUERIES = 1500  # that weights are fitted on, at most
_ROUNDS = 20  # of L-BFGS
_DECAY = 1e-4  # of the logarithms of the weights, towards those at the start
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)  # from plain classifiers alone to the sum with imagination
_WIDE = 2.0  # standard errors that sums of all plain classifiers have to gain more
_SMALLEST_ERROR = 0.001  # of a mean gain (0..1), however alike the episodes are
_LEAST = 0.02  # of all weights together, each times the spread of its scores: less is none
Candidate = tuple[
    Tensor, EpisodeBatch, Callable[[Tensor], Tensor]
]  # rows [n, d], episodes, and scores of some of these


@dataclass(frozen=True)
class Scored:
    """The scores of queries of held-out classes, by imagination first and then by each of PLAIN."""

    scores: Tensor  # [1 + p, n, way]
    target: Tensor  # [n]
    classes: Tensor  # [n], the class of each query among all held-out ones

    def take(self, rows: Tensor) -> Scored:
        """Some queries."""
        return Scored(self.scores[:, rows], self.target[rows], self.classes[rows])

    def right(self, weights: Tensor) -> Tensor:
        """Whether each query is named right, [n], by scores added up with weights [1 + p]."""
        return (torch.einsum("k,knw->nw", weights, self.scores).argmax(1) == self.target).float()


def fit_gate(candidates: Sequence[Candidate], centre: Tensor) -> tuple[Tensor, Tensor, list[dict[str, float]]]:
    """The gate [5, 1 + p] - the weights of imagination and of each of PLAIN -, one [5, 1 + p] of logistic regression
    alone, for a support that does not bear out what was learnt, and its history.

    Each candidate gives the scores [e, q, way] of imagination for the episodes [e] of its batch. At numbers of shots
    that have no candidate the gate is that of the nearest one that has.
    """
    found, history = {}, []
    for shot in SHOTS:
        here = [candidate for candidate in candidates if candidate[1].shot == shot]
        if here:
            scored = [_scored(x, batch, scores, centre) for x, batch, scores in here]
            found[shot], seen = _fit_shot(scored)
            history.append({"shot": shot, **seen})
    nearest = [min(found, key=lambda known: (abs(SHOTS.index(known) - SHOTS.index(shot)), known)) for shot in SHOTS]
    gate, plain = (torch.stack([found[shot][k] for shot in nearest]) for k in range(2))
    return gate, plain, history


def _scored(x: Tensor, batch: EpisodeBatch, scores: Callable[[Tensor], Tensor], centre: Tensor) -> Scored:
    labels, parts = torch.arange(batch.way, device=x.device).repeat_interleave(batch.shot), []
    for episodes in torch.arange(len(batch.support), device=x.device).split(_EPISODES_AT_ONCE):
        rows, query = batch.support[episodes].flatten(1), batch.query[episodes].flatten(1)
        support = Examples(x[rows], labels.expand(len(rows), -1))
        with torch.no_grad():
            plain = [plain_scores(k, support, x[query], centre) for k in range(len(PLAIN))]
            parts.append(torch.stack([scores(episodes).to(x), *plain]))
    whole = rearrange(torch.cat(parts, 1), "k e q way -> k (e q) way")
    each = batch.query.shape[2]
    return Scored(
        whole, batch.target(batch.way).repeat(len(batch.support)), batch.classes.repeat_interleave(each, 1).flatten()
    )


def _fit_shot(scored: Sequence[Scored]) -> tuple[tuple[Tensor, Tensor], dict[str, float]]:
    """The weights [1 + p] at one number of shots, those of logistic regression alone, and what they were found by."""
    ids = torch.cat([part.classes for part in scored]).unique()
    gains, plains = torch.zeros(2 * len(_STEPS), 0), torch.zeros(len(PLAIN), 0)
    labels: list[Tensor] = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(_SPLITS):
        order = ids[torch.randperm(len(ids), generator=generator).to(ids.device)]
        halves = order[: len(ids) // 2], order[len(ids) // 2 :]
        for fitted_on, tested_on in (halves, halves[::-1]):
            tried = _sums([part.take(torch.isin(part.classes, fitted_on)) for part in scored])
            tested = [part.take(torch.isin(part.classes, tested_on)) for part in scored]
            right = torch.stack([_right(tested, weights) for weights in tried])
            alone = torch.stack([_right(tested, row) for row in torch.eye(1 + len(PLAIN)).to(order.device)[1:]])
            gains, plains = torch.cat([gains, right.cpu()], 1), torch.cat([plains, alone.cpu()], 1)
            labels += [part.classes.cpu() for part in tested]
    classes, best = torch.cat(labels), int(plains.mean(1).argmax())
    likely = _likely(classes, gains - gains[:1])
    gain = likely @ gains - plains[best]
    tried = _sums(scored)
    weights = _pruned(likely.to(tried) @ tried, scored).cpu(), tried[0].cpu()
    return weights, {"gain": 100 * float(gain.mean()), "error": 100 * error_over(classes, gain), "plain": best,
                   "weight": float(likely @ torch.tensor(_STEPS * 2))}  # fmt: skip


def _likely(classes: Tensor, over: Tensor) -> Tensor:
    """How likely sums are the right one, [k], by their gains [k, n]; the second half are of all plain classifiers."""
    errors = torch.tensor([max(_SMALLEST_ERROR, error_over(classes, gain)) for gain in over])
    less = torch.tensor([0.0, _WIDE]).repeat_interleave(len(over) // 2)
    return torch.softmax(over.mean(1) / errors - less, 0)


def _right(scored: Sequence[Scored], weights: Tensor) -> Tensor:
    return torch.cat([part.right(weights) for part in scored])


def _sums(scored: Sequence[Scored]) -> Tensor:
    """Weights [2 s, 1 + p] at s steps from plain classifiers alone to these with imagination.

    First beside logistic regression, then beside all of PLAIN.
    """
    kept = []
    scored = [part for part in scored if len(part.target)]  # a fold may have no class of a half
    for part in scored:
        rows = torch.randperm(len(part.target), generator=torch.Generator().manual_seed(1))[: _QUERIES // len(scored)]
        kept.append(part.take(rows.to(part.target.device)))
    tried = []
    for plain in ([1 + _SAFE], list(range(1, 1 + len(PLAIN)))):
        alone, imagined = _of_columns(kept, plain), _of_columns(kept, [0, *plain])
        tried += [torch.lerp(alone, imagined, step) for step in _STEPS]
    return torch.stack(tried)


def _of_columns(scored: Sequence[Scored], columns: list[int]) -> Tensor:
    """The weights [1 + p] of the best sum of some scores, 0 for all others."""
    weights = scored[0].scores.new_zeros(1 + len(PLAIN))
    weights[columns] = fitted_weights([Scored(part.scores[columns], part.target, part.classes) for part in scored])
    return weights


def fitted_weights(scored: Sequence[Scored]) -> Tensor:
    """The weights [k], all above 0, of least cross-entropy of the sum of scores."""
    from scipy.optimize import minimize  # takes half a second to import, and only fitting needs it

    spread = _spread(scored)
    start = -(spread * len(spread)).log()  # each part of the sum spreads alike
    from_start = start.cpu().double()
    parts = [
        (part.scores.flatten(1).cpu().double(), F.one_hot(part.target, part.scores.shape[2]).cpu().double())
        for part in scored
    ]  # [k, n * way] and [n, way], of whatever way

    def loss(level: np.ndarray) -> tuple[float, np.ndarray]:
        off = torch.from_numpy(level) - from_start
        weights, total = torch.from_numpy(level).exp(), _DECAY * off.square().sum()
        towards = torch.zeros_like(weights)
        for rows, target in parts:
            likely = torch.log_softmax((weights @ rows).view_as(target), 1)
            total = total - (target * likely).sum() / len(target)
            towards = towards + rows @ (likely.exp() - target).flatten() / len(target)
        return float(total), (weights * towards + 2 * _DECAY * off).numpy()

    found = minimize(loss, from_start.numpy(), jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS})
    return torch.from_numpy(found.x).exp().to(spread)


def _spread(scored: Sequence[Scored]) -> Tensor:
    """How far the scores of a query are apart by each classifier, the root mean square: [k]."""
    return torch.stack([part.scores.var(2).mean(1) for part in scored]).mean(0).sqrt().clamp(min=1e-12)


def _pruned(weights: Tensor, scored: Sequence[Scored]) -> Tensor:
    """The weights [k], 0 where next to nothing comes of one, so that its scores need not be found."""
    part = weights * _spread(scored)
    return torch.where(part < _LEAST * part.sum(), 0.0, weights)


def plain_scores(which: int, support: Examples, query: Tensor, centre: Tensor) -> Tensor:
    """Scores [b, q, way], or [q, way], of one of PLAIN; `centre` [d] is the mean of base features."""
    if PLAIN[which] in _PARTS:
        return _PARTS[PLAIN[which]].scores(support, query)
    rows = as_rows(support, query)
    x, queries = rows.x, rows.query
    if PLAIN[which] == "nearest mean, centred-l2":
        x, queries = (F.normalize(part - centre.to(part), dim=-1) for part in (x, queries))
    return like_query(-squared_distances(queries, class_means(x, rows.member)), query)


def gated(
    gate: Tensor,
    centre: Tensor,
    own: Tensor,
    support: Examples,
    query: Tensor,
    doubt: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Scores [b, q, way] or [q, way] as the gate [5, 1 + p] has them: a weighted sum of `own` and plain ones.

    With a `doubt`, the gate [5, 1 + p] of logistic regression alone and how much each episode [b] is to be trusted, the
    weights lie between the two gates.
    """
    counts = as_rows(support, query).counts.mean(1)  # [b]
    if gate.shape[1] == _OF_BEFORE:
        weights = _of_before(gate)[nearest_shot(counts).cpu()]
    else:
        weights = between_shots(gate.T.cpu(), counts.detach().cpu()).T  # [b, 1 + p]
    if doubt is not None:
        plain, trust = doubt[0], doubt[1].to(weights)
        weights = torch.lerp(between_shots(plain.T.cpu(), counts.detach().cpu()).T, weights, trust.cpu()[:, None])
    weights = weights.to(own)
    shape = (-1, 1, 1) if own.ndim == 3 else (1, 1)
    total = weights[:, 0].view(shape) * own
    for k in (weights[:, 1:] > 0).any(0).nonzero()[:, 0].tolist():
        total = total + weights[:, 1 + k].view(shape) * plain_scores(k, support, query, centre)
    return total


def _of_before(gate: Tensor) -> Tensor:
    """The weights [5, 1 + p] of a gate [5, 3] of before: whether it is open, the fallback, the vote of logistic."""
    weights = torch.zeros(len(gate), 1 + len(PLAIN))
    for row, (is_open, fallback, vote) in zip(weights, gate.tolist(), strict=True):
        row[0] = is_open
        row[1 + (_LOGISTIC_AT if is_open else int(fallback))] = vote if is_open else 1.0
    return weights
