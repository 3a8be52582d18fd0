"""CIFAR-FS and FC100: two few-shot splits of CIFAR-100 (Krizhevsky, 2009), 100 classes x 600 pictures of 32 x 32.

Both read `cifar-fs.zip` in place. The column "superclass" [n] is CIFAR-100's coarse label of each row, a name.
A module of its own because each named source is one, opened only where its name is asked for.
"""

from __future__ import annotations

from pathlib import Path

from augforge.data.archive import Index, bank_of, index_archive
from augforge.data.banks import FilePictures
from augforge.data.files import find_file, read_json
from augforge.data.layout import number_rows
from augforge.types import InputError


def open_cifar_fs(root: Path) -> dict[str, FilePictures]:
    """CIFAR-FS (Bertinetto et al., ICLR 2019): 64 classes to train, 16 to validate, 20 to test.

    Raises LackError where `cifar-fs.zip` or `cifar100_splits.json` is not in `root`, InputError where one is damaged.
    """
    return _open(root, "cifar-fs", "cifar_fs_bertinetto")


def open_fc100(root: Path) -> dict[str, FilePictures]:
    """FC100 (Oreshkin et al., NeurIPS 2018): 60, 20 and 20 classes; no superclass is in two of the splits.

    The rows keep their names in the zip, which begin with the split of CIFAR-FS, not of FC100.

    Raises LackError where `cifar-fs.zip` or `cifar100_splits.json` is not in `root`, InputError where one is damaged.
    """
    return _open(root, "fc100", "fc100_oreshkin_classes")


def _open(root: Path, source: str, lists: str) -> dict[str, FilePictures]:
    index = index_archive(find_file(root, "cifar-fs.zip", source))
    table = read_json(find_file(root, "cifar100_splits.json", source))
    by_class: dict[str, list[str]] = {}
    for name in index.pictures:  # "train/apple/apple_s_000022.webp"
        by_class.setdefault(name.split("/")[-2], []).append(name)
    return {
        split: _bank(index, by_class, table[lists][split], table["superclass_of"]) for split in ("train", "val", "test")
    }


def _bank(index: Index, by_class: dict[str, list[str]], classes: list[str], superclass: dict[str, str]) -> FilePictures:
    missing = sorted(set(classes) - by_class.keys())
    if missing:
        raise InputError(f"{index.read.path!r} has no pictures of the class {missing[0]!r}")
    split = number_rows({name: by_class[name] for name in sorted(classes)}, (), index.read.path)
    return bank_of(index, split, {"superclass": tuple(superclass[split.classes[y]] for y in split.y.tolist())})
