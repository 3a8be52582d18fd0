"""What learnt generators of features share: a network, pairs of rows, episodes to train on, and statistics."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from augforge import chance
from augforge.episodes import draw_episodes
from augforge.networks.layers import built
from augforge.training.loop import is_bfloat16_fast
from augforge.types import Examples, InputError, Synthesizer

_MOST_CLASSES, _MOST_ROWS, _EACH = 32, 8, 8  # what collapse is measured on
_STEPS_AT_ONCE = 32  # steps whose episodes are drawn together


class Perceptron(nn.Module):
    """One hidden layer of leaky ReLUs (slope 0.2) with dropout: [..., inward] -> [..., outward].

    Units are dropped, with probability `dropout`, only where a call brings a generator.
    """

    def __init__(self, inward: int, width: int, outward: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(inward, width), nn.Linear(width, outward)
        self.dropout = dropout

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The last layer's output; `generator` (on the CPU) says which hidden units are dropped."""
        hidden = F.leaky_relu(self.hidden(x), 0.2)
        if generator is not None and self.dropout > 0:
            kept = torch.rand(hidden.shape, generator=generator) >= self.dropout
            hidden = hidden * kept.to(hidden) / (1 - self.dropout)
        return self.last(hidden)

    @classmethod
    def started(cls, sizes: tuple[int, int, int], rng: torch.Generator | None, dropout: float = 0.0) -> Perceptron:
        """One with (inward, width, outward) units, started from `rng` on the CPU; without it numbers are left open."""
        net = built(lambda: cls(*sizes, dropout), rng)
        assert isinstance(net, cls)
        return net


@dataclass(frozen=True, eq=False)
class RowPairs:
    """Draws pairs of different rows of one class from the labels `y` [n] of a bank."""

    rows: Tensor  # [m], rows of classes with at least two, class by class
    start: Tensor  # [m], where the class of each begins in `rows`
    count: Tensor  # [m], how many rows that class has

    @classmethod
    def of(cls, y: Tensor, who: str) -> RowPairs:
        """Index the classes with at least two rows; raises InputError, naming `who`, where there is none."""
        y = y.cpu()
        counts = torch.bincount(y)
        rows = torch.argsort(y, stable=True)
        usable = counts[y[rows]] > 1
        if not bool(usable.any()):
            raise InputError(f"{who} learns from pairs of rows of one class; every base class has 1 row")
        rows = rows[usable]
        counts = torch.bincount(y[rows])
        starts = torch.cumsum(counts, 0) - counts
        return cls(rows, starts[y[rows]], counts[y[rows]])

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`n` rows, each equally likely, and another row of the class of each: two times [n] int64."""
        place = torch.randint(len(self.rows), (n,), generator=generator)
        start, count = self.start[place], self.count[place]
        step = 1 + (torch.rand(n, generator=generator, dtype=torch.float64) * (count - 1)).long()
        return self.rows[place], self.rows[start + (place - start + step) % count]


@dataclass(frozen=True)
class EpisodeSettings:
    """The episodes that a generator is trained on."""

    way: int  # classes of an episode
    shots: tuple[int, ...]  # support rows of a class, which the steps take in turn
    queries: int  # of each class
    episodes: int  # in a step
    fill: int  # rows of a class, real and made

    def within(self, y: Tensor) -> EpisodeSettings:
        """The same with as many classes as the labels `y` [n] have with enough rows, if they are fewer."""
        enough = int((torch.bincount(y.cpu()) >= max(self.shots) + self.queries).sum())
        return replace(self, way=max(2, min(self.way, enough)))

    def draw(self, y: Tensor, trials: int, seed: int, start: int = 0) -> tuple[Tensor, Tensor]:
        """Rows of `trials` episodes: [trials, way, most shots] and [trials, way, queries]."""
        found = draw_episodes(y.cpu(), way=self.way, shot=max(self.shots), n_query=self.queries, trials=trials,
                              seed=seed, start=start)  # fmt: skip
        return torch.stack([e.support for e in found]), torch.stack([e.query for e in found])

    def batches(self, y: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of support [b, way, shot] and query [b, way, queries] of each step, without end."""
        shots = itertools.cycle(self.shots)
        for lot in itertools.count():
            count = _STEPS_AT_ONCE * self.episodes
            support, query = self.draw(y, count, seed, lot * count)
            for part, asked in zip(support.split(self.episodes), query.split(self.episodes), strict=True):
                yield part[:, :, : next(shots)], asked

    def noise(self, shot: int, width: int, generator: torch.Generator) -> Tensor:
        """z ~ N(0, I) [episodes, way, fill - shot, width] on the CPU, in bfloat16 where that is what is multiplied."""
        z = torch.randn(self.episodes, self.way, self.fill - shot, width, generator=generator)
        return z.to(torch.bfloat16) if is_bfloat16_fast("cpu") else z  # the same numbers on every machine


