import pytest
import torch
from torch import nn

from augforge.networks.layers import ConvNorm, CosineHead, DropBlock, built, folded
from augforge.networks.products import in_tiles


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_built_draws_from_its_generator_alone():
    state = torch.get_rng_state()
    make = lambda: nn.Sequential(ConvNorm(3, 8), nn.Flatten(), nn.Linear(8 * 16, 5), CosineHead(5, 4))  # noqa: E731
    a, b, c = built(make, _rng()), built(make, _rng()), built(make, _rng(1))
    assert torch.equal(torch.get_rng_state(), state)
    for x, y, z in zip(a.parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(x, y)
        assert torch.isfinite(x).all()
        if x.ndim > 1:
            assert not torch.equal(x, z)
    assert float(a[0].conv.weight.detach().std()) == pytest.approx((2 / (8 * 9)) ** 0.5, rel=0.3)
    assert a[0].norm.weight.eq(1).all()
    assert a[0].norm.running_var.eq(1).all()
    assert float(a[3].scale.detach()) == 10


def test_folding_keeps_the_function():
    net = built(lambda: nn.Sequential(ConvNorm(3, 8), nn.ReLU(), ConvNorm(8, 8, 1, 2)), _rng())
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.normal_(generator=_rng(2))
            module.running_var.uniform_(0.5, 2, generator=_rng(3))
    x = torch.randn(4, 3, 9, 9, generator=_rng(4))
    small = folded(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert torch.allclose(small(x), net.eval()(x), atol=1e-4)


def test_cosine_head_is_a_scaled_cosine():
    head = built(lambda: CosineHead(6, 3, scale=4.0), _rng())
    x = torch.randn(5, 6, generator=_rng(1))
    expected = 4 * torch.cosine_similarity(x[:, None], head.weight.detach()[None], dim=2)
    assert torch.allclose(head(x), expected, atol=1e-6)
    assert torch.allclose(head(x), head(7 * x), atol=1e-5)


def test_dropblock_drops_its_share_in_squares():
    block = DropBlock(0.2, 3)
    x = torch.ones(200, 4, 12, 12)
    assert torch.equal(block(x), x)  # without a generator
    block.generator = _rng()
    y = block(x)
    assert 0.15 < float((y == 0).float().mean()) < 0.22  # squares overlap now and then
    assert float(y.mean()) == pytest.approx(1, abs=1e-3)
    block.generator = _rng()
    assert torch.equal(block(x), y)
    assert torch.equal(block.eval()(x), x)


@pytest.mark.parametrize("d", [3, 16, 100])
def test_tiles_give_a_row_the_same_bits_in_any_company(d):
    net = torch.nn.Sequential(torch.nn.Linear(d, 37), torch.nn.LeakyReLU(0.2), torch.nn.Linear(37, d))
    x = torch.randn(600, d, generator=_rng())
    whole = in_tiles(net, x)
    assert torch.allclose(whole, net(x), atol=1e-5)
    order = torch.randperm(600, generator=_rng(1))
    assert torch.equal(in_tiles(net, x[order]), whole[order])
    for i in (0, 63, 64, 599):
        assert torch.equal(in_tiles(net, x[i : i + 1]), whole[i : i + 1])
    assert in_tiles(net, x[:0]).shape == (0, d)
