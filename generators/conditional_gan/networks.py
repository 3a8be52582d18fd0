"""The networks of `conditional_gan`: a generator with a code of each class, or of a support, and its discriminator.

Both kinds of generator have `codes`, which reads a condition - class numbers or support pictures - and `forward`, which
makes pictures of noise and codes; both kinds of discriminator have `codes` of their own, and score pictures by them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge.generators.shared.gan.discriminators import DistanceScore, ProjectionDiscriminator, Spectral, Trunk
from augforge.generators.shared.gan.networks import ClassGenerator, Encoder


class Table(nn.Module):
    """A learnt code [code] of each class, which starts as standard normal as noise is."""

    def __init__(self, classes: int, code: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, code))

    def start_(self, rng: torch.Generator) -> None:
        """Standard normal numbers."""
        nn.init.normal_(self.weight, generator=rng)

    def forward(self, y: Tensor) -> Tensor:
        """Codes [n, code] of classes [n] int64."""
        return F.embedding(y, self.weight)


class LabelGenerator(nn.Module):
    """G(z, y): noise [n, noise] and classes to pictures [n, channels, side, side] in [0, 1]."""

    def __init__(self, shape: tuple[int, int], width: int, noise: int, code: int, classes: int) -> None:
        super().__init__()
        self.generator = ClassGenerator(*shape, width, noise, code)
        self.table = Table(classes, code)

    def codes(self, y: Tensor) -> Tensor:
        """Codes [n, code] of classes [n] int64."""
        code: Tensor = self.table(y)
        return code

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        """Pictures of noise [n, noise] and codes [n, code]."""
        pictures: Tensor = self.generator(z, code)
        return pictures


class CodeStatistics(nn.Module):
    """Vectors [n, d] brought to a mean of 0 and a variance of 1, by statistics that no gradient changes.

    Without it, codes of supports end up the same for all: training first pushes them all one way. It is what batch
    normalisation does when it is not training, so that no row depends on another one.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(size))
        self.register_buffer("deviation", torch.empty(size))

    def start_(self, rng: torch.Generator) -> None:
        """Change nothing."""
        self.mean.zero_()
        self.deviation.fill_(1)

    def follow_(self, x: Tensor, share: float) -> None:
        """Move the statistics by a share of the way to those of vectors [n, d]; by all of it with 1."""
        self.mean.lerp_(x.mean(0), share)
        self.deviation.lerp_(x.std(0, correction=0).clamp(min=1e-4), share)

    def forward(self, x: Tensor) -> Tensor:
        """The vectors, moved and scaled."""
        return (x - self.mean) / self.deviation


class SupportGenerator(nn.Module):
    """G(z, S): noise [n, noise] and support pictures of a class to pictures [n, channels, side, side] in [0, 1].

    The code of a class is its prototype (Snell, Swersky & Zemel, NeurIPS 2017): the mean of its pictures' vectors.
    """

    def __init__(self, shape: tuple[int, int], width: int, noise: int, code: int) -> None:
        super().__init__()
        self.generator = ClassGenerator(*shape, width, noise, code)
        self.encoder = Encoder(*shape, width)
        self.code = nn.Linear(self.generator.deepest, code)
        self.settled = CodeStatistics(code)

    def codes(self, support: Tensor) -> Tensor:
        """Codes [p, code] of supports [p, shots, c, side, side]."""
        return self.settled(self._vectors(_flat(support))).unflatten(0, support.shape[:2]).mean(1)

    def follow_(self, x: Tensor, share: float) -> None:
        """Let the codes of pictures [n, c, side, side] be of mean 0 and variance 1, or move towards that."""
        self.settled.follow_(self._vectors(x), share)

    def _vectors(self, x: Tensor) -> Tensor:
        """The vectors [n, code] of pictures."""
        return self.code(F.relu(self.encoder(x)[-1]).mean((2, 3))).float()

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        """Pictures of noise [n, noise] and codes [n, code]."""
        pictures: Tensor = self.generator(z, code)
        return pictures


class LabelDiscriminator(nn.Module):
    """D(x, y): scores of pictures [p, k, c, side, side] as ones of their classes, by projection."""

    def __init__(self, shape: tuple[int, int], width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        # `judge` in the names of saved tensors
        self.judge = ProjectionDiscriminator(*shape, width, classes)

    def codes(self, y: Tensor) -> Tensor:
        """Codes [p, classes] of classes [p], 0 but in a class's own place, so that the projection is its embedding.

        There it is as long as codes of supports are: at 1 the class is learnt late.
        """
        return F.one_hot(y, self.classes) * self.judge.trunk.out**0.5

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores [p, k] with codes [p, classes]."""
        scores: Tensor = self.judge(_flat(x), code.repeat_interleave(x.shape[1], 0))
        return scores.unflatten(0, x.shape[:2])

    def alone(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores [p, k], each picture by itself, as here it always is."""
        scores: Tensor = self(x, code)
        return scores

    def last_layers(self) -> nn.ModuleList:
        """What learns while the layers before are frozen."""
        return nn.ModuleList([self.judge.trunk.blocks[-1], self.judge.score, self.judge.project])


class SupportDiscriminator(nn.Module):
    """D(x, S): scores of pictures [p, k, c, side, side] as others of their supports' classes, by projection.

    Its own trunk sees the support too; the mean of their vectors is projected. To each score is added one of the
    distances of the k pictures' vectors (`discriminators.DistanceScore`).
    """

    def __init__(self, shape: tuple[int, int], width: int) -> None:
        super().__init__()
        self.trunk = Trunk(*shape, width)
        out = self.trunk.out
        self.score = Spectral(out, 1)
        self.settled = CodeStatistics(out)
        self.project = Spectral(out, out, bias=False)
        self.apart = DistanceScore(out)

    def codes(self, support: Tensor) -> Tensor:
        """Codes [p, width] of supports [p, shots, c, side, side]."""
        return self.settled(self.trunk(_flat(support))).unflatten(0, support.shape[:2]).mean(1)

    def follow_(self, x: Tensor, share: float) -> None:
        """Let the codes of pictures [n, c, side, side] be of mean 0 and variance 1, or move towards that."""
        self.settled.follow_(self.trunk(x), share)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores [p, k] of the pictures of each code [p, width], together."""
        h = self.trunk(_flat(x)).unflatten(0, x.shape[:2])
        return self._scored(h, code) + self.apart(h)

    def alone(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores [p, k] of the pictures, each by itself."""
        return self._scored(self.trunk(_flat(x)).unflatten(0, x.shape[:2]), code)

    def _scored(self, h: Tensor, code: Tensor) -> Tensor:
        return self.score(h)[..., 0] + (self.project(code)[:, None] * h).sum(2)

    def last_layers(self) -> nn.ModuleList:
        """What learns while the layers before are frozen."""
        return nn.ModuleList([self.trunk.blocks[-1], self.score, self.project, self.apart])


Generator = LabelGenerator | SupportGenerator
Discriminator = LabelDiscriminator | SupportDiscriminator


def _flat(x: Tensor) -> Tensor:
    """Pictures [p, k, c, h, w] as [p * k, c, h, w], channels last in memory."""
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