def typical_size(x: Tensor) -> Tensor:
    """The root mean square of base features [n, d]: a number; 1 where they are all 0."""
    size = x.square().mean(dtype=torch.float64).sqrt().to(torch.float32)
    return torch.where(size > 0, size, 1.0)


def cpu_generator(rng: torch.Generator) -> torch.Generator:
    """A generator on the CPU that goes on from `rng`, wherever that is; CPU and CUDA draw other numbers."""
    return torch.Generator().manual_seed(int(torch.randint(1 << 62, (1,), generator=rng, device=rng.device)))


def collapse(real: Tensor, made: Tensor) -> dict[str, float]:
    """Whether a generator makes more than copies or one point: rows [c, n, k, d] made k times from each of [c, n, d].

    `made_over_real` is the mean distance between rows made from two seeds of a class over that between the seeds
    (copies have 1; 0 is a single point), `moved` the mean of ||G(x, z) - x|| / ||x||, and `from_noise` the part of the
    made rows' variance within a class that z explains, not the seed (0: z is ignored). Each is averaged over classes.
    """
    real, made = real.double(), made.double()
    flat = rearrange(made, "c n k d -> c (n k) d")
    lengths = torch.linalg.vector_norm(real, dim=-1).clamp(min=1e-12)[..., None]  # [c, n, 1]
    moved = torch.linalg.vector_norm(made - real[:, :, None], dim=-1) / lengths
    within = reduce(made.var(2, correction=0), "c n d -> c", "sum") / made.shape[1]
    total = flat.var(1, correction=0).sum(-1).clamp(min=1e-24)  # [c]
    apart = torch.stack([_spread(made[:, :, i]) for i in range(made.shape[2])]).mean(0)  # [c]
    return {
        "made_over_real": float((apart / _spread(real).clamp(min=1e-12)).mean()),
        "moved": float(moved.mean()),
        "from_noise": float((within / total).mean()),
    }


def _spread(x: Tensor) -> Tensor:
    """The mean distance between two different rows: [c, n, d] -> [c]."""
    n = x.shape[1]
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2)) / (n * (n - 1))


def collapse_on(part: Synthesizer, x: Tensor, y: Tensor) -> dict[str, float]:
    """`collapse` of rows that a fitted part makes of single base rows `x` [n, d]; empty where no class has two rows."""
    counts = torch.bincount(y.cpu())
    n = min(_MOST_ROWS, int(counts[counts > 0].median()))
    way = min(_MOST_CLASSES, int((counts >= n).sum()))
    if n < 2:
        return {}
    (episode,) = draw_episodes(y.cpu(), way=way, shot=n, n_query=0, trials=1)
    real = x[episode.support.to(x.device)]  # [way, n, d]
    want = repeat(torch.arange(way * n), "m -> (m k)", k=_EACH)
    keys = chance.row_keys(0, "collapse", torch.arange(len(want)))
    support = Examples(rearrange(real, "c n d -> (c n) d"), torch.arange(way * n).to(x.device))
    with torch.no_grad():
        made = part.synthesize(support, want.to(x.device), keys.to(x.device)).x
    assert isinstance(made, Tensor)
    return collapse(real, rearrange(made, "(c n k) d -> c n k d", c=way, n=n))
