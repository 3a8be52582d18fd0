import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.episodes.named_tasks import open_task
from augforge.protocols.verification import (
    accuracy,
    auc,
    best_threshold,
    draw_pairs,
    equal_error_rate,
    pair_scores,
    people_weights,
    roc,
    verify,
)
from augforge.types import InputError

Y = torch.arange(6).repeat_interleave(5)


def _bank(prefix, spread=1.0, people=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(people).repeat_interleave(5)
    x = torch.randn(people, 8, generator=rng)[y] + spread * torch.randn(len(y), 8, generator=rng)
    return FeatureBank(x, y, tuple(f"{prefix}{i}" for i in range(people)))


def _scored(m=60, seed=1):
    rng = torch.Generator().manual_seed(seed)
    same = torch.arange(m) % 3 == 0
    scores = torch.randn(m, generator=rng).mul(4).round().div(4) + same  # with ties
    return scores, same


def test_pairs_are_what_they_say_and_none_is_twice():
    pairs = draw_pairs(Y, 30, seed=2)
    assert torch.equal(pairs.same, Y[pairs.first] == Y[pairs.second])
    assert pairs.same.sum() == 30
    assert len(pairs.same) == 60
    assert bool((pairs.first < pairs.second).all())
    assert len({*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}) == 60


def test_pairs_depend_on_the_seed_alone():
    a, b, c = draw_pairs(Y, 30, 2), draw_pairs(Y, 30, 2), draw_pairs(Y, 30, 3)
    assert torch.equal(a.first, b.first)
    assert not torch.equal(a.first, c.first)


def test_all_same_pairs_by_default():
    pairs = draw_pairs(Y)
    assert pairs.same.sum() == 6 * 10
    assert (~pairs.same).sum() == 60


def test_every_pair_is_as_likely():
    counts = torch.zeros(30, 30)
    for seed in range(400):
        pairs = draw_pairs(Y, 10, seed)
        counts[pairs.first, pairs.second] += 1
    same = counts[(Y[:, None] == Y) & (torch.arange(30)[:, None] < torch.arange(30))]
    expected = 4000 / 60
    assert ((same - expected) ** 2 / expected).sum() < 110  # 59 degrees of freedom


@pytest.mark.parametrize(("y", "n"), [(Y, 61), (Y, 0), (torch.zeros(5), None), (torch.arange(5), None), (Y[:0], 1)])
def test_pairs_that_are_not_there_are_refused(y, n):
    with pytest.raises(InputError, match="pairs were asked for; there are"):
        draw_pairs(y, n)
    with pytest.raises(InputError, match="at most 5000 rows"):
        draw_pairs(torch.zeros(5001))


def test_scores_are_higher_for_what_is_alike():
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    pairs = draw_pairs(torch.tensor([0, 0, 1]))
    assert pair_scores(x, pairs).tolist() == [1.0, 0.0]
    assert pair_scores(x, pairs, "euclidean").tolist() in ([-1.0, -10.0], [-1.0, -13.0])


def test_the_area_is_the_chance_of_the_right_order():
    scores, same = _scored()
    a, b = scores[same][:, None], scores[~same][None]
    expected = ((a > b).double() + 0.5 * (a == b).double()).mean()
    curve = roc(scores, same)
    assert torch.allclose(auc(curve), expected, atol=1e-12)
    assert torch.allclose(auc(roc(-scores, same)), 1 - expected, atol=1e-12)


def test_the_curve_is_counted_at_each_threshold():
    scores, same = _scored()
    curve = roc(scores, same)
    assert len(curve.threshold) == len(torch.unique(scores)) + 1
    for fpr, tpr, t in zip(curve.fpr, curve.tpr, curve.threshold, strict=True):
        said = scores >= t
        assert fpr == (said & ~same).sum().double() / (~same).sum()
        assert tpr == (said & same).sum().double() / same.sum()


def test_whole_weights_are_repeated_pairs():
    scores, same = _scored()
    times = torch.arange(len(scores)) % 4
    weighted, repeated = roc(scores, same, times), roc(scores.repeat_interleave(times), same.repeat_interleave(times))
    assert torch.allclose(auc(weighted), auc(repeated))
    assert torch.allclose(equal_error_rate(weighted), equal_error_rate(repeated))
    assert torch.allclose(
        accuracy(scores, same, 0.5, times),
        accuracy(scores.repeat_interleave(times), same.repeat_interleave(times), 0.5),
    )
    both = torch.stack([times, torch.ones_like(times)])
    assert torch.allclose(auc(roc(scores, same, both)), torch.stack([auc(weighted), auc(roc(scores, same))]))


def test_equal_error_rates_that_are_known():
    same = torch.tensor([True, True, False, False])
    assert equal_error_rate(roc(torch.tensor([4.0, 3, 2, 1]), same)) == 0
    assert equal_error_rate(roc(torch.tensor([1.0, 2, 3, 4]), same)) == 1
    assert equal_error_rate(roc(torch.tensor([4.0, 2, 3, 1]), same)) == 0.5
    assert equal_error_rate(roc(torch.zeros(4), same)) == 0.5


def test_the_best_threshold_is_the_best():
    scores, same = _scored()
    best = accuracy(scores, same, best_threshold(scores, same))
    for t in torch.cat([scores - 0.01, scores + 0.01]).tolist():
        assert accuracy(scores, same, t) <= best
    assert best_threshold(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([True, True, False])) == 0.5
    assert best_threshold(torch.tensor([0.0, 5.0, 4.0]), torch.tensor([True, False, False])) > 5
    assert best_threshold(torch.tensor([5.0, 4.0, 6.0]), torch.tensor([True, True, False])) < 4


@pytest.mark.parametrize(
    ("scores", "same"), [([1.0, 2.0], [True, True]), ([1.0, 2.0], [False, False]), ([float("nan"), 2.0], [True, False])]
)
def test_no_curve_without_both_kinds(scores, same):
    with pytest.raises(InputError, match="a ROC curve needs"):
        roc(torch.tensor(scores), torch.tensor(same))


def test_people_are_drawn_whole():
    pairs = draw_pairs(Y)
    weight = people_weights(pairs, Y, 50)
    for w in weight:
        times = {int(p): float(v) for p, v in zip(Y[pairs.first[pairs.same]], w[pairs.same], strict=True)}
        assert sum(times.values()) == 6
        for a, b, v in zip(Y[pairs.first], Y[pairs.second], w, strict=True):
            assert v == (times[int(a)] if a == b else times[int(a)] * times[int(b)])
    with pytest.raises(InputError, match="over 2 people"):
        people_weights(draw_pairs(Y[:10]), Y[:10], 0)


def test_verify_puts_it_together():
    novel, val = _bank("n", seed=1), _bank("v", seed=2)
    found = verify(novel, val, resamples=200)
    pairs, val_pairs = draw_pairs(novel.y), draw_pairs(val.y)
    scores = pair_scores(novel.x, pairs)
    assert found.threshold == best_threshold(pair_scores(val.x, val_pairs), val_pairs.same)
    assert found.auc == float(auc(roc(scores, pairs.same)))
    assert found.accuracy == float(accuracy(scores, pairs.same, found.threshold))
    assert (found.people, found.pairs) == (6, 120)
    for name in ("auc", "equal_error_rate", "accuracy"):
        low, high = getattr(found, f"{name}_ci95")
        assert 0 <= low < getattr(found, name) < high <= 1
    again = verify(novel, val, resamples=200)
    assert again.auc_ci95 == found.auc_ci95
    assert verify(_bank("n", 0.01), _bank("v", 0.01, seed=3)).auc == 1
    with pytest.raises(InputError, match="'n0' is among the people"):
        verify(novel, _bank("n"))


@pytest.mark.data
def test_raw_faces_can_be_told_apart_better_than_by_chance(data_root):
    task = open_task("orl-faces", data_root)
    banks = []
    for bank in (task.novel, task.val):
        x = bank.examples(torch.arange(len(bank))).x.float().flatten(1)
        banks.append(FeatureBank(x - x.mean(1, keepdim=True), bank.y, bank.classes))
    found = verify(*banks, resamples=200)
    assert found.people == 12
    assert 0.75 < found.auc_ci95[0] < found.auc < found.auc_ci95[1] <= 1
    assert 0.6 < found.accuracy < 1
