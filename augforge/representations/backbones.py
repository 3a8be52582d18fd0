"""The field's backbones as plain modules, for any picture size and any number of channels: [n, c, h, w] -> [n, d].

conv4      d = 64 x cells left after four poolings: 64 at 28 px, 256 at 32 px, 1,600 at 84 px
resnet10   d = 512, one block in each stage
resnet12   d = 640, few-shot learning's own: four blocks of three convolutions
resnet18   d = 512, two blocks in each stage
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from augforge.networks.layers import ConvNorm, DropBlock
from augforge.networks.pixels import prepared
from augforge.networks.products import in_tiles
from augforge.types import InputError

Arch = Literal["conv4", "resnet10", "resnet12", "resnet18"]

_ROWS_AT_ONCE = 512
_TILE = 32  # pictures at a time on a CPU: caches hold their maps, and one picture alone costs no more than these
_LARGE = 64  # from this side on, the ResNets 10 and 18 begin as on ImageNet: 7 x 7 with stride 2, then pooling


class Conv4(nn.Module):
    """Four times: 3 x 3 convolution of 64 channels, batch normalisation, max-pooling by 2, ReLU.

    Vinyals et al., "Matching networks for one shot learning", NIPS 2016. Differs from the paper in order and not in
    value: max-pooling and ReLU commute, and ReLU is cheaper after it; the convolution's bias is left to the
    normalisation. A side of one pixel is not pooled further.
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvNorm(channels if i == 0 else width, width) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [n, c, h, w] to features [n, width * (h // 16) * (w // 16)], at least one cell."""
        for block in self.blocks:
            x = block(x)
            x = F.relu(_halved(x))
        return rearrange(x, "n c h w -> n (c h w)")


class Block12(nn.Module):
    """A block of ResNet-12: three convolutions beside a 1 x 1 shortcut, leaky ReLU 0.1, max-pooling by 2, DropBlock."""

    def __init__(self, inward: int, outward: int, drop: float) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(inward, outward), ConvNorm(outward, outward)
        self.third, self.shortcut = ConvNorm(outward, outward), ConvNorm(inward, outward, 1)
        self.drop = DropBlock(drop)

    def forward(self, x: Tensor) -> Tensor:
        """[n, in, h, w] -> [n, out, h // 2, w // 2]; pooling comes before the last ReLU, which commutes with it."""
        y = F.leaky_relu(self.first(x), 0.1)
        y = F.leaky_relu(self.second(y), 0.1)
        y = self.third(y) + self.shortcut(x)
        return self.drop(F.leaky_relu(_halved(y), 0.1))


class ResNet12(nn.Module):
    """Few-shot learning's ResNet-12, with 64, 160, 320 and 640 channels.

    Lee et al., "Meta-learning with differentiable convex optimization", CVPR 2019. `drop` is DropBlock's share in
    the last two blocks.
    """

    def __init__(self, channels: int = 3, drop: float = 0.0) -> None:
        super().__init__()
        widths = (channels, 64, 160, 320, 640)
        self.blocks = nn.ModuleList(Block12(widths[i], widths[i + 1], drop if i > 1 else 0.0) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [n, c, h, w] to features [n, 640], the mean over the last map."""
        for block in self.blocks:
            x = block(x)
        return reduce(x, "n c h w -> n c", "mean")


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., "Deep residual learning", CVPR 2016, figure 5)."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(inward, outward, 3, stride), ConvNorm(outward, outward)
        same = inward == outward and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(inward, outward, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[n, in, h, w] -> [n, out, ceil(h / stride), ceil(w / stride)]."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-10 or ResNet-18: 64, 128, 256 and 512 channels, `blocks` of two convolutions in each stage.

    Pictures of 64 px or more enter through a 7 x 7 convolution with stride 2 and max-pooling, as on ImageNet;
    smaller ones (`large` False) through a 3 x 3 convolution with stride 1, as is usual in few-shot learning.
    """

    def __init__(self, channels: int, blocks: int, large: bool) -> None:
        super().__init__()
        self.large = large
        self.stem = ConvNorm(channels, 64, 7, 2) if large else ConvNorm(channels, 64)
        widths = (64, 64, 128, 256, 512)
        stages = [
            BasicBlock(widths[i] if j == 0 else widths[i + 1], widths[i + 1], 2 if i and j == 0 else 1)
            for i in range(4)
            for j in range(blocks)
        ]
        self.blocks = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [n, c, h, w] to features [n, 512], the mean over the last map."""
        x = F.relu(self.stem(x))
        x = F.max_pool2d(x, 3, 2, 1) if self.large else x
        return reduce(self.blocks(x), "n c h w -> n c", "mean")


class Standardised(nn.Module):
    """A network behind the standardisation of its pictures: [n, c, h, w] in [0, 1] -> [n, d]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module, channels: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise each channel and go through the network."""
        mean, deviation = (rearrange(v, "c -> c 1 1") for v in (self.mean, self.deviation))
        return self.net((x - mean) / deviation)


def _halved(x: Tensor) -> Tensor:
    """Max-pooling by 2 of [n, c, h, w], along the sides that have two pixels or more."""
    return F.max_pool2d(x, (min(2, x.shape[2]), min(2, x.shape[3])))


def make_backbone(arch: Arch, channels: int, side: int, drop: float = 0.0) -> nn.Module:
    """A backbone by name, for pictures of `channels` channels whose shorter side is `side` px.

    `drop` is the share that DropBlock drops, in ResNet-12 alone. Raises KeyError for an unknown name.
    """
    if arch == "conv4":
        return Conv4(channels)
    if arch == "resnet12":
        return ResNet12(channels, drop)
    return ResNet(channels, {"resnet10": 1, "resnet18": 2}[arch], side >= _LARGE)


def embedded(net: nn.Module, x: Tensor) -> Tensor:
    """Features [n, d] float32 of pictures [n, c, h, w], uint8 or floats in [0, 1], or of rows [n, k], in tiles and with
    no gradient.
    """

    def forward(part: Tensor) -> Tensor:
        part = part.float() / 255 if part.dtype == torch.uint8 else part
        part = part.contiguous(memory_format=torch.channels_last) if part.ndim == 4 else part
        return net(part).float()

    with torch.no_grad():
        return torch.cat([in_tiles(forward, part, size=_TILE) for part in x.split(_ROWS_AT_ONCE)])


def as_trained(x: Tensor | list[Tensor], size: int, facts: Mapping[str, int], who: str) -> Tensor:
    """Pictures as a network takes them that was trained on those of `facts`: [n, channels, height, width].

    Square at `size` px where it is not 0; grey ones are repeated where colour was learnt. Raises InputError, naming
    `who`, for pictures of another size.
    """
    x = prepared(x, size)
    if x.shape[1] == 1 and facts["channels"] == 3:
        x = x.expand(-1, 3, -1, -1)
    wanted = tuple(facts[name] for name in ("channels", "height", "width"))
    if tuple(x.shape[1:]) != wanted:
        raise InputError(f"{who} was trained on pictures {list(wanted)} and got {list(x.shape[1:])}")
    return x
