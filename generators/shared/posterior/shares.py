"""What made rows should weigh before each family of classifiers, chosen on classes that the models have not seen.

Held-out episodes are classified with and without made rows of several shares, by a classifier of each family. What is
kept is no winner: it is the mean over the shares tried, each as likely as its gain makes it, in standard errors over
classes, beside a prior that what is made of a class weighs a part of one real row (`imagine.usual_share`). So it varies
smoothly with what was seen, and stays near the prior where little was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from augforge import chance
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.matching import Matching
from augforge.classifiers.prototype import Prototype
from augforge.classifiers.two_covariance import TwoCovariance
from augforge.generators.shared.posterior.held_out import SHOTS, EpisodeBatch, between_shots, error_over
from augforge.generators.shared.posterior.predictive import predictive_draws, predictive_scores
from augforge.imagine import usual_share
from augforge.types import Examples, Family

FAMILIES: tuple[Family, ...] = get_args(Family)
_TRIED = (0.0, 0.1, 0.25, 0.6)  # shares
_WIDTH = 1.0  # of the prior, in natural logarithms of a share
_SMALLEST_ERROR = 0.001  # of a mean gain (0..1), however alike the episodes are
_SURE = 2.0  # standard errors of a loss from which rows weigh nothing
_CLASSES, _CLASSES_SLOW = 600, 200  # of all episodes together that are read
_FEWEST, _LEAST_WAY = 8, 10  # episodes at least, and no more than with classes of 10-way ones
_ROWS = 8  # rows made of a class, at most: what they weigh together matters, and more take time
_EPISODES_AT_ONCE = 20

Reading = tuple[Tensor, Tensor]  # the gains (0..1) [share, n] of classes of episodes, and their labels [n]
Scores = Callable[[Examples, Tensor], Tensor]


def readings(
    models: Sequence[TwoCovariance], x: Tensor, batch: EpisodeBatch, made: int, noise_scale: float
) -> dict[Family, Reading]:
    """What classifiers of each family gain on held-out rows `x` [n, d] from made rows, up to 8 of each class, by share.

    Logistic regression, which takes far longer than the others, reads fewer episodes.
    """
    quick: dict[Family, Scores] = {
        "means": Prototype().scores,
        "neighbours": Matching().scores,
        "gaussian": lambda support, query: predictive_scores(models, support, query),
    }
    found: dict[Family, Reading] = {}
    slow: dict[Family, Scores] = {"discriminative": Logistic().scores}
    for scorers, classes in ((quick, _CLASSES), (slow, _CLASSES_SLOW)):
        some = batch.some(min(max(_FEWEST, classes // batch.way), classes // _LEAST_WAY))
        rows = (min(made, _ROWS), noise_scale)
        gains = torch.cat([
            _gains(list(scorers.values()), x, some, episodes, made_rows(models, x, some, episodes, *rows))
            for episodes in torch.arange(len(some.support), device=x.device).split(_EPISODES_AT_ONCE)
        ], 2)  # fmt: skip
        found |= {family: (gains[k], some.classes.flatten()) for k, family in enumerate(scorers)}
    return found


def _gains(scorers: Sequence[Scores], x: Tensor, batch: EpisodeBatch, episodes: Tensor, made: Tensor) -> Tensor:
    """The gains [k, share, e * way] of k classifiers from made rows [e, way, made, d] on each class of episodes."""
    real, query = x[batch.support[episodes]], x[batch.query[episodes].flatten(1)]  # [e, way, shot, d], [e, way * q, d]
    target, right = batch.target(batch.way), []
    for share in _TRIED:
        rows = _joined(real, made, share) if share else Examples(real.flatten(1, 2), _labels(real))
        with torch.no_grad():
            right.append(torch.stack([scores(rows, query).argmax(-1) == target for scores in scorers]))
    accuracy = reduce(torch.stack(right, 1).float(), "k s e (way q) -> k s (e way)", "mean", way=batch.way)
    return accuracy - accuracy[:, :1]


def _labels(rows: Tensor) -> Tensor:
    """Labels [e, way * n] of rows [e, way, n, d]."""
    e, way, n = rows.shape[:3]
    return torch.arange(way, device=rows.device).repeat_interleave(n).expand(e, -1)


def _joined(real: Tensor, made: Tensor, share: float) -> Examples:
    """Real rows [e, way, shot, d] and made ones [e, way, n, d] that weigh `share` of them, as much together as real
    ones alone.
    """
    (e, way, shot), n = real.shape[:3], made.shape[2]
    both = torch.cat([real, made], 2)
    weight = torch.cat([torch.ones(shot), torch.full((n,), share * shot / n)]).to(real) / (1 + share)
    return Examples(both.flatten(1, 2), _labels(both), weight=weight.repeat(way).expand(e, -1))


def made_rows(models: Sequence[TwoCovariance], x: Tensor, batch: EpisodeBatch, episodes: Tensor, made: int,
              noise_scale: float) -> Tensor:  # fmt: skip
    """`made` rows [e, way, made, d] of each class of some episodes, in pairs."""
    e, way = len(episodes), batch.way
    labels = torch.arange(e * way, device=x.device)
    support = Examples(x[batch.support[episodes].flatten()], labels.repeat_interleave(batch.shot))
    even = made + made % 2  # so that a pair is of one class
    index = repeat(episodes * way, "e -> e way made", way=way, made=made) * even
    index = index + rearrange(torch.arange(way, device=x.device), "way -> way 1") * even
    index = index + torch.arange(made, device=x.device)
    keys = chance.pair_keys(0, "row weight", index.flatten())
    with torch.no_grad():
        rows, _ = predictive_draws(models, support, labels.repeat_interleave(made), keys, noise_scale, "imagination")
    return rearrange(rows, "(e way made) d -> e way made d", e=e, way=way)


def chosen_shares(found: Sequence[tuple[int, dict[Family, Reading]]]) -> Tensor:
    """The shares [family, 5] at each of SHOTS, from readings at numbers of shots; without readings the usual ones."""
    shares = torch.stack([usual_share(family, torch.tensor(SHOTS)) for family in FAMILIES])
    for k, family in enumerate(FAMILIES):
        for j, shot in enumerate(SHOTS):
            here = [reading[family] for known, reading in found if known == shot]
            if here:
                gains, classes = torch.cat([gain for gain, _ in here], 1), torch.cat([labels for _, labels in here])
                shares[k, j] = _shrunk(gains, classes, float(shares[k, j]))
    return shares


def _shrunk(gains: Tensor, classes: Tensor, usual: float) -> float:
    """The mean of the shares that were tried, by how likely their gains [share, n] and the prior make them.

    0 where none of them gained, and one lost surely.
    """
    errors = torch.tensor([max(_SMALLEST_ERROR, error_over(classes, gain)) for gain in gains])
    sure = gains.mean(1).cpu() / errors
    if float(sure[1:].max()) <= 0 and float(sure.min()) < -_SURE:
        return 0.0
    tried = torch.tensor(_TRIED)
    prior = -((tried.clamp(min=_TRIED[1] / 2) / usual).log() / _WIDTH).square() / 2
    return float(torch.softmax(prior + sure, 0) @ tried)


def share_at(shares: Tensor, family: Family, counts: Tensor) -> Tensor:
    """The share [...] at any number of real rows [...]: straight between SHOTS over the logarithm, level outside."""
    return between_shots(shares[FAMILIES.index(family)].to(counts.device), counts)
