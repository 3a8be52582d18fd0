"""The features of a comparison: every row of a task embedded once, and made pictures embedded alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from einops import reduce
from torch import Tensor

from augforge.bench.place import HERE, Place
from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank
from augforge.parts.saving import made_by
from augforge.representations.bank import (
    MADE_BY,
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
    """What one representation makes of a task; all tensors lie on one device."""

    base: FeatureBank | None  # to fit on; None where there are no base classes
    support: FeatureBank  # of the classes that episodes are of
    query: FeatureBank  # the same bank as `support`, unless the options average views of one side alone
    embed: Callable[[Tensor | list[Tensor]], Tensor] | None  # of pictures, as `support` was; None: no pictures
    digest: str  # of all these numbers
    made_by: str  # digest of the representation; "" for none
    val: FeatureBank | None = None  # validation classes, embedded alike, for parts that choose by them
    val_digest: str = ""  # of `val`


def features_of(
    representation: Representation | None,
    base: AnyBank | None,
    part: AnyBank,
    options: BankOptions,
    cache: Path | None,
    place: Place = HERE,
    val: AnyBank | None = None,
) -> Features:
    """Embed the base bank, `part` and `val` once at a place, or take the features that they are, and put them there.

    `representation` is fitted. With a folder `cache` the features are kept there. Raises InputError where pictures
    have no representation, and where features were made with other weights than those of the representation, or do not
    say with which.
    """
    banks = (base, part, val)
    if len({bank.space for bank in banks if bank is not None}) > 1:
        raise InputError("one part of the task holds pictures and another features; expected both alike")
    if isinstance(part, FeatureBank):
        return _on(_given(representation, banks, options), place.device)
    if representation is None:
        raise InputError("this task holds pictures; expected a representation that makes features of them")
    return _on(_embedded(representation, banks, options, cache, place), place.device)


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
    return replace(features, base=base, val=val, support=support, query=query, embed=embed)


_Banks = tuple[AnyBank | None, AnyBank, AnyBank | None]  # base, the part that episodes are of, validation


def _embedded(
    representation: Representation, banks: _Banks, options: BankOptions, cache: Path | None, place: Place
) -> Features:
    """Base, where it is given, part and, where it is given, val: embedded at the place, and brought back."""
    views, device = preset_views(options), place.device
    sides = [
        None if b is None else embed_sides(representation, b, options, cache, device, views, place.shared)
        for b in banks
    ]
    assert sides[1] is not None
    support, query = sides[1]
    base, val = (None if side is None else side[0] for side in (sides[0], sides[2]))
    mean = None if base is None else reduce(base.x.double(), "n d -> d", "mean").float()
    of_support = options if options.sides != "query" else replace(options, views="none")

    def embed(pictures: Tensor | list[Tensor]) -> Tensor:
        made = embed_bank(representation, _as_bank(pictures), of_support, None, device, preset_views(of_support))
        return normalised_rows(made.x, options.normalise, mean)

    known = normalised(support, options.normalise, base)
    asked = known if query is support else normalised(query, options.normalise, base)
    learnt, chosen = (None if bank is None else normalised(bank, options.normalise, base) for bank in (base, val))
    return _with_digests(Features(learnt, known, asked, embed, "", made_by(representation), chosen), options)


def _with_digests(features: Features, options: BankOptions) -> Features:
    """The same, with the digests of its numbers; given features are the same bank on both sides, and count once."""
    seen = [features.base, features.support, *([] if features.embed is None else [features.query])]
    val_digest = "" if features.val is None else banks_digest([features.val], options)
    return replace(features, digest=banks_digest([b for b in seen if b is not None], options), val_digest=val_digest)


def _given(representation: Representation | None, banks: _Banks, options: BankOptions) -> Features:
    if options.views != "none":
        raise InputError(f"views={options.views!r} was given and this task holds features, of which there are no views")
    made = ""
    if representation is not None:
        made = made_by(representation)
        for bank in banks:
            if isinstance(bank, FeatureBank):
                if MADE_BY not in bank.groups:
                    raise InputError(
                        f"the features of {bank.origin!r} do not say what made them, and the recipe names "
                        f"{type(representation).__name__}; expected no representation for a task of features"
                    )
                check_made_by(bank, representation)
    base = banks[0] if isinstance(banks[0], FeatureBank) else None
    known, part, val = (
        normalised(bank, options.normalise, base) if isinstance(bank, FeatureBank) else None for bank in banks
    )
    assert part is not None
    return _with_digests(Features(known, part, part, None, "", made, val), options)


def _as_bank(pictures: Tensor | list[Tensor]) -> ArrayPictures:
    """Made pictures as a bank of one class; floats in [0, 1] become uint8."""
    on_cpu = _as_uint8(pictures)
    return ArrayPictures(
        y=torch.zeros(len(on_cpu), dtype=torch.int64),
        classes=("made",),
        pixels=lambda i: on_cpu[i].permute(1, 2, 0).numpy(),  # [c, h, w] -> [h, w, c]
        origin="made rows",
    )


def _as_uint8(pictures: Tensor | list[Tensor]) -> list[Tensor]:
    """Pictures as uint8 on the CPU. Those of one size and type come from a device together: it is waited for once."""
    if isinstance(pictures, Tensor):
        together = pictures if pictures.dtype == torch.uint8 else (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
        return list(together.cpu())
    alike: dict[tuple, list[int]] = {}
    for place, picture in enumerate(pictures):
        alike.setdefault((picture.shape, picture.dtype, picture.device), []).append(place)
    found: dict[int, Tensor] = {}
    for places in alike.values():
        found |= dict(zip(places, _as_uint8(torch.stack([pictures[i] for i in places])), strict=True))
    return [found[i] for i in range(len(pictures))]


def preset_views(options: BankOptions) -> Views | None:
    """What a `views` that is the name of a classical preset means."""
    from augforge.generators.classical import PRESETS, Classical

    if options.views not in PRESETS:
        return None
    recipe = Classical(preset=options.views)
    return lambda x, keys: torch.as_tensor(recipe.apply(x, recipe.draw(keys)))


def banks_digest(banks: Sequence[FeatureBank], options: BankOptions) -> str:
    """16 hexadecimal digits of all the numbers, labels and class names of feature banks, and of their options."""
    hashed = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
    for bank in banks:
        hashed.update(json.dumps(list(bank.classes)).encode())
        hashed.update(bank.y.numpy().tobytes())
        hashed.update(bank.x.contiguous().view(torch.uint8).numpy().data)
    return hashed.hexdigest()[:16]
