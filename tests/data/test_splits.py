"""Folders as people name them: a split is never taken for a class, nor a class for a split."""

import itertools

import pytest

from augforge.data.splits import find_splits, split_of, splits_among

NAMES = {
    "train": ["train", "Train", "TRAIN", "training", "Training", "train_set", "trainset", "TrainSet", "training_set",
              "training set", "train-images", "train2017", "train_1", "data_train", "images-train"],
    "val": ["val", "valid", "validation", "Validation", "dev", "devel", "eval", "evaluation", "val2017", "valid_set"],
    "test": ["test", "Test", "testing", "test_set", "Test Set", "test1", "test-data"],
}  # fmt: skip


@pytest.mark.parametrize(("split", "name"), [(split, name) for split, names in NAMES.items() for name in names])
def test_spellings(split, name):
    assert split_of(name) == split


OTHERS = ["trains", "toy train", "bullet_train", "latest", "tests of skill", "contest", "developer", "validity",
          "interval", "medieval", "", "trainer", "set", "protest", "train_cats"]  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_words_that_only_look_like_it(name):
    assert split_of(name) is None


def test_a_word_before_counts_where_two_splits_share_it():
    assert splits_among(["seg_train", "seg_test", "cats"]) == {"seg_train": "train", "seg_test": "test"}
    assert splits_among(["bullet_train", "road_test", "cats"]) == {}


def found(*names):
    by_top = {}
    for name in names:
        by_top.setdefault(name.split("/")[0], []).append(name)
    return find_splits(by_top)


@pytest.mark.parametrize(("one", "other"), itertools.combinations(NAMES, 2))
def test_any_two_splits_in_any_spelling(one, other):
    for a, b in itertools.product(NAMES[one], NAMES[other]):
        assert found(f"{a}/cat/1.png", f"{b}/cat/1.png") == {a: one, b: other}


def test_one_split_alone():
    assert found("Training/cat/1.png", "Training/dog/1.png") == {"Training": "train"}


def test_a_toy_train_is_a_class():
    assert found("cats/1.png", "train/1.png") == {}
    assert found("cats/1.png", "train/1.png", "train/more/2.png") == {}
    assert found("cats/1.png", "test/1.png", "train_cats/1.png") == {}


def test_pictures_beside_splits_make_no_class_of_them():
    splits = {"train": "train", "test": "test"}
    assert found("train/cat/1.png", "test/cat/1.png", "sample_images/1.png") == splits
    assert found("train/cat/1.png", "test/cat/1.png", "other/cat/1.png", "train/stray.png") == splits
    assert found("train/cat/1.png", "train/dog/2.png", "sample_images/1.png") == {"train": "train"}
    assert found("train/cat/1.png", "train/stray.png", "unlabeled/1.png") == {"train": "train"}
    assert found("Train/00/1.png", "Test/1.png", "Meta/1.png") == {"Train": "train"}


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["train/steam/1.png", "train/diesel/2.png", "cats/1.png"],
         "has 'train', which is named like a split and holds folders of pictures, beside 'cats', which is not; "
         "expected another name if it is a class, and else splits alone"),
        (["Train/1.png", "Test/1.png", "samples/1.png"],
         "has 'Test' and 'Train', which are named like splits and hold pictures but no class folders, beside "
         "'samples'"),
        (["val/a/1.png", "eval/a/1.png", "train/a/1.png"], "has both 'eval' and 'val', and both are the split 'val'"),
        (["train1/a/1.png", "train2/a/1.png"], "has both 'train1' and 'train2', and both are the split 'train'"),
        (["cat/train/1.png", "cat/test/2.png", "dog/train/1.png"],
         "has splits inside of its class folders, as 'cat/test'; expected root/{train,val,test}/class/picture"),
    ],
)  # fmt: skip
def test_what_could_be_either_is_refused(names, text):
    with pytest.raises(ValueError, match=r"^has ") as refused:
        found(*names)
    assert text in str(refused.value)
