import pytest
import torch

from augforge.measure import usefulness as module
from augforge.measure.plain_cnn import CnnOptions, train_cnn
from augforge.measure.usefulness import balanced, feature_sets, picture_sets, train_logistic, train_network, usefulness
from augforge.metrics.rows import TooFewRows
from augforge.types import Examples, InputError

WAY, D = 6, 12


def _draw(each, seed, spread=1.0, shift=0.0):
    """Rows of WAY classes whose centres are always the same."""
    centres = torch.randn(WAY, D, generator=torch.Generator().manual_seed(0))
    y = torch.arange(WAY).repeat_interleave(each)
    noise = torch.randn(len(y), D, generator=torch.Generator().manual_seed(seed))
    return Examples(centres[y] + spread * noise + shift, y)


def _bars(each, seed):
    """Pictures [n, 1, 16, 16] of a bright bar, across or along, at any place."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 80, (2 * each, 1, 16, 16), generator=rng, dtype=torch.uint8)
    for i, place in enumerate(torch.randint(2, 13, (2 * each,), generator=rng).tolist()):
        if i < each:
            x[i, 0, place : place + 2] = 230
        else:
            x[i, 0, :, place : place + 2] = 230
    return Examples(x, torch.arange(2).repeat_interleave(each))


def test_right_made_rows_help_and_wrong_ones_hurt():
    real, held_out = _draw(2, 1, spread=1.5), _draw(60, 2, spread=1.5)
    right = usefulness(feature_sets(real, _draw(40, 3, spread=1.5)), held_out, train_logistic)
    assert right.accuracy["real+made"] > right.accuracy["real"] + 3
    wrong = _draw(40, 3)
    hurt = usefulness(feature_sets(real, Examples(wrong.x, (wrong.y + 1) % WAY)), held_out, train_logistic)
    assert hurt.accuracy["made"] < hurt.accuracy["real"] - 30
    assert (right.held_out, right.classes, list(right.accuracy)) == (360, 6, ["real", "made", "real+made"])


def test_gains_are_differences_of_the_accuracies():
    sets = feature_sets(_draw(2, 1), _draw(9, 3), _draw(9, 4))
    found = usefulness(sets, _draw(20, 2), train_logistic)
    assert [(gain.of, gain.over) for gain in found.gains] == list(module.GAINS)
    for gain in found.gains:
        assert gain.interval.value == pytest.approx(found.accuracy[gain.of] - found.accuracy[gain.over])
        assert gain.interval.low <= gain.interval.value <= gain.interval.high


def test_copies_of_the_real_rows_change_nothing():
    """With the weight of each class held, repeating its rows is the same problem."""
    real = _draw(3, 1)
    found = usefulness(feature_sets(real, real + real), _draw(20, 2), train_logistic)
    assert len(set(found.accuracy.values())) == 1
    assert all((gain.interval.low, gain.interval.high) == (0, 0) for gain in found.gains)


def test_each_class_weighs_what_its_real_rows_do():
    real, made = Examples(torch.zeros(3, 1), torch.tensor([0, 0, 1])), Examples(torch.zeros(6, 1), torch.arange(6) % 2)
    weight = balanced(real + made, real).weight
    both = (real + made).y
    assert [float(weight[both == c].sum()) for c in (0, 1)] == pytest.approx([2, 1])
    assert weight[both == 0].unique().numel() == 1


def test_weights_of_made_rows_keep_their_proportions():
    real, made = _draw(3, 1), _draw(4, 2)
    weight = torch.tensor([0.0, 1.0, 2.0, 1.0]).repeat(WAY)
    weight[:4] = 0
    sets = feature_sets(real, Examples(made.x, made.y, weight=weight))
    both = sets["real+made"].rows.weight
    torch.testing.assert_close(both[18 + 4 : 18 + 8], torch.tensor([0.0, 1.0, 2.0, 1.0]) * 3 / 7)
    assert both[18:22].tolist() == [0.0] * 4
    assert both[:3].tolist() == [1.0] * 3
    alone = sets["made"].rows.weight.view(WAY, 4)
    torch.testing.assert_close(alone.sum(1), torch.full((WAY,), 3.0))
    assert alone[0].tolist() == [0.75] * 4  # a class whose rows weigh nothing has to be measured somehow


def test_intervals_are_over_classes():
    """Many held-out rows of few classes do not make the interval narrow."""
    real, made = _draw(2, 1), _draw(5, 3, shift=0.4)
    few, many = (usefulness(feature_sets(real, made), _draw(n, 2), train_logistic).gains[0].interval for n in (40, 400))
    assert many.error > 0.5 * few.error


def test_a_network_learns_from_pictures_and_the_same_seed_gives_the_same_one():
    real, held_out = _bars(30, 1), _bars(50, 2)
    options = CnnOptions(steps=40, batch_size=16)
    scores = [train_cnn(real.x, real.y, 2, torch.Generator().manual_seed(seed), options) for seed in (0, 0, 1)]
    found = [score(held_out.x) for score in scores]
    assert (found[0].argmax(1) == held_out.y).float().mean() > 0.9
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_rows_without_weight_are_never_seen():
    real, wrong = _bars(30, 1), _bars(30, 4)
    both = real + Examples(wrong.x, 1 - wrong.y)
    weight = torch.cat([torch.ones(60), torch.zeros(60)])
    score = train_cnn(both.x, both.y, 2, torch.Generator().manual_seed(0), CnnOptions(40, 16), weight)
    held_out = _bars(50, 2)
    assert (score(held_out.x).argmax(1) == held_out.y).float().mean() > 0.9


def test_the_five_training_sets_of_a_network():
    sets = picture_sets(_bars(2, 1), _bars(20, 3), "strokes")
    assert [sets[name].augment for name in module.NAMES] == ["none", "none", "none", "strokes", "strokes"]
    found = usefulness(sets, _bars(30, 2), train_network(CnnOptions(5, 16)), repeats=2)
    assert list(found.accuracy) == list(module.NAMES)
    assert len(found.gains) == len(module.GAINS)
    assert found.repeats == 2


def test_no_global_random_state_moves():
    before = torch.get_rng_state()
    train_cnn(_bars(4, 1).x, _bars(4, 1).y, 2, torch.Generator(), CnnOptions(2, 4, augment="strokes"))
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_refused():
    real, made, held_out = _draw(2, 1), _draw(3, 3), _draw(4, 2)
    with pytest.raises(TooFewRows, match="class 5 has no rows in the training set 'made'"):
        usefulness(feature_sets(real, made.take(made.y < 5)), held_out, train_logistic)
    with pytest.raises(TooFewRows, match="at least 2 classes"):
        usefulness(feature_sets(real, made), held_out.take(held_out.y == 0), train_logistic)
    with pytest.raises(InputError, match="repeats=0"):
        usefulness(feature_sets(real, made), held_out, train_logistic, repeats=0)
    with pytest.raises(InputError, match="steps=0"):
        CnnOptions(steps=0)
    with pytest.raises(InputError, match="average=1"):
        CnnOptions(average=1.0)
    with pytest.raises(InputError, match=r"a label of 0\.\.1"):
        train_cnn(_bars(2, 1).x, torch.tensor([0, 1, 2, 0]), 2, torch.Generator())
