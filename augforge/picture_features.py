"""Pictures of a source as features: what `synth` and `fit` do with `--representation`."""

from __future__ import annotations

from dataclasses import replace

import torch

from augforge.data.banks import AnyBank, FeatureBank, take_rows
from augforge.data.decode import UnreadablePicture
from augforge.parts import saving
from augforge.representations.bank import BankOptions, embed_bank
from augforge.types import InputError

Skipped = list[tuple[str, str]]
_OPTIONS = BankOptions(precision="float32")  # files of features should not depend on what a processor is fast at


def embed_pictures(bank: AnyBank, name: str, device: str = "cpu") -> tuple[FeatureBank, Skipped]:
    """The pictures of a bank as features float32 on the CPU, and the (name, reason) of those that cannot be read.

    `name` is a representation: a folder that `fit` made, a shipped one, or torchvision's; rows keep their names and
    their places in the source. Raises InputError for a bank that holds features already, a representation that is not
    fitted or does not take these pictures, and a class without a picture that can be read.
    """
    if bank.space != "image":
        raise InputError(f"--representation {name!r} was given; {bank.origin!r} holds features already")
    assert not isinstance(bank, FeatureBank)
    representation = saving.open_part(name, None, "representation")
    if name.startswith("torchvision:"):  # its weights are read, and nothing is learnt
        representation.fit(bank, torch.Generator())
    skipped = list(bank.skipped)
    try:
        features = embed_bank(representation, bank, _OPTIONS, device=device)
    except UnreadablePicture:
        bad: dict[int, tuple[str, str]] = {}
        for row in range(len(bank)):
            try:
                bank.load(row)
            except UnreadablePicture as error:
                bad[row] = (error.name, error.reason)
        good = torch.tensor([row for row in range(len(bank)) if row not in bad], dtype=torch.int64)
        counts = torch.bincount(bank.y[good], minlength=len(bank.classes))
        if not bool((counts > 0).all()):
            lost = bank.classes[int((counts == 0).nonzero()[0])]
            raise InputError(f"class {lost!r} has no picture that can be read; the method needs at least 1") from None
        bank = take_rows(bank, good)  # type: ignore[type-var]
        skipped += bad.values()
        features = embed_bank(representation, bank, _OPTIONS, device=device)
    return replace(features, index=bank.index), skipped
