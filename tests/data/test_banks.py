"""Promises of the three banks: labels, stacking, limiting, names that stay, and nothing kept open."""

import hashlib
import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.banks import ArrayPictures, FeatureBank, FilePictures, take_rows
from augforge.data.decode import decode
from augforge.types import Bank, InputError, UnreadablePicture

Y = torch.tensor([0, 0, 1, 1, 2])
CLASSES = ("cat", "dog", "eel", "empty")
NAMES = tuple(f"{CLASSES[y]}/{i}.png" for i, y in enumerate(Y.tolist()))


class Reader:
    def __init__(self, pictures):
        self.pictures = pictures

    def __call__(self, row):
        file = io.BytesIO()
        Image.fromarray(self.pictures[row]).save(file, "PNG")
        return file.getvalue()


def files(pictures=None):
    pictures = pictures or [np.full((3, 2), i, np.uint8) for i in range(5)]
    groups = {"drawer": torch.arange(5), "alphabet": tuple("abcde")}
    return FilePictures(Y, CLASSES, NAMES, "/root", Reader(pictures), decode, groups=groups, attributes=torch.eye(4))


def arrays():
    pixels = np.arange(5 * 3 * 2, dtype=np.uint8).reshape(5, 3, 2, 1)
    groups = {"drawer": torch.arange(5), "alphabet": tuple("abcde")}
    return ArrayPictures(Y, CLASSES, pixels, "/a.npz", groups=groups, attributes=torch.eye(4))


def called():
    pixels = arrays().pixels
    return ArrayPictures(Y, CLASSES, pixels.__getitem__, "/a.npz", groups=arrays().groups, attributes=torch.eye(4))


def features():
    return FeatureBank(
        torch.arange(10.0).reshape(5, 2),
        Y,
        CLASSES,
        "/f.safetensors",
        attributes=torch.eye(4),
        parent=torch.arange(5),
        weight=torch.arange(5) / 10,
        groups=arrays().groups,
    )


BANKS = pytest.mark.parametrize("make", [files, arrays, called, features])


@BANKS
def test_a_bank_is_a_bank(make):
    bank = make()
    assert isinstance(bank, Bank)
    assert len(bank) == 5
    assert bank.space == ("feature" if make is features else "image")
    assert bank.counts().tolist() == [2, 2, 1, 0]
    assert bank.rows_of(1).tolist() == [2, 3]
    assert bank.rows_of(3).tolist() == []
    with pytest.raises(AttributeError):
        bank.y = Y


@BANKS
def test_examples_come_in_the_order_asked_for_with_labels_of_the_classes(make):
    bank = make()
    everything = bank.examples(torch.arange(5))
    some = bank.examples(torch.tensor([4, 0, 4]))
    assert some.y.tolist() == [2, 0, 2]
    assert torch.equal(some.x, everything.x[[4, 0, 4]])
    assert bank.examples(torch.tensor([4, 0]), torch.tensor([2, 0])).y.tolist() == [0, 1]
    with pytest.raises(ValueError, match="not among the classes"):
        bank.examples(torch.tensor([2]), torch.tensor([0]))
    assert len(bank.examples(torch.tensor([], dtype=torch.int64))) == 0


@BANKS
def test_only_limits_everything_alike_and_keeps_names(make):
    bank = make()
    part = bank.only(["eel", "empty", "cat"])
    assert part.classes == ("eel", "empty", "cat")
    assert part.y.tolist() == [2, 2, 0]
    assert [part.name(i) for i in range(3)] == [bank.name(i) for i in (0, 1, 4)]
    assert torch.equal(part.examples(torch.arange(3)).x, bank.examples(torch.tensor([0, 1, 4])).x)
    assert part.groups["drawer"].tolist() == [0, 1, 4]
    assert part.groups["alphabet"] == ("a", "b", "e")
    assert torch.equal(part.attributes, torch.eye(4)[[2, 3, 0]])
    twice = part.only(["eel"])
    assert twice.name(0) == bank.name(4)
    assert torch.equal(twice.examples(torch.tensor([0])).x, bank.examples(torch.tensor([4])).x)
    assert bank.classes == CLASSES


