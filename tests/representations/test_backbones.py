import pytest
import torch
from torch import nn

from augforge.networks.layers import built, folded
from augforge.representations.backbones import make_backbone

ARCHES = ("conv4", "resnet10", "resnet12", "resnet18")


def _net(arch, channels=3, side=16, drop=0.0):
    return built(lambda: make_backbone(arch, channels, side, drop), torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize(
    ("arch", "channels", "shape", "width"),
    [
        ("conv4", 1, (28, 28), 64),
        ("conv4", 3, (32, 32), 256),
        ("conv4", 3, (84, 84), 1600),
        ("conv4", 2, (7, 33), 128),
        ("conv4", 1, (1, 1), 64),
        ("resnet10", 3, (32, 20), 512),
        ("resnet10", 1, (64, 64), 512),
        ("resnet12", 3, (32, 32), 640),
        ("resnet12", 1, (5, 9), 640),
        ("resnet18", 3, (16, 16), 512),
    ],
)
def test_any_size_and_number_of_channels(arch, channels, shape, width):
    net = _net(arch, channels, min(shape))
    assert net(torch.rand(2, channels, *shape)).shape == (2, width)


@pytest.mark.parametrize(
    ("arch", "millions"), [("conv4", 0.112), ("resnet10", 4.9), ("resnet12", 12.4), ("resnet18", 11.2)]
)
def test_the_sizes_are_the_published_ones(arch, millions):
    count = sum(parameter.numel() for parameter in _net(arch).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


def test_conv4_is_the_published_function():
    net = _net("conv4", 3, 32)
    for block in net.blocks:
        block.norm.weight.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
        block.norm.running_mean.normal_(generator=torch.Generator().manual_seed(2))
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    y = x
    for block in net.blocks:  # as published: convolution, normalisation, ReLU, pooling
        y = nn.functional.max_pool2d(block.norm(block.conv(y)).relu(), 2)
    assert torch.equal(net(x), y.flatten(1))


@pytest.mark.parametrize("arch", ARCHES)
def test_folding_keeps_the_function(arch):
    net = _net(arch, drop=0.1)
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    net.train()(x)  # moves the running statistics
    expected = net.eval()(x).detach()
    assert torch.allclose(folded(net)(x), expected, atol=1e-4 * float(expected.abs().max()))
