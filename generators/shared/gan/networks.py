"""Networks that make pictures: residual blocks with FiLM, an encoder, and the generators that share them.

Residual blocks as in SNGAN (Miyato, Kataoka, Koyama & Yoshida, "Spectral normalization for generative adversarial
networks", ICLR 2018, appendix B); a code goes into every block as a scale and a shift of each channel (FiLM: Perez et
al., AAAI 2018). Differs from SNGAN: there is no batch normalisation, so no row depends on another one, in training or
after it, and batches may be cut and shared out; blocks keep their variance by how they start. Maps grow and shrink
between the two convolutions of a block. The modules are plain and know nothing of banks or labels. Sampling needs this
file alone.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

_PATCH = 2  # pixels of a side that the largest maps hold in their channels: a quarter of the work at full size
_SMALLEST = 8  # a side at which halving stops
_MOST_WIDE = 4  # the deepest maps have at most so many times the channels of the first


def sides_of(side: int) -> list[int]:
    """The sides of maps, from `side` down: 28 14 7; 32 16 8; 84 42 21; 96 48 24 12 6.

    Halving stops at 8 pixels or at an odd side.
    """
    sides = [side]
    while sides[-1] > _SMALLEST and sides[-1] % 2 == 0:
        sides.append(sides[-1] // 2)
    return sides


def widths_of(width: int, levels: int) -> list[int]:
    """Channels of the maps of each level, from the largest maps down."""
    return [width * min(2**level, _MOST_WIDE) for level in range(levels)]


class Film(nn.Module):
    """A scale and a shift of each channel of maps [n, c, h, w], which a code [n, code] says."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.scale_and_shift = nn.Linear(code, 2 * channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Scale and shift."""
        scale, shift = rearrange(self.scale_and_shift(code), "n (two c) -> two n c 1 1", two=2)
        return torch.addcmul(shift, x, 1 + scale)


