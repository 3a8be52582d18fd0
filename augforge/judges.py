"""The judges of a run that rejects made pictures: what `--reject` names, made ready before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augforge.data.decode import UnreadablePicture
from augforge.parts import saving
from augforge.synth.generate import Making, load
from augforge.synth.reject import ByClasses, ByDiscriminator, Judge, by_classes, embedded
from augforge.types import InputError, Plausible

DISCRIMINATOR = "discriminator"
_ROWS_AT_ONCE = 256


def open_judges(making: Making, names: Sequence[str], plausible: float) -> tuple[tuple[Judge, ...], list[str]]:
    """What the names of `--reject` mean, and the digests of the representations among them.

    `making.bank` holds all classes that rows are compared with; `plausible` is the least share for the discriminator.
    Raises InputError for a part without a discriminator, a name that is no representation or one that is not fitted,
    and a source with nothing to compare.
    """
    judges: list[Judge] = []
    digests: list[str] = []
    for name in names:
        if name == DISCRIMINATOR:
            if not isinstance(making.part, Plausible):
                raise InputError(
                    f"--reject {DISCRIMINATOR} was given, and {making.method} has none; expected a method that was "
                    f"trained against one, or --reject with a representation"
                )
            judges.append(ByDiscriminator(plausible))
        else:
            representation = _opened(name, making.bank)
            judges.append(_judge(making, representation))
            digests.append(saving.part_digest(representation, "representation"))
    return tuple(judges), digests


def _opened(name: str, bank: Any) -> Any:
    """A fitted representation by its name or folder; torchvision's only reads its weights."""
    representation = saving.open_part(name, None, "representation")
    if name.startswith("torchvision:"):
        representation.fit(bank, torch.Generator())
    elif getattr(representation, "net_", representation) is None:
        raise InputError(
            f"--reject {name!r} names a representation that is not fitted; expected conv4-glyphs or a folder of `fit`"
        )
    return representation


def _judge(making: Making, representation: Any) -> ByClasses:
    """The judge by the real pictures of the bank, at the run's size; what cannot be read is left out."""
    features, good = [torch.zeros(0, 1)], []
    for rows in np.array_split(np.arange(len(making.bank)), range(_ROWS_AT_ONCE, len(making.bank), _ROWS_AT_ONCE)):
        pictures, some = _readable(making, rows)
        if pictures:
            x = torch.stack(pictures) if len({tuple(p.shape) for p in pictures}) == 1 else pictures
            x = x.to(making.device) if isinstance(x, Tensor) else [p.to(making.device) for p in x]
            features.append(embedded(representation, x))
            good += some
    if not good:
        raise InputError(f"{making.bank.origin!r} has no picture that can be read")
    return by_classes(representation, torch.cat(features[1:]), making.bank.y[torch.tensor(good)], making.bank.classes)


def _readable(making: Making, rows: np.ndarray) -> tuple[list[Tensor], list[int]]:
    """The pictures [c, h, w] uint8 of those of the rows [m] that can be read, and which rows these are."""
    pictures, good = [], []
    for row in rows.tolist():
        try:
            pictures.append(torch.from_numpy(load(making, row)[0]).permute(2, 0, 1))
        except UnreadablePicture:
            continue
        good.append(row)
    return pictures, good
