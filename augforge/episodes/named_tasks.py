"""The parts of the named tasks: what is base, what validation and what novel, where the source alone does not say.

Every choice here is fixed, so that two people who name a task mean the same classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from augforge.data.banks import AnyBank, ArrayPictures, take_rows
from augforge.data.files import find_file, read_json
from augforge.data.selection import Selection
from augforge.data.source import open_source
from augforge.episodes.own import own_task
from augforge.episodes.tasks import Task
from augforge.types import Episode, InputError

TASK_NAMES = ("glyphs", "omniglot", "omniglot-alphabet", "lake-runs", "cifar-fs", "fc100", "orl-faces")
VAL_ALPHABETS = ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")  # Lake's first small background set
ORL_PEOPLE = {"train": range(1, 21), "val": range(21, 29), "test": range(29, 41)}  # numbers of people, from 1
_LAKE_FILE = "omniglot_lake_oneshot_runs.json"
_LAKE_RUNS, _LAKE_WAY = 20, 20


def open_task(name: str | Path, data_root: Path | None = None, selection: Selection | None = None) -> Task:
    """A task of TASK_NAMES, or any source: of each of its splits what is selected.

    With the splits train, test and, if there is one, val, which have no class in common, they are base, novel and
    validation classes. A source with one split, or with the same classes in all, is a task of one's own (`own_task`):
    it has no base classes.

    omniglot: Vinyals' split, characters in four rotations. omniglot-alphabet: episodes within one alphabet, 25
    background alphabets as base, 5 as validation (VAL_ALPHABETS), the 20 evaluation alphabets as novel.
    lake-runs: the same, with Lake's 400 one-shot trials as fixed episodes. orl-faces: 20, 8 and 12 people.
    The files of names lie in `data_root`, by default in AUGFORGE_DATA. Raises InputError where some
    classes alone are in two splits, and what `open_source` raises.
    """
    groups = "alphabet" if name in ("omniglot-alphabet", "lake-runs") else None
    if name == "omniglot":
        splits = omniglot_parts(data_root)
    elif groups is not None:
        splits = alphabet_parts(data_root)
    elif name == "orl-faces":
        splits = face_parts(data_root)
    else:
        splits = open_source(name, data_root)
    if selection is not None:
        if name == "lake-runs" and selection.max_per_class is not None:
            raise InputError("--max-per-class was given with 'lake-runs', whose episodes need all of its rows")
        splits = {split: selection.of(bank) for split, bank in splits.items()}
    if not {"train", "test"} <= splits.keys() or set(splits["train"].classes) == set(splits["test"].classes):
        return own_task(str(name), splits)
    fixed = lake_episodes(splits["test"], data_root) if name == "lake-runs" else None
    return Task(str(name), splits["train"], splits.get("val"), splits["test"], groups, fixed)


def rotated(bank: ArrayPictures) -> ArrayPictures:
    """A bank with every class four times: as it is, and turned by 90, 180 and 270 degrees as classes of their own.

    Santoro et al. (ICML 2016) and Vinyals et al. (NIPS 2016) enlarge Omniglot so. The first quarter of the rows and
    classes are the old ones; the others are called "CLASS/rot090" and so on, counter-clockwise. The column
    "rotation" [4 n] int64 is in degrees. Pictures must be square arrays [n, s, s, c].
    """
    pixels = bank.pixels
    if callable(pixels):
        raise InputError(f"the pictures of {bank.origin!r} are read one by one and cannot be turned as one array")
    if bank.index is not None:
        pixels = pixels[bank.index.numpy()]
    quarters, n, k = range(4), len(bank), len(bank.classes)
    return ArrayPictures(
        y=torch.cat([bank.y + q * k for q in quarters]),
        classes=tuple(name + _suffix(q) for q in quarters for name in bank.classes),
        pixels=np.concatenate([np.rot90(pixels, q, axes=(1, 2)) for q in quarters]),  # [4 n, s, s, c]
        origin=bank.origin,
        names=tuple(bank.name(i) + _suffix(q) for q in quarters for i in range(n)),
        skipped=bank.skipped,
        groups={
            key: column.repeat(4) if isinstance(column, Tensor) else column * 4 for key, column in bank.groups.items()
        }
        | {"rotation": torch.arange(0, 360, 90).repeat_interleave(n)},
        attributes=None if bank.attributes is None else bank.attributes.repeat(4, 1),  # [4 k, a]
    )


def _suffix(quarters: int) -> str:
    return f"/rot{90 * quarters:03d}" if quarters else ""


def omniglot_parts(data_root: Path | None) -> dict[str, AnyBank]:
    """Vinyals' 1,028, 172 and 423 characters, each in four rotations: 4,112, 688 and 1,692 classes."""
    parts: dict[str, AnyBank] = {}
    for split, bank in open_source("omniglot", data_root).items():
        assert isinstance(bank, ArrayPictures)
        parts[split] = rotated(bank)
    return parts


