"""Picture-to-picture translation: every picture of one domain has a counterpart in another, of classes unseen too.

Paired: Isola, Zhu, Zhou & Efros, "Image-to-image translation with conditional adversarial networks", CVPR 2017
(pix2pix). Unpaired: Zhu, Park, Isola & Efros, "Unpaired image-to-image translation using cycle-consistent adversarial
networks", ICCV 2017 (CycleGAN).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from augforge import chance
from augforge.classifiers.base_statistics import check_positive, check_range
from augforge.generators.shared.gan.diff_augment import policy_of
from augforge.generators.shared.gan.discriminators import PatchDiscriminator
from augforge.generators.shared.gan.networks import Translator
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
from augforge.generators.shared.support import choose_parents
from augforge.generators.translation.domains import DomainSettings, load_domains, split_domains
from augforge.networks.layers import built
from augforge.training.loop import Run
from augforge.types import Bank, Examples, InputError, Space

_HELD_OUT = 0.1  # of the groups, where no validation bank is given
_WHO = "translation"


@dataclass
class Translation:
    """Pictures of one domain as pictures of another: pix2pix (Isola et al. 2017) or CycleGAN (Zhu et al. 2017).

    A made row is one support picture, taken to be of the source domain, translated into the target domain; its class
    is kept, and noise z ~ N(0, I) may vary it. Learnt on base classes, the translation is there for novel ones at once.

    Paired, rows of one class in both domains go together, and those whose entries of `pair` are alike, where that is
    given; where a pair has several rows on a side, one is drawn. With domain="" the bank has two classes, which are the
    domains: the n-th picture of one goes with the n-th of the other, or those whose entries of `pair` are alike. The
    generator's loss is that of the patch discriminator, which sees input and output together, and the error.

    Unpaired, no counterparts are needed and both ways are learnt. The loss is that of both discriminators, the error
    after a way there and back, and the change of pictures that are of the wanted domain already.

    Every tenth of the training is evaluated on held-out classes, or on pairs where classes are domains.

    Differs from the papers: residual blocks without normalisation, whose output is added to the picture; z by FiLM
    instead of dropout; hinge loss and spectral normalisation instead of the cross-entropy and least-squares losses; the
    errors are those of pictures in 0..1, not -1..1, so they weigh half as much; no history of 50 generated pictures (a
    step's batch is a function of seed and step); Adam's first beta is 0; DiffAugment.
    """

    space: ClassVar[Space] = "image"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1
    chooses: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    mode: Literal["paired", "unpaired"] = "paired"  # pix2pix, or CycleGAN
    direction: Literal["forward", "backward"] = "forward"  # unpaired, "backward" makes source pictures of target ones
    domain: str = ""  # column of the bank's groups whose values are the domains ("": its two classes are)
    source: str = ""  # value of that column, or class (default: the first class)
    target: str = ""  # value of that column, or class (default: the second class)
    pair: str = ""  # column that says more about which rows are a pair
    size: int = 0  # side in px that pictures are made square at (0: as they are, all alike, of an even side)
    width: int = 64  # channels of the generator's largest maps
    judge_width: int = 32  # channels of the discriminator's largest maps
    noise: int = 16  # length of z
    distance: float = 100.0  # paired: weight of the mean absolute error, >= 0
    cycle: float = 10.0  # unpaired: weight of the error after a way there and back, >= 0
    identity: float = 5.0  # unpaired: weight of the change of pictures of the wanted domain, >= 0
    steps: int = 20000  # of each network
    batch: int = 32  # pairs in a step, drawn with equal chance (unpaired: pictures of each domain, by class)
    rate: float = 2e-4  # learning rate of the generator's Adam, > 0
    judge_rate: float = 2e-4  # learning rate of the discriminator's Adam, > 0
    average: float = 0.999  # decay of the moving average of the generator's weights, 0 to 0.99999
    augment: str = (
        "colour,translation,cutout"  # of DiffAugment ("none": nothing; no "colour" where domains differ by it)
    )
    r1: float = 0.0  # weight of the gradient penalty R1, >= 0
    lecam: float = 0.0  # weight of the LeCam regulariser, >= 0
    accumulate: int = 1  # parts that a batch is worked off in
    patience: int = 0  # evaluations without a better one after which the best one's weights are kept (0: the last)
    truncation: float = 0.0  # cut of z at synthesis, in standard deviations (0: none; 1e-30: no noise)
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
        generator = built(
            lambda: nn.ModuleList(Translator(channels, side, self.width, self.noise) for _ in range(ways)), rng
        )
        discriminator = built(
            lambda: nn.ModuleList(PatchDiscriminator(seen, self.judge_width) for _ in range(ways)), rng
        )
        assert isinstance(generator, nn.ModuleList)
        assert isinstance(discriminator, nn.ModuleList)
        self.generator_ = generator.eval().requires_grad_(False)
        self.judge_ = discriminator.eval().requires_grad_(False)
        return generator, discriminator

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None, run: Run | None = None) -> Self:
        """Train on the pictures of `base`, and evaluate on those of `val`; without it on a tenth of the base classes.

        Where the two classes are the domains, a tenth of the pairs is held out instead.

        Raises InputError for features, a bank without the two domains or with fewer than two pairs (or pictures of a
        domain), classes as domains whose pictures cannot be paired, pictures of several sizes or an odd side with no
        `size`, losses that stay not finite, and a run whose folder holds other settings.
        """
        # Imported here, so that sampling needs no training code
        from augforge.generators.shared.gan.trainer import train_gan
        from augforge.generators.translation.objective import CycleObjective, PairedObjective

        run = Run() if run is None else run
        which = DomainSettings(self.mode == "paired", self.domain, self.source, self.target, self.pair, self.size)
        data = load_domains(base, which, run.device)
        generator, discriminator = self._build(net_facts(data.source, _WHO), rng)
        seed = int(chance.draw_keys(1, rng))
        if val is None:
            data, held_out = split_domains(data, _HELD_OUT, seed)
        else:
            held_out = load_domains(val, which, run.device)
        to_train_(run.device, generator, discriminator)
        policy, weights = policy_of(self.augment), (self.cycle, self.identity)
        objective = (
            PairedObjective(generator, discriminator, data, held_out, self.batch, self.distance, policy, self.noise)
            if self.mode == "paired"
            else CycleObjective(generator, discriminator, data, held_out, self.batch, *weights, policy, self.noise)
        )
        settings = GanSettings(self.steps, self.rate, self.judge_rate, self.average, self.r1, self.lecam,
                               self.accumulate, patience=self.patience)  # fmt: skip
        self.alarms = train_gan(objective, settings, run, _WHO, checked_settings(self, "direction"), seed)
        self.quantiles_ = torch.stack([score_quantiles(scores) for scores in objective.real_scores()])
        to_rest_(generator, discriminator)
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
        return Examples(like_support(in_tiles(net, x[parent.to(x.device)], z), support), want, parent)

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
        discriminator = self.judge_[self._way].to(x.device)
        if self.mode == "paired":
            rows = torch.cat([x[made.parent.to(x.device)], rows], 1)  # [n, 2c, side, side]
        return share_below(in_tiles(lambda part: discriminator(part).mean((1, 2)), rows), self.quantiles_[self._way])

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
