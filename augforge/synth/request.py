"""What a run was asked for, and how it is carried out; and the source and the method that an order names, opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from augforge.data.banks import FeatureBank
from augforge.data.source import open_source
from augforge.parts import catalog, saving
from augforge.parts.learning import learn, sees_validation
from augforge.picture_features import embed_pictures
from augforge.synth.encode import SUFFIXES, Encoding
from augforge.synth.generate import PictureBank
from augforge.synth.sinks import UNITS, Format
from augforge.training.loop import Run
from augforge.types import InputError, LackError, capabilities


@dataclass(frozen=True)
class Order:
    """All that decides the bytes of a run's output, and nothing else.

    `source` is a SOURCE of the command line, `split` which part of it ("train" where it has parts); `method` a
    catalog name, with `settings`, or a folder that `fit` made; exactly one of `per_class`, `to` and `counts` is
    given; `classes` limits the run to some. `quality` is that of JPEG and WebP; `size` in pixels makes every
    picture square first; `include_real` writes the real pictures too. With a `representation`, a name or a folder,
    pictures are embedded, and features are made.

    `reject` names what rejects made pictures: "discriminator" (that of the method, under the share `plausible` of real
    pictures that look less real) and representations by name or folder; a row gets `tries` tries.
    """

    source: str
    method: str = "classical"
    settings: Mapping[str, Any] = field(default_factory=dict)
    per_class: int | None = None
    to: int | None = None
    counts: Mapping[str, int] | None = None
    classes: tuple[str, ...] = ()
    split: str | None = None
    seed: int = 0
    format: Format = "folder"
    encoding: Encoding = "png"
    quality: int = 95
    size: int | None = None
    include_real: bool = False
    representation: str | None = None
    reject: tuple[str, ...] = ()
    tries: int = 10
    plausible: float = 0.05

    def __post_init__(self) -> None:
        """Raise InputError for an unknown format or encoding, numbers out of range, or rejection of features."""
        for name, value, allowed in (("--format", self.format, UNITS), ("--encoding", self.encoding, SUFFIXES)):
            if value not in allowed:
                raise InputError(f"{name} {value!r} was given; expected one of {', '.join(allowed)}")
        if not -(2**63) <= self.seed < 2**64:
            raise InputError(f"--seed {self.seed} was given; expected a number of 64 bits")
        if not 1 <= self.quality <= 100:
            raise InputError(f"--quality {self.quality} was given; expected 1 to 100")
        if self.size is not None and not 1 <= self.size <= 16384:
            raise InputError(f"--size {self.size} was given; expected 1 to 16384 pixels")
        self._check_rejection()

    def _check_rejection(self) -> None:
        if not 1 <= self.tries <= 10_000:
            raise InputError(f"--tries {self.tries} was given; expected 1 to 10000")
        if not 0 <= self.plausible <= 1:
            raise InputError(f"--plausible {self.plausible} was given; expected a share, 0 to 1")
        if not self.reject and (self.tries, self.plausible) != (Order.tries, Order.plausible):
            raise InputError("--tries or --plausible was given without --reject, which they belong to")
        if len(set(self.reject)) < len(self.reject):
            raise InputError(f"--reject names something twice: {', '.join(map(repr, self.reject))}")
        if self.reject and self.representation is not None:
            raise InputError("--reject judges pictures, and --representation makes features; expected one of them")


@dataclass(frozen=True)
class Options:
    """How a run is carried out; nothing here changes a byte of what it makes.

    `workers` processes (0: one for each core), `batch_size` rows in one call of the method, `shard` (i, n) the
    part of the work to do; `resume` goes on with a run, `overwrite` replaces it; `strict` makes an unreadable file
    an error; `progress` is called with (rows done, rows in all).
    """

    workers: int = 0
    batch_size: int = 64
    shard: tuple[int, int] = (0, 1)
    resume: bool = False
    overwrite: bool = False
    strict: bool = False
    data_root: Path | None = None
    device: str = "auto"
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range or options that exclude each other."""
        if self.workers < 0 or self.batch_size < 1:
            raise InputError(f"--workers {self.workers} --batch-size {self.batch_size}: expected at least 0 and 1")
        if not 0 <= self.shard[0] < self.shard[1]:
            raise InputError(f"--shards {self.shard[0]}/{self.shard[1]} was given; expected i/N with 0 <= i < N")
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite were given; expected at most one of them")
        if self.overwrite and self.shard[1] > 1:
            raise InputError("--overwrite and --shards were given; expected an empty --out: shards must not overwrite "
                             "each other")  # fmt: skip


