"""What GANs are trained by: the objective that each brings, settings of the training, and the losses that all share.

Losses: hinge (Lim & Ye, "Geometric GAN", 2017; Miyato et al., ICLR 2018, equations 16 and 17), the squared gradient R1,
and LeCam's regulariser.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge.training.loop import Evaluation

Batch = dict[str, Tensor]  # tensors with one first axis, along which they may be cut
Generated = tuple[Tensor, ...]


@dataclass(frozen=True)
class GanSettings:
    """Training settings of a GAN: Adam with betas 0 and 0.9 for both networks, one step of each by turns."""

    steps: int  # of each network
    generator_rate: float  # learning rate
    discriminator_rate: float  # learning rate
    average: float  # decay of the generator's moving average
    r1: float = 0.0  # weight of R1 at real pictures (Mescheder, Geiger & Nowozin, ICML 2018, equation 9)
    lecam: float = 0.0  # weight of LeCam's regulariser (Tseng et al., CVPR 2021, equation 3)
    accumulate: int = 1  # parts that a batch is cut into
    evaluations: int = 10  # how many, the last one at the end
    patience: int = 0  # evaluations without a better score that end the training (0: it goes on)


class Objective(Protocol):
    """What a generator and a discriminator are trained for."""

    @property
    def generator(self) -> nn.Module:
        """The generator, or several in one module."""
        ...

    @property
    def discriminator(self) -> nn.Module:
        """What of the discriminator learns, or of several in one module."""
        ...

    def draw(self, rng: torch.Generator, fraction: float) -> Batch:
        """The batch of a step, all of whose chance comes from `rng`, when a fraction of the training is done."""
        ...

    def generate(self, batch: Batch) -> Generated:
        """The pictures that the generator makes of a batch."""
        ...

    def scores(self, batch: Batch, generated: Generated) -> tuple[Tensor, Tensor]:
        """The discriminator's scores of the real pictures of a batch, and of the generated ones."""
        ...

    def generator_loss(self, batch: Batch, generated: Generated) -> Tensor:
        """The generator's loss, a number."""
        ...

    def gradient_penalty(self, batch: Batch) -> Tensor:
        """The mean squared gradient of the discriminator's scores at the real pictures of a batch."""
        ...

    def evaluate(self) -> Evaluation:
        """How good the generator is as it stands, on rows that are not trained on."""
        ...

    def sheet(self) -> Tensor:
        """Pictures [rows, columns, c, h, w] in [0, 1] of latents that stay the same."""
        ...


def checked_settings(part: Any, *free: str) -> dict[str, Any]:
    """The settings of a part that a checkpoint must agree with: all but `truncation` and those named."""
    return {
        key.name: getattr(part, key.name) for key in fields(part) if key.init and key.name not in ("truncation", *free)
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
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def lecam(real: Tensor, fake: Tensor, levels: Tensor) -> Tensor:
    """E (D(real) - level of fake)^2 + E (D(fake) - level of real)^2, with `levels` [2] the moving means of real, fake.

    Tseng, Jiang, Liu, Yang & Yang, "Regularizing generative adversarial networks under limited data", CVPR 2021,
    equation 3.
    """
    return (real - levels[1]).square().mean() + (fake - levels[0]).square().mean()
