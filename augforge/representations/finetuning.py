"""Fine-tuning of a network with ImageNet weights on a few labelled photographs: head first, then the last blocks.

A linear head is trained on the frozen features, then the network's last stages with it, each earlier one at a smaller
learning rate (Howard & Ruder, "Universal language model fine-tuning for text classification", ACL 2018). Statistics of
batch normalisation stay those of ImageNet. Learning rates rise and fall once (Smith, "A disciplined approach to neural
network hyper-parameters", 2018; the momentum stays) or restart (Loshchilov & Hutter, "SGDR", ICLR 2017); the largest
is found by a range test (Smith, "Cyclical learning rates for training neural networks", WACV 2017). Weights are pulled
towards those of ImageNet (Li et al., "Explicit inductive bias for transfer learning with convolutional networks", ICML
2018). Where held-out pictures say that the network got no better, it stays as it was.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge import chance
from augforge.metrics.calibration import fitted_temperature
from augforge.networks.layers import built
from augforge.networks.photographs import with_folded_norms
from augforge.representations.supervised import leave_one_out_loss
from augforge.representations.tuning_data import Photographs, cropped, with_fold
from augforge.training.loop import (
    Loop,
    Run,
    Stage,
    epoch_batches,
    fast_arithmetic,
    minimise,
    one_cycle,
    restarts,
    step_generator,
)
from augforge.types import InputError

Tuned = Literal["none", "head", "last", "all"]
Schedule = Literal["one-cycle", "restarts"]

_HEAD_STEPS, _HEAD_LR = 300, 2e-3  # of Adam on all features at once, which takes a second
_MOMENTUM = 0.9
_RANGE, _RANGE_STEPS, _SMOOTH, _SLACK = (1e-4, 1.0), 20, 0.6, 0.05  # of the learning-rate range test
_EVALUATIONS, _AT_ONCE = 5, 32


@dataclass(frozen=True)
class FineTuning:
    """How a network is fine-tuned; the fields are settings of `photos`, described there."""

    finetune: Tuned
    steps: int
    batch_size: int
    lr: float
    lr_decay: float
    schedule: Schedule
    weight_decay: float
    l1: float
    l2_sp: float
    drop: float
    augment: bool
    flip: bool
    patience: int

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range."""
        for name, least in (("steps", 1), ("batch_size", 1), ("patience", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)} was given; expected a whole number of at least {least}")
        for name in ("lr", "weight_decay", "l1", "l2_sp"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} was given; expected a number of at least 0")
        if not 0 < self.lr_decay <= 1:
            raise InputError(f"lr_decay={self.lr_decay} was given; expected a number above 0 and at most 1")
        if not 0 <= self.drop < 1:
            raise InputError(f"drop={self.drop} was given; expected at least 0 and below 1")