@BANKS
def test_an_unknown_class_is_told_with_the_nearest(make):
    with pytest.raises(InputError, match=r"no class 'dogs' in '/.*'; the nearest is 'dog'"):
        make().only(["cat", "dogs"])
    with pytest.raises(InputError, match="named twice"):
        make().only(["cat", "cat"])


@BANKS
def test_take_rows_keeps_the_classes_that_occur(make):
    part = take_rows(make(), torch.tensor([4, 3]))
    assert part.classes == ("dog", "eel")
    assert part.y.tolist() == [1, 0]
    assert part.name(1) == make().name(3)


@pytest.mark.parametrize("make", [files, arrays, features])
def test_pickling(make):
    bank = make().only(["dog"])
    again = pickle.loads(pickle.dumps(bank))
    assert torch.equal(again.examples(torch.arange(2)).x, bank.examples(torch.arange(2)).x)
    assert (again.classes, again.name(1)) == (bank.classes, bank.name(1))


def test_loading_gives_pixels_and_the_digest_of_what_was_stored():
    bank = files()
    assert bank.load(3)[1] == hashlib.sha256(bank.read(3)).hexdigest()
    pixels, digest = arrays().load(3)
    assert pixels.shape == (3, 2, 1)
    assert digest == hashlib.sha256(bytes(range(18, 24))).hexdigest()
    pixels[:] = 0
    assert arrays().load(3)[1] == digest  # a picture handed out can be written to without changing the bank


def test_names_of_rows_without_names_are_their_places():
    assert arrays().only(["eel"]).name(0) == "images[4]"
    assert features().only(["eel"]).name(0) == "features[4]"


def test_pictures_of_different_sizes_are_a_list():
    bank = files([np.zeros((2 + i % 2, 4), np.uint8) for i in range(5)])
    out = bank.examples(torch.arange(5)).x
    assert [tuple(x.shape) for x in out] == [(1, 2, 4), (1, 3, 4)] * 2 + [(1, 2, 4)]
    assert bank.examples(torch.tensor([0, 2])).x.shape == (2, 1, 2, 4)
    assert all(x.dtype == torch.uint8 and x.is_contiguous() for x in out)


def test_grey_is_repeated_where_colour_is_among_it():
    bank = files([np.full((2, 2), 9, np.uint8)] + [np.zeros((2, 2, 3), np.uint8)] * 4)
    assert bank.examples(torch.tensor([0, 1])).x[0].tolist() == [[[9, 9], [9, 9]]] * 3
    assert bank.examples(torch.tensor([0])).x.shape == (1, 1, 2, 2)


def test_many_rows_are_what_few_are():
    bank = files()
    rows = torch.arange(5).repeat(40)
    assert torch.equal(bank.examples(rows).x, bank.examples(torch.arange(5)).x.repeat(40, 1, 1, 1))


def test_an_error_while_reading_names_the_row():
    def broken(row):
        raise OSError(5, "Input/output error")

    bank = FilePictures(Y, CLASSES, NAMES, "/root", broken, decode)
    with pytest.raises(UnreadablePicture, match=r"'dog/2.png' cannot be read \(Input/output error\)"):
        bank.load(2)
    with pytest.raises(UnreadablePicture):
        bank.examples(torch.arange(5).repeat(40))
    with pytest.raises(UnreadablePicture, match=r"images\[1\]"):
        ArrayPictures(Y, CLASSES, broken, "/a").load(1)


def test_weights_go_with_the_examples_and_parents_do_not():
    out = features().examples(torch.tensor([4, 1]))
    assert out.weight.tolist() == pytest.approx([0.4, 0.1])
    assert out.parent is None
