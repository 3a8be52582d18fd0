"""The features of a comparison: every row of a task embedded once, and rows that are made embedded alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from einops import reduce
from torch import Tensor

from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank
from augforge.parts.saving import made_by
from augforge.representations.bank import (
    BankOptions,
    Views,
    check_made_by,
    embed_bank,
    embed_sides,
    normalised,
    normalised_rows,
)
from augforge.types import InputError, Representation


@dataclass(frozen=True, eq=False)
class Features:
    """What one representation makes of a task: `base` to fit on, `support` and `query` of the part that is judged on
    (the same bank unless the options average views of one side alone), and `embed`, which does to pictures
    [n, c, h, w], or a list of them, all that was done to the rows of `support`; None for a task of features.

    `digest` is of all these numbers, and `maker` of the representation ("" for none). `val` are the validation classes
    made alike, for parts that choose by them, and `val_digest` is theirs; None and "" where there are none to be seen.
    All tensors lie on one device.
    """

    base: FeatureBank
    support: FeatureBank
    query: FeatureBank
    embed: Callable[[Tensor | list[Tensor]], Tensor] | None
    digest: str
    maker: str
    val: FeatureBank | None = None
    val_digest: str = ""


def features_of(
    representation: Representation | None,
    base: AnyBank,
    part: AnyBank,
    options: BankOptions,
    cache: Path | None,
    device: str = "cpu",
    val: AnyBank | None = None,
) -> Features:
    """Embed the base bank, `part` and `val` once, or take the features that they are, and put them on `device`.

    `representation` is fitted. With a folder `cache` the features are kept there. Raises InputError where pictures
    have no representation, or features were made with other weights than those of the representation, or with weights
    that they do not tell.
    """
    banks = (base, part) if val is None else (base, part, val)
    if len({bank.space for bank in banks}) > 1:
        raise InputError("one part of the task holds pictures and another features; expected both alike")
    if isinstance(base, FeatureBank):
        return _on(_given(representation, banks, options), device)
    if representation is None:
        raise InputError("this task holds pictures; expected a representation that makes features of them")
    return _on(_embedded(representation, banks, options, cache, device), device)


def _on(features: Features, device: str) -> Features:
    """The features on a device. Labels of what is learnt from go with them; episodes are drawn on the CPU."""
    if device == "cpu":
        return features
    base, val = (None if bank is None else replace(bank, x=bank.x.to(device), y=bank.y.to(device))
                 for bank in (features.base, features.val))  # fmt: skip
    support = replace(features.support, x=features.support.x.to(device))
    query = support if features.query is features.support else replace(features.query, x=features.query.x.to(device))
    made = features.embed
    embed = None if made is None else lambda pictures: made(pictures).to(device)
    assert base is not None
    return replace(features, base=base, val=val, support=support, query=query, embed=embed)


def _embedded(
    representation: Representation, banks: Sequence[AnyBank], options: BankOptions, cache: Path | None, device: str
) -> Features:
    """Base, part and, where it is given, val: embedded on the device, and brought back."""
    views = preset_views(options)
    sides = [embed_sides(representation, bank, options, cache, device, views) for bank in banks]
    support_base, (support, query) = sides[0][0], sides[1]
    mean = reduce(support_base.x.double(), "n d -> d", "mean").float()
    of_support = options if options.sides != "query" else replace(options, views="none")

    def embed(pictures: Tensor | list[Tensor]) -> Tensor:
        made = embed_bank(representation, _as_bank(pictures), of_support, None, device, preset_views(of_support))
        return normalised_rows(made.x, options.normalise, mean)

    known = [support_base, support, query, *(side[0] for side in sides[2:])]
    found = [normalised(bank, options.normalise, support_base) for bank in known]
    if query is support:
        found[2] = found[1]
    return _told(found, embed, options, made_by(representation))


def _told(
    banks: list[FeatureBank], embed: Callable[[Tensor | list[Tensor]], Tensor] | None, options: BankOptions, maker: str
) -> Features:
    """Base, support, query and, where it is there, val, with their digests."""
    val = banks[3] if len(banks) > 3 else None
    seen = banks[:3] if embed is not None else banks[:2]  # given features are the same bank on both sides
    val_digest = "" if val is None else _digest([val], options)
    return Features(banks[0], banks[1], banks[2], embed, _digest(seen, options), maker, val, val_digest)


def _given(representation: Representation | None, banks: Sequence[AnyBank], options: BankOptions) -> Features:
    if options.views != "none":
        raise InputError(f"views={options.views!r} was given and this task holds features, of which there are no views")
    given = [bank for bank in banks if isinstance(bank, FeatureBank)]
    maker = ""
    if representation is not None:
        maker = made_by(representation)
        for bank in given:
            if "made_by" not in bank.groups:
                raise InputError(
                    f"the features of {bank.origin!r} do not tell what made them, and the recipe names "
                    f"{type(representation).__name__}; expected no representation for a task of features"
                )
            check_made_by(bank, representation)
    base, part, *val = (normalised(bank, options.normalise, given[0]) for bank in given)
    return _told([base, part, part, *val], None, options, maker)


def _as_bank(pictures: Tensor | list[Tensor]) -> ArrayPictures:
    """Made pictures as a bank of one class; floats in [0, 1] become uint8."""
    from_float = [
        p.cpu() if p.dtype == torch.uint8 else (p.clamp(0, 1) * 255).round().to(torch.uint8).cpu() for p in pictures
    ]
    return ArrayPictures(
        y=torch.zeros(len(from_float), dtype=torch.int64),
        classes=("made",),
        pixels=lambda i: from_float[i].permute(1, 2, 0).numpy(),  # [c, h, w] -> [h, w, c]
        origin="made rows",
    )


def preset_views(options: BankOptions) -> Views | None:
    """What a `views` that is the name of a classical preset means."""
    from augforge.generators.classical import PRESETS, Classical

    if options.views not in PRESETS:
        return None
    recipe = Classical(preset=options.views)
    return lambda x, keys: torch.as_tensor(recipe.apply(x, recipe.draw(keys)))


def _digest(banks: list[FeatureBank], options: BankOptions) -> str:
    hashed = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
    for bank in banks:
        hashed.update(json.dumps(list(bank.classes)).encode())
        hashed.update(bank.y.numpy().tobytes())
        hashed.update(bank.x.contiguous().view(torch.uint8).numpy().data)
    return hashed.hexdigest()[:16]
