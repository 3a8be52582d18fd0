"""The features of a comparison: every row of a task embedded once, and rows that are made embedded alike."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import reduce
from torch import Tensor

from augforge import saving
from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank
from augforge.digests import fitted_tensors, made_by
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

    `digest` is of all the numbers, and `maker` of the representation ("" for none).
    """

    base: FeatureBank
    support: FeatureBank
    query: FeatureBank
    embed: Callable[[Tensor | list[Tensor]], Tensor] | None
    digest: str
    maker: str


def features_of(
    representation: Representation | None, base: AnyBank, part: AnyBank, options: BankOptions, cache: Path | None
) -> Features:
    """Embed the base bank and `part` once, or take the features that they are.

    `representation` is fitted. With a folder `cache` the features are kept there. Raises InputError where pictures
    have no representation, or features were made with other weights than those of the representation, or with weights
    that they do not tell.
    """
    if isinstance(base, FeatureBank) and isinstance(part, FeatureBank):
        return _given(representation, base, part, options)
    if isinstance(base, FeatureBank) or isinstance(part, FeatureBank):
        raise InputError("one part of the task holds pictures and another features; expected both alike")
    if representation is None:
        raise InputError("this task holds pictures; expected a representation that makes features of them")
    views = _views(options)
    support_base = embed_sides(representation, base, options, cache, "cpu", views)[0]
    support, query = embed_sides(representation, part, options, cache, "cpu", views)
    mean = reduce(support_base.x.double(), "n d -> d", "mean").float()
    of_support = options if options.sides != "query" else replace(options, views="none")

    def embed(pictures: Tensor | list[Tensor]) -> Tensor:
        made = embed_bank(representation, _as_bank(pictures), of_support, None, "cpu", _views(of_support))
        return normalised_rows(made.x, options.normalise, mean)

    banks = [normalised(bank, options.normalise, support_base) for bank in (support_base, support, query)]
    return Features(banks[0], banks[1], banks[2], embed, _digest(banks, options), made_by(representation))


def _given(
    representation: Representation | None, base: FeatureBank, part: FeatureBank, options: BankOptions
) -> Features:
    if options.views != "none":
        raise InputError(f"views={options.views!r} was given and this task holds features, of which there are no views")
    maker = ""
    if representation is not None:
        maker = made_by(representation)
        for bank in (base, part):
            if "made_by" not in bank.groups:
                raise InputError(
                    f"the features of {bank.origin!r} do not tell what made them, and the recipe names "
                    f"{type(representation).__name__}; expected no representation for a task of features"
                )
            check_made_by(bank, representation)
    banks = [normalised(bank, options.normalise, base) for bank in (base, part)]
    return Features(banks[0], banks[1], banks[1], None, _digest(banks, options), maker)


def _as_bank(pictures: Tensor | list[Tensor]) -> ArrayPictures:
    """Made pictures as a bank of one class; floats in [0, 1] become uint8."""
    from_float = [p if p.dtype == torch.uint8 else (p.clamp(0, 1) * 255).round().to(torch.uint8) for p in pictures]
    return ArrayPictures(
        y=torch.zeros(len(from_float), dtype=torch.int64),
        classes=("made",),
        pixels=lambda i: from_float[i].permute(1, 2, 0).numpy(),  # [c, h, w] -> [h, w, c]
        origin="made rows",
    )


def _views(options: BankOptions) -> Views | None:
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


def fitted(part: Any, kind: str, base: AnyBank, seed: int, cache: Path | None) -> Any:
    """`part` as it is if it has learnt anything, else a copy that was fitted on `base` with `seed`.

    With a file name `cache`, a folder, the fitted part is kept there if there is something to keep.
    """
    if fitted_tensors(part):
        return part
    if cache is not None and (cache / "part.json").exists():
        return saving.load_part(cache, kind)
    learnt = copy.deepcopy(part).fit(base, torch.Generator().manual_seed(seed))
    if cache is not None and fitted_tensors(learnt):
        try:
            saving.save_part(learnt, cache, kind)
        except InputError:
            if type(part).__module__.startswith("augforge."):
                raise  # a part of the user's own is simply fitted again
    return learnt
