"""What two networks play: the rules, the parts of a game, and the losses that every game shares.

Losses: hinge (Lim & Ye, "Geometric GAN", 2017; Miyato et al., ICLR 2018, equations 16 and 17), the squared gradient R1,
and LeCam's regulariser.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Part = dict[str, Tensor]
Made = tuple[Tensor, ...]


@dataclass(frozen=True)
class Rules:
    """How a contest goes: Adam with `lr` for the generator and `judge_lr` for the discriminator, betas 0 and 0.9.

    `average` is the decay of the generator's moving average; `r1` the weight of the discriminator's squared gradient at
    real pictures (Mescheder, Geiger & Nowozin, ICML 2018, equation 9), `lecam` that of equation 3 of Tseng et al., CVPR
    2021; `accumulate` the parts that a batch is cut into; `judgements` how many looks are taken, and after `patience`
    looks without a better score the run ends with the best look's weights (0: it never does, and the last are kept).
    """

    steps: int
    lr: float
    judge_lr: float
    average: float
    r1: float = 0.0
    lecam: float = 0.0
    accumulate: int = 1
    judgements: int = 10
    patience: int = 0


@dataclass(frozen=True)
class Findings:
    """What a look at the averaged generator found: a score, higher is better, the numbers behind it, and alarms."""

    score: float
    facts: dict[str, float]
    alarms: list[str]


class Game(Protocol):
    """What is played. `draw` gives tensors with one first axis, along which they may be cut."""

    @property
    def maker(self) -> nn.Module:
        """The generator, or several in one module."""
        ...

    @property
    def judge(self) -> nn.Module:
        """The discriminator, or several in one module."""
        ...

    def draw(self, generator: torch.Generator) -> Part:
        """The batch of a step, all of whose chance comes from the generator."""
        ...

    def make(self, maker: nn.Module, part: Part) -> Made:
        """The pictures that the generator makes of a part."""
        ...

    def scores(self, part: Part, made: Made) -> tuple[Tensor, Tensor]:
        """The discriminator's scores of the real pictures of a part, and of those made."""
        ...

    def fool(self, part: Part, made: Made) -> Tensor:
        """The generator's loss."""
        ...

    def steepness(self, part: Part) -> Tensor:
        """The mean squared gradient of the discriminator's scores at the real pictures of a part."""
        ...

    def examine(self, maker: nn.Module) -> Findings:
        """A look at a generator, on rows that are not trained on."""
        ...

    def sheet(self, maker: nn.Module) -> Tensor:
        """Pictures [rows, columns, c, h, w] in [0, 1] of latents that stay the same."""
        ...


def settings_of(part: Any, *later: str) -> dict[str, Any]:
    """The settings of a part that a checkpoint must agree with: all but `truncation` and what is named."""
    return {
        key.name: getattr(part, key.name) for key in fields(part) if key.init and key.name not in ("truncation", *later)
    }


def to_train_(device: str, *nets: nn.Module) -> None:
    """Put networks on a device to be trained, with channels last in memory."""
    for net in nets:
        net.to(device).to(memory_format=torch.channels_last).requires_grad_(True)


def to_rest_(*nets: nn.Module) -> None:
    """Put trained networks on the CPU, with rows first in memory as in those that are read from a file.

    The layout decides by which kernel a convolution is done, so that both make the same bits.
    """
    for net in nets:
        net.cpu().to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss: E max(0, 1 - D(real)) + E max(0, 1 + D(fake))."""
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def squared_gradient(scores: Tensor, x: Tensor) -> Tensor:
    """E ||d scores / d x||^2 over the rows of x [n, ...], with a graph."""
    (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()


def lecam(real: Tensor, fake: Tensor, levels: Tensor) -> Tensor:
    """E (D(real) - level of made)^2 + E (D(made) - level of real)^2, with `levels` [2] the moving means of real, made.

    Tseng, Jiang, Liu, Yang & Yang, "Regularizing generative adversarial networks under limited data", CVPR 2021,
    equation 3.
    """
    return (real - levels[1]).square().mean() + (fake - levels[0]).square().mean()