def alphabet_parts(data_root: Path | None) -> dict[str, AnyBank]:
    """Omniglot by alphabet: 25 background alphabets to train, 5 to validate, the 20 evaluation alphabets to test.

    The five are Lake's first minimal background set, a list that was published before us; each has 20 characters or
    more, so that 20-way episodes within one alphabet can be drawn from them.
    """
    splits = open_source("omniglot-alphabet", data_root)
    background = splits["train"]
    assert isinstance(background, ArrayPictures)
    held_out = torch.tensor([name in VAL_ALPHABETS for name in background.groups["alphabet"]])
    return {
        "train": take_rows(background, (~held_out).nonzero(as_tuple=True)[0]),
        "val": take_rows(background, held_out.nonzero(as_tuple=True)[0]),
        "test": splits["test"],
    }


def face_parts(data_root: Path | None) -> dict[str, AnyBank]:
    """ORL faces by person: 1 to 20 to train, 21 to 28 to validate, 29 to 40 to test."""
    people = open_source("orl-faces", data_root)["all"]
    return {
        split: replace(people.only([f"person-{i:02d}" for i in numbers]), origin=f"{people.origin} ({split})")
        for split, numbers in ORL_PEOPLE.items()
    }


def lake_episodes(novel: AnyBank, data_root: Path | None) -> tuple[Episode, ...]:
    """Lake, Salakhutdinov and Tenenbaum's (Science, 2015) 20 runs of 20 trials as 400 episodes, in their order.

    Each is 20-way 1-shot with one query: `classes` [20], `support` [20, 1], `query` [1, 1], rows of `novel`. The
    trials of a run share their support. Raises LackError where the file is absent, InputError where it is damaged.
    """
    path = find_file(_root_of(novel, data_root), _LAKE_FILE, "lake-runs")
    row_of = {place: row for row, place in enumerate(_places(novel))}
    episodes = []
    try:
        runs = read_json(path)
        for name in sorted(runs):
            pairs = torch.tensor([[row_of[place] for place in pair] for pair in runs[name]])  # [20, (test, training)]
            if pairs.shape != (_LAKE_WAY, 2) or not torch.equal(novel.y[pairs[:, 0]], novel.y[pairs[:, 1]]):
                raise ValueError(f"{name} is not {_LAKE_WAY} pairs of pictures of one character each")
            support = pairs[:, 1:]
            episodes += [Episode(novel.y[support[:, 0]], support, query[None, None]) for query in pairs[:, 0]]
        if len(runs) != _LAKE_RUNS:
            raise ValueError(f"it has {len(runs)} runs; expected {_LAKE_RUNS}")
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(path)!r} does not hold Lake's runs ({error})") from error
    return tuple(episodes)


def _places(bank: AnyBank) -> list[int]:
    return list(range(len(bank))) if bank.index is None else bank.index.tolist()


def _root_of(bank: AnyBank, data_root: Path | None) -> Path:
    """The folder of the data: the one given, else where the bank's own file lies."""
    return Path(bank.origin).parent if data_root is None else data_root
