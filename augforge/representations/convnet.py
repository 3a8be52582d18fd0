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
from augforge.networks.layers import built, folded
from augforge.networks.pixels import Pixels, load_pixels, prepared
from augforge.representations.backbones import Arch, make_backbone
from augforge.representations.episodic import Lessons, nearest_mean_score, train_episodic
from augforge.representations.pictures import Augment, statistics
from augforge.representations.supervised import Head, Penalty, Schooling, steps_of, train_supervised, with_heads
from augforge.training.loop import Run, Stage, cosine, fast_arithmetic
from augforge.types import Bank, InputError

_ROWS_AT_ONCE = 512


class Standardised(nn.Module):
    """A network behind the standardisation of its pictures: [n, c, h, w] in [0, 1] -> [n, d]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module, channels: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise each channel and go through the network."""
        mean, deviation = (rearrange(v, "c -> c 1 1") for v in (self.mean, self.deviation))
        return self.net((x - mean) / deviation)


@dataclass
class ConvNet:
    """A convolutional backbone trained on base classes.

    `method` is "supervised" (Chen et al., ICLR 2019), "episodic" (Snell et al., NIPS 2017) or "both", in that order.
    `size` in px makes pictures square (0: as they are, all alike); `augment` is none, crop, colour or strokes;
    `drop` is DropBlock's share in ResNet-12; `average` the decay of the moving average of weights.

    Supervised: `epochs`, `batch_size`, `lr`, `weight_decay`, `label_smoothing`, `head` linear or cosine, `turns`
    (telling right angles as a second task), and `penalty` times `penalty_weight` on the features (Hariharan & Girshick,
    ICCV 2017): "sgm", the squared gradient magnitude of the linear head, or "l2", the squared length (0.02 is the
    weight that the authors published for sgm), or "prototypes": each row is also told by the means of the batch's other
    rows (Laenen & Bertinetto, NeurIPS 2021). Episodic: `steps` of `episodes` episodes of `way` classes with `shot`
    and `query` rows, `episodic_lr`, `temperature`, `one_shot` (half of the loss from prototypes of one row),
    `within` (a column of the bank, or several joined with +: an episode's classes come from one group of it first).
    """

    space: ClassVar[Literal["image"]] = "image"
    trains: ClassVar[bool] = True

    arch: Arch = "conv4"
    method: Literal["supervised", "episodic", "both"] = "supervised"
    size: int = 0
    augment: Augment = "crop"
    drop: float = 0.0
    average: float = 0.999
    epochs: int = 90
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    head: Head = "linear"
    turns: bool = False
    penalty: Penalty = "none"
    penalty_weight: float = 0.02
    steps: int = 6000
    episodes: int = 1
    way: int = 20
    shot: int = 5
    query: int = 10
    episodic_lr: float = 1e-3
    temperature: float = 1.0
    one_shot: bool = True
    within: str = ""
    net_: nn.Module | None = field(default=None, init=False, repr=False)
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
        """Train on the pictures of `base`; with `val` the best of ten looks at its classes is kept.

        Raises InputError for fewer than two classes, pictures of several sizes with no `size`, a loss that is not
        finite, and a run whose folder holds other settings.
        """
        run = Run() if run is None else run
        data = load_pixels(base, self.size, run.device, self.within)
        if data.classes < 2:
            raise InputError(f"a backbone needs at least 2 base classes to learn from; there is {data.classes}")
        if self.turns and data.x.shape[1] != data.x.shape[2]:
            raise InputError("turns=true needs square pictures; expected the setting size=PX, which makes them so")
        judge = None if val is None else _judge(load_pixels(val, self.size, run.device))
        self.facts_ = {"channels": data.x.shape[3], "height": data.x.shape[1], "width": data.x.shape[2]}
        net = built(self._make, rng)
        assert isinstance(net, Standardised)
        net.mean, net.deviation = statistics(data)
        net = net.to(run.device).to(memory_format=torch.channels_last)
        if self.method != "episodic":
            self._school(net, data, rng, judge, run)
        if self.method != "supervised":
            self._teach(net, data, rng, judge, run)
        self.net_ = net.cpu().eval().requires_grad_(False)
        return self

    def _school(self, net: nn.Module, data: Pixels, rng: torch.Generator, judge: Judge | None, run: Run) -> None:
        """Train by supervised cross-entropy, in place."""
        schooling = Schooling(self.epochs, min(self.batch_size, len(data.y)), self.lr, self.weight_decay,
                              self.label_smoothing, self.head, self.turns, self.augment, self.penalty,
                              self.penalty_weight)  # fmt: skip
        heads = with_heads(net, embedded(net.eval(), data.x[:1].permute(0, 3, 1, 2)).shape[1], data, self.head, rng)
        score = None if judge is None else lambda whole: judge(whole.net, True)
        stage = Stage("supervised", steps_of(data, schooling), asdict(self), partial(cosine, warmup=0.02), self.average,
                      evaluate=score)  # fmt: skip
        train_supervised(heads, data, schooling, _seed(rng), stage, run)

    def _teach(self, net: nn.Module, data: Pixels, rng: torch.Generator, judge: Judge | None, run: Run) -> None:
        """Train by episodes, in place."""
        lessons = Lessons(
            self.steps, self.episodes, self.way, self.shot, self.query, self.episodic_lr, self.weight_decay,
            self.temperature, self.one_shot, bool(self.within), self.augment,
        )  # fmt: skip
        score = None if judge is None else lambda trained: judge(trained, False)
        stage = Stage("episodic", self.steps, asdict(self), partial(cosine, warmup=0.02), self.average, evaluate=score)
        train_episodic(net, data, lessons, _seed(rng), stage, run)

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty network for pictures of facts["channels"] x facts["height"] x facts["width"]."""
        self.facts_ = dict(facts)
        self.net_ = built(self._make).eval().requires_grad_(False)

    def _make(self) -> nn.Module:
        channels, side = self.facts_["channels"], min(self.facts_["height"], self.facts_["width"])
        return Standardised(make_backbone(self.arch, channels, side, self.drop), channels)

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], uint8 or floats in [0, 1], or a list of them, to features [n, d] float32.

        On the device of `x`, in bfloat16 under autocast. Grey pictures are repeated where colour was learnt. Raises
        InputError before `fit` and for pictures of another size than those it was trained on.
        """
        if self.net_ is None:
            raise InputError(f"{self.arch} is not fitted yet; expected fit(base, rng) or a folder from `fit`")
        x = prepared(x, self.size)
        if x.shape[1] == 1 and self.facts_["channels"] == 3:
            x = x.expand(-1, 3, -1, -1)
        wanted = (self.facts_["channels"], self.facts_["height"], self.facts_["width"])
        if tuple(x.shape[1:]) != wanted:
            raise InputError(f"{self.arch} was trained on pictures {list(wanted)} and got {list(x.shape[1:])}")
        return embedded(folded(self.net_.to(x.device)).to(memory_format=torch.channels_last), x)


Judge = Callable[[nn.Module, bool], float]


def embedded(net: nn.Module, x: Tensor) -> Tensor:
    """Features [n, d] float32 of pictures [n, c, h, w], uint8 or floats in [0, 1], in batches and with no gradient."""
    features = []
    with torch.no_grad():
        for part in x.split(_ROWS_AT_ONCE):
            part = part.float() / 255 if part.dtype == torch.uint8 else part
            features.append(net(part.contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(features)


def centred(x: Tensor) -> Tensor:
    """Features [n, d] minus their mean, at length 1."""
    return nn.functional.normalize(x - x.mean(0), dim=1)


def _judge(val: Pixels) -> Judge:
    """The mean of 1-shot and 5-shot accuracy of nearest means on the validation classes, in percent."""

    def judge(net: nn.Module, centre: bool) -> float:
        with fast_arithmetic(val.x.device):
            x = embedded(net, rearrange(val.x, "n h w c -> n c h w"))
        return sum(nearest_mean_score(centred(x) if centre else x, val)) / 2

    return judge


def _seed(rng: torch.Generator) -> int:
    return int(chance.draw_keys(1, rng))
