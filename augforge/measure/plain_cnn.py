"""A small plain network, trained from scratch on labelled pictures: the evaluation that needs no representation.

As Antoniou, Storkey and Edwards evaluate DAGAN ("Data augmentation generative adversarial networks", 2017): a vanilla
classifier is trained with and without the made pictures. Differs from the paper: Conv4 with a linear head instead of
a DenseNet, and classical augmentation can be had with every training set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from augforge.chance import draw_keys
from augforge.networks.layers import built
from augforge.networks.pixels import Pixels
from augforge.representations.backbones import Standardised, embedded, make_backbone
from augforge.representations.pictures import Augment, batch, statistics
from augforge.training.loop import Loop, Run, Stage, cosine, fast_arithmetic, step_generator
from augforge.types import InputError

Scores = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CnnOptions:
    """How the network is trained, by Adam."""

    steps: int = 600
    batch_size: int = 64  # rows of a step, at least 2
    lr: float = 2e-3  # learning rate at the start, above 0; it falls by half a cosine
    augment: Augment = "none"  # drawn anew for every row of every step: none, crop, colour or strokes
    average: float = 0.98  # decay of the moving average of weights, at least 0 (none) and below 1
    smoothing: float = 0.1  # of labels, at least 0 and below 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range."""
        if self.steps < 1 or self.batch_size < 2 or not self.lr > 0:
            raise InputError(f"steps={self.steps}, batch_size={self.batch_size}, lr={self.lr} were given; "
                             "expected at least 1 step of 2 rows and a rate above 0")  # fmt: skip
        if not 0 <= self.average < 1 or not 0 <= self.smoothing < 1:
            raise InputError(f"average={self.average} and smoothing={self.smoothing} were given; "
                             "expected at least 0 and below 1")  # fmt: skip


def train_cnn(
    pictures: Tensor,
    labels: Tensor,
    classes: int,
    rng: torch.Generator,
    options: CnnOptions | None = None,
    weight: Tensor | None = None,
) -> Scores:
    """Train on `pictures` [n, c, h, w], uint8 or floats in [0, 1], with `labels` [n] in 0..classes-1.

    Rows are drawn with replacement, each as often as its `weight` [n] says, alike without one. All chance comes from
    `rng`; on a CPU the same call gives the same network. Returns the function of pictures [q, c, h, w] to scores
    [q, classes], on the CPU. Raises InputError for no rows, labels that do not go with them and a loss that is not
    finite.
    """
    options = CnnOptions() if options is None else options
    if not len(pictures) or labels.shape != (len(pictures),) or int(labels.max()) >= classes or int(labels.min()) < 0:
        raise InputError(f"there are {len(pictures)} pictures and labels {list(labels.shape)}; expected at least one "
                         f"picture and for each a label of 0..{classes - 1}")  # fmt: skip
    data = _pixels(pictures, labels, classes, options.device)
    net = built(lambda: _network(pictures.shape[1], pictures.shape[2], pictures.shape[3], classes), rng)
    net.get_submodule("0").mean, net.get_submodule("0").deviation = statistics(data)
    net = net.to(options.device).to(memory_format=torch.channels_last)
    share = torch.ones(len(labels)) if weight is None else weight.float().cpu()
    trained = _trained(net, data, share, int(draw_keys(1, rng)), options)

    def scores(x: Tensor) -> Tensor:
        with fast_arithmetic(options.device):
            return embedded(trained, x.to(options.device)).cpu()

    return scores


def _trained(net: nn.Module, data: Pixels, share: Tensor, seed: int, options: CnnOptions) -> nn.Module:
    """The network after its steps; all chance of a step is a function of (seed, step)."""
    stage = Stage("network", options.steps, {}, partial(cosine, warmup=0.05), options.average)
    loop = Loop(net, torch.optim.Adam(net.parameters(), options.lr), stage, Run(options.device))
    on_cpu, on_device = torch.Generator(), torch.Generator(options.device)
    net.train()
    for step in loop:
        rows = torch.multinomial(share, options.batch_size, True, generator=step_generator(on_cpu, seed, 2 * step))
        rows = rows.to(options.device)
        x = batch(data, rows, options.augment, step_generator(on_device, seed, 2 * step + 1))
        with fast_arithmetic(options.device):
            logits = net(x.contiguous(memory_format=torch.channels_last))
        loop.step(F.cross_entropy(logits.float(), data.y[rows], label_smoothing=options.smoothing))
    return loop.result()


def _network(channels: int, height: int, width: int, classes: int) -> nn.Sequential:
    """Standardisation and Conv4, then a linear layer: [n, c, h, w] -> [n, classes]."""
    cells = max(1, height // 16) * max(1, width // 16)
    backbone = make_backbone("conv4", channels, min(height, width))
    return nn.Sequential(Standardised(backbone, channels), nn.Linear(64 * cells, classes))


def _pixels(x: Tensor, y: Tensor, classes: int, device: str) -> Pixels:
    """Pictures [n, c, h, w] as they lie on a training device, with no table of classes: rows are drawn by weight."""
    levels = (x * 255).round().clamp(0, 255).to(torch.uint8) if x.is_floating_point() else x
    counts = torch.bincount(y, minlength=classes)
    table = torch.zeros(classes, 0, dtype=torch.int64)
    lying = rearrange(levels, "n c h w -> n h w c").contiguous().to(device)
    return Pixels(lying, y.to(device), table.to(device), counts.to(device), torch.zeros_like(counts, device=device))
