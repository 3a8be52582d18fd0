"""A GAN that turns one picture of a class into others of that class, of classes that it never saw too.

Antoniou, Storkey & Edwards, "Data augmentation generative adversarial networks", 2017 (DAGAN), brought up to date.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.base_statistics import check_positive, check_range
from augforge.generators.shared.gan.diff_augment import policy_of
from augforge.generators.shared.gan.discriminators import PairDiscriminator
from augforge.generators.shared.gan.networks import PictureGenerator
from augforge.generators.shared.gan.objective import GanSettings, checked_settings, to_rest_, to_train_
from augforge.generators.shared.gan.pictures import (
    in_tiles,
    latents,
    like_support,
    net_facts,
    net_pictures,
    score_quantiles,
    share_below,
)
from augforge.generators.shared.support import choose_parents, whole_numbers
from augforge.networks.layers import built
from augforge.networks.pixels import load_pixels
from augforge.training.loop import Run
from augforge.types import Bank, Examples, InputError, Space

_WHO = "image-gan"


@dataclass
class ImageGan:
    """G(x, z): one real picture x of a class and noise z ~ N(0, I) to another picture of that class (DAGAN).

    Trained on base classes, it makes pictures of a novel class at once. G warps its parent along a flow and paints over
    it (`shared.gan.networks.PictureGenerator`). The discriminator sees a parent with another picture of its class, real
    or generated, and how far apart two of them are (`shared.gan.discriminators.PairDiscriminator`).

    In each step batch/2 parents are drawn, from classes with equal chance, and two pictures are generated of each.
    Every tenth of the training is evaluated on held-out classes.

    Differs from the paper: hinge loss and spectral normalisation instead of WGAN-GP, residual blocks with FiLM instead
    of dense ones with batch normalisation, z enters every block, the flow, DiffAugment, several support pictures, real
    pictures of another class as false ones (GAN-CLS: Reed et al., ICML 2016, algorithm 1; without them G drew strokes
    that every generated picture of a class had and no real one).
    """

    space: ClassVar[Space] = "image"
    support_needed: ClassVar[int] = 1
    chooses: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    shares: ClassVar[bool] = True
    one_class: ClassVar[bool] = True

    size: int = 0  # side in px that pictures are made square at (0: as they are, all alike, of an even side)
    pool: Literal["parent", "mean", "attention"] = (
        "parent"  # what G knows of a class: that picture, or all support ones
    )
    shots: str = "1,2,5"  # how many support pictures training shows, in turn by chance (with a `pool` of several)
    width: int = 64  # channels of the generator's largest maps
    judge_width: int = 32  # channels of the discriminator's largest maps
    noise: int = 32  # length of z
    code: int = 64  # length of the class code
    reach: float = 0.25  # how far the flow goes, in halves of the side, > 0
    steps: int = 20000  # of each network
    batch: int = 64  # generated pictures in a step, and real ones beside them; even
    rate: float = 2e-4  # learning rate of the generator's Adam, > 0
    judge_rate: float = 2e-4  # learning rate of the discriminator's Adam, > 0
    average: float = 0.999  # decay of the moving average of the generator's weights, 0 to 0.99999
    augment: str = "colour,translation,cutout"  # what of DiffAugment the discriminator sees through ("none": nothing)
    symmetry: Literal["none", "mirror", "turns"] = "none"  # other classes by mirroring, or turning eight ways
    mismatched: bool = True  # whether real pictures of another class count with generated ones
    r1: float = 0.0  # weight of the gradient penalty R1, >= 0
    lecam: float = 0.0  # weight of the LeCam regulariser, >= 0
    accumulate: int = 1  # parts that a batch is worked off in
    patience: int = 0  # evaluations without a better one after which the best one's weights are kept (0: the last)
    truncation: float = 0.0  # cut of z at synthesis, in standard deviations (0: none; 1e-30: no noise)
    generator_: PictureGenerator | None = field(default=None, init=False, repr=False)
    judge_: PairDiscriminator | None = field(default=None, init=False, repr=False)
    quantiles_: Tensor | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        for name in ("rate", "judge_rate", "reach"):
            check_positive(self, name)
        for name in ("size", "r1", "lecam", "patience", "truncation"):
            check_range(self, name, 0)
        check_range(self, "average", 0, 0.99999)
        for name in ("width", "judge_width", "noise", "code", "steps", "accumulate"):
            check_range(self, name, 1)
        if self.batch < 2 or self.batch % 2:
            raise InputError(
                f"batch={self.batch} was given; expected an even number: two pictures are made of a parent"
            )
        whole_numbers(self, "shots")
        self.alarms: list[str] = []

    @property
    def one_parent(self) -> bool:
        """Whether a made row depends on a single support row."""
        return self.pool == "parent"

    def build(self, facts: dict[str, int]) -> None:
        """Make the networks without numbers, for pictures of facts["channels"] and facts["side"]."""
        self._build(facts, None)

    def _build(self, facts: dict[str, int], rng: torch.Generator | None) -> tuple[PictureGenerator, PairDiscriminator]:
        self.facts_ = dict(facts)
        shape = (facts["channels"], facts["side"])
        generator = built(lambda: PictureGenerator(*shape, self.width, self.noise, self.code, self.reach), rng)
        discriminator = built(lambda: PairDiscriminator(*shape, self.judge_width), rng)
        assert isinstance(generator, PictureGenerator)
        assert isinstance(discriminator, PairDiscriminator)
        self.generator_ = generator.eval().requires_grad_(False)
        self.judge_ = discriminator.eval().requires_grad_(False)
        return generator, discriminator

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None, run: Run | None = None) -> Self:
        """Train on the pictures of `base`; evaluate on the classes of `val`, or without it on a tenth of the base's.

        Raises InputError for features, classes of one picture, pictures of several sizes or an odd side with no `size`,
        losses that stay not finite, and a run whose folder holds other settings.
        """
        # Imported here, so that sampling needs no training code
        from augforge.generators.image_gan.objective import PER_PARENT, PairObjective, held_out_classes
        from augforge.generators.shared.gan.trainer import train_gan

        run = Run() if run is None else run
        data = load_pixels(base, self.size, run.device)
        generator, discriminator = self._build(net_facts(data, _WHO), rng)
        seed = int(chance.draw_keys(1, rng))
        data, held_out = held_out_classes(data, None if val is None else load_pixels(val, self.size, run.device), seed)
        to_train_(run.device, generator, discriminator)
        shots = (1,) if self.one_parent else whole_numbers(self, "shots")
        objective = PairObjective(
            generator, discriminator, data, held_out, self.batch // PER_PARENT, shots, self.pool == "attention",
            self.symmetry, policy_of(self.augment), self.noise, self.mismatched,
        )  # fmt: skip
        settings = GanSettings(self.steps, self.rate, self.judge_rate, self.average, self.r1, self.lecam,
                               self.accumulate, patience=self.patience)  # fmt: skip
        self.alarms = train_gan(objective, settings, run, _WHO, checked_settings(self), seed)
        self.quantiles_ = score_quantiles(objective.real_scores())
        to_rest_(generator, discriminator)
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Pictures [n, c, side, side] of the classes `want` [n], each made of one support picture, by its key alone.

        With a `pool` of several pictures a row depends on all of its class's. Raises InputError before `fit`, for
        features, for pictures of another shape than those trained on, and where a wanted class has no support row.
        """
        x = net_pictures(support, self.size, self.facts_, _WHO)
        assert self.generator_ is not None
        net = self.generator_.to(x.device)
        parent = choose_parents(support.y, want, keys)
        used, place = torch.unique(parent.to(x.device), return_inverse=True)
        needed = used if self.one_parent else torch.isin(support.y, want).nonzero()[:, 0].to(x.device)
        maps, where = self._maps(net, x, needed)
        own = [level[where[used]] for level in maps]
        code = self._codes(net, support.y.to(x.device), used, maps[-1], where)
        z = latents(keys, self.noise, self.truncation, x.device)
        made = in_tiles(
            lambda z, code, picture, *levels: net.decode(picture, list(levels), code, z),
            z, code[place], x[used][place], *(level[place] for level in own),
        )  # fmt: skip
        return Examples(like_support(made, support), want, parent)

    def _maps(self, net: PictureGenerator, x: Tensor, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        """The maps of the rows [k] of x, and where each row of x lies among them [m] (-1: nowhere)."""
        shapes: list[torch.Size] = []

        def encoded(part: Tensor) -> Tensor:
            levels = net.encode(part)
            shapes[:] = [level.shape[1:] for level in levels]
            return torch.cat([level.flatten(1) for level in levels], 1)

        flat = in_tiles(encoded, x[rows])  # one table of rows, since tiles are cut and joined as such
        parts = flat.split([shape.numel() for shape in shapes], 1)
        where = torch.full((len(x),), -1, device=x.device)
        where[rows] = torch.arange(len(rows), device=x.device)
        return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)], where

    def _codes(self, net: PictureGenerator, y: Tensor, used: Tensor, deep: Tensor, where: Tensor) -> Tensor:
        """The class codes of the parents `used` [u], from their own deepest maps or from all of their class."""
        attend = self.pool == "attention"
        if self.one_parent and y.device.type != "cpu":  # a device would be waited for in every turn of the loop below
            return in_tiles(lambda part: net.codes(part, part[:, None], attend), deep[where[used]])
        with torch.no_grad():
            codes = []
            for row in used:
                rows = row[None] if self.one_parent else (y == y[row]).nonzero()[:, 0]
                codes.append(net.codes(deep[where[row]][None], deep[where[rows]][None], attend))
        return torch.cat(codes) if codes else torch.zeros(0, self.code, device=y.device)

    def plausibility(self, support: Examples, made: Examples) -> Tensor:
        """What share [n] of real pictures of held-out classes the discriminator finds less plausible than each row.

        A row is seen beside its parent. Raises InputError before `fit`.
        """
        x = net_pictures(support, self.size, self.facts_, _WHO)
        rows = net_pictures(Examples(made.x, made.y), 0, self.facts_, _WHO)
        assert self.judge_ is not None
        assert self.quantiles_ is not None
        assert made.parent is not None
        discriminator = self.judge_.to(x.device)
        parents = x[made.parent.to(x.device)]
        return share_below(
            in_tiles(lambda a, b: discriminator.alone(a, b[:, None])[:, 0], parents, rows), self.quantiles_
        )

    def between(self, first: Tensor, second: Tensor, steps: int, key: int = 0) -> Tensor:
        """Pictures [steps, c, side, side] on the way from what is made of one picture [c, side, side] to another.

        Both are made with the same noise, drawn by `key`. Maps and codes are mixed in equal steps, and what each parent
        would give with them fades into the other. Raises InputError before `fit` and for other shapes.
        """
        x = net_pictures(Examples(torch.stack([first, second]), torch.tensor([0, 1])), self.size, self.facts_, _WHO)
        assert self.generator_ is not None
        net = self.generator_.to(x.device)
        z = latents(torch.tensor([key]), self.noise, self.truncation, x.device).expand(steps, -1)
        with torch.no_grad():
            part = torch.linspace(0, 1, steps, device=x.device)[:, None, None, None]
            maps = [torch.lerp(level[:1], level[1:], part) for level in net.encode(x)]
            code = net.codes(maps[-1], maps[-1][:, None], self.pool == "attention")
            ends = [net.decode(x[i : i + 1].expand(steps, -1, -1, -1), maps, code, z) for i in range(2)]
            made = like_support(torch.lerp(ends[0], ends[1], part), Examples(first[None], torch.tensor([0])))
        assert isinstance(made, Tensor)
        return made
