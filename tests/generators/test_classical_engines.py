"""Both engines: that they agree, and that each part does what its name says."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from augforge import chance
from augforge.generators.classical import PRESETS, Classical

ENGINES = pytest.mark.parametrize("engine", ["cv2", "tensor"])
KEYS = chance.row_keys(0, "engines", torch.arange(24))
SIZES = [(28, 28), (32, 32), (84, 84), (48, 80)]
ALONE = {
    "rotate": {"rotate": 40.0}, "shift_x": {"shift_x": 0.2}, "shift_y": {"shift_y": 0.2}, "shear": {"shear": 20.0},
    "zoom": {"zoom": (0.7, 1.3)}, "zoom_x": {"zoom_x": (0.7, 1.3)}, "zoom_y": {"zoom_y": (0.7, 1.3)},
    "flip_x": {"flip_x": 0.5}, "flip_y": {"flip_y": 0.5}, "brightness": {"brightness": 0.4},
    "contrast": {"contrast": 0.4}, "saturation": {"saturation": 0.8}, "hue": {"hue": 0.5}, "grey": {"grey": 0.5},
    "gamma": {"gamma": (0.5, 2.0)}, "blur": {"blur": 2.0}, "noise": {"noise": 0.1}, "erase": {"erase": 0.7},
    "jpeg": {"jpeg": 0.8, "jpeg_quality": (5, 100)},
}  # fmt: skip
# Every stage varied, so that every stage runs; what it does is left to the parameters.
OPEN = {name: value for ranges in ALONE.values() for name, value in ranges.items()}


def _smooth(n, channels, height, width):
    """Pictures [n, c, h, w] uint8 of soft blotches, black and white included."""
    generator = torch.Generator().manual_seed(height + width)
    coarse = torch.rand(n, channels, max(2, height // 6), max(2, width // 6), generator=generator) * 1.2 - 0.1
    fine = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return fine.clamp(0, 1).mul(255).round().to(torch.uint8)


def _neutral(n=1, **columns):
    """Parameters that change nothing, but for `columns`."""
    drawn = Classical("identity").draw(KEYS[:n])
    return dataclasses.replace(drawn, **{name: torch.tensor([value] * n) for name, value in columns.items()})


def _geometry(picture, engine, **columns):
    recipe = Classical("identity", rotate=180.0, engine=engine)
    return recipe.apply(picture, _neutral(len(picture), **columns))


def _assert_agreement(settings, channels, height, width):
    pictures = _smooth(len(KEYS), channels, height, width)
    drawn = Classical(**settings).draw(KEYS)
    by_cv2 = Classical(**settings, engine="cv2").apply(pictures, drawn).float()
    by_tensor = Classical(**settings, engine="tensor").apply(pictures, drawn).float()
    apart = (by_cv2 - by_tensor).abs().flatten(1).mean(1)
    assert float(apart.mean()) < (1.0 if "jpeg" in settings else 0.6)
    assert float(apart.max()) < 4
    return by_cv2, pictures


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("part", ALONE)
def test_engines_agree_on_each_part_alone(part, channels, height, width):
    made, pictures = _assert_agreement({"preset": "identity", **ALONE[part]}, channels, height, width)
    if channels == 3 or part not in ("saturation", "hue", "grey"):
        assert not torch.equal(made, pictures.float())


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", ["reflect", "edge", "constant"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_engines_agree_on_each_padding_and_interpolation(padding, interpolation, channels, height, width):
    moves = {"rotate": 40.0, "zoom": (0.7, 1.6), "shift_x": 0.3, "shear": 10.0}
    looks = {"padding": padding, "interpolation": interpolation, "fill": 0.3}
    _assert_agreement({"preset": "identity", **moves, **looks}, channels, height, width)


@pytest.mark.parametrize("padding", ["reflect", "edge", "constant"])
def test_engines_agree_far_outside_of_the_picture(padding):
    moves = {"rotate": 180.0, "zoom": (2.0, 6.0), "shift_x": 2.0, "padding": padding}
    _assert_agreement({"preset": "identity", **moves}, 3, 48, 80)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_engines_agree_on_presets(preset, channels, height, width):
    _assert_agreement({"preset": preset}, channels, height, width)


@ENGINES
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", ["reflect", "edge", "constant"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_neutral_parameters_give_the_picture_back(engine, channels, padding, interpolation):
    recipe = Classical("identity", **OPEN, padding=padding, interpolation=interpolation, engine=engine)
    for height, width in SIZES:
        pictures = _smooth(3, channels, height, width)
        assert torch.equal(recipe.apply(pictures, _neutral(3)), pictures)


@ENGINES
@pytest.mark.parametrize("rotate", [0.0, 180.0])
def test_flips_are_exact_mirror_images(engine, rotate):
    for height, width in SIZES:
        pictures = _smooth(2, 3, height, width)
        recipe = Classical("identity", flip_x=0.5, flip_y=0.5, rotate=rotate, engine=engine)
        for columns, axes in (
            ({"flip_x": True}, [3]),
            ({"flip_y": True}, [2]),
            ({"flip_x": True, "flip_y": True}, [2, 3]),
        ):
            assert torch.equal(recipe.apply(pictures, _neutral(2, **columns)), pictures.flip(axes))


@ENGINES
@pytest.mark.parametrize("side", [28, 33])
def test_a_positive_rotation_turns_clockwise(engine, side):
    pictures = _smooth(2, 3, side, side)
    for quarters in (1, 2, 3, -1):
        turned = _geometry(pictures, engine, rotate=90.0 * quarters)
        expected = np.rot90(pictures.numpy(), k=-quarters, axes=(2, 3))
        assert np.array_equal(turned.numpy(), expected)


@ENGINES
def test_a_shift_by_whole_pixels_is_exact(engine):
    pictures = _smooth(2, 3, 28, 40)
    moved = _geometry(pictures, engine, shift_x=3 / 40, shift_y=-5 / 28)
    assert torch.equal(moved[:, :, 5:, :-3], pictures[:, :, :-5, 3:])
    assert torch.equal(moved[:, :, :5, :-3], pictures[:, :, :1, 3:].expand(-1, -1, 5, -1))


@ENGINES
def test_zoom_below_one_enlarges(engine):
    y, x = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(64.0) - 31.5, indexing="ij")
    disc = (((y**2 + x**2) < 100) * 255).to(torch.uint8)[None, None]
    area = float(disc.sum())
    assert float(_geometry(disc, engine, zoom_x=0.5, zoom_y=0.5).sum()) == pytest.approx(4 * area, rel=0.05)
    assert float(_geometry(disc, engine, zoom_x=2.0).sum()) == pytest.approx(area / 2, rel=0.05)


@ENGINES
def test_constant_padding_is_the_fill(engine):
    recipe = Classical("identity", rotate=180.0, padding="constant", fill=0.2, engine=engine)
    made = recipe.apply(_smooth(1, 3, 28, 28), _neutral(shift_x=2.0))
    assert bool((made == 51).all())


@ENGINES
def test_brightness_multiplies(engine):
    pictures = _smooth(2, 3, 32, 32)
    made = Classical("identity", brightness=(1.5, 1.5), engine=engine).apply(pictures, _draw(brightness=(1.5, 1.5)))
    assert _apart(made, pictures * 1.5) <= 0.501


@ENGINES
@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_is_about_mid_grey(engine, channels):
    pictures = _smooth(2, channels, 32, 32)
    made = Classical("identity", contrast=(0.4, 0.4), engine=engine).apply(pictures, _draw(contrast=(0.4, 0.4)))
    assert _apart(made, 127.5 + 0.4 * (pictures - 127.5)) <= 0.501


@ENGINES
@pytest.mark.parametrize("ranges", [{"saturation": (0.0, 0.0)}, {"grey": 1.0}])
def test_without_saturation_there_is_only_luma(engine, ranges):
    pictures = _smooth(2, 3, 32, 32)
    luma = 0.299 * pictures[:, :1] + 0.587 * pictures[:, 1:2] + 0.114 * pictures[:, 2:]
    made = Classical("identity", **ranges, engine=engine).apply(pictures, _draw(**ranges))
    assert _apart(made, luma.expand(-1, 3, -1, -1)) <= (1 if engine == "cv2" else 0.501)


@ENGINES
def test_a_full_turn_of_hue_is_the_identity(engine):
    pictures = _smooth(2, 3, 32, 32)
    made = Classical("identity", hue=(1.0, 1.0), engine=engine).apply(pictures, _draw(hue=(1.0, 1.0)))
    assert torch.equal(made, pictures)


@ENGINES
def test_greys_have_no_hue_and_no_saturation(engine):
    greys = _smooth(24, 1, 32, 32).expand(-1, 3, -1, -1).contiguous()
    ranges = {"hue": 0.5, "saturation": (0.0, 2.0)}
    made = Classical("identity", **ranges, engine=engine).apply(greys, Classical("identity", **ranges).draw(KEYS))
    assert _apart(made, greys) <= 1
    alone = Classical("identity", **ranges, engine=engine).apply(greys[:, :1], Classical(**ranges).draw(KEYS))
    assert torch.equal(alone, greys[:, :1])


@ENGINES
def test_gamma_is_a_power(engine):
    pictures = _smooth(1, 3, 32, 32)
    for gamma in (0.5, 2.2):
        made = Classical("identity", gamma=gamma, engine=engine).apply(pictures, _neutral(gamma=gamma))
        assert _apart(made, 255 * (pictures / 255) ** gamma) <= 0.501


@ENGINES
def test_blur_keeps_flat_pictures_and_the_mean_of_a_point(engine):
    recipe = Classical("identity", blur=2.0, engine=engine)
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(recipe.apply(flat, _neutral(blur=1.3)), flat)
    point = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    point[..., 16, 16] = 255
    made = recipe.apply(point, _neutral(blur=1.0)).float()
    assert float(made.sum()) == pytest.approx(255, rel=0.05)
    assert float(made[0, 0, 16, 16]) == pytest.approx(255 / (2 * np.pi), rel=0.03)


@ENGINES
def test_noise_has_the_drawn_deviation(engine):
    flat = torch.full((2, 3, 84, 84), 128, dtype=torch.uint8)
    made = Classical("identity", noise=0.1, engine=engine).apply(flat, _neutral(2, noise=0.05)).float()
    assert float((made - 128).std()) == pytest.approx(0.05 * 255, rel=0.02)
    assert not torch.equal(made[0], made[1])


@ENGINES
def test_erasing_takes_the_drawn_part(engine):
    pictures = torch.zeros(24, 3, 84, 84, dtype=torch.uint8)
    recipe = Classical("identity", erase=1.0, erase_area=(0.05, 0.25), fill=1.0, engine=engine)
    drawn = recipe.draw(KEYS)
    top, left, bottom, right = drawn.erase.unbind(1)
    area = (bottom - top) * (right - left)
    assert area.min() > 0.049
    assert area.max() < 0.251
    erased = (recipe.apply(pictures, drawn) == 255).double().mean((1, 2, 3))
    assert float((erased - area).abs().max()) < 0.015


@ENGINES
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_near_at_95_and_blocky_at_10(engine, channels):
    pictures = _smooth(4, channels, 80, 96)
    recipe = Classical("identity", jpeg=1.0, engine=engine)
    near, far = (recipe.apply(pictures, _neutral(4, quality=quality)).float() for quality in (95, 10))
    # Blotches of a few pixels in each of three independent channels are hard on chroma at half the size.
    assert float((near - pictures).abs().mean()) < (1 if channels == 1 else 6)
    assert float((far - pictures).abs().mean()) > 3 * float((near - pictures).abs().mean())

    def roughness(x):
        steps = x.float().diff(dim=3).abs().mean((0, 1, 2))  # [w - 1]
        return float(steps[7::8].mean() / steps.mean())

    assert roughness(far) > 1.2 * roughness(pictures)


def test_jpeg_gets_nearer_with_quality():
    pictures = _smooth(2, 3, 48, 80)
    for engine in ("cv2", "tensor"):
        recipe = Classical("identity", jpeg=1.0, engine=engine)
        made = [recipe.apply(pictures, _neutral(2, quality=quality)).float() for quality in (5, 20, 50, 80, 100)]
        apart = [float((m - pictures).abs().mean()) for m in made]
        assert apart == sorted(apart, reverse=True)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def by_one_thread():
    """What one thread makes: computed before any test asks for two."""
    assert torch.get_num_threads() == 1
    keys, pictures = chance.row_keys(1, "threads", torch.arange(64)), _smooth(64, 3, 48, 40)
    recipes = [Classical("strong", engine=engine) for engine in ("cv2", "tensor")]
    return [(recipe, pictures, keys, recipe.apply(pictures, recipe.draw(keys))) for recipe in recipes]


def test_two_threads_make_the_bytes_of_one(by_one_thread, two_threads):
    assert torch.get_num_threads() == two_threads
    for recipe, pictures, keys, expected in by_one_thread:
        assert torch.equal(recipe.apply(pictures, recipe.draw(keys)), expected)


@ENGINES
@pytest.mark.parametrize("preset", ["keras", "strong"])
def test_a_row_is_the_same_in_any_batch(engine, preset):
    keys, pictures = chance.row_keys(2, "batches", torch.arange(64)), _smooth(64, 3, 28, 28)
    recipe = Classical(preset, hue=0.1, engine=engine)
    whole = recipe.apply(pictures, recipe.draw(keys))
    for size in (1, 7):
        parts = [recipe.apply(pictures[i : i + size], recipe.draw(keys[i : i + size])) for i in range(0, 64, size)]
        assert torch.equal(torch.cat(parts), whole)


def _draw(**ranges):
    return Classical("identity", **ranges).draw(KEYS[:2])


def _apart(made, expected):
    """The largest difference in grey levels from `expected`, cut to 0..255."""
    return float((made.float() - expected.float().clamp(0, 255)).abs().max())
