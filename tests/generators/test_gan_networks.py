import pytest
import torch

from augforge.generators.conditional_gan.networks import (
    LabelDiscriminator,
    LabelGenerator,
    SupportDiscriminator,
    SupportGenerator,
)
from augforge.generators.shared.gan.discriminators import (
    PairDiscriminator,
    PatchDiscriminator,
    ProjectionDiscriminator,
    Spectral,
    advance,
)
from augforge.generators.shared.gan.networks import ClassGenerator, Encoder, PictureGenerator, sides_of, widths_of
from augforge.networks.layers import built

SHAPES = [(1, 28), (3, 32), (1, 64), (3, 84), (3, 96), (1, 8)]
every_shape = pytest.mark.parametrize(("channels", "side"), SHAPES)


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _pictures(n, channels, side, seed=1):
    return torch.rand(n, channels, side, side, generator=_rng(seed))


def _noise(n, seed=2):
    return torch.randn(n, 5, generator=_rng(seed))


def test_maps_are_halved_down_to_eight_or_an_odd_side():
    assert sides_of(28) == [28, 14, 7]
    assert sides_of(84) == [84, 42, 21]
    assert sides_of(96) == [96, 48, 24, 12, 6]
    assert widths_of(8, 5) == [8, 16, 32, 32, 32]


@every_shape
def test_generators_make_pictures_of_every_size(channels, side):
    shape = (channels, side)
    by_class = built(lambda: ClassGenerator(*shape, 4, 5, 6), _rng())
    by_picture = built(lambda: PictureGenerator(*shape, 4, 5, 6), _rng())
    x, z = _pictures(2, channels, side), _noise(2)
    with torch.no_grad():
        made = (by_class(z, torch.randn(2, 6, generator=_rng())), by_picture(x, z), by_picture(x, z, x[:, None], True))
    for pictures in made:
        assert pictures.shape == x.shape
        assert pictures.min() >= 0
        assert pictures.max() <= 1


@every_shape
def test_conditional_networks_take_every_size(channels, side):
    shape, y = (channels, side), torch.tensor([0, 2])
    x, z = _pictures(4, channels, side).unflatten(0, (2, 2)), _noise(2)
    by_class = (lambda: LabelGenerator(shape, 4, 5, 6, 3), lambda: LabelDiscriminator(shape, 4, 3), y)
    by_support = (lambda: SupportGenerator(shape, 4, 5, 6), lambda: SupportDiscriminator(shape, 4), x)
    for new_generator, new_discriminator, condition in (by_class, by_support):
        generator, discriminator = built(new_generator, _rng()), built(new_discriminator, _rng())
        with torch.no_grad():
            assert generator(z, generator.codes(condition)).shape == (2, channels, side, side)
            assert discriminator(x, discriminator.codes(condition)).shape == (2, 2)
            assert discriminator.alone(x, discriminator.codes(condition)).shape == (2, 2)


@every_shape
def test_discriminators_take_every_size(channels, side):
    x = _pictures(2, channels, side)
    with torch.no_grad():
        assert built(lambda: ProjectionDiscriminator(channels, side, 4, 6), _rng())(x, torch.zeros(2, 6)).shape == (2,)
        assert built(lambda: PairDiscriminator(channels, side, 4), _rng())(x, x[:, None]).shape == (2, 1)
        assert built(lambda: PatchDiscriminator(channels, 4), _rng())(x).shape[0] == 2


@pytest.mark.parametrize("layer", [(40, 24), (8, 12, 3), (8, 12, 4)], ids=["linear", "3x3", "4x4"])
def test_spectral_layers_reach_the_largest_singular_value(layer):
    net = built(lambda: Spectral(*layer), _rng())
    for _ in range(200):
        advance(net)
    size = torch.linalg.svdvals(net.weight.detach().flatten(1))[0]
    found = torch.dot(net.left, net.weight.detach().flatten(1) @ net.right)
    assert torch.allclose(found, size, rtol=1e-4)


def test_a_spectral_linear_layer_lengthens_nothing():
    net = built(lambda: Spectral(40, 24, bias=False), _rng())
    for _ in range(200):
        advance(net)
    with torch.no_grad():
        net.weight.mul_(7)  # the size of the weight does not matter
        whole = net(torch.eye(40)).T
    assert abs(float(torch.linalg.svdvals(whole)[0]) - 1) < 1e-3


