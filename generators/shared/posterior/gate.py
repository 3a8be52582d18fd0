"""The gate: where held-out classes show no sure gain, the scores of a fallback classifier are used.

Imagination says where a class lies; logistic regression, on the same support, where classes part. Generative and
discriminative models err differently, so their scores may be added (Raina et al., "Classification with hybrid
generative/discriminative models", NIPS 2003). For each number of shots, episodes of held-out classes decide how much
the vote of logistic regression counts, and whether the sum gains surely over the best plain classifier. Where it does
not, that plain classifier, the fallback, gives the scores, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import reduce
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.prototype import Prototype
from augforge.classifiers.weighted import as_rows, class_means, like_query, squared_distances
from augforge.generators.shared.posterior.held_out import SHOTS, EpisodeBatch, error_over, nearest_shot
from augforge.types import Examples

PLAIN = ("nearest mean", "nearest mean, centred-l2", "logistic", "nearest mean, cosine")  # their places are in files
_LOGISTIC_AT = PLAIN.index("logistic")
VOTES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # times the logits, which are small
_EPISODES_AT_ONCE = 10
_LOGISTIC = Logistic(C=5.0, normalise="spread")
_COSINE = Prototype("cosine")
Candidate = tuple[
    Tensor, EpisodeBatch, Callable[[Tensor], Tensor]
]  # rows [n, d], episodes, and scores of some of these


def fit_gate(
    candidates: Sequence[Candidate], centre: Tensor, with_votes: bool
) -> tuple[Tensor, list[dict[str, float]]]:
    """The gate [5, 3] - whether it is open, the fallback classifier, the vote of logistic regression - and its history.

    Each candidate gives the scores [e, q, way] of imagination for the episodes [e] of its batch. The gate opens for a
    gain of more than its standard error, which is that of other classes, not of other episodes of the same.
    """
    gate, history = torch.zeros(len(SHOTS), 3), []
    gate[:, 1] = 1
    for i, shot in enumerate(SHOTS):
        here = [candidate for candidate in candidates if candidate[1].shot == shot]
        if not here:
            continue
        found = [_accuracies(x, batch, scores, centre, with_votes) for x, batch, scores in here]
        plain, voted = (torch.cat([pair[k] for pair in found], 1) for k in range(2))  # [4, n], [votes, n]
        classes = torch.cat([batch.classes.flatten() for _, batch, _ in here])  # [n]
        fallback, best = int(plain.mean(1).argmax()), int(voted.mean(1).argmax())
        gain = voted[best] - plain[fallback]
        mean, error = float(gain.mean()), error_over(classes, gain)
        gate[i] = torch.tensor([float(mean > error), fallback, VOTES[best]])
        history.append({"shot": shot, "gain": 100 * mean, "error": 100 * error, "open": float(gate[i, 0]),
                        "plain": fallback, "vote": VOTES[best]})  # fmt: skip
    return gate, history


def _accuracies(x: Tensor, batch: EpisodeBatch, scores: Callable[[Tensor], Tensor], centre: Tensor,
                with_votes: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The accuracy on each class of each episode, by plain classifiers [4, e * way] and by imagination with votes
    [v, e * way].
    """
    plain: list[Tensor] = []
    voted: list[Tensor] = []
    labels = torch.arange(batch.way, device=x.device).repeat_interleave(batch.shot)
    target = batch.target(batch.way)
    for episodes in torch.arange(len(batch.support), device=x.device).split(_EPISODES_AT_ONCE):
        rows, query = batch.support[episodes].flatten(1), batch.query[episodes].flatten(1)
        support = Examples(x[rows], labels.expand(len(rows), -1))
        with torch.no_grad():
            fallbacks = [plain_scores(k, support, x[query], centre) for k in range(len(PLAIN))]
            own = scores(episodes)
        votes = [own + vote * fallbacks[_LOGISTIC_AT] for vote in (VOTES if with_votes else VOTES[:1])]
        for found, all_scores in ((plain, fallbacks), (voted, votes)):
            right = torch.stack([s.argmax(-1) == target for s in all_scores]).float()
            found.append(reduce(right, "k e (way q) -> k (e way)", "mean", way=batch.way))
    return torch.cat(plain, 1), torch.cat(voted, 1)


def plain_scores(which: int, support: Examples, query: Tensor, centre: Tensor) -> Tensor:
    """Scores [b, q, way], or [q, way], of one of PLAIN; `centre` [d] is the mean of base features."""
    if PLAIN[which] == "logistic":
        return _LOGISTIC.scores(support, query)
    if PLAIN[which] == "nearest mean, cosine":
        return _COSINE.scores(support, query)
    rows = as_rows(support, query)
    x, queries = rows.x, rows.query
    if PLAIN[which] == "nearest mean, centred-l2":
        x, queries = (F.normalize(part - centre.to(part), dim=-1) for part in (x, queries))
    return like_query(-squared_distances(queries, class_means(x, rows.member)), query)


def gated(gate: Tensor, centre: Tensor, own: Tensor, support: Examples, query: Tensor) -> Tensor:
    """Scores as the gate [5, 3] has them: `own` [b, q, way] or [q, way] and the vote, or those of the fallback."""
    counts = as_rows(support, query).counts.mean(1)  # [b]
    chosen = gate.to(own)[nearest_shot(counts)]  # [b, 3]
    opened, fallback, vote = chosen.unbind(1)
    shape = (-1, 1, 1) if own.ndim == 3 else (1, 1)
    settings = chosen.tolist()  # one wait for a device, not one for each episode
    needed = {int(k) for is_open, k, _ in settings if is_open == 0}
    if any(is_open > 0 and weight > 0 for is_open, _, weight in settings):
        needed.add(_LOGISTIC_AT)
    plain = {k: plain_scores(k, support, query, centre) for k in sorted(needed)}
    total = own + (vote * opened).view(shape) * plain[_LOGISTIC_AT] if _LOGISTIC_AT in plain else own
    for k in sorted(plain):
        total = torch.where(((opened == 0) & (fallback == k)).view(shape), plain[k], total)
    return total
