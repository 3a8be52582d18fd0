"""Pictures that are one picture: coded or exposed in another way, mirrored, or cut, moved and turned a little.

Thumbnails find the first three among all pairs; for the others the likest few of every picture, by blurred thumbnails
and by features, are laid upon each other. How like two different pictures can be depends on what they show - traffic
signs are much alike - so that limit comes from the source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augforge.curate.looks import Looks, aligned
from augforge.curate.near import near_pairs

SAME, MIRRORED, CHANGED = "same picture", "its mirror image", "same picture, cut or turned"
LEAST_SAME = 0.985  # cosine of thumbnails
_LEAST, _MOST, _USUAL = 0.94, 0.985, 0.95  # limits of an aligned pair: between, and where a source says too little
_ENOUGH = 30  # pictures of which the likest pair tells how like different ones are
_DEVIATIONS, _OF_NORMAL = 3.0, 1.4826  # from the median, on Fisher's scale; of a median deviation
_COARSE, _CANDIDATES, _BY_FEATURES = 0.5, 4, 1  # least cosine; how many of each picture are laid upon it
_EITHER = 0.1  # of two cosines, within which a picture is laid upon another both as it is and mirrored
_AT_ONCE = 1024


@dataclass(frozen=True)
class Match:
    """A picture `second` that is the picture `first` again, why, and its `score`: a cosine or correlation up to 1."""

    first: int
    second: int
    reason: str
    score: float


def same_pictures(
    looks: tuple[Looks, Looks | None],
    rows: list[Tensor],
    features: tuple[Tensor, Tensor] | None = None,
    fast: bool = False,
) -> list[Match]:
    """Pictures of the second set that are ones of the first again, among the `rows` of both; the likest come first.

    Without a second set pairs within the first, `first` below `second`. `features` [m, d] of those rows, of length 1,
    name more pairs to look at. With `fast` by thumbnails alone.
    """
    a, within = looks[0], looks[1] is None
    b = a if looks[1] is None else looks[1]
    found: dict[tuple[int, int], Match] = {}
    for mirrored, reason in ((False, SAME), (True, MIRRORED)):
        left, right = a.hashes()[rows[0]], b.hashes(mirrored)[rows[1]]
        pairs = near_pairs(left, None if within and not mirrored else right, LEAST_SAME)
        for i, j, score in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.cosine.tolist(), strict=True):
            first, second = int(rows[0][i]), int(rows[1][j])
            if not within or first < second:
                found.setdefault((first, second), Match(first, second, reason, score))
    if not fast:
        for match in _changed(a, b, rows, features, set(found)):
            found.setdefault((match.first, match.second), match)
    return sorted(found.values(), key=lambda one: (-one.score, one.second, one.first))


def _changed(
    a: Looks, b: Looks, rows: list[Tensor], features: tuple[Tensor, Tensor] | None, known: set[tuple[int, int]]
) -> list[Match]:
    """Pairs that are one picture after one was laid upon the other; `known` are pairs that are one already."""
    within = a is b
    plain, mirrored = a.coarse()[rows[0]], a.coarse(mirrored=True)[rows[0]]
    asked = b.coarse()[rows[1]]
    likest: dict[tuple[int, int], float] = {}
    best = torch.full((len(asked),), -1.0)
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        straight, turned = some @ plain.T, some @ mirrored.T
        both = torch.maximum(straight, turned)
        if within:
            both[torch.arange(len(some)), torch.arange(start, start + len(some))] = -1.0
        named = both.topk(min(_CANDIDATES, both.shape[1]), 1).indices
        if features is not None:
            near = features[1][start : start + _AT_ONCE] @ features[0].T
            if within:
                near[torch.arange(len(some)), torch.arange(start, start + len(some))] = -1.0
            named = torch.cat([named, near.topk(min(_BY_FEATURES, near.shape[1]), 1).indices], 1)
        for j, candidates in enumerate(named.tolist()):
            for i in dict.fromkeys(candidates):
                if float(both[j, i]) < _COARSE or (within and (start + j, i) in likest):
                    continue
                first, second = int(rows[0][i]), int(rows[1][start + j])
                ahead = float(turned[j, i] - straight[j, i])
                how = [ahead > 0, ahead <= 0] if abs(ahead) < _EITHER else [ahead > 0]
                one, other = a.fine[first], b.fine[second]
                score = max(aligned(other, one[:, ::-1].copy() if flip else one) for flip in how)
                likest[i, start + j] = score
                if (min(first, second), max(first, second)) not in known if within else (first, second) not in known:
                    best[start + j] = max(float(best[start + j]), score)
    limit = _limit(best)
    return [
        _match(int(rows[0][i]), int(rows[1][j]), score, within) for (i, j), score in likest.items() if score >= limit
    ]


def _match(first: int, second: int, score: float, within: bool) -> Match:
    low, high = (min(first, second), max(first, second)) if within else (first, second)
    return Match(low, high, CHANGED, score)


def _limit(best: Tensor) -> float:
    """How like two pictures must be to be one, by the likest other of each picture: far above what is usual here.

    What is above the limit is one picture, and says nothing of different ones: it is left out, and the limit taken
    again, until nothing is. Else every fifth picture that is there again would hide the others.
    """
    known = best[best > 0].numpy()
    if len(known) < _ENOUGH:
        return _USUAL
    scale, limit = np.arctanh(np.minimum(known, 1 - 1e-6)), _MOST
    while True:
        middle = float(np.median(scale))
        spread = _OF_NORMAL * float(np.median(np.abs(scale - middle)))
        limit = min(limit, max(_LEAST, math.tanh(middle + _DEVIATIONS * spread)))
        usual = scale[scale < math.atanh(limit)]
        if len(usual) in (0, len(scale)):
            return limit
        scale = usual
