import pytest
import torch

from augforge.generators.shared.feature_learning import Perceptron, RowPairs, collapse, cpu_generator, typical_size
from augforge.generators.shared.support import checked_rows
from augforge.generators.wang_hallucinator.network import Hallucination
from augforge.networks.layers import built
from augforge.types import Examples, InputError


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("noise", "width"), [(None, None), (3, None), (11, 9)])
def test_at_its_start_it_is_relu_of_the_seed_for_any_noise(noise, width):
    net = Hallucination(6, noise, width)
    x, z = torch.randn(5, 6, generator=_rng()), 100 * torch.randn(5, noise or 6, generator=_rng(1))
    assert torch.equal(net(x, z), x.relu())
    assert torch.equal(net(x.relu(), torch.zeros_like(z)), x.relu())  # the identity where nothing is negative


def test_the_start_copies_the_seed_and_not_the_noise():
    net = Hallucination(4)
    assert torch.equal(net.seed.weight, torch.eye(4))
    assert not net.noise.weight.any()
    assert net.noise.bias is None
    net(torch.rand(3, 4, generator=_rng()), torch.randn(3, 4, generator=_rng())).sum().backward()
    assert net.noise.weight.grad.abs().sum() > 0  # and yet it can learn to use it


def test_making_a_network_draws_no_random_number():
    before = torch.get_rng_state()
    Hallucination(4, 3, 5)
    assert torch.equal(torch.get_rng_state(), before)


def _trained(relus=3):
    net = Hallucination(4, 3, 5, relus=relus)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=_rng(parameter.numel())))
    return net


def test_the_last_relu_is_optional():
    x, z = torch.rand(50, 4, generator=_rng()), torch.randn(50, 3, generator=_rng(1))
    with_it, without = _trained(3)(x, z), _trained(2)(x, z)
    assert (without < 0).any()
    assert torch.equal(with_it, without.relu())


def test_leading_axes_of_seeds_and_noise_broadcast():
    net, x, z = _trained(), torch.rand(2, 3, 1, 4, generator=_rng()), torch.randn(2, 3, 7, 3, generator=_rng(1))
    assert torch.allclose(net(x, z), net(x.expand(2, 3, 7, 4), z))


def test_rescaling_gives_the_network_for_features_of_another_size():
    net, x, z = _trained(), torch.rand(6, 4, generator=_rng()), torch.randn(6, 3, generator=_rng(1))
    expected = 5 * net(x / 5, z)
    net.rescale_(5.0)
    assert torch.allclose(net(x, z), expected, atol=1e-6)


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


def test_rows_that_do_not_fit_are_refused():
    rows = Examples(torch.zeros(2, 4, dtype=torch.bfloat16), torch.tensor([0, 1]))
    assert checked_rows(rows, 4, "it").dtype == torch.float32
    with pytest.raises(InputError, match="it is not fitted yet"):
        checked_rows(rows, None, "it")
    with pytest.raises(InputError, match="it was fitted on 5 features; these rows have 4"):
        checked_rows(rows, 5, "it")
    with pytest.raises(InputError, match="pictures"):
        checked_rows(Examples(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])), 4, "it")


def test_small_things():
    assert float(typical_size(torch.tensor([[3.0, 4.0]]))) == pytest.approx(12.5**0.5)
    assert float(typical_size(torch.zeros(2, 2))) == 1
    assert cpu_generator(_rng()).initial_seed() == cpu_generator(_rng()).initial_seed()


def test_turned_weights_make_the_same():
    net = Hallucination(7, 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    first, z = torch.randn(5, 7, generator=generator), torch.randn(5, 3, generator=generator)
    torch.testing.assert_close(net.rest(first, z, net.turned()), net.rest(first, z))
