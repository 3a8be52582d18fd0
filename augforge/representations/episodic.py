"""Training a backbone by episodes, as prototypical networks: the loss is that of the nearest mean on query rows.

Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NIPS 2017, with more classes in a training
episode than in a test one, as they advise. Differs from the paper: several episodes make one step, a half of the loss
may come from prototypes of one row, the learning rate falls along a cosine, and weights are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from augforge.metrics.rows import squared_distances
from augforge.networks.layers import set_generator
from augforge.networks.pixels import Pixels
from augforge.representations.pictures import Augment, batch
from augforge.training.loop import Loop, Run, Stage, fast_arithmetic, step_generator

_VALIDATION_EPISODES = 200


@dataclass(frozen=True)
class EpisodicSettings:
    """The settings of episodic training, by AdamW."""

    steps: int
    episodes: int  # in one step
    way: int  # classes of an episode
    shot: int  # support rows of a class
    query: int  # query rows of a class
    lr: float  # learning rate
    weight_decay: float
    temperature: float  # divides squared distances
    one_shot: bool  # half of the loss is that of prototypes of one row
    near: bool  # an episode is filled with classes of one group first
    augment: Augment


def prototypical_logits(support: Tensor, query: Tensor, temperature: float = 1.0) -> Tensor:
    """Logits [e, q, way]: minus the squared distance of `query` [e, q, d] to the means of `support` [e, way, shot, d].

    Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NIPS 2017, equations 1 and 2;
    `temperature` divides the distances. Computed in float32 whatever comes in.
    """
    means = reduce(support.float(), "e way shot d -> e way d", "mean")
    return -squared_distances(query.float(), means) / temperature


def prototypical_loss(support: Tensor, query: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean cross-entropy of `query` [e, way, n_query, d], which are ordered by class, against `support`.

    `support` is [e, way, shot, d].
    """
    way, n_query = query.shape[1:3]
    logits = prototypical_logits(support, rearrange(query, "e way q d -> e (way q) d"), temperature)
    target = torch.arange(way, device=logits.device).repeat_interleave(n_query).repeat(len(logits))  # [e * way * q]
    return F.cross_entropy(rearrange(logits, "e q way -> (e q) way"), target)


def prototypical_accuracy(support: Tensor, query: Tensor) -> Tensor:
    """The accuracy [e], 0 to 1, of nearest means on `query` [e, way, n_query, d] given `support` [e, way, shot, d]."""
    way, n_query = query.shape[1:3]
    logits = prototypical_logits(support, rearrange(query, "e way q d -> e (way q) d"))
    target = torch.arange(way, device=logits.device).repeat_interleave(n_query)  # [way * q]
    return reduce((logits.argmax(-1) == target).float(), "e q -> e", "mean")


class Labelled(Protocol):
    """What episodes are drawn from: the rows of each class, as `Pixels` has them."""

    @property
    def y(self) -> Tensor:
        """Labels [n]."""

    @property
    def table(self) -> Tensor:
        """The rows [classes, most] of each class."""

    @property
    def counts(self) -> Tensor:
        """How many rows each class has [classes]."""

    @property
    def groups(self) -> Tensor:
        """The group of each class [classes]."""

    @property
    def classes(self) -> int:
        """How many classes there are."""


def draw_episodes(data: Labelled, shape: tuple[int, int, int], near: bool, generator: torch.Generator) -> Tensor:
    """Rows [e, way, per_class] for `shape` (e, way, per_class), on the data's device: no row twice in an episode.

    With `near` the classes of one group, that of a class drawn at random, come first; others fill up. Classes with
    fewer than `per_class` rows are left out, so `way` must not exceed the others.
    """
    e, way, per_class = shape
    device = data.y.device
    draw = torch.rand(e, data.classes, generator=generator, device=device)
    draw = draw - 2 * (data.counts < per_class).float()
    if near:
        group = data.groups[draw.argmax(1)]  # [e]: of the class that was drawn highest
        draw = draw + (data.groups[None, :] == group[:, None]).float()
    classes = draw.topk(way, dim=1).indices  # [e, way]
    most = data.table.shape[1]
    order = torch.rand(e, way, most, generator=generator, device=device)
    order = order - (torch.arange(most, device=device) >= data.counts[classes][..., None]).float()
    return data.table[classes].gather(2, order.topk(per_class, dim=2).indices)


def fits(data: Pixels, settings: EpisodicSettings) -> tuple[int, int]:
    """The way and the query that the data can serve: those of the settings, or fewer where classes or rows are few."""
    shot = settings.shot
    query = min(settings.query, max(1, int(data.counts.max()) - shot))
    enough = int((data.counts >= shot + query).sum())
    return min(settings.way, enough), query


def train_episodic(
    net: nn.Module, data: Pixels, settings: EpisodicSettings, seed: int, stage: Stage, run: Run
) -> nn.Module:
    """Train `net` (pictures [b, c, h, w] in [0, 1] to features [b, d]) on the data's device, and return it in eval."""
    way, query = fits(data, settings)
    optimiser = torch.optim.AdamW(net.parameters(), settings.lr, weight_decay=settings.weight_decay,
                                  fused=data.x.is_cuda or None)  # fmt: skip
    generator = torch.Generator(data.x.device)
    set_generator(net, generator)
    net.train()
    loop = Loop(net, optimiser, stage, run)
    for step in loop:
        step_generator(generator, seed, step)
        rows = draw_episodes(data, (settings.episodes, way, settings.shot + query), settings.near, generator)
        x = batch(data, rows.flatten(), settings.augment, generator)
        with fast_arithmetic(x.device):
            features = net(x).float()
        features = rearrange(features, "(e way s) d -> e way s d", e=settings.episodes, way=way)
        support, queries = features[:, :, : settings.shot], features[:, :, settings.shot :]
        loss = prototypical_loss(support, queries, settings.temperature)
        if settings.one_shot and settings.shot > 1:
            loss = (loss + prototypical_loss(support[:, :, :1], queries, settings.temperature)) / 2
        loop.step(loss)
    set_generator(net, None)
    return loop.result()


def nearest_mean_score(features: Tensor, data: Labelled) -> tuple[float, float]:
    """The accuracy in percent of nearest means on features [n, d], with 1 and with 5 support rows.

    Over 200 episodes that are always the same, 20-way where there are 40 classes, else 5-way.
    """
    way = 20 if data.classes >= 40 else min(5, data.classes)
    per_class = min(20, int(data.counts.min()))
    generator = torch.Generator(data.y.device).manual_seed(0)
    scores = []
    for shot in (1, min(5, per_class - 1)):
        accuracy = []
        for _ in range(_VALIDATION_EPISODES // 20):
            rows = draw_episodes(data, (20, way, per_class), False, generator)
            x = features[rows].float()  # [e, way, per_class, d]
            accuracy.append(prototypical_accuracy(x[:, :, :shot], x[:, :, -(per_class - 5 if per_class > 5 else 1) :]))
        scores.append(100 * float(torch.cat(accuracy).mean()))
    return scores[0], scores[1]
