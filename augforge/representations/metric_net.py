"""Metric learning: a network whose distances say whether two pictures are of one class, learnt from base classes.

Each step draws `way` classes and `rows` pictures of each (as in Hermans, Beyer & Leibe, "In defense of the triplet
loss", 2017), embeds them, and takes one of the losses of `metric_losses`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from functools import cache, partial
from typing import ClassVar, Literal, Self, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from augforge import chance
from augforge.networks.layers import built, inference_copy
from augforge.networks.pixels import Pixels, class_table, load_pixels
from augforge.parts.saving import open_part
from augforge.representations.backbones import Arch, Standardised, as_trained, embedded, make_backbone
from augforge.representations.episodic import draw_episodes, nearest_mean_score
from augforge.representations.metric_losses import Loss, Margins, Mining, metric_loss
from augforge.representations.pictures import Augment, batch, statistics
from augforge.training.loop import Loop, Run, Stage, cosine, fast_arithmetic, step_generator
from augforge.types import Bank, InputError, Representation, Space

_PICTURES_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class _Features:
    """Rows of features on one device, as `Pixels` holds pictures."""

    x: Tensor  # [n, d] float32
    y: Tensor  # [n]
    table: Tensor  # [classes, most]
    counts: Tensor  # [classes]
    groups: Tensor  # [classes]

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.counts)


class WeightedL1(nn.Module):
    """Rows [b, d] to sigmoid(x) times the weights of their L1 distance, and its offset as one column more: [b, d + 1].

    The weights are kept at 0 or above, so that they are those of a distance; Koch et al. let them be of any sign.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.level, self.offset = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(()))

    def start_(self, rng: torch.Generator) -> None:
        """Begin with all weights alike."""
        self.level.fill_(1.0)
        self.offset.fill_(float(len(self.level)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh."""
        rows = torch.sigmoid(x) * F.softplus(self.level)
        return torch.cat([rows, self.offset.expand(len(x), 1)], 1)


@dataclass
class MetricNet:
    """An embedding learnt by a loss of pairs, triplets, quadruplets or histograms; rows have length 1.

    siamese: Koch et al. 2015, whose rows are compared by their L1 distance (`knn` with distance=manhattan).
    contrastive: Hadsell et al. 2006. triplet: Schroff et al. 2015 (FaceNet). n-pairs: Sohn 2016. histogram: Ustinova &
    Lempitsky 2016. quadruplet: Chen et al. 2017; formulas in `metric_losses`. The backbone is trained from its start.
    With arch=photos-head it is a linear layer on the features of `photos`: a learnt Mahalanobis distance of
    photographs.
    """

    space: ClassVar[Space] = "image"
    trains: ClassVar[bool] = True

    loss: Loss = "triplet"  # siamese, contrastive, triplet, n-pairs, histogram or quadruplet
    arch: Literal["conv4", "resnet10", "resnet12", "resnet18", "photos-head"] = "conv4"  # what is trained
    width: int = 128  # numbers of an embedded row, at least 1
    size: int = 0  # side in px that pictures are made square at; 0: as they are; photos-head takes any
    augment: Augment = "crop"  # none, crop, colour or strokes; of a backbone alone
    steps: int = 3000  # at least 1
    way: int = 16  # classes of a step, at least 2
    rows: int = 4  # pictures of each class in a step, at least 2
    lr: float = 1e-3  # learning rate of AdamW, above 0
    weight_decay: float = 5e-4  # at least 0
    average: float = 0.99  # decay of the moving average of weights, at least 0 (none) and below 1
    margin: float = 0.2  # contrastive, triplet, quadruplet: between 0 and 2
    positive_margin: float = 0.0  # contrastive: up to where rows of a class are near enough
    second_margin: float = 0.1  # quadruplet: by how much pairs of two other classes are farther
    mining: Mining = "semi-hard"  # triplet: random, hard or semi-hard negatives
    swap: bool = False  # triplet: the nearer of two anchors
    net_: nn.Module | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range, and for settings that the loss does not read."""
        for name, least in (("width", 1), ("size", 0), ("steps", 1), ("way", 2), ("rows", 2)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)} was given; expected a whole number of at least {least}")
        if not self.lr > 0:
            raise InputError(f"lr={self.lr} was given; expected a number above 0")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay={self.weight_decay} was given; expected a number of at least 0")
        if not 0 <= self.average < 1:
            raise InputError(f"average={self.average} was given; expected at least 0 and below 1")
        self._margins.check(self.loss)
        if self.arch == "photos-head" and self.augment != "crop":
            raise InputError(f"augment={self.augment!r} was given, and photos-head learns from features, which stay")

    @property
    def any_size(self) -> bool:
        """Whether pictures of any size can be embedded."""
        return self.arch == "photos-head"

    @property
    def _margins(self) -> Margins:
        return Margins(**{one.name: getattr(self, one.name) for one in fields(Margins)})

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None, run: Run | None = None) -> Self:
        """Train on the pictures of `base`; with `val` the weights of the best of ten validations are kept.

        Raises InputError for fewer than two classes of two pictures, pictures of several sizes with no `size`, a loss
        that is not finite, and a run whose folder holds other settings.
        """
        run = Run() if run is None else run
        data = self._data(base, run.device)
        rows = min(self.rows, int(data.counts.max()))
        way = min(self.way, int((data.counts >= rows).sum()))
        if way < 2 or rows < 2:
            raise InputError(f"{self.loss} needs at least 2 base classes with 2 pictures each to learn from")
        if isinstance(data, Pixels):
            self.facts_ = {"channels": data.x.shape[3], "height": data.x.shape[1], "width": data.x.shape[2]}
        else:
            self.facts_ = {"features": data.x.shape[1]}
        net = self._network(rng)
        if isinstance(data, Pixels):
            assert isinstance(net[0], Standardised)
            net[0].mean, net[0].deviation = statistics(data)
        net = net.to(run.device)
        if isinstance(data, Pixels):
            net = net.to(memory_format=torch.channels_last)
        score = None
        if val is not None:
            score = partial(_score, val=self._data(val, run.device), siamese=self.loss == "siamese")
        stage = Stage(self.loss, self.steps, asdict(self), partial(cosine, warmup=0.02), self.average, evaluate=score)
        optimiser = torch.optim.AdamW(net.parameters(), self.lr, weight_decay=self.weight_decay)
        self._train(net, data, (1, way, rows), int(chance.draw_keys(1, rng)), Loop(net, optimiser, stage, run))
        self.net_ = net.cpu().eval().requires_grad_(False)
        return self

    def _train(
        self, net: nn.Module, data: Pixels | _Features, shape: tuple[int, int, int], seed: int, loop: Loop
    ) -> None:
        """Go through the steps of the loop, and leave the result in the network."""
        generator = torch.Generator(data.y.device)
        net.train()
        for step in loop:
            step_generator(generator, seed, step)
            rows = draw_episodes(data, shape, False, generator).flatten()
            x = batch(data, rows, self.augment, generator) if isinstance(data, Pixels) else data.x[rows]
            with fast_arithmetic(x.device):
                embedded = net(x)
            loop.step(metric_loss(self.loss, embedded.float(), data.y[rows], self._margins, generator))
        loop.result()

    def _data(self, bank: Bank, device: str | torch.device) -> Pixels | _Features:
        if self.arch != "photos-head":
            return load_pixels(bank, self.size, device)
        if bank.space != "image":
            raise InputError("this method learns from pictures, and this source holds features")
        parts = [_photos().embed(bank.examples(rows).x) for rows in torch.arange(len(bank.y)).split(_PICTURES_AT_ONCE)]
        table, counts = class_table(bank.y, len(bank.classes))
        columns = (torch.cat(parts), bank.y, table, counts, torch.zeros(len(bank.classes), dtype=torch.int64))
        return _Features(*(column.to(device) for column in columns))

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty network for pictures of facts["channels"] x facts["height"] x facts["width"].

        With arch=photos-head for features of facts["features"] numbers.
        """
        self.facts_ = dict(facts)
        self.net_ = self._network(None).eval().requires_grad_(False)

    def _network(self, rng: torch.Generator | None) -> nn.Sequential:
        def made() -> nn.Sequential:
            front: nn.Module = nn.Identity()
            features = self.facts_.get("features", 0)
            if not features:
                channels, height, width = (self.facts_[name] for name in ("channels", "height", "width"))
                front = Standardised(make_backbone(cast(Arch, self.arch), channels, min(height, width)), channels)
                features = front.net(torch.zeros(2, channels, height, width)).shape[1]
            last = WeightedL1(self.width) if self.loss == "siamese" else nn.Identity()
            return nn.Sequential(front, nn.Linear(features, self.width), last)

        return cast(nn.Sequential, built(made, rng))

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], uint8 or floats in [0, 1], or a list of them, to rows [n, width] float32 of length 1.

        The rows of siamese are as its L1 distance reads them, and have other lengths. On the device of `x`. No bit of a
        picture's row depends on the other pictures. Grey pictures are repeated where colour was learnt. Raises
        InputError before `fit` and for pictures of another size than those it was trained on.
        """
        if self.net_ is None:
            raise InputError(f"{self.loss} is not fitted yet; expected fit(base, rng) or a folder from `fit`")
        if self.arch == "photos-head":
            x = _photos().embed(x)
        else:
            x = as_trained(x, self.size, self.facts_, self.loss)
        return _rows(inference_copy(self.net_.to(x.device)), x, self.loss == "siamese")


def _rows(net: nn.Module, x: Tensor, siamese: bool) -> Tensor:
    """Embedded rows [n, width] of pictures or features, of length 1 but for siamese."""
    rows = embedded(net, x)
    return rows[:, :-1] if siamese else F.normalize(rows, dim=1)


def _score(net: nn.Module, val: Pixels | _Features, siamese: bool) -> float:
    """The mean of 1-shot and 5-shot accuracy of nearest means on the validation classes, in percent."""
    with fast_arithmetic(val.y.device):
        x = rearrange(val.x, "n h w c -> n c h w") if isinstance(val, Pixels) else val.x
        return sum(nearest_mean_score(_rows(net, x, siamese), val)) / 2


@cache
def _photos() -> Representation:
    """The network of `photos` with the weights of its package."""
    return open_part("photos", None, "representation")
