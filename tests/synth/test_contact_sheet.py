import time

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.banks import ArrayPictures
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.synth.contact_sheet import COLUMNS, ROWS, draw_sheet
from augforge.synth.generate import Making
from augforge.synth.plan import ClassPlan, Plan

_CELL, _GAP, _LABEL, _TITLE = 96, 6, 170, 30


def _making(classes: dict[str, int], make: int, side: int = 32, channels: int = 3, part=None) -> Making:
    """Every class has as many pictures of one colour each as it says."""
    y = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(list(classes.values())))
    colours = np.random.default_rng(0).integers(0, 200, (len(y), 1, 1, channels), dtype=np.uint8)
    bank = ArrayPictures(y, tuple(classes), np.broadcast_to(colours, (len(y), side, side, channels)), "arrays")
    plans = tuple(ClassPlan(n, i, bank.rows_of(i).numpy(), make, 0) for i, n in enumerate(classes))
    return Making(bank, part or Copies(), "copies", "", 0, Plan(plans, 64))


def _drawn(making: Making, tmp_path) -> np.ndarray | None:
    path = tmp_path / "sheet.png"
    draw_sheet(making, path)
    if not path.exists():
        return None
    assert list(tmp_path.iterdir()) == [path]
    with Image.open(path) as sheet:
        return np.asarray(sheet)


def _size(sheet: np.ndarray) -> tuple[int, int]:
    """Rows and columns (with the parent's), from the size of the page."""
    return (sheet.shape[0] - _TITLE - _GAP) // (_CELL + _GAP), (sheet.shape[1] - _LABEL - 3 * _GAP) // (_CELL + _GAP)


@pytest.mark.parametrize(
    ("classes", "make", "rows", "columns"),
    [
        ({"a": 1}, 1, 1, 4),  # not narrower than its title
        ({"a": 1}, 100, 1, COLUMNS + 1),
        ({"a": 40}, 400, ROWS, COLUMNS + 1),
        ({"a": 40}, 5, 5, 4),
        ({f"c{i}": 3 for i in range(5)}, 12, 10, 5),
        ({f"c{i}": 3 for i in range(50)}, 24, ROWS, COLUMNS + 1),
    ],
)
def test_rows_and_columns(tmp_path, classes, make, rows, columns):
    sheet = _drawn(_making(classes, make), tmp_path)
    assert sheet.shape[2] == 3
    assert _size(sheet) == (rows, columns)


def test_a_row_is_a_parent_and_what_was_made_of_it(tmp_path):
    making = _making({"a": 3}, 9, part=Copies())
    sheet = _drawn(making, tmp_path)
    for row in range(3):
        colour = making.bank.load(row)[0][0, 0]
        middle = _TITLE + row * (_CELL + _GAP) + _CELL // 2
        for column in range(4):
            left = _LABEL + column * (_CELL + _GAP) + (2 * _GAP if column else 0)
            np.testing.assert_array_equal(sheet[middle, left + _CELL // 2], colour)


def test_nothing_made_is_nothing_drawn(tmp_path):
    assert _drawn(_making({"a": 3}, 0), tmp_path) is None


@pytest.mark.parametrize(
    "name", ["", "new\nline", "x" * 300, "中文猫" * 40, "\udcff\udcfe", "🐈 cat", "\u202eright", "\x00"]
)
def test_odd_class_names(tmp_path, name):
    assert _size(_drawn(_making({name: 1}, 2), tmp_path)) == (1, 4)


@pytest.mark.parametrize(("side", "channels"), [(1, 1), (1, 3), (95, 3), (97, 1), (500, 3), (2000, 3)])
def test_pictures_of_any_size_fit(tmp_path, side, channels):
    assert _size(_drawn(_making({"a": 2}, 4, side, channels), tmp_path)) == (2, 4)


def test_long_and_narrow_pictures_fit(tmp_path):
    y = torch.tensor([0, 0])
    for shape in ((2, 1, 900, 3), (2, 900, 1, 3)):
        bank = ArrayPictures(y, ("a",), np.zeros(shape, np.uint8), "arrays")
        making = Making(bank, Copies(), "copies", "", 0, Plan((ClassPlan("a", 0, np.arange(2), 2, 0),), 64))
        assert _size(_drawn(making, tmp_path)) == (2, 4)


def test_the_time_does_not_grow_with_the_run(tmp_path):
    small = _making({f"c{i}": 2 for i in range(12)}, 100, 64, part=Classical())
    large = _making({f"c{i}": 20_000 for i in range(12)}, 1_000_000, 64, part=Classical())
    _drawn(small, tmp_path)
    seconds = []
    for making in (small, large):
        start = time.process_time()
        _drawn(making, tmp_path)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 2 * seconds[0] + 0.2
