"""The public battery finds what is broken, and says which promise."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.generators.shared.support import choose_parents
from augforge.parts import catalog, contracts
from augforge.types import Examples, InputError


@dataclass
class Good:
    space: ClassVar[str] = "feature"
    one_parent: ClassVar[bool] = True
    mean_: torch.Tensor | None = field(default=None, init=False, repr=False)

    def fit(self, base, rng):
        self.mean_ = base.examples(torch.arange(len(base.y))).x.mean(0)
        return self

    def synthesize(self, support, want, keys):
        if isinstance(support.x, list) or support.x.ndim != 2:
            raise InputError("it takes features")
        parent = choose_parents(support.y, want, keys)
        made = support.x[parent] + self.mean_
        return Examples(self.changed(made, support, keys).to(support.x.dtype), want, parent)

    def changed(self, made, support, keys):
        return made


@dataclass
class OfItsBatch(Good):
    def changed(self, made, support, keys):
        return made + len(made)


@dataclass
class Global(Good):
    def changed(self, made, support, keys):
        return made + torch.rand(1)


@dataclass
class Overwriting(Good):
    def changed(self, made, support, keys):
        support.x.add_(1)
        return made


@dataclass
class Forgetful(Good):
    def fit(self, base, rng):
        self.offset = 1.0  # learnt, and not called `offset_`
        return super().fit(base, rng)

    def changed(self, made, support, keys):
        return made + getattr(self, "offset", 0.0)


@dataclass
class OfTwoParents(Good):
    def changed(self, made, support, keys):
        return made + support.x.mean()


def test_a_good_part_passes():
    contracts.check(Good())
    contracts.check(catalog.make("prototype", kind="classifier"), widths=(4,))


def test_it_is_checked_on_a_bank_of_ones_own():
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    contracts.check(Good(), base=FeatureBank(x, torch.arange(12) // 3, tuple("abcd")))


@pytest.mark.parametrize(
    ("part", "law"),
    [
        (OfItsBatch, "rows_do_not_depend_on_their_batch"),
        (Global, "rows_do_not_depend_on_their_batch"),
        (Overwriting, "the_support_is_untouched"),
        (Forgetful, "saving_and_packing_go_on"),
        (OfTwoParents, "one_parent_is_enough"),
    ],
)
def test_a_broken_promise_is_named(part, law):
    with pytest.raises(contracts.BrokenLaw, match=f"{part.__name__} breaks {law} .* on feature-float32-16: "):
        contracts.check(part())


def test_each_law_can_be_asked_alone():
    case = contracts.SynthesizerCase(Global(), width=7)
    with pytest.raises(AssertionError, match="global random state moved"):
        contracts.LAWS["synthesizer"]["global_random_state_stays"](case)


def test_what_is_no_part_is_refused():
    with pytest.raises(InputError, match="expected a part"):
        contracts.check(object())
