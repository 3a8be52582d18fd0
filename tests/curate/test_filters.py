"""Made rows that are rejected and made again: laws of the loop, and the judges against brute force."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.curate.by_class import by_classes, distances
from augforge.curate.filters import (
    FAR,
    IMPLAUSIBLE,
    NEARER,
    ByDiscriminator,
    Implausible,
    synthesize_plausible,
    verdicts,
)
from augforge.generators.shared.support import choose_parents
from augforge.types import Examples, InputError, QuotaError

KEYS = chance.row_keys(0, "rejecting", torch.arange(40))
SUPPORT = Examples(torch.arange(6, dtype=torch.uint8).mul(10)[:, None, None, None].expand(-1, 1, 4, 4).clone(),
                   torch.tensor([0, 1, 2, 0, 1, 2]))  # fmt: skip
WANT = torch.arange(40) % 3


@dataclass
class Shades:
    """Its parent's picture with one pixel of chance in the corner; the discriminator likes a bright corner."""

    space: ClassVar[str] = "image"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    def synthesize(self, support, want, keys):
        parent = choose_parents(support.y, want, keys)
        whole = isinstance(support.x, list)
        x = torch.stack(support.x)[parent].clone() if whole else support.x[parent].clone()
        x[:, 0, 0, 0] = (chance.uniform(keys) * 256).to(torch.uint8)
        return Examples(list(x) if whole else x, want, parent, torch.full((len(want),), 0.5))

    def plausibility(self, support, made):
        assert support.y.tolist() == list(range(len(support)))  # a parent is a class of its own
        assert torch.equal(made.y, made.parent)
        return _corner(made) / 256


class ManyParents(Shades):
    """The same from the first picture of a class, with no word on parents."""

    one_parent: ClassVar[bool] = False

    def synthesize(self, support, want, keys):
        made = super().synthesize(support.take(torch.arange(3)), want, keys)
        return replace(made, parent=None, weight=None)

    def plausibility(self, support, made):
        return _corner(made) / 256


def _corner(made):
    return torch.stack([picture[0, 0, 0] for picture in made.x]).float()


@dataclass
class Corner:
    """A representation: the corner pixel, and the rest."""

    def embed(self, x):
        x = torch.stack(x) if isinstance(x, list) else x
        return x.float().flatten(1)[:, [0, 5]]


def _made(part, want=WANT, keys=KEYS, least=0.6, tries=20, support=SUPPORT):
    made, of_row = synthesize_plausible(part, support, want, keys, [ByDiscriminator(least)], tries)
    assert len(of_row) == len(want)
    return made, sum(of_row, Counter())


@pytest.mark.parametrize("part", [Shades(), ManyParents()], ids=lambda part: type(part).__name__)
def test_all_rows_are_plausible_and_first_tries_stay(part):
    first = part.synthesize(SUPPORT, WANT, KEYS)
    made, counts = _made(part)
    assert torch.equal(made.y, WANT)
    assert bool((_corner(made) / 256 >= 0.6).all())
    good = _corner(first) / 256 >= 0.6
    assert 0 < int(good.sum()) < 40
    assert torch.equal(made.x[good], first.x[good])
    assert counts.keys() == {IMPLAUSIBLE}
    assert counts[IMPLAUSIBLE] >= int((~good).sum())


def test_try_j_has_its_own_key_and_the_same_parent():
    made, counts = _made(Shades())
    first = Shades().synthesize(SUPPORT, WANT, KEYS)
    assert torch.equal(made.parent, first.parent)
    rejected = 0
    for i in range(40):
        tries = [KEYS[i : i + 1], *(chance.fork(KEYS[i : i + 1], f"try {j}") for j in range(1, 20))]
        corners = [int(chance.uniform(key) * 256) for key in tries]
        place = next(j for j, corner in enumerate(corners) if corner / 256 >= 0.6)
        assert int(made.x[i, 0, 0, 0]) == corners[place]
        rejected += place
    assert counts == {IMPLAUSIBLE: rejected}