def open_split(order: Order, data_root: Path | None) -> PictureBank | FeatureBank:
    """The split of the source that the order names, with all its classes; raises InputError."""
    banks = open_source(order.source, data_root)
    split = order.split or (next(iter(banks)) if len(banks) == 1 else "train")
    if split not in banks:
        raise InputError(f"--split {split!r}: {order.source!r} has {', '.join(map(repr, banks))}")
    return banks[split]


def open_bank(order: Order, data_root: Path | None) -> PictureBank | FeatureBank:
    """The split and the classes of the source that the order names; raises InputError."""
    bank = open_split(order, data_root)
    return bank.only(order.classes) if order.classes else bank


def validation_bank(order: Order, data_root: Path | None) -> PictureBank | FeatureBank | None:
    """The validation classes of the order's source, embedded where it names a representation.

    None where the source has none, or where a split of it was named.
    """
    if order.split is not None:
        return None
    banks = open_source(order.source, data_root)
    bank = banks.get("val") if len(banks) > 1 else None
    return bank if bank is None or order.representation is None else embed_pictures(bank, order.representation)[0]


def open_part(
    order: Order, bank: PictureBank | FeatureBank, data_root: Path | None = None, run: Run | None = None
) -> Any:
    """The order's method: loaded from a folder, or made by name and fitted on the bank where that is its way.

    One that chooses by validation classes or trains is shown those of the source, and trains as `run` says. Raises
    InputError for an unknown name or setting, and where the method does not work on such a source.
    """
    if is_folder(order.method):
        if order.settings:
            raise InputError(f"--set was given for {order.method!r}, which was fitted with settings of its own")
        part = saving.load_part(Path(order.method))
    elif order.method in catalog.SHIPPED:
        part = saving.open_part(order.method, dict(order.settings))
    else:
        part = catalog.make(order.method, dict(order.settings))
        _check_space(order, part, bank)
        val = validation_bank(order, data_root) if sees_validation(part) else None
        part = learn(part, bank, torch.Generator().manual_seed(order.seed), val, run)
    _check_space(order, part, bank)
    return part


def _check_space(order: Order, part: Any, bank: PictureBank | FeatureBank) -> None:
    """Raise InputError where the method is not for what the source holds, or what was made of it."""
    space = capabilities(part).space
    if space in ("any", bank.space):
        return
    if order.representation is not None:
        raise InputError(f"--representation makes features, and {order.method} makes {space}s")
    hint = "; --representation makes features of them" if bank.space == "image" else ""
    raise InputError(f"{order.method} makes {space}s, and {order.source!r} holds {bank.space}s{hint}")


def device_of(name: str, best: str | None = None) -> str:
    """The device of `--device` as torch calls it; LackError where it is not there.

    "auto" is `best`, or CUDA where it works and else the CPU.
    """
    there = torch.cuda.is_available()
    if name == "auto":
        return best or ("cuda" if there else "cpu")
    if name == "cpu" or (name.startswith("cuda") and there):
        return name
    raise LackError(f"--device {name}: this machine has none; expected auto or cpu")


def is_folder(method: str) -> bool:
    """Whether a method is a folder that `fit` made; one that is called like a method is given as "./name"."""
    return method not in catalog.SYNTHESIZERS and Path(method).is_dir()
