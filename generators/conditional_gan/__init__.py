"""A GAN of the classes that it was trained on, or of classes that it is shown a support of.

Miyato & Koyama, "cGANs with projection discriminator", ICLR 2018.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.base_statistics import check_positive, check_range
from augforge.data.banks import ArrayPictures
from augforge.generators.conditional_gan.networks import (
    ClassJudge,
    ClassMaker,
    Judge,
    Maker,
    SupportJudge,
    SupportMaker,
)
from augforge.generators.shared.gan.pictures import as_given, in_tiles, latents, net_pictures, share_below
from augforge.generators.shared.support import whole_numbers
from augforge.networks.layers import built
from augforge.types import Bank, Examples, InputError, Space

if TYPE_CHECKING:
    from augforge.training.loop import Run

_WHO = "conditional-gan"


@dataclass
class ConditionalGan:
    """A class-conditional GAN: pictures of the classes it was trained on, or by support (after Miyato & Koyama 2018).

    `condition` says what tells the class. "class": a learnt code of each class that was trained on; novel ones have to
    be adapted to. "support": the prototype of a support, the mean of an encoder's vectors of its pictures, which learns
    with G from base classes and makes pictures of novel classes at once; `shots` (numbers with commas) are shown in
    training, in turn by chance. The discriminator's score has a part for all pictures and one by class, the product
    with a projected code; real pictures of another class count with the made ones (Reed et al., ICML 2016). Classes are
    drawn with equal chance whatever their sizes, and so are rows within a class.

    `size` in px makes pictures square (0: as they are, all alike, of an even side); `width` and `judge_width` are the
    channels of the largest maps, `noise` and `code` the lengths of z and of the class code. Each of `steps` steps sees
    `batch` made and real pictures ("support": two of each class); in the first share `warmup` of them the condition
    fades in (after Shahbazi et al., "Collapse by conditioning", ICLR 2022). `rate` and `judge_rate` are Adam's,
    `average` the decay of the weights' moving average. `augment` names what of DiffAugment the discriminator sees
    through ("none": nothing). `symmetry` mirrors pictures or turns them eight ways: with "class" each by itself, with
    "support" all of a class alike, which makes other classes. `r1` and `lecam` are weights of those regularisers,
    `accumulate` the parts a batch is worked off in. Every tenth of the training (but not within 50 steps) is looked at
    on a tenth of each class's pictures held out, or on classes held out; after `patience` looks without a better one it
    ends (0: never).

    At synthesis latents are cut off at `truncation` (0: not), in standard deviations; at 1e-30 there is no noise left,
    and all that is made of a class is the same picture.

    Differs from the paper: FiLM by noise and class instead of conditional batch normalisation, no batch normalisation
    at all, one discriminator step for each of the generator's, pictures of other classes as false ones, DiffAugment,
    a moving average, conditions by support.
    """

    space: ClassVar[Space] = "image"
    one_parent: ClassVar[bool] = False
    chooses: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    size: int = 0
    condition: Literal["class", "support"] = "class"
    shots: str = "1,2,5"
    width: int = 64
    judge_width: int = 32
    noise: int = 32
    code: int = 64
    steps: int = 20000
    batch: int = 64
    warmup: float = 0.1
    rate: float = 2e-4
    judge_rate: float = 4e-4
    average: float = 0.999
    augment: str = "colour,translation,cutout"
    symmetry: Literal["none", "mirror", "turns"] = "none"
    r1: float = 0.0
    lecam: float = 0.0
    accumulate: int = 1
    patience: int = 0
    truncation: float = 0.0
    generator_: Maker | None = field(default=None, init=False, repr=False)
    judge_: Judge | None = field(default=None, init=False, repr=False)
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

    def _build(self, facts: dict[str, int], rng: torch.Generator | None) -> tuple[Maker, Judge]:
        self.facts_ = dict(facts)
        shape, sizes = (facts["channels"], facts["side"]), (self.width, self.noise, self.code)
        if self.condition == "class":
            classes = facts["classes"]
            maker = built(lambda: ClassMaker(shape, *sizes, classes), rng)
            judge = built(lambda: ClassJudge(shape, self.judge_width, classes), rng)
        else:
            maker = built(lambda: SupportMaker(shape, *sizes), rng)
            judge = built(lambda: SupportJudge(shape, self.judge_width), rng)
        assert isinstance(maker, Maker)
        assert isinstance(judge, Judge)
        self.generator_, self.judge_ = maker.eval().requires_grad_(False), judge.eval().requires_grad_(False)
        return maker, judge

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None, run: Run | None = None) -> Self:
        """Train on the pictures of `base`; with supports look at the classes of `val`, or at a tenth of the base's.

        By class `val` has no say: it has other classes. Raises InputError for features, pictures of several sizes or an
        odd side with no `size`, a class without pictures, or by support no class of two, losses that stay not finite,
        and a run whose folder holds other settings.
        """
        from augforge.generators.conditional_gan.training import train_conditional_gan

        train_conditional_gan(self, base, rng, val, run)
        self.places = None
        return self

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
        the support says no more than what type the pictures are to have. By support, a row depends on all support
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
        return Examples(as_given(made, support), want, torch.full_like(want, -1))

    def _codes(self, net: Maker | Judge, x: Tensor, y: Tensor, classes: Tensor) -> Tensor:
        """What a network knows [k, d] of some classes [k]; InputError for one that it knows nothing of."""
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

        Both are judged as pictures of their class, which by support `support` shows. Raises what `synthesize` does.
        """
        x = net_pictures(support, self.size, self.facts_, _WHO)
        rows = net_pictures(Examples(made.x, made.y), 0, self.facts_, _WHO).to(x.device)
        assert self.judge_ is not None
        assert self.quantiles_ is not None
        judge = self.judge_.to(x.device)
        used, place = torch.unique(made.y.to(x.device), return_inverse=True)
        with torch.no_grad():
            code = self._codes(judge, x, support.y, used)
        return share_below(in_tiles(lambda a, b: judge.alone(a[:, None], b)[:, 0], rows, code[place]), self.quantiles_)

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
        made = as_given(in_tiles(net, z, code), support)
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
        from augforge.generators.conditional_gan.training import adapt_conditional_gan

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
        adapt_conditional_gan(adapted, novel, rng, steps, rate, str(x.device))
        adapted.places = None
        return adapted
