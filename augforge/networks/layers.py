"""Building blocks of networks that several methods share, and what is done to whole networks: start, fold, freeze.

The blocks are plain modules that know nothing of banks or labels. Networks are made without numbers and filled from
a generator (`built`), because torch's own start draws from the global one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_State = tuple[tuple[torch.device, int, int], ...]  # of each tensor: where it lies, and how often it was written
_INFERENCE: WeakKeyDictionary[nn.Module, tuple[_State, nn.Module]] = WeakKeyDictionary()


class ConvNorm(nn.Module):
    """A convolution without bias and batch normalisation after it: [n, in, h, w] -> [n, out, h', w'].

    The normalisation would take away any bias. `folded` makes one convolution of the two.
    """

    def __init__(self, inward: int, outward: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inward, outward, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outward)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise."""
        return self.norm(self.conv(x))


class DropBlock(nn.Module):
    """Sets squares of the feature maps [n, c, h, w] to zero while training, and scales the rest up to the same mean.

    Ghiasi, Lin and Le, "DropBlock: a regularization method for convolutional networks", NeurIPS 2018. `share` is
    the expected part that is dropped, `side` that of the squares. Chance comes from `generator`, which must be set
    on the device of the maps before training; without one nothing is dropped.
    """

    def __init__(self, share: float, side: int = 2) -> None:
        super().__init__()
        self.share, self.side = share, side
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop squares in training; the maps as they are otherwise."""
        if not self.training or self.share <= 0 or self.generator is None:
            return x
        n, c, height, width = x.shape
        side = min(self.side, height, width)
        inner = (height - side + 1) * (width - side + 1)
        gamma = self.share * height * width / (side**2 * inner)  # equation 1 of the paper
        shape = (n, c, height - side + 1, width - side + 1)
        start = (torch.rand(shape, generator=self.generator, device=x.device) < gamma).to(x.dtype)
        dropped = F.max_pool2d(F.pad(start, [side - 1] * 4), side, stride=1)
        kept = 1 - dropped
        return x * kept * (kept.numel() / kept.sum().clamp(min=1))


class CosineHead(nn.Module):
    """Class scores [n, classes] of features [n, d]: the cosine to a weight of each class, times a learnt scale.

    Gidaris and Komodakis, "Dynamic few-shot visual learning without forgetting", CVPR 2018, equation 4.
    """

    def __init__(self, features: int, classes: int, scale: float = 10.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.scale = nn.Parameter(torch.empty(()))
        self.first_scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Scaled cosines."""
        return self.scale * F.linear(F.normalize(x.float(), dim=1), F.normalize(self.weight, dim=1))


def built(make: Callable[[], nn.Module], rng: torch.Generator | None = None) -> nn.Module:
    """The network that `make` describes, started from `rng` (on the CPU), or with parameters left open without one.

    `make` runs on the meta device, so nothing is drawn from the global generator.
    """
    with torch.device("meta"):
        net = make()
    net = net.to_empty(device="cpu")
    if rng is not None:
        for module in net.modules():
            _start(module, rng)
    return net


def _start(module: nn.Module, rng: torch.Generator) -> None:
    """He's normal start for convolutions (fan out), LeCun's uniform one for linear layers, 1 and 0 for norms.

    A module with a method `start_(rng)` starts itself.
    """
    with torch.no_grad():
        own = getattr(module, "start_", None)
        if callable(own):
            own(rng)
            return
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=rng)
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=rng)
        elif isinstance(module, CosineHead):
            nn.init.normal_(module.weight, generator=rng)
            module.scale.fill_(module.first_scale)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            bias.zero_()


def inference_copy(net: nn.Module) -> nn.Module:
    """The folded copy of a network with channels last in memory, made once and kept for as long as the network lives.

    It is made anew where a parameter or buffer has been replaced, moved or written to. It is kept here and not in the
    part that owns the network, so that it is never saved, pickled or part of a digest.
    """
    tensors = (*net.parameters(), *net.buffers())
    state = tuple((t.device, t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
    kept = _INFERENCE.get(net)
    if kept is None or kept[0] != state:
        kept = state, folded(net).to(memory_format=torch.channels_last)
        _INFERENCE[net] = kept
    return kept[1]


def folded(net: nn.Module) -> nn.Module:
    """A copy for inference with every batch normalisation of a ConvNorm multiplied into its convolution."""
    net = copy.deepcopy(net).eval().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return net


def set_generator(net: nn.Module, generator: torch.Generator | None) -> None:
    """Give every DropBlock of a network its source of chance, or take it away."""
    for module in net.modules():
        if isinstance(module, DropBlock):
            module.generator = generator
