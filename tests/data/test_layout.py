"""Paths to splits, classes and rows: the order of the paths does not matter, and each mistake has its sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augforge.data.layout import arrange, common_top, is_hidden, is_picture, parents
from augforge.types import InputError


def table(pictures, folders=()):
    folders = {*folders, *(f for name in pictures for f in parents(name))}
    return arrange(pictures, folders, (), "root")


def test_classes_and_rows_are_sorted_by_name():
    split = table(["b/2.png", "b/10.png", "a/z/1.png", "a b/1.png", "a/1.png"])["all"]
    assert split.classes == ("a", "a b", "b")
    assert split.names == ("a/1.png", "a/z/1.png", "a b/1.png", "b/10.png", "b/2.png")
    assert split.y.tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_splits_keep_the_folder_in_their_names(name):
    out = table([f"{name}/a/1.png", "train/b/1.png", "train/a/1.png", "test/c/1.png"])
    assert list(out) == ["train", "val", "test"]
    assert out["val"].names == (f"{name}/a/1.png",)
    assert out["train"].classes == ("a", "b")
    assert out["test"].classes == ("c",)


def test_a_class_may_be_called_train():
    assert table(["train/1.png", "bus/1.png"])["all"].classes == ("bus", "train")
    assert table(["train/train/1.png", "train/bus/1.png"])["train"].classes == ("bus", "train")


def test_test_and_val_without_train_are_classes():
    assert set(table(["test/a/1.png", "val/a/1.png"])) == {"all"}


def test_an_empty_class_stays():
    out = table(["a/1.png"], ["empty"])["all"]
    assert out.classes == ("a", "empty")
    assert table(["train/a/1.png"], ["train/empty"])["train"].classes == ("a", "empty")


def test_strays_are_told():
    assert table(["a/1.png", "x.png"])["all"].skipped == (("x.png", "lies outside of every class folder"),)
    out = table(["train/a/1.png", "test/1.png"])
    assert set(out) == {"train"}
    assert ("test", "has no class folders, so there is no such split") in out["train"].skipped
    assert ("test/1.png", "lies outside of every class folder") in out["train"].skipped


@pytest.mark.parametrize(
    ("pictures", "folders", "text"),
    [
        ([], [], "has no class folders: expected root/class/picture"),
        (["1.png"], [], "has pictures such as '1.png' but no class folders"),
        (["train/1.png"], [], "has pictures such as 'train/1.png' but no class folders"),
        ([], ["a", "b"], "holds no picture"),
        (["train/a/1.png", "val/a/1.png", "valid/a/1.png"], [], "both 'val' and 'valid'|both 'valid' and 'val'"),
        (["Cat/1.png", "cat/1.png"], [], "'Cat' and 'cat', whose names differ by case alone"),
        (["train/STRASSE/1.png", "train/straße/1.png"], [], "differ by case alone"),
    ],
)
def test_what_is_not_a_layout_is_refused(pictures, folders, text):
    with pytest.raises(InputError, match=text):
        table(pictures, folders)


def test_the_same_class_in_other_case_in_two_splits_is_no_clash():
    assert set(table(["train/Cat/1.png", "test/cat/1.png"])) == {"train", "test"}


def top(*names):
    return common_top(names, {f for name in names for f in parents(name)})


def test_the_folder_around_an_archive_is_left_off_only_where_it_is_no_class():
    assert top("pets/cat/1.png", "pets/dog/1.png") == "pets/"
    assert top("cifar-fs/train/apple/1.webp", "cifar-fs/test/apple/1.webp") == "cifar-fs/"
    assert top("cat/1.png") == ""
    assert top("cat/1.png", "cat/more/2.png") == ""
    assert top("train/cat/1.png") == ""
    assert top("cat/1.png", "dog/1.png") == ""
    assert top("pets/cat/1.png", "2.png") == ""


def test_suffixes_and_hidden_names():
    assert all(map(is_picture, ["a.PNG", "b.x.JpEg", "-.tif", ".png"]))
    assert not any(map(is_picture, ["png", "a.txt", "a.png.txt", "a.", ""]))
    assert is_hidden(".git")
    assert is_hidden("__MACOSX")
    assert not is_hidden("_a")


names = st.text("ab .-'\n\udc80é", min_size=1, max_size=3).filter(lambda part: part not in (".", ".."))
paths = st.lists(names, min_size=2, max_size=4).map(lambda parts: "/".join(parts) + ".png")


@settings(max_examples=150, deadline=None)
@given(st.sets(paths, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_rows_are_the_pictures_whatever_their_order(pictures, random):
    shuffled = sorted(pictures)
    random.shuffle(shuffled)
    one, two = table(sorted(pictures))["all"], table(shuffled)["all"]
    assert (one.names, one.classes, one.y.tolist()) == (two.names, two.classes, two.y.tolist())
    assert set(one.names) == pictures
    assert [one.classes[i] for i in one.y.tolist()] == [name.split("/")[0] for name in one.names]
    assert list(one.classes) == sorted(set(one.classes))
