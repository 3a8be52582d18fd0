"""Discriminators, which tell real pictures from generated ones: residual blocks with spectral normalisation.

Miyato, Kataoka, Koyama & Yoshida, "Spectral normalization for generative adversarial networks", ICLR 2018, algorithm
1; Miyato & Koyama, "cGANs with projection discriminator", ICLR 2018, equation 3. The power iteration goes on once for
each step of training (`advance`), not in each call, so that a batch may be cut into parts; on a GPU that is five small
kernels for each layer, which a CUDA graph could gather. Maps shrink inside of the first convolution of a block (4 x 4,
stride 2), not behind the second: at 28 px that is a quarter of the work.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from augforge.generators.shared.gan.networks import sides_of, widths_of

_FIRST_ROUNDS = 10  # rounds of the power iteration at the start


class Spectral(nn.Module):
    """A convolution (kernel > 0) or a linear layer (0) whose weight is divided by its largest singular value.

    A kernel of 2 or 4 halves the sides. The weight is read as a matrix [out, in * kernel^2]; `left` and `right` are its
    singular vectors as far as the power iteration has come.
    """

    left: Tensor
    right: Tensor

    def __init__(self, inward: int, outward: int, kernel: int = 0, bias: bool = True) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, 1 if kernel % 2 else 2
        shape = (outward, inward, kernel, kernel) if kernel else (outward, inward)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(outward)) if bias else None
        self.register_buffer("left", torch.empty(outward))
        self.register_buffer("right", torch.empty(inward * max(1, kernel) ** 2))

    def start_(self, rng: torch.Generator) -> None:
        """Orthogonal weights would be 1 at once; these are Glorot's, and the vectors are iterated ten times."""
        nn.init.xavier_uniform_(self.weight, generator=rng)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.left.normal_(generator=rng)
        for _ in range(_FIRST_ROUNDS):
            self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """One round of the power iteration."""
        matrix = self.weight.detach().flatten(1)
        self.right.copy_(F.normalize(self.left @ matrix, dim=0))
        self.left.copy_(F.normalize(matrix @ self.right, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """The layer with the divided weight."""
        with torch.autocast(x.device.type, enabled=False):
            size = torch.dot(self.left, self.weight.flatten(1) @ self.right)  # the largest singular value
            weight = self.weight / size
        if self.kernel:
            return F.conv2d(x, weight, self.bias, self.stride, (self.kernel - 1) // 2)
        return F.linear(x, weight, self.bias)


def advance(net: nn.Module) -> None:
    """One round of the power iteration in every layer: once for each step of training."""
    for module in net.modules():
        if isinstance(module, Spectral):
            module.advance()


class SpectralBlock(nn.Module):
    """Residual block of a discriminator: [n, in, h, w] -> [n, out, h/2, w/2] (or h, w)."""

    def __init__(self, inward: int, outward: int, down: bool, first: bool = False) -> None:
        super().__init__()
        self.first = first
        self.convs = nn.ModuleList([Spectral(inward, outward, 4 if down else 3), Spectral(outward, outward, 3)])
        self.skip = Spectral(inward, outward, 2 if down else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Twice a leaky ReLU (not before pixels) and a convolution, beside one convolution."""
        h = self.convs[0](x if self.first else F.leaky_relu(x, 0.2))
        h = self.convs[1](F.leaky_relu(h, 0.2))
        return h + self.skip(x)


class Trunk(nn.Module):
    """Pictures [n, channels, side, side] in [0, 1] -> vectors [n, width of the deepest maps], summed over pixels."""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        levels = len(sides_of(side))
        widths = widths_of(width, levels)
        inward = (channels, *widths[:-1])
        blocks = [SpectralBlock(a, b, True, i == 0) for i, (a, b) in enumerate(itertools.pairwise(inward))]
        blocks.append(SpectralBlock(inward[-1], widths[-1], False, first=levels == 1))
        self.blocks = nn.ModuleList(blocks)
        self.out = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """The sums of the deepest maps."""
        x = 2 * x - 1
        for block in self.blocks:
            x = block(x)
        # Summed with channels last: the slopes then come back as the maps lie, and half of the time they took is saved.
        return rearrange(F.leaky_relu(x, 0.2), "n c h w -> n h w c").float().sum((1, 2))


class DistanceScore(nn.ModuleList):
    """A score of the distances between a parent's pictures: vectors [p, k, width] -> [p, 1], added to each one's score.

    A discriminator of single pictures accepts a generator that makes one and the same picture again and again, so it
    is shown how far apart several are (after Lin et al., "PacGAN", NeurIPS 2018).
    """

    def __init__(self, width: int) -> None:
        super().__init__([Spectral(width, width), Spectral(width, 1)])

    def forward(self, h: Tensor) -> Tensor:
        """The mean distance of each number, 0 where all are alike, through two layers."""
        gaps = (h - h.roll(1, 1)).abs().mean(1)  # [p, width]
        score: Tensor = self[1](F.leaky_relu(self[0](gaps), 0.2))
        return score


class PairDiscriminator(nn.Module):
    """D(parent, x): scores [p, k] of whether pictures x [p, k, c, side, side] are others of their parent's class.

    Parent and picture are seen one on top of the other, as 2c channels (Antoniou et al. 2017, section 3). To the score
    of each of the k pictures is added one of the distances of their vectors (`DistanceScore`).
    """

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.trunk = Trunk(2 * channels, side, width)
        self.score = Spectral(self.trunk.out, 1)
        self.apart = DistanceScore(self.trunk.out)

    def forward(self, parent: Tensor, x: Tensor) -> Tensor:
        """Scores of the pictures of each parent [p, c, side, side] or [p, k, c, side, side], together."""
        h = self._vectors(parent, x)
        return self.score(h)[..., 0] + self.apart(h)

    def alone(self, parent: Tensor, x: Tensor) -> Tensor:
        """Scores [p, k] of the pictures, each by itself."""
        return self.score(self._vectors(parent, x))[..., 0]

    def _vectors(self, parent: Tensor, x: Tensor) -> Tensor:
        if parent.ndim == 4:
            parent = parent[:, None].expand_as(x)
        both = torch.cat([parent, x], 2).flatten(0, 1)  # [p * k, 2c, side, side]
        return self.trunk(both.contiguous(memory_format=torch.channels_last)).unflatten(0, x.shape[:2])


class ProjectionDiscriminator(nn.Module):
    """D(x, y): scores [n] of pictures with class codes [n, code]: psi(h) + code V h, with h the trunk's vector."""

    def __init__(self, channels: int, side: int, width: int, code: int) -> None:
        super().__init__()
        self.trunk = Trunk(channels, side, width)
        self.score = Spectral(self.trunk.out, 1)
        self.project = Spectral(code, self.trunk.out, bias=False)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores."""
        h = self.trunk(x)
        return self.score(h)[:, 0] + (self.project(code) * h).sum(1)


class PatchDiscriminator(nn.Module):
    """Scores [n, h', w'] of patches of pictures [n, channels, h, w], each seen by itself (Isola et al., CVPR 2017).

    Three halvings: a score sees 64 pixels or so of a side.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        pairs = enumerate(itertools.pairwise(widths))
        self.blocks = nn.ModuleList([SpectralBlock(a, b, True, i == 0) for i, (a, b) in pairs])
        self.score = Spectral(widths[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of patches."""
        x = 2 * x - 1
        for block in self.blocks:
            x = block(x)
        return self.score(F.leaky_relu(x, 0.2))[:, 0].float()
