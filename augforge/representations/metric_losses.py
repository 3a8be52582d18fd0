"""Losses of metric learning on a batch of embedded rows: pairs, triplets, quadruplets, histograms of distances.

Apart from the network that they train (`metric_net`), as they are formulas and read nothing but rows and labels.
Formulas and miners are those of pytorch-metric-learning where it has them; what it lacks is here - quadruplets, the
sigmoid of a weighted L1 distance, random negatives that come from a generator -, and so is the loss of histograms,
which in its version 2.9.0 indexes in a way that torch gives up. All distances are Euclidean between
rows of length 1, but where it is said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from augforge.types import InputError, LackError

Loss = Literal["siamese", "contrastive", "triplet", "n-pairs", "histogram", "quadruplet"]
Mining = Literal["random", "hard", "semi-hard"]

LOSSES: tuple[Loss, ...] = ("siamese", "contrastive", "triplet", "n-pairs", "histogram", "quadruplet")
_BINS = 100  # of the histograms of similarities
_LENGTH = 0.002  # what the mean squared length of rows is multiplied by before n-pairs
_READS: dict[str, tuple[str, ...]] = {
    "contrastive": ("margin", "positive_margin"),
    "triplet": ("margin", "mining", "swap"),
    "quadruplet": ("margin", "second_margin"),
}


@dataclass(frozen=True)
class Margins:
    """What losses are set by; each reads the fields that `check` names."""

    margin: float = 0.2  # by how much others are farther; contrastive: from where on they are far enough
    positive_margin: float = 0.0  # contrastive: up to where rows of a class are near enough
    second_margin: float = 0.1  # quadruplet: by how much pairs of two other classes are farther
    mining: Mining = "semi-hard"  # triplet: which negatives, of each pair of a class
    swap: bool = False  # triplet: the negative may be that of the positive row, if it is nearer to it

    def check(self, loss: Loss) -> None:
        """Raise InputError for a number out of range, and for a field that is set and that `loss` does not read."""
        usual = Margins()
        for name, value in vars(self).items():
            if value != getattr(usual, name) and name not in _READS.get(loss, ()):
                of = " or ".join(known for known, reads in _READS.items() if name in reads)
                raise InputError(f"{name}={value} was given, and {loss} does not read it; expected it with {of} alone")
            if isinstance(value, float) and not 0 <= value < 2:
                raise InputError(f"{name}={value} was given; rows of length 1 are 0 to 2 apart, expected 0 to 2")


def metric_loss(loss: Loss, x: Tensor, y: Tensor, margins: Margins, generator: torch.Generator | None = None) -> Tensor:
    """The loss [] of rows `x` [b, d] of classes `y` [b]; 0 where no pair, triplet or quadruplet is left to learn from.

    contrastive: the mean of [d - m_p]+ over pairs of a class, and of [m - d]+ over others, of the terms above 0
    (Hadsell, Chopra & LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR 2006, there with
    squares; with two margins where `positive_margin` is above 0).
    triplet: the mean of [d(a, p)^2 - d(a, n)^2 + m]+ (Schroff, Kalenichenko & Philbin, "FaceNet", CVPR 2015), of
    the terms above 0, over negatives that are drawn, nearest ("hard": and the farthest positive; Hermans et al.
    2017), or farther than the positive yet within the margin ("semi-hard"). `swap` takes the smaller of d(a, n) and
    d(p, n): two anchors (Balntas et al., "Learning local feature descriptors with triplets", BMVC 2016).
    n-pairs: cross-entropy of a . p_j over the positives p_j of all classes, one pair each, on rows as they come, and
    0.002 times their mean squared length (Sohn, "Improved deep metric learning with multi-class n-pair loss
    objective", NIPS 2016, which keeps rows short by such a term; its weight is ours).
    histogram: `histogram_loss`. quadruplet: `quadruplet_loss`. siamese: `pair_loss`, on rows that are weighted
    already.
    """
    if loss == "siamese":
        return pair_loss(x, y)
    if loss == "quadruplet":
        return quadruplet_loss(x, y, margins.margin, margins.second_margin)
    if loss == "histogram":
        return histogram_loss(x, y)
    losses, miners, distances = _library()
    if loss == "contrastive":
        found = losses.ContrastiveLoss(margins.positive_margin, margins.margin)(x, y)
    elif loss == "n-pairs":
        pairs = losses.NPairsLoss(distance=distances.DotProductSimilarity(normalize_embeddings=False))(x, y)
        found = pairs + _LENGTH * x.square().sum(1).mean()
    else:
        squared = distances.LpDistance(power=2)
        if margins.mining == "random":
            chosen = random_triplets(y, generator)
        elif margins.mining == "hard":
            chosen = miners.BatchHardMiner(distance=squared)(x, y)
        else:
            chosen = miners.TripletMarginMiner(margins.margin, "semihard", distance=squared)(x, y)
        found = losses.TripletMarginLoss(margins.margin, margins.swap, distance=squared)(x, y, chosen)
    return found


def random_triplets(y: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """Anchor, positive and negative [t] for every ordered pair of a class of `y` [b]: a negative is drawn for each."""
    same = y[:, None] == y[None, :]
    anchor, positive = (same & ~torch.eye(len(y), dtype=torch.bool, device=y.device)).nonzero(as_tuple=True)
    draw = torch.rand(len(anchor), len(y), generator=generator, device=y.device)
    negative = draw.masked_fill(same[anchor], -1.0).argmax(1)
    there = ~same[anchor, negative]  # in a batch of one class there is no negative
    return anchor[there], positive[there], negative[there]


def pair_loss(x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy [] of "is this pair of one class", for all pairs of rows [b, d] of classes `y` [b].

    p = sigmoid(b - sum_j |x_1j - x_2j|) (Koch, Zemel & Salakhutdinov, "Siamese neural networks for one-shot image
    recognition", 2015, section 3.1), where the last column of `x` is b and rows are multiplied by the weights of the
    distance already. Pairs of a class weigh as much together as all others, as in the paper's batches.
    """
    rows, offset = x[:, :-1], x[:, -1].mean()
    logit = offset - torch.cdist(rows, rows, p=1)
    same = y[:, None] == y[None, :]
    pair = torch.ones_like(same).triu(1)
    alike, apart = logit[same & pair], logit[~same & pair]
    near, far = (part.mean() if len(part) else x.sum() * 0 for part in (F.softplus(-alike), F.softplus(apart)))
    return (near + far) / 2


def histogram_loss(x: Tensor, y: Tensor) -> Tensor:
    """How likely a pair of a class is less alike than a pair of two classes [], by soft histograms of 100 bins.

    sum_r h-_r sum_(q <= r) h+_q, where a similarity - a cosine of rows [b, d] - lies in the two nodes beside it
    (Ustinova & Lempitsky, "Learning deep embeddings with histogram loss", NIPS 2016).
    """
    alike = F.normalize(x, dim=1)
    alike = (alike @ alike.T).clamp(-1, 1)
    same, pair = y[:, None] == y[None, :], torch.ones_like(alike, dtype=torch.bool).triu(1)
    of_class, others = alike[same & pair], alike[~same & pair]
    if not len(of_class) or not len(others):
        return x.sum() * 0
    nodes = torch.linspace(-1, 1, _BINS + 1, dtype=x.dtype, device=x.device)

    def shares(values: Tensor) -> Tensor:
        return (1 - (values[:, None] - nodes).abs() * _BINS / 2).clamp(min=0).mean(0)

    return (shares(others) * shares(of_class).cumsum(0)).sum()


def quadruplet_loss(x: Tensor, y: Tensor, margin: float, second: float) -> Tensor:
    """[d(i, j)^2 - d(i, k)^2 + margin]+ and [d(i, j)^2 - d(l, k)^2 + second]+, where i and j are of one class and k and
    l of two others: the mean of the terms above 0 of each kind, added up.

    Chen et al., "Beyond triplet loss: a deep quadruplet network for person re-identification", CVPR 2017, on
    rows [b, d] of length 1 in place of their learnt similarity. In a batch of two classes the second kind is 0.
    """
    rows = F.normalize(x, dim=1)
    distance = (2 - 2 * rows @ rows.T).clamp(min=0)
    same = y[:, None] == y[None, :]
    i, j = (same & ~torch.eye(len(y), dtype=torch.bool, device=y.device)).nonzero(as_tuple=True)
    one, other = torch.ones_like(same).triu(1).logical_and(~same).nonzero(as_tuple=True)
    near = distance[i, j][:, None]
    first = (near - distance[i] + margin)[~same[i]]
    apart = (y[one] != y[i][:, None]) & (y[other] != y[i][:, None])  # [pairs of a class, pairs of two classes]
    both = (near - distance[one, other] + second)[apart]
    return _mean_above_zero(first, x) + _mean_above_zero(both, x)


def _mean_above_zero(terms: Tensor, x: Tensor) -> Tensor:
    above = terms[terms > 0]
    return above.mean() if len(above) else x.sum() * 0


def _library() -> tuple[Any, Any, Any]:
    try:
        from pytorch_metric_learning import distances, losses, miners
    except ImportError as error:
        raise LackError(
            "this loss needs pytorch-metric-learning, which is not installed; expected: pip install 'augforge[metric]'"
        ) from error
    return losses, miners, distances
