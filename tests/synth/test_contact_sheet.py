import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.banks import ArrayPictures
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.synth.contact_sheet import PICTURES, classes_shown, draw_sheet
from augforge.synth.generate import Making
from augforge.synth.plan import ClassPlan, Plan, Taken
from augforge.synth.sheet import HEIGHT, WIDTH, Tile, _captions, layout_of, picture_size


def _making(classes: dict[str, int], make: int, side: int = 32, channels: int = 3, part=None) -> Making:
    """Every class has as many pictures of one colour each as it says."""
    y = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(list(classes.values())))
    colours = np.random.default_rng(0).integers(0, 200, (len(y), 1, 1, channels), dtype=np.uint8)
    bank = ArrayPictures(y, tuple(classes), np.broadcast_to(colours, (len(y), side, side, channels)), "arrays")
    plans = tuple(ClassPlan(n, i, bank.rows_of(i).numpy(), make, 0) for i, n in enumerate(classes))
    return Making(bank, part or Copies(), "copies", "", 0, Plan(plans, 64))


def _drawn(making: Making, tmp_path) -> tuple[np.ndarray | None, str | None]:
    path = tmp_path / "sheet.png"
    count = draw_sheet(making, path)
    if count is None:
        return None, None
    assert list(tmp_path.iterdir()) == [path]
    assert classes_shown(path) == count
    with Image.open(path) as sheet:
        return np.asarray(sheet), count


def _share_of(sheet: np.ndarray, colour: np.ndarray) -> float:
    return float((sheet == np.broadcast_to(colour, 3)).all(2).mean())


@pytest.mark.parametrize(
    ("classes", "make", "count"),
    [
        ({"a": 1}, 1, "1 class"),
        ({"a": 40}, 400, "1 class"),
        ({f"c{i}": 3 for i in range(17)}, 12, "17 classes"),
        ({f"c{i}": 1 for i in range(100)}, 3, "100 classes"),
        ({f"c{i}": 3 for i in range(400)}, 24, "130 of 400 classes"),
    ],
)
def test_every_class_is_shown_up_to_a_number_that_fits_and_is_counted(tmp_path, classes, make, count):
    sheet, said = _drawn(_making(classes, make), tmp_path)
    assert said == count
    assert sheet.shape[1] <= WIDTH
    assert sheet.shape[0] <= HEIGHT + 200


@pytest.mark.parametrize("kinds", [1, 2, 4, 7, 17, 60])
@pytest.mark.parametrize("side", [28, 64, 100, 300])
def test_little_of_the_paper_is_white(tmp_path, kinds, side):
    sheet, _ = _drawn(_making({f"c{i}": 20 for i in range(kinds)}, 400, side), tmp_path)
    assert _share_of(sheet, np.array([255, 255, 255])) < 0.45


def test_a_class_is_shown_by_several_parents_each_with_what_was_made_of_it(tmp_path):
    making = _making({"a": 3}, 9, 64)
    sheet, _ = _drawn(making, tmp_path)
    shares = [_share_of(sheet, making.bank.load(row)[0][0, 0]) for row in range(3)]
    assert min(shares) > 0
    assert max(shares) == pytest.approx(min(shares), rel=0.05)
    assert shares[0] * sheet.shape[0] * sheet.shape[1] == pytest.approx(4 * 64 * 64, rel=0.05)


def test_rejected_tries_of_the_whole_run_are_a_line_of_the_title(tmp_path):
    making, heights = _making({"a": 3}, 9, 64), []
    for rejected in (None, {}, {"blank": 3, "copy of a real row": 1}):
        draw_sheet(making, tmp_path / "sheet.png", rejected)
        with Image.open(tmp_path / "sheet.png") as sheet:
            heights.append(sheet.height)
    assert heights[0] == heights[1] < heights[2] < heights[0] + 30


def test_nothing_made_is_nothing_drawn(tmp_path):
    assert _drawn(_making({"a": 3}, 0), tmp_path) == (None, None)


def test_a_file_that_is_no_sheet_says_nothing(tmp_path):
    (tmp_path / "other.png").write_bytes(b"no picture")
    assert classes_shown(tmp_path / "other.png") == classes_shown(tmp_path / "none.png") == ""


@pytest.mark.parametrize(
    "name", ["", "new\nline", "x" * 300, "中文猫" * 40, "\udcff\udcfe", "🐈 cat", "\u202eright", "\x00"]
)
def test_odd_class_names(tmp_path, name):
    assert _drawn(_making({name: 1}, 2), tmp_path)[1] == "1 class"


