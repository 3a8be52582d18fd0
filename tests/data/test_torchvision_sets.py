"""torchvision's sets from files that are made here; nothing is downloaded."""

import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.source import open_source
from augforge.types import InputError, LackError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 10


def write_mnist(root):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, rows in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        pixels, labels = PIXELS[rows], LABELS[rows]
        images = struct.pack(">IIII", 0x803, *pixels.shape) + pixels.tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(labels)) + labels.tobytes())


def test_a_set_with_a_train_argument(tmp_path):
    write_mnist(tmp_path)
    banks = open_source("torchvision:MNIST", tmp_path)
    assert {split: len(bank) for split, bank in banks.items()} == {"train": 20, "test": 10}
    bank = banks["test"]
    assert bank.classes[3] == "3 - three"
    np.testing.assert_array_equal(bank.examples(torch.arange(10)).x[:, 0], PIXELS[20:])
    assert bank.load(4)[0].shape == (28, 28, 1)
    assert bank.name(4) == "test/000004"
    assert np.array_equal(pickle.loads(pickle.dumps(bank)).load(4)[0], bank.load(4)[0])


def test_a_set_with_a_split_argument(tmp_path):
    root = tmp_path / "fgvc-aircraft-2013b" / "data"
    (root / "images").mkdir(parents=True)
    (root / "variants.txt").write_text("707-320\nA300\n")
    for part, i in (("train", 0), ("val", 1), ("test", 2)):
        (root / f"images_variant_{part}.txt").write_text(f"{i:07d} A300\n")
        Image.new("RGB", (8, 6), (i, 2, 3)).save(root / "images" / f"{i:07d}.jpg", quality=100)
    banks = open_source("torchvision:FGVCAircraft", tmp_path)
    assert {split: (len(bank), bank.y.tolist(), bank.classes) for split, bank in banks.items()} == {
        split: (1, [1], ("707-320", "A300")) for split in ("train", "val", "test")
    }
    assert banks["train"].load(0)[0].shape == (6, 8, 3)


def test_absent_files_and_unknown_names(tmp_path):
    with pytest.raises(LackError, match=r"CIFAR10 cannot be opened in .*--data-root or AUGFORGE_DATA"):
        open_source("torchvision:CIFAR10", tmp_path)
    with pytest.raises(InputError, match="the nearest is 'torchvision:CIFAR10'"):
        open_source("torchvision:CIFAR_10", tmp_path)
    with pytest.raises(InputError):
        open_source("torchvision:EMNIST", tmp_path)
    assert list(tmp_path.iterdir()) == []
