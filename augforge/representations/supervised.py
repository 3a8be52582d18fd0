"""Training a backbone as an ordinary classifier of the base classes, whose last layer is then thrown away.

Chen et al., "A closer look at few-shot classification", ICLR 2019 (Baseline, and with the cosine head Baseline++);
Tian et al., "Rethinking few-shot image classification: a good embedding is all you need?", ECCV 2020. The optional
second task, to classify by which right angle a picture was turned, is from Gidaris et al., "Boosting few-shot visual
learning with self-supervision", ICCV 2019. The penalties on features are from Hariharan & Girshick, "Low-shot visual
recognition by shrinking and hallucinating features", ICCV 2017. Prototypes of all other rows of a batch are compared
with other losses in Laenen & Bertinetto, "On episodes, prototypical networks, and few-shot learning", NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge.networks.layers import CosineHead, built, set_generator
from augforge.networks.pixels import Pixels
from augforge.representations.pictures import Augment, batch
from augforge.training.loop import Loop, Run, Stage, epoch_batches, fast_arithmetic, step_generator

Head = Literal["linear", "cosine"]
Penalty = Literal["none", "sgm", "l2", "prototypes"]

_SHARP = 10.0  # what cosines to prototypes are multiplied by, as in the cosine head's start


@dataclass(frozen=True)
class SupervisedSettings:
    """The settings of supervised training, by SGD with Nesterov momentum 0.9."""

    epochs: int
    batch_size: int
    lr: float  # learning rate
    weight_decay: float
    label_smoothing: float
    head: Head
    turns: bool  # turn a quarter of each batch by each right angle, and train a second head to classify which
    augment: Augment
    penalty: Penalty = "none"  # `squared_gradients`, "l2": mean squared length, or "prototypes": `leave_one_out_loss`
    penalty_weight: float = 0.0  # what the penalty is multiplied by before it is added to the loss


class WithHeads(nn.Module):
    """A backbone with a head for classes and one for right angles: [b, c, h, w] -> [b, d], [b, classes], [b, 4]."""

    def __init__(self, net: nn.Module, classes: nn.Module, angles: nn.Module) -> None:
        super().__init__()
        self.net, self.classes, self.angles = net, classes, angles

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features, and scores of the classes and of the angles."""
        features = self.net(x)
        return features, self.classes(features), self.angles(features)


def steps_of(data: Pixels, settings: SupervisedSettings) -> int:
    """How many steps the epochs have."""
    return settings.epochs * max(1, len(data.y) // settings.batch_size)


def with_heads(net: nn.Module, width: int, data: Pixels, head: Head, rng: torch.Generator) -> WithHeads:
    """The backbone, whose features are `width` wide, with new heads started from `rng`."""
    make = CosineHead if head == "cosine" else nn.Linear
    classes, angles = built(lambda: make(width, data.classes), rng), built(lambda: nn.Linear(width, 4), rng)
    return WithHeads(net, classes.to(data.x.device), angles.to(data.x.device))


def train_supervised(
    net: WithHeads, data: Pixels, settings: SupervisedSettings, seed: int, stage: Stage, run: Run
) -> nn.Module:
    """Train on the data's device; the backbone without its heads is returned in eval mode."""
    optimiser = torch.optim.SGD(net.parameters(), settings.lr, 0.9, weight_decay=settings.weight_decay, nesterov=True,
                                fused=data.x.is_cuda or None)  # fmt: skip
    generator = torch.Generator(data.x.device)
    set_generator(net, generator)
    net.train()
    loop = Loop(net, optimiser, stage, run)
    batches: list[Tensor] = []
    for step in loop:
        epoch, place = divmod(step, max(1, len(data.y) // settings.batch_size))
        if place == 0 or not batches:
            batches = [rows.to(data.x.device) for rows in epoch_batches(len(data.y), settings.batch_size, seed, epoch)]
        rows = batches[place]
        x = batch(data, rows, settings.augment, step_generator(generator, seed, step))
        angle = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if settings.turns:
            x, angle = turned(x)
        with fast_arithmetic(x.device):
            features, classes, angles = net(x)
        loss = F.cross_entropy(classes.float(), data.y[rows], label_smoothing=settings.label_smoothing)
        if settings.turns:
            loss = (loss + F.cross_entropy(angles.float(), angle)) / 2
        if settings.penalty != "none":
            loss = loss + settings.penalty_weight * _penalty(settings, features, classes, data.y[rows])
        loop.step(loss)
    set_generator(net, None)
    loop.result()
    return net.net


def _penalty(settings: SupervisedSettings, features: Tensor, scores: Tensor, y: Tensor) -> Tensor:
    if settings.penalty == "sgm":
        return squared_gradients(features.float(), scores.float(), y)
    if settings.penalty == "prototypes":
        return leave_one_out_loss(features.float(), y)
    return features.float().square().sum(1).mean()


def squared_gradients(features: Tensor, scores: Tensor, y: Tensor) -> Tensor:
    """The SGM loss [] of features [b, d] with scores [b, classes] = features W^T + bias and classes `y` [b].

    The mean over rows of || d CE(scores, y) / d W ||^2. The gradient with respect to W_k is (p_k - [y = k]) times the
    features, so it is alpha ||features||^2 with alpha = sum over k of (p_k - [y = k])^2 (section 3 of the paper).
    """
    wrong = torch.softmax(scores, 1) - F.one_hot(y, scores.shape[1])
    return (wrong.square().sum(1) * features.square().sum(1)).mean()


def leave_one_out_loss(features: Tensor, y: Tensor) -> Tensor:
    """The loss [] of classifying features [b, d], each by the prototypes of a batch's other rows; classes are `y` [b].

    Cross-entropy of ten times the cosine to the mean of each class, the features made of length 1 first. For a row's
    own class it is the mean of the other rows of that class; a row that is alone in its class is left out.
    """
    _, place = torch.unique(y, return_inverse=True)
    x = F.normalize(features, dim=1)
    member = F.one_hot(place).to(x)  # [b, classes]
    sums = member.T @ x
    others = F.normalize(sums[place] - x, dim=1)
    scores = torch.where(member > 0, (x * others).sum(1, keepdim=True), x @ F.normalize(sums, dim=1).T)
    accompanied = member.sum(0)[place] > 1
    if not accompanied.any():
        return x.sum() * 0
    return F.cross_entropy(_SHARP * scores[accompanied], place[accompanied])


def turned(x: Tensor) -> tuple[Tensor, Tensor]:
    """Square pictures [b, c, h, h], a quarter of them turned by each right angle, and their quarter turns [b]."""
    parts = x.tensor_split(4)
    angle = torch.cat([torch.full((len(part),), k, device=x.device) for k, part in enumerate(parts)])
    quarters = [torch.rot90(part, k, (2, 3)) for k, part in enumerate(parts)]
    return torch.cat(quarters).contiguous(memory_format=torch.channels_last), angle