@pytest.mark.parametrize("part", [Shades(), ManyParents()], ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("listed", [False, True])
def test_rows_do_not_depend_on_their_batch(part, listed):
    support = replace(SUPPORT, x=list(SUPPORT.x)) if listed else SUPPORT
    whole, counts = _made(part, support=support)
    assert isinstance(whole.x, list) == listed
    alone = [_made(part, WANT[i : i + 1], KEYS[i : i + 1], support=support) for i in range(40)]
    for i, (made, _) in enumerate(alone):
        assert torch.equal(made.x[0], whole.x[i])
        assert (made.weight is None) == (whole.weight is None)
    assert sum((Counter(c) for _, c in alone), Counter()) == counts
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    shuffled, same = _made(part, WANT[order], KEYS[order], support=support)
    assert same == counts
    for i, row in enumerate(order.tolist()):
        assert torch.equal(shuffled.x[i], whole.x[row])


def test_a_row_that_fails_all_tries_is_named_with_its_reasons():
    with pytest.raises(
        Implausible, match=r"row \d+, of class \d, was rejected in all 3 tries \(3 implausible"
    ) as caught:
        _made(Shades(), least=0.9, tries=3)
    error = caught.value
    assert isinstance(error, QuotaError)
    assert error.exit_code == 3
    assert error.counts == {IMPLAUSIBLE: 3}
    assert error.row == next(i for i in range(40) if _fails(i))


def _fails(i):
    try:
        _made(Shades(), WANT[i : i + 1], KEYS[i : i + 1], least=0.9, tries=3)
    except Implausible:
        return True
    return False


def test_no_judges_reject_nothing_and_nothing_wanted_makes_nothing():
    made, of_row = synthesize_plausible(Shades(), SUPPORT, WANT, KEYS, [], 3)
    assert torch.equal(made.x, Shades().synthesize(SUPPORT, WANT, KEYS).x)
    assert of_row == [Counter()] * len(WANT)
    made, counts = _made(Shades(), WANT[:0], KEYS[:0])
    assert (len(made), counts) == (0, {})


def test_neither_support_nor_keys_are_touched():
    x, keys, want = SUPPORT.x.clone(), KEYS.clone(), WANT.clone()
    _made(Shades())
    assert torch.equal(SUPPORT.x, x)
    assert torch.equal(KEYS, keys)
    assert torch.equal(WANT, want)


def test_what_is_not_a_number_is_rejected():
    class Lost(Shades):
        def plausibility(self, support, made):
            return torch.full((len(made),), torch.nan)

    made = Lost().synthesize(SUPPORT, WANT, KEYS)
    assert set(verdicts(Lost(), SUPPORT, made, [ByDiscriminator(0.0)])) == {IMPLAUSIBLE}


# By classes


def _source(seed=0, k=4, each=6):
    rng = np.random.default_rng(seed)
    y = torch.arange(k).repeat_interleave(each)
    x = torch.from_numpy(rng.normal(size=(k * each, 5)) + 3 * rng.normal(size=(k, 5))[y]).float()
    return x, y


class Plain:
    def embed(self, x):
        return x.flatten(1)


def _as_pictures(x):
    return Examples(x[:, None, None, :], torch.zeros(len(x), dtype=torch.int64))


def test_by_classes_agrees_with_brute_force():
    x, y = _source()
    judge = by_classes(Plain(), x, y, "abcd")
    rows = (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=1, keepdims=True)
    means = [rows[y == c].mean(0) for c in range(4)]
    left_out = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if y[j] == y[i] and j != i]
        left_out.append(float((rows[i] - rows[others].mean(0)).norm()))
    assert judge.far == pytest.approx(np.quantile(left_out, 0.99), rel=1e-6)
    new = x[12:18].repeat(20, 1) + 2 * torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
    made = _as_pictures(new)
    expected = []
    for row in new:
        z = (row - x.mean(0)) / (row - x.mean(0)).norm()
        away = [float((z - mean).norm()) for mean in means]
        reason = NEARER if min(away) < away[2] else FAR if away[2] > judge.far else None
        expected.append(reason)
    found = verdicts(Shades(), SUPPORT, made, [judge.for_class("c")])
    assert found == expected
    assert set(found) == {NEARER, FAR, None}


