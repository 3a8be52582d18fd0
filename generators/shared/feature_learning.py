"""What learnt generators of features share: networks, pairs of rows, arithmetic that no batch changes, statistics.

The networks are plain modules that know nothing of banks or labels, so that they can be used in anyone's loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from augforge import chance
from augforge.episodes import draw_episodes
from augforge.networks.layers import built
from augforge.types import Examples, InputError, Synthesizer

_MOST_CLASSES, _MOST_ROWS, _EACH = 32, 8, 8  # what collapse is measured on

Relus = Literal[2, 3]


class Hallucination(nn.Module):
    """G(x, z): three layers, with a ReLU behind the first two or all three (Wang et al., CVPR 2018, section 5).

    It starts as the block identity [I; 0]: the seed's part of the first layer and the two other layers are the
    identity, the noise's part is 0, and so are the biases. So at first G(x, z) = relu(x) for any z. No random number
    is drawn. `features` is the length of x and of what is made, `noise` that of z (None: the same), `width` that of
    the hidden layers (None: the same; below `features` the start loses numbers).
    """

    def __init__(self, features: int, noise: int | None = None, width: int | None = None, relus: Relus = 3) -> None:
        super().__init__()
        width = width or features
        self.relus = relus
        self.seed = nn.utils.skip_init(nn.Linear, features, width)
        self.noise = nn.utils.skip_init(nn.Linear, noise or features, width, bias=False)
        self.second = nn.utils.skip_init(nn.Linear, width, width)
        self.third = nn.utils.skip_init(nn.Linear, width, features)
        nn.init.zeros_(self.noise.weight)
        for layer in (self.seed, self.second, self.third):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """G(x, z) of seeds [..., features] and noise [..., noise]; the leading axes broadcast."""
        return self.rest(self.first(x), z)

    def first(self, x: Tensor) -> Tensor:
        """The seed's part of the first layer: [..., features] -> [..., width]. Once for each seed is enough."""
        return self.seed(x)

    def rest(self, first: Tensor, z: Tensor, turned: Sequence[Tensor] = ()) -> Tensor:
        """What is made of the seeds' `first` [..., width] and noise [..., noise]: [..., features].

        `turned` is what the method of this name says; it saves time where this is called for few rows at a time.
        """
        noise, second, third = turned or [layer.weight for layer in (self.noise, self.second, self.third)]
        hidden = (first + F.linear(z, noise)).relu_()
        made = F.linear(F.linear(hidden, second, self.second.bias).relu_(), third, self.third.bias)
        return made.relu_() if self.relus == 3 else made

    def turned(self) -> list[Tensor]:
        """The weights of the layers of `rest`, column by column in memory: few rows are multiplied faster by these."""
        return [layer.weight.T.contiguous().T for layer in (self.noise, self.second, self.third)]

    def rescale_(self, size: float) -> None:
        """Turn G(x, z) into size G(x / size, z), in place: layers with ReLU scale with their input and biases."""
        with torch.no_grad():
            for part in (self.noise.weight, self.seed.bias, self.second.bias, self.third.bias):
                part.mul_(size)


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
class Pairs:
    """Draws pairs of different rows of one class from the labels `y` [n] of a bank."""

    rows: Tensor
    start: Tensor
    count: Tensor

    @classmethod
    def of(cls, y: Tensor, who: str) -> Pairs:
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


def feature_rows(support: Examples, features: int | None, who: str) -> Tensor:
    """The rows of a support [m, d] in float32; InputError for pictures, and where `who` was not fitted on such rows.

    `features` is the length of the rows that it was fitted on, None before `fit`.
    """
    if isinstance(support.x, list) or support.x.ndim != 2:
        raise InputError(f"{who} makes features; these rows are pictures")
    if features is None:
        raise InputError(f"{who} is not fitted yet; expected fit(base, rng) or a folder that `augforge fit` made")
    if support.x.shape[1] != features:
        raise InputError(f"{who} was fitted on {features} features; these rows have {support.x.shape[1]}")
    return support.x.to(torch.float32)


def as_given(made: Tensor, support: Examples) -> Tensor:
    """Made rows in the dtype of the support's."""
    assert isinstance(support.x, Tensor)
    return made.to(support.x.dtype)


def typical_size(x: Tensor) -> Tensor:
    """The root mean square of base features [n, d]: a number; 1 where they are all 0."""
    size = x.square().mean(dtype=torch.float64).sqrt().to(torch.float32)
    return torch.where(size > 0, size, 1.0)


def cpu_generator(rng: torch.Generator) -> torch.Generator:
    """A generator on the CPU that goes on from `rng`, wherever that is; CPU and CUDA draw other numbers."""
    return torch.Generator().manual_seed(int(torch.randint(1 << 62, (1,), generator=rng, device=rng.device)))


def whole_numbers(part: Any, name: str) -> tuple[int, ...]:
    """A text setting such as "1,5" as numbers; raises InputError where it is not whole numbers of at least 1."""
    words = str(getattr(part, name)).split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"{name}={getattr(part, name)!r} was given; expected whole numbers with commas, as 1,5")
    return tuple(map(int, words))


def collapse(real: Tensor, made: Tensor) -> dict[str, float]:
    """Whether a generator still imagines: statistics of rows [c, n, k, d] made k times from each of `real` [c, n, d].

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
