import math

import pytest
import torch

from augforge.metrics.memorisation import memorisation
from augforge.metrics.rows import TooFewRows
from augforge.types import InputError


def _draw(n, seed, d=6):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distances_are_those_of_loops_over_rows():
    train, made, held_out = _draw(20, 1), _draw(9, 2), _draw(7, 3)
    near, usual = ([min(math.dist(a, b) for b in train.tolist()) for a in x.tolist()] for x in (made, held_out))
    found = memorisation(train, made, held_out, percentile=50, resamples=50)
    assert found.mean.value == pytest.approx((sum(near) / 9) / (sum(usual) / 7))
    assert found.median.value == pytest.approx(sorted(near)[4] / sorted(usual)[3])
    assert found.nearer == pytest.approx(sum(x < sorted(usual)[3] for x in near) / 9)


def test_new_rows_of_the_same_distribution_are_no_copies():
    found = memorisation(_draw(500, 1), _draw(400, 2), _draw(400, 3))
    assert found.mean.low < 1 < found.mean.high
    assert found.median.low < 1 < found.median.high
    assert found.nearer == pytest.approx(0.05, abs=0.04)


def test_copies_are_found():
    train = _draw(100, 1)
    exact = memorisation(train, train[:50], _draw(80, 2))
    assert (exact.mean.value, exact.median.high, exact.nearer) == (0, 0, 1)
    near = memorisation(train, train[:50] + 0.01 * _draw(50, 3), _draw(80, 2))
    assert near.mean.high < 0.1
    assert near.nearer == 1


def test_blind_to_scale_turns_and_order():
    train, made, held_out = _draw(40, 1), _draw(30, 2), _draw(30, 3)
    turn = torch.linalg.qr(_draw(6, 5)).Q
    found, moved = (
        memorisation(train, made, held_out),
        memorisation(*(7 * x @ turn - 3 for x in (train, made, held_out))),
    )
    assert moved.mean.value == pytest.approx(found.mean.value)
    assert moved.mean.low == pytest.approx(found.mean.low)
    assert moved.nearer == found.nearer


def test_the_interval_is_keyed_and_narrows_with_rows():
    def width(n, seed=0):
        found = memorisation(_draw(100, 1), _draw(n, 2), _draw(n, 3), seed=seed, resamples=300)
        return found.mean.high - found.mean.low

    assert width(50) == width(50) != width(50, seed=1)
    assert width(800) == pytest.approx(width(50) / 4, rel=0.4)


def test_the_interval_holds_the_truth_about_95_times_in_100():
    """Both sets are draws of one distribution, so the true ratio is 1."""
    train, holds = _draw(30, 1, 2), 0
    for i in range(150):
        found = memorisation(train, _draw(40, 100 + 2 * i, 2), _draw(40, 101 + 2 * i, 2), resamples=200)
        holds += found.mean.low <= 1 <= found.mean.high
    assert 0.87 <= holds / 150 <= 0.99


def test_what_is_refused():
    x, y = _draw(10, 1), _draw(10, 2)
    with pytest.raises(TooFewRows, match="there are 0 training rows"):
        memorisation(x[:0], x, y)
    with pytest.raises(TooFewRows, match="there is 1 held-out row"):
        memorisation(x, x, y[:1])
    with pytest.raises(InputError, match="each of the 4 held-out rows is a training row too"):
        memorisation(x, y, x[:4])
    with pytest.raises(InputError, match="held-out rows are 2 numbers wide"):
        memorisation(x, x, y[:, :2])
    with pytest.raises(InputError, match="percentile=0"):
        memorisation(x, x, y, percentile=0)
    with pytest.raises(InputError, match="not finite"):
        memorisation(x, x / 0, y)
