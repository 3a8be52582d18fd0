import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augforge import chance
from augforge.generators.classical import PRESETS, Classical
from augforge.types import Examples, InputError

KEYS = chance.row_keys(3, "draws", torch.arange(2000))


def _columns(parameters):
    return {f.name: getattr(parameters, f.name) for f in dataclasses.fields(parameters)}


def _support(n=12, way=3, dtype=torch.uint8):
    x = torch.randint(0, 256, (n, 3, 16, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Examples(x if dtype == torch.uint8 else x.to(dtype) / 255, torch.arange(n) % way)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("engine", ["cv2", "tensor"])
def test_every_preset_makes_pictures(preset, engine):
    support, want = _support(), torch.tensor([2, 0, 0, 1, 2])
    made = Classical(preset, engine=engine).synthesize(support, want, KEYS[:5])
    assert made.x.shape == (5, 3, 16, 20)
    assert made.x.dtype == torch.uint8
    assert torch.equal(made.y, want)
    assert torch.equal(support.y[made.parent], want)
    if preset == "identity":
        assert torch.equal(made.x, support.x[made.parent])
    else:
        assert not torch.equal(made.x, support.x[made.parent])


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"preset": "kera"}, "kera"),
        ({"rotate": (10.0, -10.0)}, "rotate"),
        ({"rotate": -5.0}, "rotate"),
        ({"rotate": float("nan")}, "rotate"),
        ({"zoom": (0.8, 1.0, 1.2)}, "zoom"),
        ({"zoom": 0.0}, "zoom"),
        ({"gamma": (-1.0, 1.0)}, "gamma"),
        ({"brightness": 1.5}, "brightness"),
        ({"blur": (-1.0, 1.0)}, "blur"),
        ({"erase_area": (0.5, 1.5)}, "erase_area"),
        ({"jpeg_quality": (0, 50)}, "jpeg_quality"),
        ({"jpeg_quality": (50, 101)}, "jpeg_quality"),
        ({"flip_x": 1.01}, "flip_x"),
        ({"jpeg": -0.1}, "jpeg"),
        ({"fill": 2.0}, "fill"),
        ({"padding": "wrap"}, "padding"),
        ({"interpolation": "linear"}, "interpolation"),
        ({"engine": "opencv"}, "engine"),
    ],
)
def test_a_setting_out_of_bounds_is_one_sentence_that_names_it(settings_, named):
    with pytest.raises(InputError) as caught:
        Classical(**settings_)
    message = str(caught.value)
    assert named in message
    assert "expected" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "pictures",
    [torch.zeros(2, 4, 8, 8), torch.zeros(2, 3, 0, 8), torch.zeros(2, 3, 8, 8, dtype=torch.int64)],
)
def test_what_is_no_picture_is_refused(pictures):
    recipe = Classical()
    with pytest.raises(InputError, match="expected uint8 or floating pictures"):
        recipe.apply(pictures, recipe.draw(KEYS[:2]))
    with pytest.raises(InputError, match="3 parameters were given for 2 pictures"):
        recipe.apply(torch.zeros(2, 3, 8, 8), recipe.draw(KEYS[:3]))


@pytest.mark.parametrize("settings_", [{"flip_x": (0, 1)}, {"fill": None}, {"rotate": "ab"}, {"zoom": float("inf")}])
def test_a_setting_of_a_wrong_kind_is_refused(settings_):
    with pytest.raises(InputError, match="was given; expected"):
        Classical(**settings_)


def test_features_and_missing_classes_are_refused():
    recipe, labels = Classical(), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match=r"\[2, 8\] was given; expected .* pictures \[n, c, h, w\]"):
        recipe.synthesize(Examples(torch.rand(2, 8), labels), labels, KEYS[:2])
    with pytest.raises(InputError, match="class 7"):
        recipe.synthesize(_support(), torch.tensor([0, 7]), KEYS[:2])


def test_a_number_stands_for_the_range_that_the_docstring_says():
    recipe = Classical("identity", rotate=10.0, brightness=0.25, blur=2.0, zoom=0.8)
    assert recipe.rotate == (-10, 10)
    assert recipe.brightness == (0.75, 1.25)
    assert recipe.blur == (0, 2)
    assert recipe.zoom == (0.8, 0.8)


def test_a_named_range_replaces_that_of_the_preset_alone():
    recipe, preset = Classical("strong", rotate=1.0), Classical("strong")
    assert recipe.rotate == (-1, 1)
    rotate_aside = [f.name for f in dataclasses.fields(Classical) if f.name != "rotate"]
    assert all(getattr(recipe, name) == getattr(preset, name) for name in rotate_aside)


def test_a_draw_depends_on_its_key_alone():
    recipe = Classical("strong")
    together = _columns(recipe.draw(KEYS[:64]))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    for name, shuffled in _columns(recipe.draw(KEYS[order])).items():
        assert torch.equal(shuffled, together[name][order]), name
    for i in (0, 63):
        for name, alone in _columns(recipe.draw(KEYS[i : i + 1])).items():
            assert torch.equal(alone[0], together[name][i]), name


