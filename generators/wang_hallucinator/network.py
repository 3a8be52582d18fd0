"""The network of Wang et al., "Low-shot learning from imaginary data", CVPR 2018."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class RowEmbedding(nn.Module):
    """What the classifier sees of a row, real or made: two layers with a ReLU between them (section 5 of the paper).

    It starts as the identity, through a hidden layer of x and -x, so that the classifier starts as the one without it;
    the paper says nothing of its width and start. No random number is drawn.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.utils.skip_init(nn.Linear, features, 2 * features)
        self.second = nn.utils.skip_init(nn.Linear, 2 * features, features)
        both = torch.cat([torch.eye(features), -torch.eye(features)])
        with torch.no_grad():
            self.first.weight.copy_(both)
            self.second.weight.copy_(both.T)
        nn.init.zeros_(self.first.bias)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Rows [..., features] -> [..., features]."""
        return self.second(self.first(x).relu_())

    def rescale_(self, inner: float, outer: float) -> None:
        """Turn E(x) into outer E(x / inner), in place."""
        with torch.no_grad():
            self.first.weight.div_(inner)
            for part in (self.second.weight, self.second.bias):
                part.mul_(outer)
