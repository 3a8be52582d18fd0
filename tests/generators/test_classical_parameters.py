import dataclasses

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.generators.classical import Classical
from augforge.generators.classical.parameters import colour_matrices

KEYS = chance.row_keys(5, "matrices", torch.arange(40))
SIZES = [(28, 28), (84, 84), (48, 80), (33, 51)]


def _keras_matrix(drawn, i, height, width):
    """Keras' apply_affine_transform from its documentation: 3 x 3, (row, column, 1) of the output to the source."""
    theta, shear = np.deg2rad(float(drawn.rotate[i])), np.deg2rad(float(drawn.shear[i]))
    rotation = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    shift = np.array([[1, 0, float(drawn.shift_y[i]) * height], [0, 1, float(drawn.shift_x[i]) * width], [0, 0, 1]])
    shear_ = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([float(drawn.zoom_y[i]), float(drawn.zoom_x[i]), 1])
    to_middle = np.array([[1, 0, height / 2 - 0.5], [0, 1, width / 2 - 0.5], [0, 0, 1]])
    to_origin = np.array([[1, 0, -height / 2 + 0.5], [0, 1, -width / 2 + 0.5], [0, 0, 1]])
    return to_middle @ rotation @ shift @ shear_ @ zoom @ to_origin


def _draw(**flips):
    ranges = {
        "rotate": 180.0,
        "shift_x": 0.3,
        "shift_y": 0.2,
        "shear": 40.0,
        "zoom_x": (0.5, 1.5),
        "zoom_y": (0.4, 2.0),
    }
    return Classical("identity", **ranges, **flips).draw(KEYS)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_matrices_are_those_of_keras(height, width):
    drawn = _draw()
    matrices = drawn.matrices(height, width).numpy()
    for i in range(len(KEYS)):
        expected = _keras_matrix(drawn, i, height, width)
        for row, column in ((0, 0), (0, width - 1), (height - 1, 0), (7, 11)):
            y, x, _ = expected @ (row, column, 1)
            np.testing.assert_allclose(matrices[i] @ (column, row, 1), (x, y), atol=1e-9)


def test_flips_mirror_what_the_rest_made():
    drawn, flipped = _draw(), _draw(flip_x=1.0, flip_y=1.0)
    still, mirrored = drawn.matrices(20, 30).numpy(), flipped.matrices(20, 30).numpy()
    for i in range(len(KEYS)):
        np.testing.assert_allclose(mirrored[i] @ (4, 7, 1), still[i] @ (29 - 4, 19 - 7, 1), atol=1e-9)


def test_sizes_can_differ_from_row_to_row():
    drawn = _draw()
    height, width = torch.arange(10, 50), torch.arange(60, 20, -1)
    together = drawn.matrices(height, width)
    for i in (0, 17, 39):
        alone = drawn.take(slice(i, i + 1)).matrices(float(height[i]), float(width[i]))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-12)


def _sample(picture, y, x):
    """One number of `picture` [h, w] at (y, x), bilinear, edges repeated, the slow way."""
    top, left = int(np.floor(y)), int(np.floor(x))
    total = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            total += weight * picture[min(max(row, 0), len(picture) - 1), min(max(column, 0), picture.shape[1] - 1)]
    return total


@pytest.mark.parametrize("engine", ["cv2", "tensor"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_engines_read_where_keras_would(engine, height, width):
    drawn, generator = _draw(), np.random.default_rng(0)
    coarse = generator.random((6, 6))
    rows, columns = np.linspace(0, 4.99, height), np.linspace(0, 4.99, width)
    picture = 255 * np.array([[_sample(coarse, y, x) for x in columns] for y in rows])
    picture = np.rint(picture).astype(np.uint8)
    recipe = Classical("identity", rotate=180.0, engine=engine)
    made = recipe.apply(torch.from_numpy(picture).expand(len(KEYS), 1, -1, -1), drawn)
    for i in range(len(KEYS)):
        matrix = _keras_matrix(drawn, i, height, width)
        for row, column in generator.integers(0, (height, width), (8, 2)):
            y, x, _ = matrix @ (row, column, 1)
            assert abs(int(made[i, 0, row, column]) - _sample(picture.astype(float), y, x)) <= 1.5


def test_colour_matrices_apply_their_parts_in_order():
    generator = np.random.default_rng(1)
    factors = generator.uniform(0, 2, (3, 9))
    hue = generator.uniform(-0.5, 0.5, 9)
    whole, none, one = colour_matrices(*factors, hue), np.zeros(9), np.ones(9)
    parts = [
        colour_matrices(factors[0], one, one, none),
        colour_matrices(one, factors[1], one, none),
        colour_matrices(one, one, factors[2], none),
        colour_matrices(one, one, one, hue),
    ]
    composed = np.broadcast_to(np.eye(4), (9, 4, 4))
    for part in parts:
        composed = np.concatenate([part, np.broadcast_to([[[0, 0, 0, 1.0]]], (9, 1, 4))], 1) @ composed
    np.testing.assert_allclose(whole, composed[:, :3], atol=1e-9)


def test_neutral_colours_are_the_identity():
    one, zero = np.ones(1), np.zeros(1)
    for turns in (0, 1, -1):
        np.testing.assert_allclose(colour_matrices(one, one, one, zero + turns)[0], np.eye(3, 4), atol=1e-9)


def test_hue_keeps_the_luma():
    matrix = colour_matrices(np.ones(1), np.ones(1), np.ones(1), np.array([0.3]))[0]
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(luma @ matrix[:, :3], luma, atol=1e-6)


def test_taking_rows_takes_them_of_every_column():
    drawn = Classical("strong").draw(KEYS)
    rows = torch.tensor([4, 0, 4])
    taken = drawn.take(rows)
    for field in dataclasses.fields(drawn):
        assert torch.equal(getattr(taken, field.name), getattr(drawn, field.name)[rows])
