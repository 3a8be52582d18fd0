import functools
import operator

import pytest
import torch

from augforge import chance
from augforge.bench.made_rows import weighing
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import FeatureBank
from augforge.episodes import draw_episodes
from augforge.episodes.batch import as_trials
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.generators.nothing import Nothing
from augforge.imagine import check_space, concatenate, enlarge, fill_to, more_of_each, usual_share, weighed, with_share
from augforge.types import Examples, InputError

Y = torch.tensor([1, 0, 1, 1, 3])
SUPPORT = Examples(torch.arange(10.0).reshape(5, 2), Y)
PICTURES = Examples(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), Y)


def test_filling_counts_real_rows():
    want = fill_to(Y, 3)
    assert want.tolist() == [0, 0, 2, 2, 2, 3, 3]
    assert torch.bincount(torch.cat([Y, want])).tolist() == [3, 3, 3, 3]
    assert fill_to(Y, 1).tolist() == [2]
    assert fill_to(Y, 0).tolist() == []
    assert fill_to(Y, 2, classes=5).tolist() == [0, 2, 2, 3, 4, 4]
    assert fill_to(Y[:0], 2, classes=2).tolist() == [0, 0, 1, 1]
    assert want.dtype == torch.int64


def test_more_of_each():
    assert more_of_each(3, 2).tolist() == [0, 0, 1, 1, 2, 2]
    assert more_of_each(3, 0).tolist() == []


def test_real_rows_come_first_and_have_no_parent():
    want = torch.tensor([3, 0, 1])
    both = enlarge(SUPPORT, Copies(), want, chance.row_keys(0, "", torch.arange(3)))
    assert torch.equal(both.x[:5], SUPPORT.x)
    assert both.y.tolist() == [*Y.tolist(), 3, 0, 1]
    assert both.parent[:5].tolist() == [-1] * 5
    assert torch.equal(both.x[5:], SUPPORT.x[both.parent[5:]])
    assert torch.equal(Y[both.parent[5:]], want)


def test_nothing_adds_nothing():
    both = enlarge(SUPPORT, Nothing(), torch.tensor([2, 7]), torch.arange(2))
    assert torch.equal(both.x, SUPPORT.x)
    assert torch.equal(both.y, Y)
    none = torch.zeros(0, dtype=torch.int64)
    assert torch.equal(enlarge(SUPPORT, Copies(), none, none).y, Y)


class _NeedsTwo(Copies):
    support_needed = 2


@pytest.mark.parametrize(
    ("part", "wanted", "message"),
    [
        (Copies(), 2, "class 2 has 0 support rows; Copies needs at least 1"),
        (Copies(), 9, "class 9 has 0 support rows"),
        (_NeedsTwo(), 3, "class 3 has 1 support rows; _NeedsTwo needs at least 2"),
    ],
)
def test_classes_with_too_few_rows_are_refused(part, wanted, message):
    with pytest.raises(InputError, match=message):
        enlarge(SUPPORT, part, torch.tensor([1, wanted]), torch.arange(2))


def test_pictures_are_told_from_features():
    with pytest.raises(InputError, match="Classical makes images, and these rows are features"):
        enlarge(SUPPORT, Classical(), torch.tensor([1]), torch.arange(1))
    listed = Examples(list(PICTURES.x), Y)
    for rows in (PICTURES, listed):
        check_space(Classical(), rows, "classical")
        assert len(enlarge(rows, Classical(), torch.tensor([1]), torch.arange(1))) == 6
    feature_part = type("FeaturePart", (), {"space": "feature"})()
    with pytest.raises(InputError, match="x makes features, and these rows are images"):
        check_space(feature_part, listed, "x")


def test_joining_at_once_is_adding_one_by_one():
    whole = {"parent": torch.tensor([4, 5]), "weight": torch.tensor([0.5, 2.0])}
    parts = [
        Examples(torch.randn(2, 3), torch.tensor([i, i]), **{name: whole[name] for name in names})
        for i, names in enumerate([(), ("parent",), ("weight",), ("parent", "weight")])
    ]
    for some in ([parts[0]], parts[:2], parts[1:], parts, [parts[0].take(torch.zeros(0, dtype=torch.int64)), parts[3]]):
        once, added = concatenate(some), functools.reduce(operator.add, some)
        for column in ("x", "y", "parent", "weight"):
            a, b = getattr(once, column), getattr(added, column)
            assert (a is None) == (b is None)
            assert a is None or (a.dtype == b.dtype and torch.equal(a, b))


