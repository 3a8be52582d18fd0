import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from augforge import chance
from augforge.generators.classical import Classical, tensor_engine
from augforge.generators.classical import jpeg as classical_jpeg

KEYS = chance.row_keys(9, "tensor", torch.arange(64))
SMOOTH_PARTS = {
    "bilinear reflect": {"rotate": 20.0, "zoom": (0.8, 1.2), "padding": "reflect"},
    "bicubic constant": {"rotate": 20.0, "shear": 5.0, "padding": "constant", "interpolation": "bicubic"},
    "flip": {"flip_x": 0.5, "flip_y": 0.5},
    "gain": {"brightness": 0.1, "contrast": 0.1},
    "colour": {"hue": 0.1, "saturation": 0.2},
    "gamma": {"gamma": (0.5, 2.0)},
    "blur": {"blur": (0.5, 1.5)},
    "noise": {"noise": 0.01},
    "erase": {"erase": 1.0},
}


def _random(n, channels, height, width, dtype=torch.float32, seed=0):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _quality(n, value):
    return dataclasses.replace(Classical("identity").draw(KEYS[:n]), quality=torch.full((n,), value))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("part", SMOOTH_PARTS)
def test_gradients_are_those_of_finite_differences(part, channels):
    recipe = Classical("identity", **SMOOTH_PARTS[part])
    drawn = recipe.draw(KEYS[:2])
    pictures = (_random(2, channels, 6, 5, torch.float64) * 0.3 + 0.35).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: recipe.apply(x, drawn), pictures)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_black_and_white_pictures_have_finite_gradients(value, channels):
    for ranges in (*SMOOTH_PARTS.values(), {"jpeg": 1.0}):
        recipe = Classical("identity", **{**ranges, "erase": 0.0})
        pictures = torch.full((4, channels, 16, 20), value, requires_grad=True)
        (gradient,) = torch.autograd.grad(recipe.apply(pictures, recipe.draw(KEYS[:4])).sum(), pictures)
        assert bool(gradient.isfinite().all())
        assert float(gradient.abs().max()) < 100
        if not ranges.keys() & {"contrast", "noise"}:  # these two cut for good what they push out of the range
            assert bool((gradient.flatten(1).abs().sum(1) > 5).all()), ranges


def test_the_jpeg_coder_passes_gradients_straight_through():
    pictures = _random(2, 1, 16, 16).requires_grad_()
    made = Classical("identity", jpeg=1.0).apply(pictures, _quality(2, 30))
    weights = _random(2, 1, 16, 16, seed=1)
    (gradient,) = torch.autograd.grad((made * weights).sum(), pictures)
    torch.testing.assert_close(gradient, weights, rtol=0, atol=1e-5)


