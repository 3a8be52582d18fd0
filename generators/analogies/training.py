"""What `analogies` learns: centroids, quadruplets that are analogies, a base classifier, and the generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge.networks.layers import built
from augforge.training.loop import cosine, fast_arithmetic, minimise

_ROUNDS = 30  # of k-means
_LOG_EVERY = 50


class AnalogyNet(nn.Module):
    """G([x, c1, c2]): three fully connected layers with ReLU between them, all three inputs and the output [n, d]."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(3 * features, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, features)]
        )

    def forward(self, x: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
        """What stands to `x` as `c2` to `c1`; computed in the dtype of `x`, on its device."""
        rows = torch.cat([x, c1, c2], 1)
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            rows = F.linear(rows.relu() if i else rows, layer.weight.to(rows), layer.bias.to(rows))
        return rows


@dataclass(frozen=True)
class TrainingSettings:
    """How the networks are trained."""

    steps: int  # of Adam
    batch: int  # rows in a step
    lr: float  # learning rate at the start; it falls along a cosine
    weight: float  # of the squared error beside the cross-entropy
    lowest: float  # the least value that a made number may have


def centroids_of(x: Tensor, k: int, rng: torch.Generator) -> Tensor:
    """The centroids [k, d] of k-means on rows `x` [n, d], started at k different rows that `rng` chooses.

    Lloyd's iterations, until no row changes its cluster and at most 30; a cluster that lost its rows stays in place.
    """
    start = torch.randperm(len(x), generator=rng, device=rng.device)[:k]
    centres, before = x[start.to(x.device)], None
    for _ in range(_ROUNDS):
        nearest = torch.cdist(x, centres).argmin(1)
        if before is not None and torch.equal(nearest, before):
            break
        counts = torch.bincount(nearest, minlength=k)[:, None]
        means = torch.zeros_like(centres).index_add_(0, nearest, x) / counts.clamp(min=1)
        centres, before = torch.where(counts > 0, means, centres), nearest
    return centres


def best_partners(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each two rows (i, j) of `a` [p, d] the two rows of `b` [q, d] that differ most nearly in the same direction.

    Gives the cosine [p, p] between a_i - a_j and b_k - b_l, and k * q + l [p, p]; -1 and 0 where i is j.
    """
    products = a @ b.T  # [p, q]
    length = torch.cdist(b, b, compute_mode="donot_use_mm_for_euclid_dist")
    length = torch.where(length > 0, length, torch.inf)  # [q, q]; alike rows have no direction
    along = (products[:, :, None] - products[:, None, :]) / length  # [p, q, q]: a_i along the direction b_k - b_l
    found = [(one - along).flatten(1).max(1) for one in along]  # one a_i at a time, as p^2 q^2 numbers are many
    best, place = torch.stack([f.values for f in found]), torch.stack([f.indices for f in found])
    own = torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.where(own > 0, best / own.clamp(min=1e-30), -1.0), place


def mine(centroids: Tensor, counts: Tensor, partners: int, rng: torch.Generator) -> Tensor:
    """Quadruplets [n, 4] of rows of `centroids` [m, d]: a_1, a_2 of one class and b_1, b_2 of another.

    `counts` [c] says how many centroids, one after another, belong to each class. For every ordered pair of a class
    the best pair of `partners` other classes, chosen by `rng` for each class, is taken if the cosine is above 0.
    """
    parts = centroids.split(counts.tolist())
    starts = (torch.cumsum(counts, 0) - counts).tolist()
    found = []
    for c, mine_ in enumerate(parts):
        others = torch.randperm(len(parts) - 1, generator=rng, device=rng.device)[:partners].tolist()
        best = mine_.new_zeros(len(mine_), len(mine_))
        first = second = torch.zeros_like(best, dtype=torch.int64)
        for other in (o + (o >= c) for o in others):
            cosines, place = best_partners(mine_, parts[other])
            better, many = cosines > best, len(parts[other])
            best = torch.where(better, cosines, best)
            first = torch.where(better, torch.div(place, many, rounding_mode="floor") + starts[other], first)
            second = torch.where(better, place % many + starts[other], second)
        i, j = (best > 0).nonzero(as_tuple=True)
        found.append(torch.stack([i + starts[c], j + starts[c], first[i, j], second[i, j]], 1))
    return torch.cat(found)


def train_classifier(x: Tensor, y: Tensor, settings: TrainingSettings, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The weights [c, d] and bias [c] of a linear classifier of base rows `x` [n, d], `y` [n] in 0..c-1."""
    layer = built(lambda: nn.Linear(x.shape[1], int(y.max()) + 1), rng).to(x.device)
    optimiser = torch.optim.Adam(layer.parameters(), settings.lr, weight_decay=1e-4, fused=True)
    for step in range(settings.steps):
        rows = _draw(len(x), settings.batch, rng, x)
        _set_rate(optimiser, settings, step)
        with torch.enable_grad():
            minimise(F.cross_entropy(layer(x[rows]), y[rows]), optimiser)
    assert isinstance(layer, nn.Linear)
    return layer.weight.detach(), layer.bias.detach()


def train_generator(
    net: AnalogyNet, quadruplets: Tensor, centroids: Tensor, classes: Tensor, base: tuple[Tensor, Tensor],
    settings: TrainingSettings, rng: torch.Generator,
) -> list[dict[str, float]]:  # fmt: skip
    """Train G in place to make a_2 of a_1, b_1 and b_2, and to be classified as a; gives the log.

    `quadruplets` [n, 4] are rows of `centroids` [m, d], of `classes` [m]; `base` is the classifier. A line of the log
    has the step, the mean squared error, that of leaving a_1 as it is, and the classification loss.
    """
    optimiser = torch.optim.Adam(net.parameters(), settings.lr, fused=True)
    history = []
    for step in range(settings.steps):
        a_1, a_2, b_1, b_2 = quadruplets[_draw(len(quadruplets), settings.batch, rng, centroids)].T
        seed, target = centroids[a_1], centroids[a_2]
        with torch.enable_grad():
            with fast_arithmetic(centroids.device):
                made = net(seed, centroids[b_1], centroids[b_2])
            made = made.float().clamp(min=settings.lowest)
            error = F.mse_loss(made, target)
            wrong = F.cross_entropy(F.linear(made, *base), classes[a_1])
            _set_rate(optimiser, settings, step)
            minimise(settings.weight * error + wrong, optimiser)
        if step % _LOG_EVERY == 0 or step == settings.steps - 1:
            now = {"error": error, "still": F.mse_loss(seed, target), "classification": wrong}
            history.append({"step": step, **{name: float(value.detach()) for name, value in now.items()}})
    return history


def _draw(n: int, batch: int, rng: torch.Generator, like: Tensor) -> Tensor:
    """`batch` of the numbers 0..n-1, with replacement, on the device of `like`."""
    return torch.randint(n, (batch,), generator=rng, device=rng.device).to(like.device)


def _set_rate(optimiser: torch.optim.Optimizer, settings: TrainingSettings, step: int) -> None:
    for group in optimiser.param_groups:
        group["lr"] = settings.lr * cosine(step / settings.steps)
