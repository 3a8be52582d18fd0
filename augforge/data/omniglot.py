"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): 1,623 characters by 20 drawers, 50 alphabets.

Pictures are [28, 28, 1] as stored: white paper 255, ink 0. Most papers invert them, and multiply the classes by
rotations; neither is done here. The columns are "drawer" [n] int64, 1..20, and "alphabet" [n], a name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from augforge.data.banks import ArrayPictures, take_rows
from augforge.data.files import find_file, read_arrays, read_json
from augforge.types import InputError

_KEYS = ("images", "labels", "classes", "class_alphabet", "drawer", "filename")


def open_omniglot(root: Path) -> dict[str, ArrayPictures]:
    """Vinyals' split (Matching networks, NIPS 2016): 1,028 characters to train, 172 to validate, 423 to test.

    Raises LackError where `omniglot.npz` or `omniglot_splits.json` is not in `root`, InputError where one is damaged.
    """
    bank, splits = _open(root, "omniglot")
    return {
        name: take_rows(bank, _rows(bank, bank.classes, splits["vinyals"][name])) for name in ("train", "val", "test")
    }


def open_omniglot_alphabet(root: Path) -> dict[str, ArrayPictures]:
    """Lake's own split by alphabet: the 30 background alphabets to train, the 20 evaluation alphabets to test.

    Raises LackError where `omniglot.npz` or `omniglot_splits.json` is not in `root`, InputError where one is damaged.
    """
    bank, splits = _open(root, "omniglot-alphabet")
    alphabets = [name.partition("/")[0] for name in bank.classes]
    parts = {"train": splits["background_alphabets"], "test": splits["evaluation_alphabets"]}
    return {name: take_rows(bank, _rows(bank, alphabets, wanted)) for name, wanted in parts.items()}


def _open(root: Path, source: str) -> tuple[ArrayPictures, dict]:
    """All of Omniglot as one bank, whose pixels the splits share, and the lists of the splits."""
    path = find_file(root, "omniglot.npz", source)
    splits = read_json(find_file(root, "omniglot_splits.json", source))
    arrays = read_arrays(path, _KEYS)
    classes = tuple(arrays["classes"].tolist())
    labels, alphabets = arrays["labels"].tolist(), arrays["class_alphabet"].tolist()
    bank = ArrayPictures(
        y=torch.from_numpy(arrays["labels"].astype(np.int64)),
        classes=classes,
        pixels=arrays["images"][:, :, :, None],
        origin=str(path),
        names=tuple(f"{classes[y]}/{name}" for y, name in zip(labels, arrays["filename"].tolist(), strict=True)),
        groups={
            "drawer": torch.from_numpy(arrays["drawer"].astype(np.int64)),
            "alphabet": tuple(alphabets[y] for y in labels),
        },
    )
    return bank, splits


def _rows(bank: ArrayPictures, of_class: tuple[str, ...] | list[str], wanted: list[str]) -> torch.Tensor:
    """The rows [m] of the classes whose entry in `of_class` [n_classes] is wanted."""
    missing = sorted(set(wanted) - set(of_class))
    if missing:
        raise InputError(f"{bank.origin!r} lacks {missing[0]!r}, which omniglot_splits.json names")
    names = set(wanted)
    chosen = torch.tensor([name in names for name in of_class])
    return chosen[bank.y].nonzero(as_tuple=True)[0]