class HalfVarianceConv(nn.Conv2d):
    """One of two convolutions whose outputs are added up: each starts with half of the variance, their sum with all.

    A kernel of 2 or 4 halves the sides.
    """

    def __init__(self, inward: int, outward: int, kernel: int) -> None:
        super().__init__(inward, outward, kernel, 1 if kernel % 2 else 2, (kernel - 1) // 2)

    def start_(self, rng: torch.Generator) -> None:
        """He's normal start for what comes in, at half of the variance."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear", generator=rng)
        self.weight.mul_(0.5**0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class UpBlock(nn.Module):
    """Pre-activation residual block of a generator: maps [n, in, h, w] and a code -> [n, out, 2h, 2w] (or h, w)."""

    def __init__(self, inward: int, outward: int, code: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.films = nn.ModuleList([Film(inward, code), Film(outward, code)])
        self.convs = nn.ModuleList([nn.Conv2d(inward, outward, 3, 1, 1), HalfVarianceConv(outward, outward, 3)])
        self.skip = HalfVarianceConv(inward, outward, 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Twice FiLM, leaky ReLU and a convolution, beside one convolution of 1 x 1."""
        h = self._grown(self.convs[0](F.leaky_relu(self.films[0](x, code), 0.2)))
        h = self.convs[1](F.leaky_relu(self.films[1](h, code), 0.2))
        return h + self._grown(self.skip(x))

    def _grown(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else x


class DownBlock(nn.Module):
    """Pre-activation residual block of an encoder: [n, in, h, w] -> [n, out, h/2, w/2]."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(inward, outward, 4, 2, 1), HalfVarianceConv(outward, outward, 3)])
        self.skip = HalfVarianceConv(inward, outward, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Twice a leaky ReLU and a convolution, beside one convolution of 2 x 2."""
        h = self.convs[0](F.leaky_relu(x, 0.2))
        return self.convs[1](F.leaky_relu(h, 0.2)) + self.skip(x)


class Encoder(nn.Module):
    """Pictures [n, c, side, side] -> the maps of every level, from half of the picture's side down."""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        widths = widths_of(width, len(sides_of(side // _PATCH)))
        self.first = nn.Conv2d(channels * _PATCH**2, width, 3, 1, 1)
        self.blocks = nn.ModuleList([DownBlock(a, b) for a, b in itertools.pairwise(widths)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps, largest first."""
        maps = [self.first(F.pixel_unshuffle(2 * x - 1, _PATCH))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps


class ClassGenerator(nn.Module):
    """G(z, code): noise [n, noise] and class codes [n, code] to pictures [n, channels, side, side] in [0, 1]."""

    def __init__(self, channels: int, side: int, width: int, noise: int, code: int) -> None:
        super().__init__()
        self.sides = sides_of(side // _PATCH)
        widths = widths_of(width, len(self.sides))
        self.deepest = widths[-1]
        both = noise + code
        self.start = nn.Linear(both, self.deepest * self.sides[-1] ** 2)
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.blocks = nn.ModuleList([UpBlock(a, b, both, True) for a, b in pairs])
        self.last = nn.Conv2d(widths[0], channels * _PATCH**2, 3, 1, 1)

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        """Pictures."""
        both = torch.cat([z, code], 1)
        side = self.sides[-1]
        x = rearrange(self.start(both), "n (h w c) -> n c h w", h=side, w=side)  # channels last in memory
        for block in self.blocks:
            x = block(x, both)
        return torch.sigmoid(F.pixel_shuffle(self.last(F.leaky_relu(x, 0.2)).float(), _PATCH))


class _SmallConv(nn.Conv2d):
    """A convolution that begins near nothing."""

    def start_(self, rng: torch.Generator) -> None:
        """Small weights and no bias."""
        nn.init.normal_(self.weight, std=0.01, generator=rng)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class PictureGenerator(nn.Module):
    """G(x, z): one picture of a class, and noise, to another picture of that class (DAGAN, Antoniou et al. 2017).

    A U-Net: the parent's maps of every level go to the decoder's. The class code is the mean of a vector of every
    support picture, or a sum weighted by attention from the parent; noise and code enter by FiLM. Three heads make
    the picture: a flow that the parent is bent along, what is painted anew, and how much of it shows. At the start
    the flow is 0 and the painting nearly hidden: G begins as a copy of the parent, and learns to leave it.
    """

    def __init__(self, channels: int, side: int, width: int, noise: int, code: int, reach: float = 0.25) -> None:
        super().__init__()
        self.side, self.channels, self.reach = side, channels, reach
        widths = widths_of(width, len(sides_of(side // _PATCH)))
        self.encoder = Encoder(channels, side, width)
        self.code = nn.Linear(widths[-1], code)
        self.asked, self.offered = nn.Linear(widths[-1], code), nn.Linear(widths[-1], code)
        both = noise + code
        self.middle = UpBlock(widths[-1], widths[-1], both, False)
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.blocks = nn.ModuleList([UpBlock(a, b, both, True) for a, b in pairs])
        self.joints = nn.ModuleList([nn.Conv2d(w, w, 1) for w in widths[-2::-1]])
        self.flow = _SmallConv(widths[0], 2, 3, 1, 1)
        self.paint = _SmallConv(widths[0], (1 + channels) * _PATCH**2, 3, 1, 1)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The maps of pictures [n, c, side, side], largest first."""
        maps: list[Tensor] = self.encoder(x)
        return maps

    def codes(self, parent: Tensor, support: Tensor, attend: bool) -> Tensor:
        """Class codes [n, code] of the deepest maps of parents [n, w, h, h] and of supports [n, shots, w, h, h].

        The mean of the shots' codes; with `attend` weighted by a softmax of scaled products with the parent's query.
        """
        shots = F.relu(support).mean((3, 4))  # [n, shots, w]
        codes = self.code(shots)  # [n, shots, code]
        if not attend:
            return codes.mean(1)
        asked = self.asked(F.relu(parent).mean((2, 3)))  # [n, code]
        logits = (asked[:, None] * self.offered(shots)).sum(2) / asked.shape[1] ** 0.5  # [n, shots]
        return (logits.float().softmax(1).to(codes.dtype)[..., None] * codes).sum(1)

    def decode(self, parent: Tensor, maps: list[Tensor], code: Tensor, z: Tensor) -> Tensor:
        """Pictures [n, c, side, side] in [0, 1] of parents in [0, 1], their maps, codes [n, code], noise [n, noise]."""
        both = torch.cat([z, code.to(z.dtype)], 1)
        x = F.leaky_relu(_way_up(self, maps, both), 0.2)
        # A flow of half of the resolution is smooth: one number for each pixel made dotted lines of strokes.
        flow = F.interpolate(self.flow(x).float(), scale_factor=_PATCH, mode="bilinear", align_corners=False)
        paint = F.pixel_shuffle(self.paint(x).float(), _PATCH)
        shown, painted = paint[:, :1], paint[:, 1:]
        warped = self._warped(parent, self.reach * torch.tanh(flow))
        return torch.lerp(warped, torch.sigmoid(painted), torch.sigmoid(shown - 2))

    def forward(self, parent: Tensor, z: Tensor, support: Tensor | None = None, attend: bool = False) -> Tensor:
        """G(parent, z) of parents [n, c, side, side]; `support` [n, shots, c, side, side] tells more of the class."""
        maps = self.encode(parent)
        shots = maps[-1][:, None]
        if support is not None:
            deep = self.encode(support.flatten(0, 1))[-1]  # [n * shots, w, h, h]
            shots = torch.cat([shots, deep.unflatten(0, support.shape[:2])], 1)
        return self.decode(parent, maps, self.codes(maps[-1], shots, attend), z)

    def _warped(self, x: Tensor, flow: Tensor) -> Tensor:
        """Pictures seen along a flow [n, 2, h, w] in halves of the side."""
        place = (torch.arange(self.side, device=x.device, dtype=torch.float32) + 0.5) * (2 / self.side) - 1
        grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), 2)  # [h, w, 2]
        grid = grid + rearrange(flow, "n two h w -> n h w two")
        return F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)


def _way_up(net: PictureGenerator | Translator, maps: list[Tensor], code: Tensor) -> Tensor:
    """The largest maps of a U-Net, from those of its encoder, largest first, and a code that enters every block."""
    x: Tensor = net.middle(maps[-1], code)
    for block, joint, skip in zip(net.blocks, net.joints, maps[-2::-1], strict=True):
        x = block(x, code) + joint(skip)
    return x


class _Cut(torch.autograd.Function):
    """Numbers cut off at 0 and 1. The slope is 1, but 0 where a step down it would lead further out.

    With a slope of 1 everywhere a discriminator pushed pixels ever further out, where nobody saw it, and training came
    apart; with 0 outside they never came back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Cut off."""
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        """Keep the slopes that lead inside or stay there."""
        (x,) = ctx.saved_tensors
        outward = ((x < 0) & (slopes[0] > 0)) | ((x > 1) & (slopes[0] < 0))
        return slopes[0].masked_fill(outward, 0)


class Translator(nn.Module):
    """G(x, z): pictures of one domain, and noise, to pictures of another one: the U-Net of Isola et al., CVPR 2017.

    The maps of every level go to the decoder's, and the noise enters every block of it by FiLM. Differs from the paper:
    what comes out is added to the picture and cut off at 0 and 1, beyond which slopes only lead back: behind a sigmoid
    letters on white paper were soon painted over with paper, and hardly found again.
    """

    def __init__(self, channels: int, side: int, width: int, noise: int) -> None:
        super().__init__()
        widths = widths_of(width, len(sides_of(side // _PATCH)))
        self.encoder = Encoder(channels, side, width)
        self.middle = UpBlock(widths[-1], widths[-1], noise, False)
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.blocks = nn.ModuleList([UpBlock(a, b, noise, True) for a, b in pairs])
        self.joints = nn.ModuleList([nn.Conv2d(w, w, 1) for w in widths[-2::-1]])
        self.change = _SmallConv(widths[0], channels * _PATCH**2, 3, 1, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Pictures [n, c, side, side] in [0, 1] of pictures x of that shape and noise z [n, noise]."""
        maps = self.encoder(x.contiguous(memory_format=torch.channels_last))
        h = _way_up(self, maps, z)
        y = x.float() + F.pixel_shuffle(self.change(F.leaky_relu(h, 0.2)).float(), _PATCH)
        cut: Tensor = _Cut.apply(y)
        return cut