def test_the_power_iteration_goes_on_in_advance_alone():
    net = built(lambda: ProjectionDiscriminator(1, 16, 4, 6), _rng()).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for _ in range(3):
        net(_pictures(2, 1, 16), torch.zeros(2, 6)).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    advance(net)
    moved = {key.rpartition(".")[2] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"left", "right"}


def test_no_row_depends_on_another_one():
    x, z, code = _pictures(4, 3, 16), _noise(4), torch.randn(4, 6, generator=_rng(3))
    by_class = built(lambda: ClassGenerator(3, 16, 4, 5, 6), _rng()).train()
    by_picture = built(lambda: PictureGenerator(3, 16, 4, 5, 6), _rng()).train()
    discriminator = built(lambda: ProjectionDiscriminator(3, 16, 4, 6), _rng()).train()
    with torch.no_grad():
        for whole, alone in (
            (by_class(z, code), lambda i: by_class(z[i], code[i])),
            (by_picture(x, z), lambda i: by_picture(x[i], z[i])),
            (discriminator(x, code), lambda i: discriminator(x[i], code[i])),
        ):
            parts = torch.cat([alone(slice(i, i + 1)) for i in range(4)])
            assert torch.allclose(whole, parts, atol=1e-5)


def test_the_picture_generator_starts_near_a_copy_of_its_parent():
    net = built(lambda: PictureGenerator(1, 28, 8, 5, 6), _rng())
    x = torch.nn.functional.interpolate(_pictures(8, 1, 7), 28, mode="bilinear")
    other = torch.nn.functional.interpolate(_pictures(8, 1, 7, 9), 28, mode="bilinear")
    with torch.no_grad():
        made = net(x, _noise(8))
    left = (made - x).square().mean().sqrt()
    assert left < 0.3 * (other - x).square().mean().sqrt()


def test_noise_and_code_change_what_is_made():
    net = built(lambda: ClassGenerator(1, 16, 8, 5, 6), _rng())
    code = torch.randn(2, 6, generator=_rng(4))
    with torch.no_grad():
        made = net(_noise(1).expand(2, -1), code)
        same = net(_noise(2), code[:1].expand(2, -1))
    assert (made[0] - made[1]).abs().mean() > 0.01
    assert (same[0] - same[1]).abs().mean() > 0.01


def test_a_prototype_is_the_mean_over_the_shots_whatever_their_order():
    generator = built(lambda: SupportGenerator((1, 16), 4, 5, 6), _rng())
    discriminator = built(lambda: SupportDiscriminator((1, 16), 4), _rng())
    x = _pictures(6, 1, 16).unflatten(0, (2, 3))
    with torch.no_grad():
        for net in (generator, discriminator):
            each = torch.stack([net.codes(x[:, i : i + 1]) for i in range(3)])
            assert torch.allclose(net.codes(x), each.mean(0), atol=1e-5)
            assert torch.allclose(net.codes(x.flip(1)), net.codes(x), atol=1e-5)


def test_pictures_that_are_all_alike_are_scored_apart_from_others():
    discriminator = built(lambda: SupportDiscriminator((1, 16), 4), _rng())
    x = _pictures(4, 1, 16).unflatten(0, (2, 2))
    alike = x[:, :1].expand(-1, 2, -1, -1, -1)
    with torch.no_grad():
        code = discriminator.codes(x)
        added = [discriminator(pictures, code) - discriminator.alone(pictures, code) for pictures in (x, alike)]
    assert (added[0] - added[1]).abs().min() > 1e-6  # what the distances add
    assert torch.allclose(added[1], added[1][:1].expand(2, -1), atol=1e-6)  # where there are none: the same for all


def test_encoders_give_the_maps_of_every_level():
    net = built(lambda: Encoder(3, 96, 4), _rng())
    with torch.no_grad():
        maps = net(_pictures(1, 3, 96))
    assert [(m.shape[1], m.shape[2]) for m in maps] == [(4, 48), (8, 24), (16, 12), (16, 6)]


def test_slopes_beyond_black_and_white_lead_back():
    from augforge.generators.shared.gan.networks import _Cut

    x = torch.tensor([-0.5, -0.5, 0.5, 0.5, 1.5, 1.5], requires_grad=True)
    slopes = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    y = _Cut.apply(x)
    (y * slopes).sum().backward()
    assert y.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert x.grad.tolist() == [0, -1, 1, -1, 1, 0]  # a step goes against the slope
