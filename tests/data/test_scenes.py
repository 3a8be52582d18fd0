"""The built-in source `scenes`: what its crops are, and that support and query share no pixel."""

import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.scenes import LONGEST, PHOTOGRAPHS, SHORTEST, boxes, open_scenes
from augforge.data.source import open_source
from augforge.types import InputError, LackError


@pytest.fixture(scope="module")
def banks():
    pytest.importorskip("skimage", reason="scikit-image, which carries the photographs, is not installed")
    return open_source("scenes")


def test_both_splits_have_every_photograph_as_a_class_and_rows_of_their_own(banks):
    assert list(banks) == ["train", "test"]
    for split, bank in banks.items():
        assert bank.classes == tuple(p.name for p in PHOTOGRAPHS)
        assert bank.counts().tolist() == [20] * 12
        assert bank.name(27) == f"brick/{split}-07"
    assert not {*banks["train"].names} & {*banks["test"].names}


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda p: p.name)
@pytest.mark.parametrize("seed", [0, 1])
def test_support_and_query_share_no_pixel(photograph, seed):
    seen = {split: boxes(photograph, split, seed, 200) for split in ("train", "test")}
    axis = 1 if photograph.across else 0
    assert seen["train"][:, axis + 2].max() <= photograph.line <= seen["test"][:, axis].min()
    for found in seen.values():
        left, top, right, bottom, width, height = found.T
        assert int(left.min()) >= 0
        assert int(top.min()) >= 0
        assert int(right.max()) <= photograph.width
        assert int(bottom.max()) <= photograph.height
        assert bool((width <= right - left).all())  # never enlarged
        assert bool((height <= bottom - top).all())
        longer = torch.maximum(width, height)
        assert SHORTEST <= int(longer.min()) <= int(longer.max()) <= LONGEST
        assert len(found.unique(dim=0)) == 200


def test_pictures_are_of_mixed_sizes_in_colour_and_grey(banks):
    shapes = {}
    for row in range(0, 240, 4):
        picture, _ = banks["test"].load(row)
        assert picture.dtype == np.uint8
        assert picture.std() > 2
        shapes[row] = picture.shape
    assert len({shape[:2] for shape in shapes.values()}) > 50
    grey = {banks["test"].classes[row // 20] for row, shape in shapes.items() if shape[2] == 1}
    assert grey == {"brick", "camera", "cell", "coins", "grass", "gravel"}


def test_the_photographs_are_as_large_as_their_table_says(banks):
    for photograph, path in zip(PHOTOGRAPHS, banks["train"].pixels.paths, strict=True):
        with Image.open(path) as image:
            assert image.size == (photograph.width, photograph.height)


def test_a_crop_is_the_same_whatever_their_number_and_another_with_another_seed(banks):
    few, other = open_scenes(per_class=3)["train"], open_scenes(seed=1, per_class=3)["train"]
    for place in range(3):
        row = 4 * 3 + place
        assert few.load(row)[1] == banks["train"].load(4 * 20 + place)[1] != other.load(row)[1]


def test_a_bank_can_be_sent_to_a_worker(banks):
    copy = pickle.loads(pickle.dumps(banks["train"]))
    assert copy.load(5)[1] == banks["train"].load(5)[1]


def test_what_is_missing_is_said_with_the_command_that_installs_it(monkeypatch):
    with pytest.raises(InputError, match="asked for 0 pictures of a class"):
        open_scenes(per_class=0)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    with pytest.raises(LackError, match=r"needs the package scikit-image.*`pip install augforge\[scenes\]`"):
        open_scenes()
