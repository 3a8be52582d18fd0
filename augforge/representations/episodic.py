"""Training a backbone by episodes, as prototypical networks: the loss is what the nearest mean is asked to do.

Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NIPS 2017, with more classes in a training
episode than in a test one, as they advise. Differs from the paper: several episodes make one step, a half of the loss
may come from prototypes of one row, the learning rate falls along a cosine, and weights are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from augforge.networks.layers import set_generator
from augforge.networks.losses import prototypical_accuracy, prototypical_loss
from augforge.networks.pixels import Pixels
from augforge.representations.pictures import Augment, batch
from augforge.training.loop import Loop, Run, Stage, fast_arithmetic, step_generator

_JUDGED_EPISODES = 200


@dataclass(frozen=True)
class Lessons:
    """The settings of episodic training.

    Each of `steps` steps sees `episodes` episodes of `way` classes with `shot` support and `query` query rows;
    `one_shot` says that half of the loss is that of prototypes of one row; `temperature` divides squared distances;
    `near` fills an episode with classes of one group first.
    """

    steps: int
    episodes: int
    way: int
    shot: int
    query: int
    lr: float
    weight_decay: float
    temperature: float
    one_shot: bool
    near: bool
    augment: Augment


def draw_episodes(data: Pixels, shape: tuple[int, int, int], near: bool, generator: torch.Generator) -> Tensor:
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


def fits(data: Pixels, lessons: Lessons) -> tuple[int, int]:
    """The way and the query that the data can serve: the lessons' own, or fewer where classes or rows are few."""
    shot = lessons.shot
    query = min(lessons.query, max(1, int(data.counts.max()) - shot))
    enough = int((data.counts >= shot + query).sum())
    return min(lessons.way, enough), query


def train_episodic(net: nn.Module, data: Pixels, lessons: Lessons, seed: int, stage: Stage, run: Run) -> nn.Module:
    """Train `net` (pictures [b, c, h, w] in [0, 1] to features [b, d]) on the data's device, and return it in eval."""
    way, query = fits(data, lessons)
    optimiser = torch.optim.AdamW(net.parameters(), lessons.lr, weight_decay=lessons.weight_decay,
                                  fused=data.x.is_cuda or None)  # fmt: skip
    generator = torch.Generator(data.x.device)
    set_generator(net, generator)
    net.train()
    loop = Loop(net, optimiser, stage, run)
    for step in loop:
        step_generator(generator, seed, step)
        rows = draw_episodes(data, (lessons.episodes, way, lessons.shot + query), lessons.near, generator)
        x = batch(data, rows.flatten(), lessons.augment, generator)
        with fast_arithmetic(x.device):
            features = net(x).float()
        features = rearrange(features, "(e way s) d -> e way s d", e=lessons.episodes, way=way)
        support, queries = features[:, :, : lessons.shot], features[:, :, lessons.shot :]
        loss = prototypical_loss(support, queries, lessons.temperature)
        if lessons.one_shot and lessons.shot > 1:
            loss = (loss + prototypical_loss(support[:, :, :1], queries, lessons.temperature)) / 2
        loop.step(loss)
    set_generator(net, None)
    return loop.result()


def nearest_mean_score(features: Tensor, data: Pixels) -> tuple[float, float]:
    """The accuracy in percent of nearest means on features [n, d], with 1 and with 5 support rows.

    Over 200 episodes that are always the same, 20-way where there are 40 classes, else 5-way; what is learnt from.
    """
    way = 20 if data.classes >= 40 else min(5, data.classes)
    per_class = min(20, int(data.counts.min()))
    generator = torch.Generator(data.y.device).manual_seed(0)
    scores = []
    for shot in (1, min(5, per_class - 1)):
        accuracy = []
        for _ in range(_JUDGED_EPISODES // 20):
            rows = draw_episodes(data, (20, way, per_class), False, generator)
            x = features[rows].float()  # [e, way, per_class, d]
            accuracy.append(prototypical_accuracy(x[:, :, :shot], x[:, :, -(per_class - 5 if per_class > 5 else 1) :]))
        scores.append(100 * float(torch.cat(accuracy).mean()))
    return scores[0], scores[1]
