import math

import pytest
import torch

from augforge.metrics.coverage import density_coverage, precision_recall
from augforge.metrics.rows import TooFewRows
from augforge.types import InputError


def _draw(n, d=4, seed=0, shift=0.0):
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _brute_force(real, made, k):
    """The four numbers by loops over rows: precision, recall, density, coverage."""

    def apart(a, b):
        return math.dist(a.tolist(), b.tolist())

    def radii(x):
        return [sorted(apart(a, b) for j, b in enumerate(x) if j != i)[k - 1] for i, a in enumerate(x)]

    inside = [[apart(r, m) <= radius for m in made] for r, radius in zip(real, radii(real), strict=True)]
    reached = [any(apart(r, m) <= radius for m, radius in zip(made, radii(made), strict=True)) for r in real]
    columns = list(zip(*inside, strict=True))
    return (
        sum(any(c) for c in columns) / len(made),
        sum(reached) / len(real),
        sum(sum(c) for c in columns) / (k * len(made)),
        sum(any(line) for line in inside) / len(real),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m", "shift"), [(30, 20, 0.0), (12, 40, 0.8), (25, 25, 3.0)])
def test_they_are_what_loops_over_rows_give(n, m, shift, k):
    real, made = _draw(n, seed=1), _draw(m, seed=2, shift=shift)
    both, other = precision_recall(real, made, k), density_coverage(real, made, k)
    assert (both.precision, both.recall, other.density, other.coverage) == pytest.approx(_brute_force(real, made, k))


def test_more_rows_than_go_in_one_block():
    """Rows of four far groups give the four shares of one group, whose distances fit into one block."""
    real, made = _draw(530, seed=1), _draw(530, seed=2, shift=0.5)
    groups = 50 * torch.arange(4).repeat_interleave(530)[:, None]
    four = [x.repeat(4, 1) + groups for x in (real, made)]
    assert precision_recall(*four, 3) == precision_recall(real, made, 3)
    found, wanted = density_coverage(*four, 5), density_coverage(real, made, 5)
    assert (found.density, found.coverage) == pytest.approx((wanted.density, wanted.coverage))


def test_agrees_with_prdc():
    import prdc as published

    real, made = _draw(60, seed=1), _draw(50, seed=2, shift=0.5)
    wanted = published.compute_prdc(real.numpy(), made.numpy(), 5)
    both, other = precision_recall(real, made, 5), density_coverage(real, made, 5)
    assert (both.precision, both.recall) == pytest.approx((wanted["precision"], wanted["recall"]))
    assert (other.density, other.coverage) == pytest.approx((wanted["density"], wanted["coverage"]))


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_a_set_and_itself(shift):
    """Each row is in its own ball and in those of about k others: where shares are whole, the rim counts as inside."""
    x = _draw(100, seed=1, shift=shift)
    assert precision_recall(x, x, 3) == precision_recall(x, x.flip(0), 3)
    assert precision_recall(x, x, 3).precision == precision_recall(x, x, 3).recall == 1.0
    found = density_coverage(x, x, 5)
    assert found.density == pytest.approx(6 / 5)
    assert found.coverage == 1.0


def test_another_draw_of_the_same_distribution():
    real, made = _draw(600, 8, 1), _draw(600, 8, 2)
    found = density_coverage(real, made, 5)
    assert found.density == pytest.approx(1.0, abs=0.1)
    # None of the 5 nearest of 1199 others is among the 600 made ones: hypergeometric.
    wanted = 1 - math.prod((599 - i) / (1199 - i) for i in range(5))
    assert found.coverage == pytest.approx(wanted, abs=0.03)


def test_far_rows_and_one_mode_are_told_apart():
    real = torch.cat([_draw(100, seed=1), _draw(100, seed=2, shift=50)])
    far, one_mode = _draw(100, seed=3, shift=-500), _draw(100, seed=4)
    assert precision_recall(real, far).precision == precision_recall(real, far).recall == 0
    assert density_coverage(real, far).density == density_coverage(real, far).coverage == 0
    found = precision_recall(real, one_mode)
    assert found.precision > 0.8
    assert found.recall == pytest.approx(0.5, abs=0.1)
    assert density_coverage(real, one_mode).coverage <= 0.5


def test_blind_to_scale_turns_and_order():
    real, made = _draw(50, seed=1), _draw(40, seed=2, shift=0.5)
    turn = torch.linalg.qr(_draw(4, 4, 5)).Q
    assert precision_recall(7 * real @ turn + 1, 7 * made.flip(0) @ turn + 1) == precision_recall(real, made)
    assert density_coverage(7 * real @ turn + 1, 7 * made.flip(0) @ turn + 1) == density_coverage(real, made)


def test_what_is_refused():
    x = _draw(10)
    for metric in (precision_recall, density_coverage):
        with pytest.raises(TooFewRows, match=r"there are 3 real rows; .* with k=3 needs at least 4"):
            metric(x[:3], x, 3)
        with pytest.raises(InputError, match="numbers wide"):
            metric(x, x[:, :2], 3)
        with pytest.raises(InputError, match="not finite"):
            metric(x, x / 0, 3)
        with pytest.raises(InputError, match="k=0"):
            metric(x, x, 0)
    with pytest.raises(TooFewRows, match="there are 3 made rows"):
        precision_recall(x, x[:3], 3)
    assert density_coverage(x, x[:1], 3).coverage > 0
