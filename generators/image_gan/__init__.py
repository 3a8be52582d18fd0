"""A GAN that turns one picture of a class into others of that class, of classes that it never saw too.

Antoniou, Storkey & Edwards, "Data augmentation generative adversarial networks", 2017 (DAGAN), brought up to date.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from torch import Tensor

from augforge.classifiers.base_statistics import check_positive, check_range
from augforge.generators.shared.gan.discriminators import PairJudge
from augforge.generators.shared.gan.networks import PictureGenerator
from augforge.generators.shared.gan.pictures import as_given, in_tiles, latents, net_pictures, share_below
from augforge.generators.shared.support import choose_parents, whole_numbers
from augforge.networks.layers import built
from augforge.types import Bank, Examples, InputError, Space

if TYPE_CHECKING:
    from augforge.training.loop import Run

_WHO = "image-gan"


@dataclass
class ImageGan:
    """G(x, z): one real picture x of a class and noise z ~ N(0, I) to another picture of that class (DAGAN).

    Trained on base classes, it makes pictures of a novel class at once. G bends its parent along a flow and paints over
    it (`gan_networks.PictureGenerator`); the discriminator sees a parent with another picture of its class, real or
    made, and how far two of them are apart (`gan_discriminators.PairJudge`). `pool` says what G knows of the class:
    "parent" that picture alone, "mean" and "attention" all support pictures, of which `shots` (numbers with commas)
    are shown in training, in turn by chance.

    `size` in px makes pictures square (0: as they are, all alike, of an even side); `width` and `judge_width` are the
    channels of the largest maps, `noise` and `code` the lengths of z and of the class code, `reach` how far the flow
    goes, in halves of the side. Each of `steps` steps sees `batch` made and real pictures, two of each parent, from
    classes drawn with equal chance; `rate` and `judge_rate` are Adam's, `average` the decay of the weights' moving
    average. `augment` names what of DiffAugment the discriminator sees through ("none": nothing). `symmetry` makes
    other classes by turning ("turns": eight ways) or mirroring all pictures of a parent alike. With `mismatched` half
    of what the discriminator learns to turn down are real pictures of another class (GAN-CLS: Reed et al., ICML 2016,
    algorithm 1); without it G drew strokes that every made picture of a class had and no real one. `r1` and `lecam` are
    weights of those regularisers, `accumulate` the parts a batch is worked off in. Every tenth of the training is
    looked at on held-out classes; after `patience` looks without a better one it ends with the weights of the best (0:
    it does not, and the last weights are kept).

    At synthesis latents are cut off at `truncation` (0: not), in standard deviations; at 1e-30 there is no noise left,
    and all that is made of a parent is the same picture.

    Differs from the paper: hinge loss and spectral normalisation instead of WGAN-GP, residual blocks with FiLM instead
    of dense ones with batch normalisation, z enters every block, the flow, DiffAugment, several support pictures.
    """

    space: ClassVar[Space] = "image"
    support_needed: ClassVar[int] = 1
    chooses: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    shares: ClassVar[bool] = True
    one_class: ClassVar[bool] = True

    size: int = 0
    pool: Literal["parent", "mean", "attention"] = "parent"
    shots: str = "1,2,5"
    width: int = 64
    judge_width: int = 32
    noise: int = 32
    code: int = 64
    reach: float = 0.25
    steps: int = 20000
    batch: int = 64
    rate: float = 2e-4
    judge_rate: float = 2e-4
    average: float = 0.999
    augment: str = "colour,translation,cutout"
    symmetry: Literal["none", "mirror", "turns"] = "none"
    mismatched: bool = True
    r1: float = 0.0
    lecam: float = 0.0
    accumulate: int = 1
    patience: int = 0
    truncation: float = 0.0
    generator_: PictureGenerator | None = field(default=None, init=False, repr=False)
    judge_: PairJudge | None = field(default=None, init=False, repr=False)
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

    def _build(self, facts: dict[str, int], rng: torch.Generator | None) -> tuple[PictureGenerator, PairJudge]:
        self.facts_ = dict(facts)
        shape = (facts["channels"], facts["side"])
        maker = built(lambda: PictureGenerator(*shape, self.width, self.noise, self.code, self.reach), rng)
        judge = built(lambda: PairJudge(*shape, self.judge_width), rng)
        assert isinstance(maker, PictureGenerator)
        assert isinstance(judge, PairJudge)
        self.generator_, self.judge_ = maker.eval().requires_grad_(False), judge.eval().requires_grad_(False)
        return maker, judge

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None, run: Run | None = None) -> Self:
        """Train on the pictures of `base`, and look at the classes of `val`; without it at a tenth of the base classes.

        Raises InputError for features, classes of one picture, pictures of several sizes or an odd side with no `size`,
        losses that stay not finite, and a run whose folder holds other settings.
        """
        from augforge.generators.image_gan_training import train_image_gan

        train_image_gan(self, base, rng, val, run)
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
        return Examples(as_given(made, support), want, parent)

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
        with torch.no_grad():
            codes = []
            for row in used:
                rows = row[None] if self.one_parent else (y == y[row]).nonzero()[:, 0]
                codes.append(net.codes(deep[where[row]][None], deep[where[rows]][None], self.pool == "attention"))
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
        judge = self.judge_.to(x.device)
        parents = x[made.parent.to(x.device)]
        return share_below(in_tiles(lambda a, b: judge.alone(a, b[:, None])[:, 0], parents, rows), self.quantiles_)

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
            made = as_given(torch.lerp(ends[0], ends[1], part), Examples(first[None], torch.tensor([0])))
        assert isinstance(made, Tensor)
        return made
