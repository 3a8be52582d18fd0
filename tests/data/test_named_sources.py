"""The named sources on the real data: sizes, splits that share nothing, columns, and pictures as they are stored."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from augforge.data.source import open_source

pytestmark = pytest.mark.data


@pytest.fixture
def opened():
    root = os.environ.get("AUGFORGE_DATA")

    def give(name, *files):
        for file in files:
            if not root or not (Path(root) / file).is_file():
                pytest.skip(f"{file} is not under AUGFORGE_DATA")
        return open_source(name)

    return give


def sizes(banks):
    return {split: (len(bank), len(bank.classes)) for split, bank in banks.items()}


def share_nothing(banks):
    names = [name for bank in banks.values() for name in bank.classes]
    return len(names) == len(set(names))


OMNIGLOT = ("omniglot.npz", "omniglot_splits.json")
CIFAR = ("cifar-fs.zip", "cifar100_splits.json")


def test_omniglot(opened):
    banks = opened("omniglot", *OMNIGLOT)
    assert sizes(banks) == {"train": (20560, 1028), "val": (3440, 172), "test": (8460, 423)}
    assert share_nothing(banks)
    bank = banks["test"]
    assert bank.counts().unique().tolist() == [20]
    assert bank.groups["drawer"][bank.rows_of(5)].sort().values.tolist() == list(range(1, 21))
    assert bank.groups["alphabet"][0] == bank.classes[0].split("/")[0]
    pixels, _ = bank.load(7)
    assert pixels.shape == (28, 28, 1)
    assert np.median(pixels) == 255  # white paper
    assert pixels.min() < 100
    assert banks["train"].pixels is banks["test"].pixels
    assert len(set(bank.names)) == len(bank)


def test_omniglot_alphabet(opened):
    banks = opened("omniglot-alphabet", *OMNIGLOT)
    assert sizes(banks) == {"train": (19280, 964), "test": (13180, 659)}
    assert [len(set(banks[split].groups["alphabet"])) for split in ("train", "test")] == [30, 20]
    assert not set(banks["train"].groups["alphabet"]) & set(banks["test"].groups["alphabet"])


def test_cifar_fs(opened):
    banks = opened("cifar-fs", *CIFAR)
    assert sizes(banks) == {"train": (38400, 64), "val": (9600, 16), "test": (12000, 20)}
    assert share_nothing(banks)
    bank = banks["val"]
    assert bank.examples(torch.arange(0, 9600, 960)).x.shape == (10, 3, 32, 32)
    assert bank.groups["superclass"][int(bank.rows_of(bank.classes.index("otter"))[0])] == "aquatic_mammals"
    assert bank.name(0).startswith("val/beaver/")


def test_fc100(opened):
    banks = opened("fc100", *CIFAR)
    assert sizes(banks) == {"train": (36000, 60), "val": (12000, 20), "test": (12000, 20)}
    assert share_nothing(banks)
    groups = [set(bank.groups["superclass"]) for bank in banks.values()]
    assert [len(group) for group in groups] == [12, 4, 4]
    assert len(set.union(*groups)) == 20
    bank = banks["test"]
    assert all(bank.classes[y] == name.split("/")[1] for y, name in zip(bank.y.tolist(), bank.names, strict=True))


def test_orl_faces(opened):
    bank = opened("orl-faces", "orl_faces.npz")["all"]
    assert bank.classes[0::39] == ("person-01", "person-40")
    assert bank.counts().unique().tolist() == [10]
    assert bank.load(399)[0].shape == (112, 92, 1)


def test_a_tar_of_jpegs(opened):
    file = "dogs_vs_cats_small_s160.tar"
    root = os.environ.get("AUGFORGE_DATA", "")
    banks = opened(str(Path(root) / file), file)
    assert sizes(banks) == {"train": (2000, 2), "val": (2000, 2)}
    pictures = banks["val"].examples(torch.arange(0, 2000, 200)).x
    assert all(min(x.shape[1:]) == 160 and len(x) == 3 for x in pictures)
