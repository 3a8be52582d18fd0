"""One's own pictures as a task: one support against a test folder, and what is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.banks import ArrayPictures, FeatureBank, FilePictures
from augforge.data.selection import grouped
from augforge.data.source import open_source
from augforge.episodes import check_episode
from augforge.episodes.own import fixed_support_task, own_task
from augforge.types import InputError


def _folder(root, counts, seed, size=(9, 7)):
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            shape = (size[0] + i, size[1] + seed, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(root / name / f"day{i % 2}-{i}.png")
    return root


def _bank(path):
    return open_source(path)["all"]


@pytest.fixture
def two(tmp_path):
    return _folder(tmp_path / "mine", {"cat": 3, "dog": 2}, 0), _folder(tmp_path / "held", {"cat": 4, "dog": 5}, 1)


def test_all_rows_are_support_and_all_others_are_queries(two):
    support, test = map(_bank, two)
    task = fixed_support_task("mine", support, "held", test)
    (episode,) = task.fixed
    check_episode(episode, task.novel.y)
    assert (task.base, task.tested, isinstance(task.novel, FilePictures)) == (None, "held", True)
    assert episode.support.tolist() == [[0, 1, 2], [3, 4, -1]]
    assert episode.query.tolist() == [list(range(5, 14))]
    assert task.novel.y[episode.query[0]].tolist() == [0] * 4 + [1] * 5
    for row in range(14):
        bank, place = (support, row) if row < 5 else (test, row - 5)
        assert np.array_equal(task.novel.load(row)[0], bank.load(place)[0])
    assert len({task.novel.name(row) for row in range(14)}) == 14


def test_classes_are_matched_by_name_whatever_their_order(two):
    support, test = map(_bank, two)
    task = fixed_support_task("mine", support, "held", test.only(["dog", "cat"]))
    assert [task.novel.classes[k] for k in task.novel.y[task.fixed[0].query[0]]] == ["cat"] * 4 + ["dog"] * 5


def test_classes_that_do_not_match_are_named(two, tmp_path):
    support = _bank(two[0])
    more = _bank(_folder(tmp_path / "more", {"cat": 1, "dog": 1, "emu": 1, "fox": 1}, 2))
    with pytest.raises(InputError, match=r"--test 'held' has classes 'emu', 'fox', which .*mine' lacks"):
        fixed_support_task("mine", support, "held", more)
    with pytest.raises(InputError, match="mine' has the class 'dog', which --test 'held' lacks; expected"):
        fixed_support_task("mine", support, "held", _bank(_folder(tmp_path / "less", {"cat": 1}, 3)))


def test_a_picture_on_both_sides_is_named(two):
    shutil.copy(two[0] / "dog" / "day1-1.png", two[1] / "dog" / "copy.png")
    with pytest.raises(InputError, match=r"'dog/day1-1.png' of 'mine' lies in --test 'held' too, as 'dog/copy.png'"):
        fixed_support_task("mine", _bank(two[0]), "held", _bank(two[1]))
    as_arrays = ArrayPictures(
        torch.tensor([0, 1]), ("cat", "dog"), lambda i: _bank(two[0]).load(2 + 2 * i)[0], "arrays"
    )
    with pytest.raises(InputError, match=r"lies in --test 'arrays' too, as 'images\[0\]'"):
        fixed_support_task("mine", _bank(two[0]), "arrays", as_arrays)


def test_a_row_of_features_on_both_sides_is_named():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1])
    support = FeatureBank(x[:2], y, ("a", "b"))
    fixed_support_task("mine", support, "held", FeatureBank(x[2:4], y, ("a", "b")))
    with pytest.raises(InputError, match=r"'features\[1\]' of 'mine' lies in --test 'held' too"):
        fixed_support_task("mine", support, "held", FeatureBank(x[1:3], y, ("a", "b")))
    with pytest.raises(InputError, match=r"features of 3 numbers and .* of 2"):
        fixed_support_task("mine", support, "held", FeatureBank(x[2:4, :2], y, ("a", "b")))


def test_a_group_on_both_sides_is_named(two):
    pattern = "(day[01])"
    with pytest.raises(InputError, match="the group 'day0' of --group-by has rows in 'mine' and in --test 'held'"):
        fixed_support_task("mine", grouped(_bank(two[0]), pattern), "held", grouped(_bank(two[1]), pattern))


def test_a_class_without_a_support_row_is_named(two):
    _folder(two[1], {"emu": 2}, 5)
    support = _bank(two[0])
    with pytest.raises(InputError, match=r"--test 'held' has the class 'emu', which '.*' lacks; expected"):
        fixed_support_task("mine", support, "held", _bank(two[1]))
    support = replace(support, classes=(*support.classes, "emu"))  # as an archive of arrays may name it
    with pytest.raises(InputError, match="class 'emu' of 'mine' has no picture"):
        fixed_support_task("mine", support, "held", _bank(two[1]))


def test_pictures_and_features_do_not_go_together(two):
    features = FeatureBank(torch.zeros(2, 3), torch.tensor([0, 1]), ("cat", "dog"), origin="numbers")
    with pytest.raises(InputError, match="expected one kind"):
        own_task("both", {"train": _bank(two[0]), "test": features})
