import pytest
import torch

from augforge.generators.shared.feature_learning import Perceptron, RowPairs, collapse, cpu_generator, typical_size
from augforge.networks.layers import built
from augforge.types import InputError


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_dropout_takes_a_generator():
    net = built(lambda: Perceptron(4, 1000, 1000, dropout=0.5), _rng())
    x = torch.rand(2, 4, generator=_rng())
    assert torch.equal(net(x), net(x))
    assert torch.equal(net(x, _rng(3)), net(x, _rng(3)))
    assert not torch.equal(net(x, _rng(3)), net(x, _rng(4)))
    with torch.no_grad():
        net.last.weight.copy_(torch.eye(1000))
    hidden, dropped = net(x), net(x, _rng(3))
    zero = dropped == 0
    assert 0.45 < zero.double().mean() < 0.55
    assert torch.allclose(dropped[~zero], 2 * hidden[~zero])


def test_pairs_are_two_rows_of_one_class():
    y = torch.tensor([3, 0, 3, 1, 0, 3, 5])  # 1 and 5 have a single row
    rows, others = RowPairs.of(y, "it").draw(2000, _rng())
    assert torch.equal(y[rows], y[others])
    assert (rows != others).all()
    found = {(int(a), int(b)) for a, b in zip(rows, others, strict=True)}
    assert found == {(0, 2), (2, 0), (0, 5), (5, 0), (2, 5), (5, 2), (1, 4), (4, 1)}
    counts = torch.bincount(rows, minlength=7)
    assert (counts[[0, 1, 2, 4, 5]] > 300).all()  # each row equally likely
    with pytest.raises(InputError, match="every base class has 1 row"):
        RowPairs.of(torch.arange(4), "it")


def test_statistics_of_a_generator_that_copies_its_seed():
    real = torch.randn(3, 5, 8, generator=_rng())
    found = collapse(real, real[:, :, None].expand(-1, -1, 4, -1))
    assert found["made_over_real"] == pytest.approx(1)
    assert found["moved"] == found["from_noise"] == 0


def test_statistics_of_a_generator_that_ignores_its_seed_and_of_one_that_makes_a_point():
    real = torch.randn(3, 5, 8, generator=_rng())
    noise = torch.randn(3, 1, 4, 8, generator=_rng(1)).expand(-1, 5, -1, -1)
    assert collapse(real, noise)["from_noise"] == pytest.approx(1)
    point = real.mean(1)[:, None, None].expand(-1, 5, 4, -1)
    found = collapse(real, point)
    assert found["made_over_real"] == pytest.approx(0, abs=1e-9)
    assert found["from_noise"] == pytest.approx(0, abs=1e-6)
    assert found["moved"] > 0.5


def test_statistics_of_known_noise():
    # each made row is its seed plus noise of the seeds' own spread: half of the variance is from noise
    real = torch.randn(40, 30, 16, generator=_rng())
    made = real[:, :, None] + torch.randn(40, 30, 30, 16, generator=_rng(1))
    found = collapse(real, made)
    assert found["from_noise"] == pytest.approx(0.5, abs=0.02)
    assert found["made_over_real"] == pytest.approx(2**0.5, abs=0.02)


def test_small_things():
    assert float(typical_size(torch.tensor([[3.0, 4.0]]))) == pytest.approx(12.5**0.5)
    assert float(typical_size(torch.zeros(2, 2))) == 1
    assert cpu_generator(_rng()).initial_seed() == cpu_generator(_rng()).initial_seed()