def test_a_row_is_judged_by_its_label_where_no_class_is_named():
    x, y = _source()
    judge = by_classes(Plain(), x, y, "abcd")
    made = replace(_as_pictures(x), y=y)
    by_label = judge.margins(Shades(), SUPPORT, made)
    for c, name in enumerate("abcd"):
        assert torch.equal(by_label[y == c], judge.for_class(name).margins(Shades(), SUPPORT, made)[y == c])


def test_classes_of_one_row_have_no_farthest():
    x, y = _source(each=1)
    judge = by_classes(Plain(), x, y, "abcd")
    assert judge.far is None
    found = verdicts(Shades(), SUPPORT, replace(_as_pictures(100 * x), y=y), [judge])
    assert FAR not in found


def test_a_class_without_rows_is_nobodys_and_cannot_be_judged():
    x, y = _source()
    judge = by_classes(Plain(), x, y, "abcde")
    assert bool(distances(x, judge.means)[:, 4].isinf().all())
    assert judge.for_class("a").margins(Shades(), SUPPORT, _as_pictures(x)).isfinite().all()
    for name in ("e", "z"):
        with pytest.raises(InputError, match=f"class {name!r} has no picture that can be read"):
            judge.for_class(name)


def test_one_picture_of_one_class_rejects_nothing_and_is_refused():
    with pytest.raises(InputError, match="two classes, or two rows of one"):
        by_classes(Plain(), torch.ones(1, 5), torch.zeros(1, dtype=torch.int64), "a")
    by_classes(Plain(), torch.eye(5)[:2], torch.zeros(2, dtype=torch.int64), "a")


@dataclass
class Shaky:
    """A judge whose rounding changes with the size of the batch."""

    reasons: ClassVar[tuple[str, ...]] = (FAR,)

    def margins(self, part, support, made):
        exact = _corner(made) - 100
        return (exact + 5e-4 * (-1) ** len(made))[:, None]


def test_rounding_that_depends_on_the_batch_decides_nothing():
    corner = torch.tensor([100, 100, 101, 99, 100], dtype=torch.uint8)
    made = Examples(corner[:, None, None, None], torch.zeros(5, dtype=torch.int64))
    whole = verdicts(Shades(), SUPPORT, made, [Shaky()])
    alone = [verdicts(Shades(), SUPPORT, made.take(torch.tensor([i])), [Shaky()])[0] for i in range(5)]
    assert verdicts(Shades(), SUPPORT, made.take(torch.arange(4)), [Shaky()]) == whole[:4] == alone[:4]


def test_the_first_judge_that_rejects_gives_the_reason():
    x = torch.tensor([[250.0, 30], [250, 40], [0, 30], [0, 40]])
    judge = by_classes(Corner(), x, torch.tensor([0, 0, 1, 1]), "ab")
    part, support = Shades(), Examples(SUPPORT.x[3:4], torch.zeros(1, dtype=torch.int64))
    want = torch.zeros(40, dtype=torch.int64)
    made = part.synthesize(support, want, KEYS)
    both = verdicts(part, support, made, [ByDiscriminator(0.4), judge])
    other = verdicts(part, support, made, [judge, ByDiscriminator(0.4)])
    assert [a is None for a in both] == [b is None for b in other]
    dark = _corner(made) / 256 < 0.39
    assert {both[i] for i in dark.nonzero()[:, 0].tolist()} == {IMPLAUSIBLE}
    assert NEARER in other