def test_asking_for_gradients_changes_no_number():
    recipe = Classical("strong", engine="tensor", jpeg=0.7, interpolation="bicubic")
    drawn, pictures = recipe.draw(KEYS), _random(64, 3, 20, 24)
    with_gradient = recipe.apply(pictures.clone().requires_grad_(), drawn)
    assert with_gradient.requires_grad
    torch.testing.assert_close(with_gradient.detach(), recipe.apply(pictures, drawn), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floats_follow_the_input(dtype):
    recipe = Classical("strong", engine="tensor", jpeg=0.0)
    drawn, pictures = recipe.draw(KEYS), _random(64, 3, 20, 24, dtype)
    made = recipe.apply(pictures, drawn)
    assert made.dtype == dtype
    expected = recipe.apply(pictures.float(), drawn)
    torch.testing.assert_close(made.float(), expected, rtol=0, atol=1e-5 if dtype == torch.float64 else 0.004)


def test_uint8_is_the_rounded_float():
    recipe = Classical("strong", engine="tensor")
    drawn = recipe.draw(KEYS)
    levels = (_random(64, 3, 20, 24) * 255).to(torch.uint8)
    made = recipe.apply(levels, drawn)
    assert torch.equal(made, recipe.apply(levels.float() / 255, drawn).mul(255).round().to(torch.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (33, 51), (200, 190)])
def test_a_row_of_floats_is_the_same_in_any_batch(channels, height, width):
    n = 64 if height < 100 else 3
    recipe = Classical("strong", engine="tensor", hue=0.1)
    pictures, drawn = _random(n, channels, height, width), recipe.draw(KEYS[:n])
    whole = recipe.apply(pictures, drawn)
    for size in (1, 7):
        rows = [slice(i, i + size) for i in range(0, n, size)]
        assert torch.equal(torch.cat([recipe.apply(pictures[r], drawn.take(r)) for r in rows]), whole)


def test_pictures_in_any_memory_layout():
    recipe = Classical("strong", engine="tensor")
    drawn, pictures = recipe.draw(KEYS[:4]), _random(4, 3, 20, 24)
    made = recipe.apply(pictures, drawn)
    assert torch.equal(recipe.apply(pictures.contiguous(memory_format=torch.channels_last), drawn), made)
    assert torch.equal(recipe.apply(pictures[:1].expand(4, -1, -1, -1), drawn)[0], made[0])


def test_autocast_leaves_the_numbers_alone():
    recipe = Classical("strong", engine="tensor")
    drawn, pictures = recipe.draw(KEYS[:8]), _random(8, 3, 20, 24)
    expected = recipe.apply(pictures, drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = recipe.apply(pictures, drawn)
    assert made.dtype == torch.float32
    assert torch.equal(made, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (17, 1)])
def test_tiny_pictures_go_through_every_step(shape):
    recipe = Classical("strong", engine="tensor", blur=3.0, jpeg=1.0, erase=1.0)
    for channels in (1, 3):
        made = recipe.apply(_random(5, channels, *shape), recipe.draw(KEYS[:5]))
        assert made.shape == (5, channels, *shape)
        assert bool(made.isfinite().all())


def test_blur_kernels_are_cut_at_their_own_radius():
    recipe, drawn = Classical("identity", blur=3.0), Classical("identity").draw(KEYS[:3])
    drawn = dataclasses.replace(drawn, blur=torch.tensor([0.0, 0.6, 2.5], dtype=torch.float64))
    point = torch.zeros(3, 1, 41, 41)
    point[:, :, 20, 20] = 1
    made = recipe.apply(point, drawn)
    for row, radius in ((0, 0), (1, 2), (2, 8)):
        columns = torch.nonzero(made[row, 0, 20])[:, 0]
        assert (int(columns.min()), int(columns.max())) == (20 - radius, 20 + radius)
        assert float(made[row].sum()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(made[0], point[0])


def test_only_rows_with_a_quality_are_coded():
    pictures, drawn = _random(4, 3, 24, 24), Classical("identity").draw(KEYS[:4])
    drawn = dataclasses.replace(drawn, quality=torch.tensor([0, 20, 0, 90]))
    changed = (Classical("identity", jpeg=1.0).apply(pictures, drawn) != pictures).flatten(1).any(1)
    assert changed.tolist() == [False, True, False, True]


def test_quantisation_steps_are_those_of_libjpeg():
    for quality in (1, 10, 49, 50, 75, 95, 100):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "jpeg", quality=quality)
        written = Image.open(file).quantization
        for table, expected in ((classical_jpeg.LUMA_STEPS, written[0]), (classical_jpeg.CHROMA_STEPS, written[1])):
            assert classical_jpeg.steps(table, torch.tensor([quality])).flatten().tolist() == list(expected)


@pytest.mark.parametrize("quality", [10, 50, 90])
@pytest.mark.parametrize(("mode", "limit"), [("L", 0.5), ("RGB", 1.3)])
def test_the_jpeg_coder_agrees_with_pillow(quality, mode, limit):
    y, x = np.mgrid[0:45, 0:70]
    planes = [127 + 100 * np.sin(x / 9 + c) * np.cos(y / (5 + c)) for c in range(len(mode))]
    picture = np.rint(np.stack(planes, -1)).astype(np.uint8).squeeze()
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality, subsampling="4:2:0" if mode == "RGB" else -1)
    expected = torch.from_numpy(np.array(Image.open(file)).reshape(45, 70, -1)).permute(2, 0, 1)
    pictures = torch.from_numpy(picture.reshape(45, 70, -1)).permute(2, 0, 1)[None] / 255
    made = classical_jpeg.through_jpeg(pictures, torch.tensor([quality]))[0] * 255
    assert float((made - expected).abs().mean()) < limit


def test_nothing_in_nothing_out():
    none = torch.zeros(0, 3, 8, 8)
    recipe = Classical("strong")
    assert tensor_engine.apply(recipe, none, recipe.draw(KEYS[:0])).shape == (0, 3, 8, 8)


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", ["keras", "gentle", "strong", "handwriting"])
def test_a_gpu_agrees_with_the_cpu(preset, channels):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    recipe = Classical(preset, hue=0.1, engine="tensor")
    drawn, pictures = recipe.draw(KEYS), _random(64, channels, 33, 51)
    made = recipe.apply(pictures.cuda(), drawn)
    assert made.device.type == "cuda"
    assert float((made.cpu() - recipe.apply(pictures, drawn)).abs().mean()) < 0.5 / 255
    part = recipe.apply(pictures[:7].cuda(), drawn.take(slice(0, 7)))
    assert torch.equal(part, made[:7])


@pytest.mark.gpu
def test_gradients_flow_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    recipe = Classical("strong", engine="tensor", erase=0.0)
    pictures = _random(8, 3, 32, 32).cuda().requires_grad_()
    (gradient,) = torch.autograd.grad(recipe.apply(pictures, recipe.draw(KEYS[:8])).sum(), pictures)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0
