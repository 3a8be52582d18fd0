"""A backbone trained on base classes: by supervised cross-entropy, by episodes, or by both in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from augforge import chance
from augforge.networks.layers import built, inference_copy
from augforge.networks.pixels import Pixels, load_pixels
from augforge.representations.backbones import Arch, Standardised, as_trained, embedded, make_backbone
from augforge.representations.episodic import EpisodicSettings, nearest_mean_score, train_episodic
from augforge.representations.pictures import Augment, statistics
from augforge.representations.supervised import (
    Head,
    Penalty,
    SupervisedSettings,
    steps_of,
    train_supervised,
    with_heads,
)
from augforge.training.loop import Run, Stage, cosine, fast_arithmetic
from augforge.types import Bank, InputError, Space


@dataclass
class ConvNet:
    """A convolutional backbone trained on base classes.

    Supervised: Chen et al., "A closer look at few-shot classification", ICLR 2019. Episodic: Snell et al.,
    "Prototypical networks for few-shot learning", NIPS 2017. The penalties "sgm" and "l2" are those of Hariharan &
    Girshick, ICCV 2017, "prototypes" is the loss of Laenen & Bertinetto, NeurIPS 2021.
    """

    space: ClassVar[Space] = "image"
    trains: ClassVar[bool] = True

    arch: Arch = "conv4"  # conv4, resnet10, resnet12 or resnet18
    method: Literal["supervised", "episodic", "both"] = "supervised"  # both: in that order
    size: int = 0  # side in px that pictures are made square at; 0: as they are, all alike
    augment: Augment = "crop"  # none, crop, colour or strokes
    drop: float = 0.0  # share that DropBlock drops in resnet12, at least 0 and below 1
    average: float = 0.999  # decay of the moving average of weights, at least 0 (none) and below 1
    epochs: int = 90  # supervised: passes through the pictures, at least 1
    batch_size: int = 128  # supervised: pictures of a step, at least 1
    lr: float = 0.1  # supervised: learning rate of SGD, above 0
    weight_decay: float = 5e-4  # of both, at least 0
    label_smoothing: float = 0.1  # supervised, at least 0 and below 1
    head: Head = "linear"  # supervised: linear or cosine
    turns: bool = False  # supervised: classify right angles as a second task; pictures must be square
    penalty: Penalty = "none"  # supervised: sgm (squared gradient magnitude), l2 (squared length) or prototypes
    penalty_weight: float = 0.02  # what the penalty is multiplied by, at least 0; 0.02 was published for sgm
    steps: int = 6000  # episodic, at least 1
    episodes: int = 1  # episodic: in one step, at least 1
    way: int = 20  # episodic: classes of an episode, at least 2
    shot: int = 5  # episodic: support rows of a class, at least 1
    query: int = 10  # episodic: query rows of a class, at least 1
    episodic_lr: float = 1e-3  # episodic: learning rate of AdamW, above 0
    temperature: float = 1.0  # episodic: divides squared distances, above 0
    one_shot: bool = True  # episodic: half of the loss is that of prototypes of one row
    within: str = ""  # episodic: column, or several joined with +; classes of an episode come from one group first
    net_: Standardised | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range."""
        for name in ("epochs", "batch_size", "steps", "episodes", "shot", "query"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} was given; expected a whole number of at least 1")
        if self.way < 2:
            raise InputError(f"way={self.way} was given; expected at least 2 classes in an episode")
        for name in ("lr", "episodic_lr", "temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)} was given; expected a number above 0")
        for name in ("drop", "average", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} was given; expected at least 0 and below 1")
        for name in ("size", "weight_decay", "penalty_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} was given; expected a number of at least 0")
        if self.penalty == "sgm" and self.head != "linear":
            raise InputError("penalty='sgm' is the gradient of a linear head; expected head='linear', or penalty='l2'")

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None, run: Run | None = None) -> Self:
        """Train on the pictures of `base`; with `val` the weights of the best of ten validations are kept.

        Raises InputError for fewer than two classes, pictures of several sizes with no `size`, a loss that is not
        finite, and a run whose folder holds other settings.
        """
        run = Run() if run is None else run
        data = load_pixels(base, self.size, run.device, self.within)
        if data.classes < 2:
            raise InputError(f"a backbone needs at least 2 base classes to learn from; there is {data.classes}")
        if self.turns and data.x.shape[1] != data.x.shape[2]:
            raise InputError("turns=true needs square pictures; expected the setting size=PX, which makes them so")
        validate = None if val is None else _validation(load_pixels(val, self.size, run.device))
        self.facts_ = {"channels": data.x.shape[3], "height": data.x.shape[1], "width": data.x.shape[2]}
        net = self._network(rng)
        net.mean, net.deviation = statistics(data)
        net = net.to(run.device).to(memory_format=torch.channels_last)
        if self.method != "episodic":
            self._train_supervised(net, data, rng, validate, run)
        if self.method != "supervised":
            self._train_episodic(net, data, rng, validate, run)
        self.net_ = net.cpu().eval().requires_grad_(False)
        return self

    def _train_supervised(
        self, net: nn.Module, data: Pixels, rng: torch.Generator, validate: Validate | None, run: Run
    ) -> None:
        """Train by supervised cross-entropy, in place."""
        settings = SupervisedSettings(self.epochs, min(self.batch_size, len(data.y)), self.lr, self.weight_decay,
                              self.label_smoothing, self.head, self.turns, self.augment, self.penalty,
                              self.penalty_weight)  # fmt: skip
        heads = with_heads(net, embedded(net.eval(), data.x[:1].permute(0, 3, 1, 2)).shape[1], data, self.head, rng)
        score = None if validate is None else lambda trained: validate(trained.net, True)
        stage = Stage("supervised", steps_of(data, settings), asdict(self), partial(cosine, warmup=0.02), self.average,
                      evaluate=score)  # fmt: skip
        train_supervised(heads, data, settings, _seed(rng), stage, run)

    def _train_episodic(
        self, net: nn.Module, data: Pixels, rng: torch.Generator, validate: Validate | None, run: Run
    ) -> None:
        """Train by episodes, in place."""
        settings = EpisodicSettings(
            self.steps, self.episodes, self.way, self.shot, self.query, self.episodic_lr, self.weight_decay,
            self.temperature, self.one_shot, bool(self.within), self.augment,
        )  # fmt: skip
        score = None if validate is None else lambda trained: validate(trained, False)
        stage = Stage("episodic", self.steps, asdict(self), partial(cosine, warmup=0.02), self.average, evaluate=score)
        train_episodic(net, data, settings, _seed(rng), stage, run)

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty network for pictures of facts["channels"] x facts["height"] x facts["width"]."""
        self.facts_ = dict(facts)
        self.net_ = self._network(None).eval().requires_grad_(False)

    def _network(self, rng: torch.Generator | None) -> Standardised:
        channels, side = self.facts_["channels"], min(self.facts_["height"], self.facts_["width"])
        return Standardised(built(lambda: make_backbone(self.arch, channels, side, self.drop), rng), channels)

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], uint8 or floats in [0, 1], or a list of them, to features [n, d] float32.

        On the device of `x`, in bfloat16 under autocast. No bit of a picture's features depends on the other pictures.
        Grey pictures are repeated where colour was learnt. Raises InputError before `fit` and for pictures of another
        size than those it was trained on.
        """
        net = self._ready()
        x = as_trained(x, self.size, self.facts_, self.arch)
        return embedded(inference_copy(net.to(x.device)), x)

    def _ready(self) -> Standardised:
        if self.net_ is None:
            raise InputError(f"{self.arch} is not fitted yet; expected fit(base, rng) or a folder from `fit`")
        return self.net_


Validate = Callable[[nn.Module, bool], float]  # (network, whether features are centred) -> accuracy in percent


def centred(x: Tensor) -> Tensor:
    """Features [n, d] minus their mean, at length 1."""
    return nn.functional.normalize(x - x.mean(0), dim=1)


def _validation(val: Pixels) -> Validate:
    """The mean of 1-shot and 5-shot accuracy of nearest means on the validation classes, in percent."""

    def validate(net: nn.Module, centre: bool) -> float:
        with fast_arithmetic(val.x.device):
            x = embedded(net, rearrange(val.x, "n h w c -> n c h w"))
        return sum(nearest_mean_score(centred(x) if centre else x, val)) / 2

    return validate


def _seed(rng: torch.Generator) -> int:
    return int(chance.draw_keys(1, rng))