@pytest.mark.parametrize("share", [0, 0.5, 2.0])
def test_made_rows_weigh_their_share_class_by_class(share):
    want = torch.tensor([0, 1, 1, 3, 3, 3])
    both = enlarge(SUPPORT, Copies(), want, torch.arange(6), share)
    assert both.weight[:5].tolist() == [1] * 5
    assert both.weight[5:].tolist() == pytest.approx([share * part for part in (1, 1.5, 1.5, *[1 / 3] * 3)])
    weighed = Examples(SUPPORT.x, Y, weight=torch.tensor([2.0, 0.5, 1, 0, 1]))
    made = Examples(torch.zeros(6, 2), want, weight=torch.tensor([0, 1, 3, 0, 2.0, 2]).requires_grad_())
    found = with_share(made, weighed, share)
    assert found.weight.tolist() == pytest.approx([0, 0.75 * share, 2.25 * share, 0, share / 2, share / 2])
    found.weight.square().sum().backward()
    assert made.weight.grad.isfinite().all()
    assert len(enlarge(SUPPORT, Nothing(), want, torch.arange(6), share)) == 5
    pictures = enlarge(PICTURES, Classical(), want, torch.arange(6), share)
    assert torch.equal(pictures.weight, both.weight)


def test_without_a_share_made_rows_weigh_what_suits_the_classifier():
    want = torch.tensor([0, 0, 1, 1, 1, 1, 1])
    for classifier, family in ((None, "discriminative"), (Logistic(), "discriminative"), (Prototype(), "means")):
        both = enlarge(SUPPORT, Copies(), want, torch.arange(7), classifier=classifier)
        together = torch.zeros(2).index_add(0, want, both.weight[5:])
        counts = torch.tensor([1, 3])
        torch.testing.assert_close(together, usual_share(family, counts) * counts)
        assert both.weight[:5].tolist() == [1.0] * 5


def test_made_pictures_of_a_class_weigh_as_one_real_row_whoever_reads_them():
    want = torch.tensor([0, 0, 1, 1, 1, 1, 1])
    for classifier in (None, Prototype(), Logistic()):
        both = enlarge(PICTURES, Classical(), want, torch.arange(7), classifier=classifier)
        together = torch.zeros(2).index_add(0, want, both.weight[-7:])
        torch.testing.assert_close(together, torch.ones(2))


def test_rows_farther_out_than_other_classes_weigh_less_by_the_square_of_how_much():
    x = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])  # they lie sqrt(24) from their middle
    support, y = Examples(x, torch.arange(3)), torch.arange(3).repeat_interleave(4)
    far = torch.tensor([1.0, 24**0.5, 2 * 24**0.5])  # of the made rows of each class
    step = far[y, None] * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).repeat(3, 1)
    made = weighed(Examples(x[y] + step, y), support, Copies(), "means")
    assert torch.allclose(made.weight.view(3, 4).sum(1), torch.tensor([0.4, 0.4, 0.1]))
    bank = FeatureBank(torch.cat([x, x]), torch.arange(3).repeat(2), ("a", "b", "c"))
    trials = as_trials(draw_episodes(bank.y, way=3, shot=1, n_query=1, trials=2), bank)
    classes = bank.y[trials.rows.support[:, :, 0]]  # [2, way]
    rows = made.x.view(3, 4, 2)[classes]
    found = weighing(Copies(), "means", bank.x)((rows, None), trials)[1]
    assert torch.allclose(found.sum(2), torch.tensor([0.4, 0.4, 0.1])[classes])


def test_shares_that_make_no_sense_are_refused():
    for share in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="expected a number of at least 0"):
            enlarge(SUPPORT, Copies(), torch.tensor([1]), torch.arange(1), share)
    with pytest.raises(InputError, match=r"share=0\.5 was given, and class 2 has no real row to be weighed beside"):
        with_share(Examples(torch.zeros(2, 2), torch.tensor([1, 2])), SUPPORT, 0.5)
