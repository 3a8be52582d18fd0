"""Paths to splits, classes and rows: the order of the paths does not matter, and each mistake has its sentence."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augforge.data.containers import is_picture
from augforge.data.layout import Listing, arrange, is_hidden, parents, suffix_of, without_wrapping
from augforge.data.notes import Note
from augforge.types import InputError, LackError


def listing(pictures, folders=(), unread=()):
    folders = {*folders, *(f for name in pictures for f in parents(name))}
    return Listing(list(pictures), folders, Counter(unread))


def table(pictures, folders=(), unread=()):
    return arrange(listing(pictures, folders, unread), "root")


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


def test_test_and_val_without_train_are_splits():
    assert list(table(["test/a/1.png", "val/a/1.png"])) == ["val", "test"]
    assert list(table(["test/a/1.png"])) == ["test"]


def test_a_split_in_a_folder_of_its_own_name():
    out = table(["seg_train/seg_train/sea/1.png", "seg_test/seg_test/sea/1.png", "seg_test/seg_test/ice/2.png"])
    assert out["train"].classes == ("sea",)
    assert out["test"].classes == ("ice", "sea")
    assert out["test"].names == ("seg_test/seg_test/ice/2.png", "seg_test/seg_test/sea/1.png")


def test_a_split_whose_classes_lie_in_a_folder_of_images():
    out = table(["train/images/sea/1.png", "train/images/ice/2.png", "val/images/sea/3.png"])
    assert out["train"].classes == ("ice", "sea")
    assert out["val"].classes == ("sea",)
    with pytest.warns(Note, match="without pictures of a class: 'val'$"):
        out = table(["train/sea/1.png", "val/images/3.png"])
    assert list(out) == ["train"]
    with pytest.raises(InputError, match=r"has pictures such as 'train/images/1\.png' but no class folders"):
        table(["train/images/1.png", "val/images/3.png"])


def test_folders_without_pictures_are_left_out_and_named_at_once():
    with pytest.warns(Note) as said:
        out = table(["a/1.png"], ["empty", "@eaDir", "annotations", "annotations/more"])["all"]
    assert out.classes == ("a",)
    (one,) = said
    assert str(one.message) == (
        "'root': folders are left out, without pictures of a class: '@eaDir', 'annotations', 'empty'"
    )
    with pytest.warns(
        Note, match=r"without pictures of a class: 'train/empty', 'val'; beside the splits: 'sample"
    ) as said:
        out = table(["train/a/1.png", "test/a/1.png", "sample_images/1.png"], ["train/empty", "val"])
    assert len(said) == 1
    assert out["train"].classes == ("a",)
    assert list(out) == ["train", "test"]


def test_many_folders_are_counted():
    with pytest.warns(Note, match=r"'e10', 'e11', .* and 5 more$"):
        table(["a/1.png"], [f"e{i}" for i in range(10, 25)])


def test_files_that_are_not_read_are_counted_by_suffix():
    with pytest.warns(Note) as said:
        table(["a/1.png"], (), {".xcf": 2, ".txt": 30, "": 1})
    (one,) = said
    assert str(one.message) == "'root': 33 files are not read (30 .txt, 2 .xcf, 1 without a suffix)"
    with pytest.raises(LackError, match=r"holds no picture that can be used \(3 .heic; pip install 'augforge\[heif\]'"):
        table([], ["a"], {".heic": 3})
    assert [suffix_of(name) for name in ("a/b.TXT", "a.b/c", "a/.hidden", "x.tar.gz")] == [".txt", "", "", ".gz"]


def test_strays_are_told():
    assert table(["a/1.png", "x.png"])["all"].skipped == (("x.png", "lies outside of every class folder"),)
    with pytest.warns(Note, match="without pictures of a class: 'test'"):
        out = table(["train/a/1.png", "test/1.png"])
    assert set(out) == {"train"}
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
        (["cat/1.png"], ["Cat"], "'Cat' and 'cat', whose names differ by case alone"),
        (["train/STRASSE/1.png", "train/straße/1.png"], [], "differ by case alone"),
    ],
)
def test_what_is_not_a_layout_is_refused(pictures, folders, text):
    with pytest.raises(InputError, match=text):
        table(pictures, folders)


def test_the_same_class_in_other_case_in_two_splits_is_no_clash():
    assert set(table(["train/Cat/1.png", "test/cat/1.png"])) == {"train", "test"}


def top(*names):
    return without_wrapping(listing(names))[0]


def test_the_folder_around_everything_is_left_off_only_where_it_is_no_class():
    assert top("pets/cat/1.png", "pets/dog/1.png") == "pets/"
    assert top("cifar-fs/train/apple/1.webp", "cifar-fs/test/apple/1.webp") == "cifar-fs/"
    assert top("a/b/train/apple/1.webp", "a/b/test/apple/1.webp") == "a/b/"
    assert top("a/b/cat/1.png", "a/b/dog/1.png") == "a/"
    assert top("CUB/images/001.Gull/1.png", "CUB/images/002.Wren/2.png") == "CUB/images/"
    assert top("chest/chest/ill/1.png", "chest/chest/well/2.png") == "chest/chest/"
    assert top("valid/train/cat/1.png", "valid/test/cat/1.png") == "valid/"
    assert top("cat/1.png") == ""
    assert top("cat/1.png", "cat/more/2.png") == ""
    assert top("train/cat/1.png") == ""
    assert top("cat/1.png", "dog/1.png") == ""
    assert top("pets/cat/1.png", "2.png") == ""


def test_what_lies_beside_the_folder_around_everything_is_named():
    found = without_wrapping(listing(["pets/cat/1.png", "pets/dog/1.png"], ["pets/empty", "annotations/xml"]))[1]
    assert found.folders == {"cat", "dog", "empty", "annotations/xml"}
    with pytest.warns(Note, match="'annotations', 'empty'"):
        assert arrange(found, "root")["all"].classes == ("cat", "dog")
    found = without_wrapping(listing(["CUB/images/a/1.png", "CUB/images/b/1.png"], ["CUB/parts/x", "other"]))[1]
    assert found.folders == {"a", "b", "parts/x", "other"}


def test_suffixes_and_hidden_names():
    assert all(map(is_picture, ["a.PNG", "b.x.JpEg", "-.tif", ".png", "a.jfif"]))
    assert not any(map(is_picture, ["png", "a.txt", "a.png.txt", "a.", ""]))
    assert is_hidden(".git")
    assert is_hidden("__MACOSX")
    assert is_hidden("@eaDir")
    assert is_hidden("Thumbs.db")
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