class Learner(nn.Module):
    """The stages that learn, and a linear head: maps -> features [b, d] -> scores [b, classes].

    Batch normalisation stays in eval mode: its statistics are those that the network came with.
    """

    def __init__(self, tail: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.tail, self.head = tail, head

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the stages."""
        super().train(mode)
        self.tail.eval()
        return self

    def forward(self, maps: Tensor, drop: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Scores, with a share `drop` of the features set to zero by the generator."""
        return self.head(dropped(self.tail(maps).float(), drop, generator))


def fine_tune(
    net: nn.Module, base: Photographs, val: Photographs | None, settings: FineTuning, rng: torch.Generator, run: Run
) -> list[str]:
    """Fine-tune an EfficientNet of timm, in place, on run.device; what went wrong, in words.

    Training ends early by `val`, pictures of the same classes or of others, and without it by a quarter of `base`
    where each class has 8 pictures or more. Raises InputError for fewer than two classes and a loss that is not finite.
    """
    if len(base.y.unique()) < 2:
        raise InputError(f"fine-tuning needs at least 2 classes; there is {len(base.y.unique())}")
    seed = int(chance.draw_keys(1, rng))
    if val is None:
        base, val = with_fold(base, seed)
    stays, tail = split(net.to(run.device).eval(), settings.finetune)
    frozen = with_folded_norms(copy.deepcopy(stays))
    width = tail(frozen(_shown(base.x[:1], base.side))).shape[1]
    head = cast(nn.Linear, built(lambda: nn.Linear(width, len(base.classes)), rng).to(run.device))
    learner = Learner(tail, head)
    _train_head(learner, frozen, base, settings, seed, run)

    tail.requires_grad_(True)
    maps = None if settings.augment else _maps(frozen, base)
    batches = partial(_batch, frozen, base, maps, settings, seed)
    start = {key: value.clone() for key, value in learner.state_dict().items()}
    score = None if val is None else _scored(val, _maps(frozen, val), base.classes)
    before = -math.inf if score is None else score(learner.eval())
    lr = settings.lr or found_rate(learner, batches, settings, run)
    loop = _train(learner, batches, settings, lr, score, run)
    tail.requires_grad_(False)
    if score is not None and not loop.best_score > before:
        learner.load_state_dict(start)
        loop.log({"kept": "start", "score": before})
        return ["fine-tuning lost on the held-out pictures, so that the weights stay as they were"]
    return []


def split(net: nn.Module, finetune: Tuned) -> tuple[nn.Sequential, nn.Sequential]:
    """An EfficientNet of timm as the stages that stay and those that learn; pictures [b, 3, h, w] in -1..1 go in.

    "head" is the last convolution, "last" that and the last two stages of blocks, "all" everything.
    """
    parts = cast(Any, net)
    stages = [nn.Sequential(parts.conv_stem, parts.bn1), *parts.blocks,
              nn.Sequential(parts.conv_head, parts.bn2, parts.global_pool)]  # fmt: skip
    first = len(stages) - {"head": 1, "last": 3, "all": len(stages)}[finetune]
    return nn.Sequential(*stages[:first]), nn.Sequential(*stages[first:])


def dropped(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Features [b, d] with a share set to zero and the rest scaled up to the same mean (dropout)."""
    if share <= 0 or generator is None:
        return x
    return x * (torch.rand(x.shape, generator=generator, device=x.device) >= share) / (1 - share)


def penalty(learner: Learner, start: Sequence[Tensor], settings: FineTuning) -> Tensor:
    """L2 and L1 of all weights that learn, and L2-SP: the squared distance of the stages' to their `start`.

    weight_decay / 2 sum w^2 + l1 sum |w| + l2_sp / 2 sum (w - w_start)^2.
    """
    total = torch.zeros((), device=learner.head.weight.device)
    weights = [p for p in learner.parameters() if p.requires_grad and p.ndim > 1]  # no bias, no normalisation
    if settings.weight_decay:
        total = total + settings.weight_decay / 2 * sum(p.square().sum() for p in weights)
    if settings.l1:
        total = total + settings.l1 * sum(p.abs().sum() for p in weights)
    if settings.l2_sp and start:
        pairs = zip(learner.tail.parameters(), start, strict=True)
        total = total + settings.l2_sp / 2 * sum((p - begun).square().sum() for p, begun in pairs)
    return total


def rate_groups(learner: Learner, lr: float, lr_decay: float) -> list[dict[str, Any]]:
    """The head at `lr`, and each earlier stage at `lr_decay` times the rate of the one behind it."""
    layers: list[nn.Module] = [learner.head, *reversed(list(learner.tail))]
    return [{"params": list(layer.parameters()), "lr": lr * lr_decay**k} for k, layer in enumerate(layers)]


Batches = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # (step, generator) -> maps and labels


def _batch(
    frozen: nn.Module, base: Photographs, maps: Tensor | None, settings: FineTuning, seed: int, step: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What the learning stages see at a step, and labels; the generator is set to the step's."""
    size = min(settings.batch_size, len(base.y))
    epoch, place = divmod(step, max(1, len(base.y) // size))
    rows = epoch_batches(len(base.y), size, seed, epoch)[place].to(base.y.device)
    step_generator(generator, seed, step)
    if maps is not None:
        return maps[rows], base.y[rows]
    return _forward(frozen, 2 * cropped(base.x[rows], base.side, settings.flip, generator) - 1), base.y[rows]


def _train(
    learner: Learner, batches: Batches, settings: FineTuning, lr: float,
    score: Callable[[nn.Module], float] | None, run: Run,
) -> Loop:  # fmt: skip
    """Train the stages and the head, in place."""
    start = [p.detach().clone() for p in learner.tail.parameters()]
    optimiser = torch.optim.SGD(rate_groups(learner, lr, settings.lr_decay), momentum=_MOMENTUM, nesterov=True)
    schedule = {"one-cycle": one_cycle, "restarts": restarts}[settings.schedule]
    stage = Stage("finetune", settings.steps, asdict(settings), schedule, clip=1.0, evaluate=score,
                  evaluations=_EVALUATIONS, patience=settings.patience)  # fmt: skip
    generator = torch.Generator(run.device)
    loop = Loop(learner.train(), optimiser, stage, run)
    for step in loop:
        loop.step(_loss(learner, batches(step, generator), generator, start, settings))
    loop.result()
    return loop


def _loss(
    learner: Learner, batch: tuple[Tensor, Tensor], generator: torch.Generator, start: Sequence[Tensor],
    settings: FineTuning,
) -> Tensor:  # fmt: skip
    maps, y = batch
    with fast_arithmetic(maps.device):
        scores = learner(maps, settings.drop, generator)
    return F.cross_entropy(scores.float(), y) + penalty(learner, start, settings)


def _train_head(
    learner: Learner, frozen: nn.Module, base: Photographs, settings: FineTuning, seed: int, run: Run
) -> None:
    """Train the head on the features of the network as it is, of pictures and of their mirror images."""
    views = [base, Photographs(base.x.flip(3), base.y, base.classes, base.side)] if settings.flip else [base]
    features = torch.cat([_maps(nn.Sequential(frozen, learner.tail), view) for view in views])
    optimiser = torch.optim.Adam(learner.head.parameters(), _HEAD_LR)
    generator = torch.Generator(run.device)
    loop = Loop(learner.head, optimiser, Stage("head", _HEAD_STEPS, asdict(settings)), run)
    for step in loop:
        scores = learner.head(dropped(features, settings.drop, step_generator(generator, seed, step)))
        loop.step(F.cross_entropy(scores, base.y.repeat(len(views))) + penalty(learner, (), settings))
    loop.result()


def found_rate(learner: Learner, batches: Batches, settings: FineTuning, run: Run) -> float:
    """A tenth of the largest learning rate, of rates that rise from 1e-4 to 1, whose loss is near the lowest.

    Losses are smoothed. The learner stays. The run's folder gets learning-rate.json, which a run that goes on reads,
    and a plot. Differs from the paper: a head that fits already has no steepest descent, so the end of the flat counts.
    """
    path = None if run.folder is None else run.folder / "learning-rate.json"
    if path is not None and path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["settings"] == asdict(settings):
            return float(kept["chosen"])
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    tried = list(_range_test(learner, batches, settings, run.device))
    learner.load_state_dict(before)
    if not tried:
        raise InputError("the first loss of the learning-rate range test is not finite; expected the setting lr=RATE")
    rates, losses = [rate for rate, _ in tried], [loss for _, loss in tried]
    chosen = max(rate for rate, loss in tried if loss <= 1.25 * min(losses) + _SLACK) / 10
    if path is not None:
        record = {"settings": asdict(settings), "chosen": chosen, "rates": rates, "smoothed_losses": losses}
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        _plot(path.with_suffix(".png"), rates, losses, chosen)
    return chosen


def _range_test(learner: Learner, batches: Batches, settings: FineTuning, device: str) -> Iterator[tuple[float, float]]:
    """The rates and the smoothed losses of the test, which changes the learner; it ends where the loss has doubled."""
    start = [p.detach().clone() for p in learner.tail.parameters()]
    optimiser = torch.optim.SGD(rate_groups(learner, 1.0, settings.lr_decay), momentum=_MOMENTUM, nesterov=True)
    factors = [group["lr"] for group in optimiser.param_groups]
    generator, mean, lowest = torch.Generator(device), 0.0, math.inf
    learner.train()
    for step in range(_RANGE_STEPS):
        rate = _RANGE[0] * (_RANGE[1] / _RANGE[0]) ** (step / (_RANGE_STEPS - 1))
        for group, factor in zip(optimiser.param_groups, factors, strict=True):
            group["lr"] = rate * factor
        loss = _loss(learner, batches(step, generator), generator, start, settings)
        mean = _SMOOTH * mean + (1 - _SMOOTH) * float(loss.detach())
        smoothed = mean / (1 - _SMOOTH ** (step + 1))
        if not smoothed < 2 * lowest + 2 * _SLACK:
            return
        lowest = min(lowest, smoothed)
        yield rate, smoothed
        minimise(loss, optimiser, 1.0)


def _plot(path: Path, rates: list[float], losses: list[float], chosen: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="smoothed loss", title=f"{chosen:.2g}")
    axes.plot(rates, losses)
    axes.axvline(chosen, color="grey", linestyle="--")
    figure.savefig(path, dpi=120)


def _scored(val: Photographs, maps: Tensor, classes: tuple[str, ...]) -> Callable[[nn.Module], float]:
    """How well a learner does on held-out pictures, higher is better: minus a cross-entropy.

    That of the head where all their classes are among those that it knows, at the temperature that suits it best, as
    training makes a head too sure of other pictures long before it names fewer of them; else of prototypes of the other
    pictures.
    """
    known = {name: k for k, name in enumerate(classes)}
    same = all(name in known for name in val.classes)
    y = torch.tensor([known[val.classes[k]] if same else k for k in val.y.tolist()], device=val.y.device)

    def score(learner: nn.Module) -> float:
        trained = cast(Learner, learner)
        features = _forward(trained.tail, maps)
        with torch.no_grad():
            if not same:
                return -float(leave_one_out_loss(features, y))
            scores = trained.head(features)
            return -float(F.cross_entropy(scores / fitted_temperature(scores, y), y))

    return score


def _maps(frozen: nn.Module, data: Photographs) -> Tensor:
    """What the learning stages see of the middle of each picture."""
    return torch.cat([_forward(frozen, _shown(part, data.side)) for part in data.x.split(_AT_ONCE)])


def _forward(net: nn.Module, x: Tensor) -> Tensor:
    at_once = 1 if x.device.type == "cpu" else _AT_ONCE  # a picture's maps fill a processor's caches
    with torch.no_grad(), fast_arithmetic(x.device):
        return torch.cat([net(part).float() for part in x.split(at_once)])


def _shown(x: Tensor, side: int) -> Tensor:
    """The middle of pictures [b, 3, s, s] uint8 as a network takes it: [b, 3, side, side] in -1..1."""
    at = round((x.shape[2] - side) / 2)
    return x[:, :, at : at + side, at : at + side].float() / 127.5 - 1
