import pytest
import torch

from augforge.generators.wang_hallucinator.network import Hallucination


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


def test_turned_weights_make_the_same():
    net = Hallucination(7, 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    first, z = torch.randn(5, 7, generator=generator), torch.randn(5, 3, generator=generator)
    torch.testing.assert_close(net.rest(first, z, net.turned()), net.rest(first, z))
