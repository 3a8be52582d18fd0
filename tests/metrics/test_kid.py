import itertools

import pytest
import torch

from augforge.metrics.kid import kid, kid_of_classes, kid_over_subsets
from augforge.metrics.rows import TooFewRows
from augforge.types import InputError


def _draw(n, d=6, seed=0, shift=0.0):
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _brute_force(real, made):
    def kernel(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    def among(rows):
        return sum(kernel(a, b) for a, b in itertools.permutations(rows, 2)) / (len(rows) * (len(rows) - 1))

    across = sum(kernel(a, b) for a in real for b in made) / (len(real) * len(made))
    return among(real) + among(made) - 2 * across


@pytest.mark.parametrize(("n", "m"), [(2, 2), (9, 14), (21, 8)])
def test_it_is_the_double_loop_over_pairs(n, m):
    real, made = _draw(n, seed=1), _draw(m, seed=2, shift=0.7)
    assert kid(real, made) == pytest.approx(_brute_force(real, made), rel=1e-10)


def test_more_rows_than_go_in_one_block():
    real, made = _draw(700, seed=1), _draw(530, seed=2, shift=0.7)

    def kernel_mean(a, b):
        kernel = (a @ b.mT / 6 + 1) ** 3
        own = 0 if a is not b else kernel.trace()
        return (kernel.sum() - own) / (len(a) * (len(b) - (a is b)))

    wanted = kernel_mean(real, real) + kernel_mean(made, made) - 2 * kernel_mean(real, made)
    assert kid(real, made) == pytest.approx(float(wanted), rel=1e-10)


def test_agrees_with_torchmetrics():
    from torchmetrics.image import kid as image

    real, made = _draw(80, seed=1), _draw(80, seed=2, shift=0.5)
    assert kid(real, made) == pytest.approx(float(image.poly_mmd(real, made, 3, None, 1.0)), rel=1e-3)


def test_agrees_with_torch_fidelity():
    from torch_fidelity import metric_kid as published

    real, made = _draw(80, seed=1), _draw(80, seed=2, shift=0.5)
    wanted = published.kid_features_to_metric(real, made, kid_subsets=1, kid_subset_size=80)
    assert kid(real, made) == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-3)


def test_with_classes_it_is_the_double_loop_over_pairs():
    real, made = _draw(11, seed=1), _draw(9, seed=2, shift=0.7)
    y, made_y = torch.tensor([0] * 3 + [1] * 6 + [2] * 2), torch.tensor([2] * 2 + [0] * 4 + [1] * 3)
    share = torch.bincount(made_y) / len(made_y)

    def mean(a, b):
        kernel = (a @ b.mT / 6 + 1) ** 3
        same = a.shape == b.shape and bool((a == b).all())
        return (kernel.sum() - (kernel.trace() if same else 0)) / (len(a) * (len(b) - same))

    wanted = 0.0
    for c in range(3):
        for k in range(3):
            a, b, x, z = real[y == c], real[y == k], made[made_y == c], made[made_y == k]
            wanted += float(share[c] * share[k] * (mean(a, b) + mean(x, z) - mean(a, z) - mean(b, x)))
    assert kid_of_classes((real, y), (made, made_y)) == pytest.approx(wanted, rel=1e-8)
    one = torch.zeros(11, dtype=torch.int64)
    assert kid_of_classes((real, one), (made, one[:9])) == pytest.approx(kid(real, made), rel=1e-8)
    with pytest.raises(TooFewRows, match="class 3 has 0 real rows"):
        kid_of_classes((real, y), (made, made_y + 1))


def test_without_classes_balanced_sets_seem_nearer_than_they_are():
    y = torch.arange(5).repeat_interleave(5)
    plain = []
    for i in range(200):
        rng = torch.Generator().manual_seed(i)
        centres = 2 * torch.randn(5, 4, generator=rng)
        real, other = (centres[y] + torch.randn(25, 4, generator=rng) for _ in range(2))
        plain.append(kid(real, other))
    assert sum(plain) / 200 < -0.02  # what `kid_of_classes` is for


def test_unbiased_at_any_number_of_rows():
    found = torch.tensor([kid(_draw(8, seed=2 * i), _draw(8, seed=2 * i + 1)) for i in range(600)])
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean()) < 4 * error
    assert (found < 0).any()


def test_known_shift():
    """In one dimension k = (xy + 1)^3, so the discrepancy is sum over j of C(3, j) (E x^j - E y^j)^2."""
    real, made = _draw(6_000, 1, 1), _draw(6_000, 1, 2, shift=1.0)
    # Moments 1 to 3: 0, 1, 0 for N(0, 1), and 1, 2, 4 for N(1, 1).
    wanted = 3 * (1 - 0) ** 2 + 3 * (2 - 1) ** 2 + (4 - 0) ** 2
    assert kid(real, made) == pytest.approx(wanted, rel=0.1)


def test_symmetric_and_blind_to_order_and_turns():
    real, made = _draw(30, seed=1), _draw(20, seed=2, shift=1.0)
    turn = torch.linalg.qr(_draw(6, 6, 5)).Q
    assert kid(made, real) == pytest.approx(kid(real, made), rel=1e-10)
    assert kid(real.flip(0) @ turn, made @ turn) == pytest.approx(kid(real, made), rel=1e-10)


def test_a_subset_of_all_rows_is_the_whole_estimate():
    real, made = _draw(40, seed=1), _draw(40, seed=2, shift=1.0)
    found = kid_over_subsets(real, made, size=40, subsets=3)
    assert found.mean == pytest.approx(kid(real, made), rel=1e-10)
    assert found.spread == pytest.approx(0.0, abs=1e-12)
    assert (found.subsets, found.size) == (3, 40)


def test_subsets_are_keyed_and_centre_on_the_whole_estimate():
    real, made = _draw(200, seed=1), _draw(150, seed=2, shift=0.5)
    first, again, other = (kid_over_subsets(real, made, 20, 400, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert abs(first.mean - kid(real, made)) < 4 * first.spread / 400**0.5


def test_no_global_random_state_moves():
    before = torch.get_rng_state()
    kid_over_subsets(_draw(20), _draw(20, seed=1), 5, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_refused():
    x = _draw(10)
    with pytest.raises(InputError, match="numbers wide"):
        kid(x, x[:, :3])
    with pytest.raises(TooFewRows, match="there is 1 real row"):
        kid(x[:1], x)
    with pytest.raises(TooFewRows, match=r"there are 10 real rows; .* of subsets of 11 rows needs at least 11"):
        kid_over_subsets(x, x, 11)
    with pytest.raises(InputError, match="0 subsets of 5 rows"):
        kid_over_subsets(x, x, 5, 0)
    with pytest.raises(InputError, match="not finite"):
        kid(x, x / 0)
