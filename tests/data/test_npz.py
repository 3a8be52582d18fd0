"""Arrays in an .npz: what is stored is what comes out, without reading all of it; mistakes have their sentence."""

import os
import pickle

import numpy as np
import pytest
import torch

from augforge.data.npz import StoredRows, open_npz
from augforge.types import InputError, UnreadablePicture

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 1, 0, 2, 2])


def save(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("images", [IMAGES, IMAGES[:, :, :, 0], np.asfortranarray(IMAGES), IMAGES[:, :, :, :1]])
def test_the_pictures_come_back(tmp_path, compressed, images):
    bank = open_npz(save(tmp_path / "a.npz", compressed, images=images, labels=LABELS))["all"]
    expected = images.reshape(6, 5, 4, -1)
    np.testing.assert_array_equal(bank.examples(torch.arange(6)).x.permute(0, 2, 3, 1), expected)
    np.testing.assert_array_equal(bank.load(3)[0], expected[3])
    assert bank.classes == ("0", "1", "2")
    assert bank.name(3) == "images[3]"


def test_uncompressed_pictures_stay_in_the_file(tmp_path):
    bank = open_npz(save(tmp_path / "a.npz", images=IMAGES, labels=LABELS))["all"]
    assert isinstance(bank.pixels, StoredRows)
    assert len(pickle.dumps(bank)) < 4000
    again = pickle.loads(pickle.dumps(bank))
    np.testing.assert_array_equal(again.load(5)[0], IMAGES[5])
    os.utime(tmp_path / "a.npz", ns=(1, 1))
    with pytest.raises(UnreadablePicture, match="has changed"):
        bank.load(0)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_are_rounded(tmp_path, compressed, dtype):
    images = (IMAGES / 255).astype(dtype)
    bank = open_npz(save(tmp_path / "a.npz", compressed, images=images, labels=LABELS))["all"]
    out = bank.examples(torch.arange(6)).x.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(out, np.rint(images.astype(np.float64) * 255))
    if dtype != np.float16:
        np.testing.assert_array_equal(out, IMAGES)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("value", [1.01, -0.1, np.nan, 255])
def test_floats_out_of_range_are_refused_with_their_row(tmp_path, compressed, value):
    images = np.zeros((6, 5, 4), np.float32)
    images[4, 2, 2] = value
    with pytest.raises(InputError, match=r"images\[4\] has values outside of 0..1"):
        open_npz(save(tmp_path / "a.npz", compressed, images=images, labels=LABELS))


def test_classes_and_labels_by_name(tmp_path):
    named = np.array(["cat", "dog", "dog", "cat", "ant", "ant"])
    bank = open_npz(save(tmp_path / "a.npz", images=IMAGES, labels=named))["all"]
    assert (bank.classes, bank.y.tolist()) == (("ant", "cat", "dog"), [1, 2, 2, 1, 0, 0])
    classes = np.array(["dog", "cat", "ant", "none"])
    bank = open_npz(save(tmp_path / "a.npz", images=IMAGES, labels=named, classes=classes))["all"]
    assert (bank.classes, bank.y.tolist()) == (("dog", "cat", "ant", "none"), [1, 0, 0, 1, 2, 2])
    bank = open_npz(save(tmp_path / "a.npz", images=IMAGES, labels=LABELS.astype(np.uint8), classes=classes))["all"]
    assert bank.y.tolist() == LABELS.tolist()
    assert bank.counts().tolist() == [2, 2, 2, 0]


def test_splits(tmp_path):
    split = np.array(["train", "train", "valid", "train", "test", "test"])
    banks = open_npz(save(tmp_path / "a.npz", images=IMAGES, labels=LABELS, split=split))
    assert list(banks) == ["train", "val", "test"]
    assert banks["test"].classes == ("2",)
    assert banks["test"].name(1) == "images[5]"
    np.testing.assert_array_equal(banks["val"].load(0)[0], IMAGES[2])


def test_features(tmp_path):
    x = np.random.default_rng(1).normal(size=(6, 7)).astype(np.float32)
    bank = open_npz(save(tmp_path / "a.npz", features=x, labels=LABELS))["all"]
    assert bank.space == "feature"
    np.testing.assert_array_equal(bank.x, x)
    x[2, 3] = np.inf
    with pytest.raises(InputError, match=r"row 2 of .* holds inf; expected finite numbers"):
        open_npz(save(tmp_path / "a.npz", features=x, labels=LABELS))


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"images": IMAGES}, r"has the arrays \['images'\]; expected labels and one of images, features"),
        ({"labels": LABELS}, "expected labels and one of"),
        ({"images": IMAGES, "features": IMAGES, "labels": LABELS}, "expected labels and one of"),
        ({"images": IMAGES[:5], "labels": LABELS}, "images has 5 rows and labels has 6"),
        ({"images": IMAGES.astype(np.int64), "labels": LABELS}, "images are int64; expected uint8"),
        ({"images": IMAGES[:, :, :, :2], "labels": LABELS}, "with c 1 or 3"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, "images have shape"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "labels are float64"),
        ({"images": IMAGES, "labels": LABELS[:, None]}, "labels are int64"),
        ({"images": IMAGES, "labels": LABELS - 1, "classes": np.array(["a", "b", "c"])}, r"labels are -1\.\.1"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "b"])}, "but there are 2 classes"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "b", "A"])}, "differ by case alone"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.arange(3)}, "expected strings"),
        ({"images": IMAGES, "labels": np.array(list("aabbcd")), "classes": np.array(list("abc"))}, "'d' is not among"),
        ({"images": IMAGES, "labels": LABELS, "split": np.array(["train"] * 5)}, "split has 5 entries"),
        ({"images": IMAGES, "labels": LABELS, "split": np.array(["train"] * 5 + ["fold3"])}, "'fold3' is no split"),
        ({"features": IMAGES, "labels": LABELS}, "expected floats"),
        ({"images": np.array([{}] * 6), "labels": LABELS}, "cannot be read as an .npz|images have shape"),
    ],
)
def test_mistakes(tmp_path, arrays, text):
    with pytest.raises(InputError, match=text):
        open_npz(save(tmp_path / "a.npz", **arrays))


def test_damage(tmp_path):
    path = save(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    data = path.read_bytes()
    for damaged in (b"", b"text", data[:100], data[:-30]):
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            open_npz(path)
    with pytest.raises(InputError):
        open_npz(tmp_path / "missing.npz")