@pytest.mark.parametrize(("side", "channels"), [(1, 1), (1, 3), (95, 3), (129, 1), (500, 3), (2000, 3)])
def test_pictures_of_any_size_fit(tmp_path, side, channels):
    assert max(_drawn(_making({"a": 2}, 4, side, channels), tmp_path)[0].shape) < 900


def test_pictures_are_shown_at_their_size_and_small_ones_a_whole_number_of_times_larger():
    assert picture_size([(100, 80, 3)]) == (100, 80)
    assert picture_size([(28, 28, 1)]) == (84, 84)
    assert picture_size([(1000, 1500, 3)]) == (112, 168)
    assert picture_size([]) == (64, 64)


def test_long_and_narrow_pictures_fit(tmp_path):
    y = torch.tensor([0, 0])
    for shape in ((2, 1, 900, 3), (2, 900, 1, 3)):
        bank = ArrayPictures(y, ("a",), np.zeros(shape, np.uint8), "arrays")
        making = Making(bank, Copies(), "copies", "", 0, Plan((ClassPlan("a", 0, np.arange(2), 2, 0),), 64))
        assert max(_drawn(making, tmp_path)[0].shape) < 900


@pytest.mark.parametrize("classes", [1, 2, 5, 12, 30, 100, 1000])
@pytest.mark.parametrize("size", [(64, 64), (84, 84), (112, 168), (112, 60)])
def test_a_layout_fits_the_page_and_has_about_as_many_pictures_as_it_should(classes, size):
    found = layout_of(classes, size, 50, PICTURES, False)
    assert found.columns * found.across * (found.width + 5) <= WIDTH
    assert found.height >= 64
    assert found.shown * found.lines * (found.across - 1) <= max(PICTURES + classes * found.lines, 3 * found.shown)
    assert 2 <= found.together <= found.across


def test_captions_are_folded_into_the_width_of_a_picture():
    assert _captions(Tile(np.zeros((1, 1, 1))), 80) == []
    assert _captions(Tile(np.zeros((1, 1, 1)), caption="far from its class"), 80) == ["far from its", "class"]
    assert len(_captions(Tile(np.zeros((1, 1, 1)), caption="x" * 500 + " b" * 200), 80)) == 3


# Filters, and pools


@dataclass(frozen=True)
class Dark:
    """Rejects pictures that are darker than 100 on average."""

    reasons = ("too dark",)

    def margins(self, part, support, made):
        return made.x.float().mean((1, 2, 3))[:, None] - 100

    def for_class(self, name):
        return self


def _red_frames(sheet: np.ndarray) -> int:
    return int((sheet == np.array([0xC0, 0x39, 0x2B])).all(2).sum())


def test_rejected_pictures_are_shown_with_a_red_frame_and_kept_ones_that_came_near(tmp_path):
    bright, dark = np.full((2, 32, 32, 3), 180, np.uint8), np.full((2, 32, 32, 3), 40, np.uint8)
    bank = ArrayPictures(torch.tensor([0, 0, 1, 1]), ("a", "b"), np.concatenate([bright, dark]), "arrays")
    plans = tuple(ClassPlan(n, i, np.arange(2 * i, 2 * i + 2), 6, 0) for i, n in enumerate("ab"))
    making = Making(bank, Copies(), "copies", "", 0, Plan(plans, 64), filters=(Dark(),), tries=2)
    sheet, _ = _drawn(making, tmp_path)
    plain, _ = _drawn(replace(making, filters=()), tmp_path)
    assert _red_frames(sheet) > 100
    assert _red_frames(plain) == 0
    assert sheet.shape[0] > plain.shape[0]


def test_pictures_of_a_pool_have_their_weights_and_the_least_sure_come_last(tmp_path):
    y = torch.zeros(3, dtype=torch.int64)
    bank = ArrayPictures(y, ("a",), np.full((3, 64, 64, 3), 90, np.uint8), "arrays")
    pool = ArrayPictures(torch.zeros(8, dtype=torch.int64), ("a",), np.full((8, 64, 64, 3), 150, np.uint8), "pool")
    taken = Taken(np.arange(8), tuple(0.1 * i for i in range(8)), tuple(1 - 0.05 * i for i in range(8)))
    making = Making(bank, None, "pool", "", 0, Plan((ClassPlan("a", 0, np.arange(3), 8, 0, taken),), 64), pool=pool)
    sheet, _ = _drawn(making, tmp_path)
    unknown = replace(making, plan=Plan((replace(making.plan.classes[0], taken=Taken(np.arange(8))),), 64))
    plain, _ = _drawn(unknown, tmp_path)
    of_pool = [_share_of(one, np.array([150] * 3)) * one.shape[0] * one.shape[1] for one in (sheet, plain)]
    assert of_pool[0] > 1.8 * of_pool[1]


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
