"""Picture-to-picture translation: every picture of one domain has a counterpart in another, of classes unseen too.

Paired: Isola, Zhu, Zhou & Efros, "Image-to-image translation with conditional adversarial networks", CVPR 2017
(pix2pix). Unpaired: Zhu, Park, Isola & Efros, "Unpaired image-to-image translation using cycle-consistent adversarial
networks", ICCV 2017 (CycleGAN).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from augforge.classifiers.base_statistics import check_positive, check_range
from augforge.generators.shared.gan.discriminators import PatchJudge
from augforge.generators.shared.gan.networks import Translator
from augforge.generators.shared.gan.pictures import as_given, in_tiles, latents, net_pictures, share_below
from augforge.generators.shared.support import choose_parents
from augforge.networks.layers import built
from augforge.types import Bank, Examples, InputError, Space

if TYPE_CHECKING:
    from augforge.training.loop import Run

_WHO = "translation"


@dataclass
class Translation:
    """Pictures of one domain as pictures of another: pix2pix (Isola et al. 2017) or CycleGAN (Zhu et al. 2017).

    A made row is one support picture, taken to be of the source domain, translated into the target domain; its class
    is kept, and noise z ~ N(0, I) may vary it. Learnt on base classes, the translation is there for novel ones at once.

    `domain` names a column of the bank's groups, and `source` and `target` two values of it. With `mode` "paired" rows
    of one class in both domains are pairs; `pair` names a column that tells more: rows of one class whose entries there
    are alike. Where a pair has several rows on a side, one is drawn. With domain="" the bank has two classes, which are
    the domains (by default in their order): the n-th picture of the one goes with the n-th of the other, or those whose
    entries of `pair` are alike. "unpaired" needs no counterparts, learns both ways, and `direction` "backward" makes
    source pictures of target ones.

    Paired, the generator's loss is the patch discriminator's, which sees input and output together, and `distance`
    times the mean absolute error; unpaired it is both discriminators', `cycle` times the error after a way there and
    back, and `identity` times the change of pictures that are of the wanted domain already.

    `size` in px makes pictures square (0: as they are, all alike, of an even side); `width` and `judge_width` are the
    channels of the largest maps, `noise` the length of z. Each of `steps` steps sees `batch` pairs, drawn with equal
    chance (unpaired: classes are); `rate` and `judge_rate` are Adam's, `average` the decay of the weights' moving
    average. `augment` names what of DiffAugment the discriminator sees through ("none": nothing; where the domains
    differ in brightness or colour, leave "colour" out, which hides that); `r1` and `lecam` are weights of those
    regularisers, `accumulate` the parts a batch is worked off in. Every tenth of the training is looked at on held-out
    classes (pairs, where classes are domains); after `patience` looks without a better one it ends (0: never). At
    synthesis latents are cut off at `truncation` (0: not), in standard deviations.

    Differs from the papers: residual blocks without normalisation, whose output is added to the picture; z by FiLM
    instead of dropout; hinge loss and spectral normalisation instead of the cross-entropy and least-squares losses; the
    errors are those of pictures in 0..1, not -1..1, so they weigh half as much; no history of 50 made pictures (a
    step's batch is a function of seed and step); Adam's first beta is 0; DiffAugment.
    """

    space: ClassVar[Space] = "image"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1
    chooses: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    mode: Literal["paired", "unpaired"] = "paired"
    direction: Literal["forward", "backward"] = "forward"
    domain: str = ""
    source: str = ""
    target: str = ""
    pair: str = ""
    size: int = 0
    width: int = 64
    judge_width: int = 32
    noise: int = 16
    distance: float = 100.0
    cycle: float = 10.0
    identity: float = 5.0
    steps: int = 20000
    batch: int = 32
    rate: float = 2e-4
    judge_rate: float = 2e-4
    average: float = 0.999
    augment: str = "colour,translation,cutout"
    r1: float = 0.0
    lecam: float = 0.0
    accumulate: int = 1
    patience: int = 0
    truncation: float = 0.0
    generator_: nn.ModuleList | None = field(default=None, init=False, repr=False)
    judge_: nn.ModuleList | None = field(default=None, init=False, repr=False)
    quantiles_: Tensor | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range, or that do not go together."""
        for name in ("rate", "judge_rate"):
            check_positive(self, name)
        for name in ("size", "distance", "cycle", "identity", "r1", "lecam", "patience", "truncation"):
            check_range(self, name, 0)
        check_range(self, "average", 0, 0.99999)
        for name in ("width", "judge_width", "noise", "steps", "batch", "accumulate"):
            check_range(self, name, 1)
        if self.mode == "paired" and self.direction == "backward":
            raise InputError("direction='backward' was given with mode='paired', which learns one way; expected "
                             "mode='unpaired', or source and target the other way round")  # fmt: skip
        if self.mode == "unpaired" and self.pair:
            raise InputError(f"pair={self.pair!r} was given with mode='unpaired'; expected it with mode='paired' only")
        if self.domain and (not self.source or not self.target or self.source == self.target):
            raise InputError(f"source={self.source!r} and target={self.target!r} were given with "
                             f"domain={self.domain!r}; expected two different values of that column")  # fmt: skip
        self.alarms: list[str] = []

    def build(self, facts: dict[str, int]) -> None:
        """Make the networks without numbers, for pictures of facts["channels"] and facts["side"]."""
        self._build(facts, None)

    def _build(self, facts: dict[str, int], rng: torch.Generator | None) -> tuple[nn.ModuleList, nn.ModuleList]:
        """Generators forth and, unpaired, back; discriminators of the target's pictures and, unpaired, the source's."""
        self.facts_ = dict(facts)
        channels, side = facts["channels"], facts["side"]
        ways, seen = (1, 2 * channels) if self.mode == "paired" else (2, channels)
        maker = built(
            lambda: nn.ModuleList(Translator(channels, side, self.width, self.noise) for _ in range(ways)), rng
        )
        judge = built(lambda: nn.ModuleList(PatchJudge(seen, self.judge_width) for _ in range(ways)), rng)
        assert isinstance(maker, nn.ModuleList)
        assert isinstance(judge, nn.ModuleList)
        self.generator_, self.judge_ = maker.eval().requires_grad_(False), judge.eval().requires_grad_(False)
        return maker, judge

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None, run: Run | None = None) -> Self:
        """Train on the pictures of `base`, and look at those of `val`; without it at a tenth of the base classes.

        Where the two classes are the domains, a tenth of the pairs is looked at instead.

        Raises InputError for features, a bank without the two domains or with fewer than two pairs (or pictures of a
        domain), classes as domains whose pictures cannot be paired, pictures of several sizes or an odd side with no
        `size`, losses that stay not finite, and a run whose folder holds other settings.
        """
        from augforge.generators.translation_training import train_translation

        train_translation(self, base, rng, val, run)
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Pictures [n, c, side, side] of the classes `want` [n], each one support picture translated, by its key alone.

        Raises InputError before `fit`, for features, for pictures of another shape than those trained on (grey ones
        are read as colour where that was), and where a wanted class has no support row.
        """
        x = self._pictures(support, self.size)
        assert self.generator_ is not None
        net = self.generator_[self._way].to(x.device)
        parent = choose_parents(support.y, want, keys)
        z = latents(keys, self.noise, self.truncation, x.device)
        return Examples(as_given(in_tiles(net, x[parent.to(x.device)], z), support), want, parent)

    def plausibility(self, support: Examples, made: Examples) -> Tensor:
        """What share [n] of real pictures of held-out classes the discriminator finds less plausible than each row.

        A picture's score is the mean of its patches'; paired, a row is seen beside its parent. Raises InputError before
        `fit`.
        """
        x = self._pictures(support, self.size)
        rows = self._pictures(Examples(made.x, made.y), 0)
        assert self.judge_ is not None
        assert self.quantiles_ is not None
        assert made.parent is not None
        judge = self.judge_[self._way].to(x.device)
        if self.mode == "paired":
            rows = torch.cat([x[made.parent.to(x.device)], rows], 1)  # [n, 2c, side, side]
        return share_below(in_tiles(lambda part: judge(part).mean((1, 2)), rows), self.quantiles_[self._way])

    @property
    def _way(self) -> int:
        """Which of the networks: 0 forth, 1 back."""
        return int(self.direction == "backward")

    def _pictures(self, support: Examples, size: int) -> Tensor:
        """The pictures as floats [m, c, side, side]; grey ones in three channels where colour was trained on."""
        x = support.x
        if self.facts_ is not None and self.facts_["channels"] == 3:
            if isinstance(x, list):
                x = [picture.expand(3, -1, -1) if len(picture) == 1 else picture for picture in x]
            elif x.ndim == 4 and x.shape[1] == 1:
                x = x.expand(-1, 3, -1, -1)
        return net_pictures(Examples(x, support.y), size, self.facts_, _WHO)