def test_draws_fill_their_ranges():
    drawn = Classical(
        "identity", rotate=40.0, shear=(5.0, 15.0), shift_x=0.2, shift_y=(0.0, 0.1), zoom=(0.5, 0.8), zoom_x=(1.0, 1.1),
        gamma=(0.7, 1.4), blur=0.8, noise=(0.01, 0.03), jpeg=0.3, jpeg_quality=(40, 95), flip_x=0.5, flip_y=0.1,
    ).draw(KEYS)  # fmt: skip
    for name, low, high in (
        ("rotate", -40, 40), ("shear", 5, 15), ("shift_x", -0.2, 0.2), ("shift_y", 0, 0.1), ("zoom_y", 0.5, 0.8),
        ("gamma", 0.7, 1.4), ("blur", 0, 0.8), ("noise", 0.01, 0.03),
    ):  # fmt: skip
        column = getattr(drawn, name)
        assert column.min() >= low
        assert column.max() <= high
        assert column.max() - column.min() > 0.98 * (high - low), name
        assert abs(float(column.mean()) - (low + high) / 2) < 0.03 * (high - low), name
    stretch = drawn.zoom_x / drawn.zoom_y
    assert stretch.min() >= 1
    assert stretch.max() <= 1.1
    coded = drawn.quality[drawn.quality > 0]
    assert coded.min() >= 40
    assert coded.max() <= 95
    for happened, chance_ in ((drawn.quality > 0, 0.3), (drawn.flip_x, 0.5), (drawn.flip_y, 0.1)):
        assert abs(float(happened.double().mean()) - chance_) < 0.04
    assert bool((drawn.erase == 0).all())


def test_different_parameters_are_drawn_independently():
    drawn = Classical("strong", erase=1.0).draw(KEYS)
    columns = [drawn.rotate, drawn.shear, drawn.shift_x, drawn.shift_y, drawn.zoom_x / drawn.zoom_y, drawn.gamma]
    columns += [drawn.blur, drawn.noise, drawn.flip_x.double(), drawn.colour[:, 0, 3], drawn.erase[:, 0]]
    correlation = np.corrcoef(torch.stack(columns).numpy()) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.1


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["rotate", "shear", "shift_x", "shift_y", "gamma", "blur", "noise", "brightness", "hue"]),
    low=st.floats(0.01, 5.0),
    span=st.floats(0.0, 5.0),
)
def test_changing_one_range_leaves_the_other_draws_alone(name, low, span):
    before = _columns(Classical("strong").draw(KEYS[:50]))
    after = _columns(Classical("strong", **{name: (low, low + span)}).draw(KEYS[:50]))
    own = "colour" if name in ("brightness", "hue") else name
    for column in before:
        assert torch.equal(before[column], after[column]) == (column != own), column
    if own == name:
        assert bool(((after[name] >= low) & (after[name] <= low + span)).all())


@pytest.mark.parametrize("engine", ["cv2", "tensor"])
def test_one_draw_is_replayed_on_other_pictures(engine):
    recipe = Classical("strong", engine=engine)
    first, second = _support(8).x, _support(16).x[8:]
    parameters = recipe.draw(KEYS[:8])
    for pictures in (first, second):
        made = recipe.apply(pictures, parameters)
        assert torch.equal(made, recipe.apply(pictures, recipe.draw(KEYS[:8])))
        rows = torch.tensor([6, 1, 1])
        assert torch.equal(recipe.apply(pictures[rows], parameters.take(rows)), made[rows])
        assert torch.equal(recipe.apply(pictures[2:5], parameters.take(slice(2, 5))), made[2:5])
    assert len(parameters) == 8
    assert len(parameters.take(rows)) == 3


@pytest.mark.parametrize("engine", ["cv2", "tensor"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_lists_of_pictures_of_differing_sizes(engine, dtype):
    recipe, generator = Classical("strong", engine=engine), torch.Generator().manual_seed(4)
    shapes = [(3, 12, 12), (1, 20, 9), (3, 12, 12), (3, 30, 40), (1, 20, 9)]
    pictures = [torch.rand(shape, generator=generator) for shape in shapes]
    pictures = [(255 * p).to(torch.uint8) if dtype == torch.uint8 else p for p in pictures]
    want = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    made = recipe.synthesize(Examples(pictures, torch.tensor([0, 1, 0, 1, 0])), want, KEYS[:7])
    assert isinstance(made.x, list)
    for i, picture in enumerate(made.x):
        parent = pictures[made.parent[i]]
        assert picture.shape == parent.shape
        assert picture.dtype == dtype
        assert torch.equal(picture, recipe.apply(parent[None], recipe.draw(KEYS[i : i + 1]))[0])


def test_nothing_wanted_nothing_made():
    none = torch.zeros(0, dtype=torch.int64)
    for support in (_support(), Examples(list(_support().x), _support().y)):
        made = Classical("strong").synthesize(support, none, none)
        assert len(made) == 0
        assert len(made.x) == 0


@pytest.mark.parametrize("engine", ["cv2", "tensor"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_support_and_global_chance_are_left_alone(engine, dtype):
    support = _support(dtype=dtype)
    kept, torch_state, numpy_state = support.x.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    made = Classical("strong", engine=engine).synthesize(support, support.y, KEYS[:12])
    assert made.x.dtype == dtype
    assert made.x.min() >= 0
    assert made.x.max() <= (255 if dtype == torch.uint8 else 1)
    assert torch.equal(support.x, kept)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_auto_takes_opencv_for_uint8_and_tensors_for_floats():
    support = _support(6)
    parameters = Classical("strong").draw(KEYS[:6])
    for pictures, engine in ((support.x, "cv2"), (support.x.float() / 255, "tensor")):
        made = Classical("strong").apply(pictures, parameters)
        assert torch.equal(made, Classical("strong", engine=engine).apply(pictures, parameters))
