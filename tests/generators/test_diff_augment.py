import pytest
import torch

from augforge.generators.shared.gan.diff_augment import NUMBERS, POLICIES, diff_augment, policy_of
from augforge.types import InputError


def _pictures(n=6, c=3, side=16, seed=0):
    return torch.rand(n, c, side, side, generator=torch.Generator().manual_seed(seed))


def _chance(n=6, seed=1):
    return torch.rand(n, NUMBERS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("text", ["", "none"])
def test_no_policy_is_the_identity(text):
    x = _pictures()
    assert torch.equal(diff_augment(x, policy_of(text), _chance()), x)


def test_policies_are_read_and_unknown_ones_refused():
    assert policy_of("colour,translation,cutout") == POLICIES
    assert policy_of("cutout") == ("cutout",)
    with pytest.raises(InputError, match="augment='color'"):
        policy_of("color")


def test_colour_keeps_a_picture_where_its_numbers_are_in_the_middle():
    x, u = _pictures(), torch.full((6, NUMBERS), 0.5)
    assert torch.allclose(diff_augment(x, ("colour",), u), x, atol=1e-6)
    brighter = u.clone()
    brighter[:, 0] = 0.75
    assert torch.allclose(diff_augment(x, ("colour",), brighter), x + 0.25, atol=1e-6)
    grey = u.clone()
    grey[:, 1] = 0
    assert diff_augment(x, ("colour",), grey).std(1).max() < 1e-6
    flat = u.clone()
    flat[:, 2] = 0
    made = diff_augment(x, ("colour",), flat)
    assert torch.allclose(made.std((1, 2, 3)), x.std((1, 2, 3)) / 2, atol=1e-5)


@pytest.mark.parametrize("side", [16, 28])
def test_translation_moves_whole_pixels_over_nothing(side):
    x, most = _pictures(side=side) + 1, round(side / 8)
    steps = torch.tensor([[0, 0], [1, 0], [0, 1], [-1, 2], [most, -most], [-most, most]])
    u = torch.zeros(6, NUMBERS)
    u[:, 3:5] = (steps + most + 0.5) / (2 * most + 1)
    moved = diff_augment(x, ("translation",), u)
    for row, made, (down, right) in zip(x, moved, steps.tolist(), strict=True):
        wide = torch.zeros(3, side + 2 * most, side + 2 * most)
        wide[:, most : most + side, most : most + side] = row
        assert torch.equal(made, wide[:, most + down : most + down + side, most + right : most + right + side])


def test_translation_reaches_an_eighth_of_the_side_evenly():
    x = torch.zeros(7000, 1, 16, 16)
    x[:, :, 8, 8] = 1
    place = diff_augment(x, ("translation",), _chance(7000)).flatten(1).argmax(1)
    counts = torch.bincount(place // 16, minlength=16)[6:11]
    assert counts.sum() == 7000
    assert (counts / 7000 - 0.2).abs().max() < 0.03


def test_cutout_makes_a_square_hole_of_half_the_side():
    x, u = torch.ones(2000, 1, 16, 16), _chance(2000)
    made = diff_augment(x, ("cutout",), u)
    holes = (made == 0)[:, 0]
    down, right = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(holes.flatten(1).sum(1), down * right)  # a rectangle
    assert down.max() == right.max() == 8
    assert down.min() >= 4  # its middle lies inside
    middle = u.clone()
    middle[:, 5:7] = 0.5
    assert ((diff_augment(x, ("cutout",), middle) == 0).flatten(1).sum(1) == 64).all()


def test_gradients_flow_to_what_is_seen():
    x, step, weight = (_pictures(seed=seed).double() for seed in range(3))
    x.requires_grad_()
    u = _chance().double()
    made = diff_augment(x, POLICIES, u)
    (made * weight).sum().backward()
    change = diff_augment(x.detach() + step, POLICIES, u) - made.detach()  # exact, for all policies are affine in x
    assert torch.allclose((x.grad * step).sum(), (change * weight).sum())
    x.grad = None
    made = diff_augment(x, ("translation", "cutout"), u)
    made.sum().backward()
    assert torch.equal(x.grad.flatten(1).sum(1).round().long(), (made != 0).flatten(1).sum(1))


def test_rows_do_not_depend_on_each_other():
    x, u = _pictures(), _chance()
    whole = diff_augment(x, POLICIES, u)
    for i in range(len(x)):
        assert torch.allclose(diff_augment(x[i : i + 1], POLICIES, u[i : i + 1]), whole[i : i + 1], atol=1e-6)
