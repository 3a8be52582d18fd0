"""A GAN of the classes that it was trained on, or of classes that it is shown a support of.

Miyato & Koyama, "cGANs with projection discriminator", ICLR 2018.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.base_statistics import check_positive, check_range
from augforge.data.banks import ArrayPictures
from augforge.generators.conditional_gan.networks import (
    Discriminator,
    Generator,
    LabelDiscriminator,
    LabelGenerator,
    SupportDiscriminator,
    SupportGenerator,
)
from augforge.generators.shared.gan.batches import only_classes
from augforge.generators.shared.gan.diff_augment import POLICIES, policy_of
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
from augforge.generators.shared.support import whole_numbers
from augforge.networks.layers import built
from augforge.networks.pixels import Pixels, load_pixels
from augforge.training.loop import Run
from augforge.types import Bank, Examples, InputError, Space

_BETWEEN_EVALUATIONS = 50  # steps at least
_MOST_EVALUATIONS = 10
_WHO = "conditional-gan"


@dataclass
class ConditionalGan:
    """A class-conditional GAN: pictures of the classes it was trained on, or by support (after Miyato & Koyama 2018).

    With condition="class" each class that was trained on has a learnt code; novel ones have to be adapted to. With
    "support" the code is a prototype, the mean of an encoder's vectors of support pictures: the encoder learns with G
    from base classes, and pictures of novel classes can be made at once. The discriminator's score has a part for all
    pictures and one by class, the product with a projected code; real pictures of another class count with generated
    ones (Reed et al., ICML 2016). Classes are drawn with equal chance whatever their sizes, and rows within a class.

    Every tenth of the training, but not within 50 steps, is evaluated on a tenth of each class's pictures held out, or
    with supports on classes held out.

    Differs from the paper: FiLM by noise and class instead of conditional batch normalisation, no batch normalisation
    at all, one discriminator step for each of the generator's, pictures of other classes as false ones, DiffAugment,
    a moving average, conditions by support, which fade in (after Shahbazi et al., "Collapse by conditioning", ICLR
    2022).
    """

    space: ClassVar[Space] = "image"
    one_parent: ClassVar[bool] = False
    chooses: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    size: int = 0  # side in px that pictures are made square at (0: as they are, all alike, of an even side)
    condition: Literal["class", "support"] = "class"  # what says which class: a learnt code, or support pictures
    shots: str = "1,2,5"  # sizes of the supports that training shows, in turn by chance
    width: int = 64  # channels of the generator's largest maps
    judge_width: int = 32  # channels of the discriminator's largest maps
    noise: int = 32  # length of z
    code: int = 64  # length of the class code
    steps: int = 20000  # of each network
    batch: int = 64  # generated pictures in a step, and real ones beside them; even by support: two of each class
    warmup: float = 0.1  # share of the steps in which the condition fades in, 0 to 1
    rate: float = 2e-4  # learning rate of the generator's Adam, > 0
    judge_rate: float = 4e-4  # learning rate of the discriminator's Adam, > 0
    average: float = 0.999  # decay of the moving average of the generator's weights, 0 to 0.99999
    augment: str = "colour,translation,cutout"  # what of DiffAugment the discriminator sees through ("none": nothing)
    symmetry: Literal["none", "mirror", "turns"] = "none"  # by class of each picture; by support of a class: others
    r1: float = 0.0  # weight of the gradient penalty R1, >= 0
    lecam: float = 0.0  # weight of the LeCam regulariser, >= 0
    accumulate: int = 1  # parts that a batch is worked off in
    patience: int = 0  # evaluations without a better one after which the best one's weights are kept (0: the last)
    truncation: float = 0.0  # cut of z at synthesis, in standard deviations (0: none; 1e-30: no noise)
    generator_: Generator | None = field(default=None, init=False, repr=False)
    judge_: Discriminator | None = field(default=None, init=False, repr=False)
    names_: Tensor | None = field(default=None, init=False, repr=False)
    quantiles_: Tensor | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        for name in ("rate", "judge_rate"):
            check_positive(self, name)
        for name in ("size", "r1", "lecam", "patience", "truncation"):
            check_range(self, name, 0)
        check_range(self, "average", 0, 0.99999)
        check_range(self, "warmup", 0, 1)
        for name in ("width", "judge_width", "noise", "code", "steps", "batch", "accumulate"):
            check_range(self, name, 1)
        if self.condition == "support" and self.batch % 2:
            raise InputError(f"batch={self.batch} was given; expected an even number: two pictures are made by a "
                             "support")  # fmt: skip
        whole_numbers(self, "shots")
        self.alarms: list[str] = []
        self.places: Tensor | None = None

    @property
    def support_needed(self) -> int:
        """How many real rows of a class it cannot do without."""
        return 1 if self.condition == "support" else 0

    def build(self, facts: dict[str, int]) -> None:
        """Make the networks without numbers, for facts["channels"], facts["side"] and, by class, facts["classes"]."""
        self._build(facts, None)

    def _build(self, facts: dict[str, int], rng: torch.Generator | None) -> tuple[Generator, Discriminator]:
        self.facts_ = dict(facts)
        shape, sizes = (facts["channels"], facts["side"]), (self.width, self.noise, self.code)
        if self.condition == "class":
            classes = facts["classes"]
            generator = built(lambda: LabelGenerator(shape, *sizes, classes), rng)
            discriminator = built(lambda: LabelDiscriminator(shape, self.judge_width, classes), rng)
        else:
            generator = built(lambda: SupportGenerator(shape, *sizes), rng)
            discriminator = built(lambda: SupportDiscriminator(shape, self.judge_width), rng)
        assert isinstance(generator, Generator)
        assert isinstance(discriminator, Discriminator)
        self.generator_ = generator.eval().requires_grad_(False)
        self.judge_ = discriminator.eval().requires_grad_(False)
        return generator, discriminator

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None, run: Run | None = None) -> Self:
        """Train on the pictures of `base`; with supports evaluate on the classes of `val`, or a tenth of the base's.

        By class `val` is not used: it has other classes. Raises InputError for features, pictures of several sizes or
        an odd side with no `size`, a class without pictures, or by support no class of two, losses that stay not
        finite, and a run whose folder holds other settings.
        """
        # Imported here, so that sampling needs no training code
        from augforge.generators.conditional_gan.objective import ConditionalObjective, split_by_class, split_by_support
        from augforge.generators.shared.gan.trainer import train_gan

        run = Run() if run is None else run
        data = self._usable(load_pixels(base, self.size, run.device), base.classes)
        generator, discriminator = self._build(self._facts_of(data), rng)
        seed = int(chance.draw_keys(1, rng))
        if self.condition == "class":
            data, held_out = split_by_class(data, seed)
        else:
            chosen = None if val is None else load_pixels(val, self.size, run.device)
            data, held_out = split_by_support(data, chosen, seed)
        to_train_(run.device, generator, discriminator)
        objective = ConditionalObjective(
            generator, discriminator, discriminator, data, held_out, self.batch, self._shots(), self.symmetry,
            policy_of(self.augment), self.noise, self.warmup, standardises=self.condition == "support",
        )  # fmt: skip
        objective.standardise_(generator, discriminator)
        evaluations = max(1, min(_MOST_EVALUATIONS, self.steps // _BETWEEN_EVALUATIONS))
        settings = GanSettings(self.steps, self.rate, self.judge_rate, self.average, self.r1, self.lecam,
                               self.accumulate, evaluations, self.patience)  # fmt: skip
        self.alarms = train_gan(objective, settings, run, _WHO, checked_settings(self), seed)
        self.quantiles_ = score_quantiles(objective.real_scores())
        to_rest_(generator, discriminator)
        self.places = None
        return self

    def _usable(self, data: Pixels, classes: Sequence[str]) -> Pixels:
        """What of the data can be learnt from; InputError where that is too little."""
        if self.condition == "class":
            empty = (data.counts == 0).nonzero()[:, 0].tolist()
            if empty:
                raise InputError(f"class {classes[empty[0]]!r} has no picture; expected one of every class")
            self.names_ = torch.tensor([chance.name_key(name) for name in classes])
            return data
        if int(data.counts.max()) < 2:
            raise InputError(f"{_WHO} learns a support from classes of two pictures or more; every class here has one")
        return only_classes(data, (data.counts > 1).nonzero()[:, 0])

    def _facts_of(self, data: Pixels) -> dict[str, int]:
        facts = net_facts(data, _WHO)
        return facts | {"classes": data.classes} if self.condition == "class" else facts

    def _shots(self) -> tuple[int, ...]:
        """The sizes of supports, none by class."""
        return () if self.condition == "class" else whole_numbers(self, "shots")

    def named(self, names: Sequence[str]) -> Self:
        """A copy whose labels are positions in `names`; by support, this itself. InputError for an unknown class."""
        if self.condition == "support":
            return self
        if self.names_ is None:
            raise InputError(f"{_WHO} is not fitted yet; expected fit(base, rng) or a folder that it was saved in")
        number = {key: i for i, key in enumerate(self.names_.tolist())}
        unknown = [name for name in names if chance.name_key(name) not in number]
        if unknown:
            raise InputError(f"{_WHO} was not trained on class {unknown[0]!r}; expected one of the {len(number)} "
                             "classes that it was trained on")  # fmt: skip
        part = copy.copy(self)
        part.places = torch.tensor([number[chance.name_key(name)] for name in names], dtype=torch.int64)
        return part

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Pictures [n, c, side, side] of the classes `want` [n], of no parent, each by its class and key alone.

        By class, a label is a position in the names of `named`, else the number of a class that was trained on, and
        the support only says what type the pictures are to have. By support, a row depends on all support
        pictures of its class. Raises InputError before `fit`, for features, for pictures of another shape than those
        trained on, for a class that was not trained on, and by support for one that has no support row.
        """
        x = net_pictures(support, self.size, self.facts_, _WHO)
        assert self.generator_ is not None
        net = self.generator_.to(x.device)
        used, place = torch.unique(want.to(x.device), return_inverse=True)
        with torch.no_grad():
            code = self._codes(net, x, support.y, used)
        z = latents(keys, self.noise, self.truncation, x.device)
        made = in_tiles(net, z, code[place])
        return Examples(like_support(made, support), want, torch.full_like(want, -1))

    def _codes(self, net: Generator | Discriminator, x: Tensor, y: Tensor, classes: Tensor) -> Tensor:
        """A network's codes [k, d] of some classes [k]; InputError for one without a code or a support row."""
        if self.condition == "class":
            return net.codes(self._numbers(classes))
        codes = []
        for label in classes:
            rows = (y.to(x.device) == label).nonzero()[:, 0]
            if not len(rows):
                raise InputError(f"class {int(label)} is wanted but has no support row, and at least 1 is needed")
            codes.append(in_tiles(lambda part: net.codes(part[:, None]), x[rows]).mean(0, keepdim=True))
        return torch.cat(codes) if codes else net.codes(x.new_zeros(1, 1, *x.shape[1:]))[:0]

    def _numbers(self, labels: Tensor) -> Tensor:
        """The numbers [k] of the classes that labels [k] stand for; InputError for one that is none."""
        assert self.facts_ is not None
        known = self.facts_["classes"] if self.places is None else len(self.places)
        outside = labels[(labels < 0) | (labels >= known)]
        if len(outside):
            raise InputError(f"class {int(outside[0])} is wanted, and {_WHO} knows the classes 0 to {known - 1}")
        return labels if self.places is None else self.places.to(labels.device)[labels]

    def plausibility(self, support: Examples, made: Examples) -> Tensor:
        """What share [n] of real pictures that were held out the discriminator finds less plausible than each row.

        Both are scored as pictures of their class, which by support `support` shows. Raises what `synthesize` does.
        """
        x = net_pictures(support, self.size, self.facts_, _WHO)
        rows = net_pictures(Examples(made.x, made.y), 0, self.facts_, _WHO).to(x.device)
        assert self.judge_ is not None
        assert self.quantiles_ is not None
        discriminator = self.judge_.to(x.device)
        used, place = torch.unique(made.y.to(x.device), return_inverse=True)
        with torch.no_grad():
            code = self._codes(discriminator, x, support.y, used)
        return share_below(
            in_tiles(lambda a, b: discriminator.alone(a[:, None], b)[:, 0], rows, code[place]), self.quantiles_
        )

    def between(self, support: Examples, first: int, second: int, steps: int, key: int = 0) -> Tensor:
        """Pictures [steps, c, side, side] on the way from one class to another: their codes are mixed in equal steps.

        All have the noise that `key` draws. Classes are labels, as in `synthesize`, which says what is raised.
        """
        x = net_pictures(support, self.size, self.facts_, _WHO)
        assert self.generator_ is not None
        net = self.generator_.to(x.device)
        z = latents(torch.tensor([key]), self.noise, self.truncation, x.device).expand(steps, -1)
        with torch.no_grad():
            ends = self._codes(net, x, support.y, torch.tensor([first, second], device=x.device))
        code = torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, steps, device=x.device)[:, None])
        made = like_support(in_tiles(net, z, code), support)
        return torch.stack(made) if isinstance(made, list) else made

    def adapt(
        self,
        support: Examples,
        rng: torch.Generator,
        steps: int = 300,
        rate: float = 1e-4,
        names: Sequence[str] | None = None,
    ) -> Self:
        """A copy that is trained on with the support's pictures alone, for `steps` steps at `rate`, in its place.

        G learns, and of the discriminator its last block and what comes after it (Mo, Cho & Shin, "Freeze the
        discriminator", 2020), through `augment`, or all of DiffAugment where that is none. By class, the copy knows the
        support's classes and no other; they must be 0 to k - 1, and `names` [k] are theirs (None: "0", "1", ...). What
        plausibility compares with are then the support pictures. Raises what `synthesize` does, and InputError for
        other labels, no rows, or another number of names.
        """
        x = net_pictures(support, self.size, self.facts_, _WHO)
        labels, y = torch.unique(support.y.cpu(), return_inverse=True)
        k = len(labels)
        if not k or (self.condition == "class" and labels.tolist() != list(range(k))):
            raise InputError(f"{_WHO} was to adapt to rows of the classes {labels.tolist()}; expected 0 to k - 1, with "
                             "rows of each")  # fmt: skip
        if names is not None and len(names) != k:
            raise InputError(f"{len(names)} names were given for {k} classes; expected one of each")
        pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1)  # [m, side, side, c]
        novel = ArrayPictures(y, tuple(names or map(str, range(k))), pixels.cpu().numpy(), "support")
        adapted = copy.copy(self)
        adapted._train_on(novel, rng, steps, rate, str(x.device))
        return adapted

    def _train_on(self, novel: ArrayPictures, rng: torch.Generator, steps: int, rate: float, device: str) -> None:
        """Train on to make novel classes, with networks of its own (Mo, Cho & Shin 2020)."""
        from augforge.generators.conditional_gan.objective import ConditionalObjective
        from augforge.generators.shared.gan.trainer import train_gan

        before = (self.generator_, self.judge_)
        data = load_pixels(novel, 0, device)
        generator, discriminator = self._build(self._facts_of(data), rng)
        for net, old in zip((generator, discriminator), before, strict=True):
            assert old is not None
            # Codes of other classes are no start for new ones: those keep the start that `rng` gave them.
            kept = {key: value for key, value in old.state_dict().items() if not self._is_of_classes(key)}
            net.load_state_dict(net.state_dict() | kept)
        shots = self._shots()
        if self.condition == "class":
            self.names_ = torch.tensor([chance.name_key(name) for name in novel.classes])
        else:
            most = int(data.counts.min())
            shots = tuple(n for n in shots if n < most) or (1,)
        to_train_(device, generator, discriminator)
        discriminator.requires_grad_(False)
        last = discriminator.last_layers().requires_grad_(True)
        policy = policy_of(self.augment) or POLICIES
        objective = ConditionalObjective(generator, last, discriminator, data, data, self.batch, shots, self.symmetry,
                                         policy, self.noise)  # fmt: skip
        settings = GanSettings(steps, rate, rate * self.judge_rate / self.rate, self.average, self.r1, self.lecam,
                               self.accumulate, evaluations=0)  # fmt: skip
        seed = int(chance.draw_keys(1, rng))
        self.alarms = train_gan(objective, settings, Run(device), f"{_WHO} adapted", {}, seed)
        self.quantiles_ = score_quantiles(objective.real_scores())
        to_rest_(generator, discriminator)
        self.places = None

    def _is_of_classes(self, name: str) -> bool:
        """Whether a saved tensor belongs to single classes."""
        return self.condition == "class" and ("table." in name or "project." in name)
