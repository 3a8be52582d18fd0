"""Banks of features: every row of a picture bank embedded once, kept on disk by digest, and normalised by name.

Embedding, views and normalisation are options of the bank and not of a classifier, so that all recipes that are
compared see the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import reduce
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from augforge import chance
from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank, FilePictures
from augforge.parts.saving import made_by
from augforge.representations.options import NORMALISATIONS, BankOptions, Normalise
from augforge.representations.pictures import mirrored
from augforge.training.loop import is_bfloat16_fast
from augforge.types import Bank, InputError, Representation, capabilities

Views = Callable[[Tensor, Tensor], Tensor]
RunItems = Callable[..., Iterator[Any]]  # (function, job, items, workers): the results of function(job, item), in order

MADE_BY = "made_by"  # the column of a feature bank that names the weights
_ROWS_AT_ONCE = 1024
_BYTES_AT_ONCE = 96 << 20  # of pixels that are decoded at a time; the first few rows show how many that are
_FIRST_ROWS = 4
_ROWS_APART = 64  # in an item that a worker embeds
_SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
_CORNERS = ((2, 2), (2, -2), (-2, 2), (-2, -2))
# Crops beside the picture and its mirror image: share of the area, and where of the room that is left, down and across.
_BOXES = ((0.7, 0.5, 0.5), (0.85, 0.2, 0.8), (0.6, 0.8, 0.1), (0.75, 0.9, 0.9), (0.55, 0.1, 0.4), (0.9, 0.7, 0.2))
_CROPPED = {"crops-4": _BOXES[:2], "crops": _BOXES}
_SHIFTED = {"none": _SHIFTS[:1], "flip": _SHIFTS[:1], "flip-shift": _SHIFTS, "flip-shift-wide": (*_SHIFTS, *_CORNERS)}


def embed_bank(
    representation: Representation,
    bank: AnyBank,
    options: BankOptions | None = None,
    cache: Path | None = None,
    device: str = "cpu",
    views: Views | None = None,
    run_items: RunItems | None = None,
) -> FeatureBank:
    """Every row of a picture bank embedded once, not yet normalised: the same classes, labels, names and groups.

    The column "made_by" holds the digest of the representation. With a folder `cache` the features are kept there
    under the digest of representation, options and data, and are read back if they are there and whole. `views`
    takes pictures [n, c, h, w] uint8 and keys [n] and gives pictures; it is what a `views` of another name means.
    With `run_items` workers embed the rows on CPUs: a picture's features are the same whatever batch it lies in.
    Raises InputError for unknown views, and for a bank that holds features already.
    """
    options = BankOptions() if options is None else options
    if bank.space != "image":
        raise InputError("this bank holds features already; a representation embeds pictures")
    _check_views(options, views)
    digest = made_by(representation)
    path = None
    facts: dict[str, str | int] = {
        MADE_BY: digest,
        "precision": str(_dtype(options, device)),
        "views": options.views,
        "n_views": options.n_views if views is not None else 0,
    }
    if cache is not None:
        facts["data"] = data_digest(bank)
        path = cache / f"features-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}.safetensors"
    x = _read(path, facts, len(bank)) if path is not None else None
    if x is None:
        if run_items is None:
            x = _embed(representation, bank, options, device, views)
        else:
            job = representation, as_seen(representation, bank), options, views
            starts = range(0, len(bank.y), _ROWS_APART)
            x = torch.cat([torch.tensor(each) for each in run_items(_embed_apart, job, starts, len(starts))])
        if path is not None:
            _write(path, x, facts)
    names = tuple(bank.name(row) for row in range(len(bank)))
    groups = {**bank.groups, MADE_BY: (digest,) * len(bank)}
    return FeatureBank(x, bank.y, tuple(bank.classes), bank.origin, names, bank.attributes, groups=groups)


def embed_sides(
    representation: Representation,
    bank: AnyBank,
    options: BankOptions,
    cache: Path | None = None,
    device: str = "cpu",
    views: Views | None = None,
    run_items: RunItems | None = None,
) -> tuple[FeatureBank, FeatureBank]:
    """The banks for support and for query rows, as `options.sides` wants them: the same object twice for "both"."""
    averaged = embed_bank(representation, bank, options, cache, device, views, run_items)
    if options.sides == "both" or options.views == "none":
        return averaged, averaged
    plain = embed_bank(representation, bank, replace(options, views="none"), cache, device, run_items=run_items)
    return (averaged, plain) if options.sides == "support" else (plain, averaged)


def normalised(bank: FeatureBank, how: Normalise, base: FeatureBank | None = None) -> FeatureBank:
    """The bank with its features normalised; "centred-l2" takes the mean of the features of `base`, not its own.

    Raises InputError for an unknown name, a missing base, or a base that other weights made.
    """
    if how not in NORMALISATIONS:
        raise InputError(f"normalise={how!r} was given; expected one of {', '.join(NORMALISATIONS)}")
    if how == "centred-l2" and base is None:
        raise InputError("normalise='centred-l2' needs the base features, whose mean it takes away")
    if base is not None and _makers(base) != _makers(bank) and base is not bank:
        raise InputError(f"the base features of {base.origin!r} were made with other weights than those of "
                         f"{bank.origin!r}")  # fmt: skip
    mean = None if base is None else reduce(base.x.double(), "n d -> d", "mean").to(bank.x.dtype)
    return replace(bank, x=normalised_rows(bank.x, how, mean))


def normalised_rows(x: Tensor, how: Normalise, mean: Tensor | None = None) -> Tensor:
    """Features [n, d] normalised; "centred-l2" needs `mean` [d], and raises InputError without it."""
    if how == "none":
        return x
    if how == "power":
        return F.normalize(x.clamp(min=0).sqrt(), dim=-1)
    if how == "centred-l2":
        if mean is None:
            raise InputError("normalise='centred-l2' needs the mean of the base features")
        x = x - mean
    return F.normalize(x, dim=-1)


def data_digest(bank: AnyBank) -> str:
    """16 hexadecimal digits that change with any pixel or feature, label or class name of a bank."""
    hashed = hashlib.sha256(json.dumps(list(bank.classes)).encode())
    hashed.update(bank.y.numpy().tobytes())
    for rows in torch.arange(len(bank.y)).split(_ROWS_AT_ONCE):
        x = bank.examples(rows).x
        for part in x if isinstance(x, list) else [x]:
            hashed.update(str((tuple(part.shape), part.dtype)).encode())
            hashed.update(part.contiguous().numpy().data)
    return hashed.hexdigest()[:16]


def check_made_by(bank: FeatureBank, representation: Representation) -> None:
    """Raise InputError where a bank's features were made with other weights than these."""
    makers, digest = _makers(bank), made_by(representation)
    if makers - {digest}:
        found = ", ".join(sorted(makers))
        raise InputError(f"the features of {bank.origin!r} were made with the weights {found}; expected {digest}")


def _makers(bank: FeatureBank) -> set[str]:
    column = bank.groups.get(MADE_BY, ())
    return set() if isinstance(column, Tensor) else set(column)


def _dtype(options: BankOptions, device: str) -> torch.dtype:
    fast = options.precision == "bfloat16" or (options.precision == "auto" and is_bfloat16_fast(device))
    return torch.bfloat16 if fast else torch.float32


def _embed(
    representation: Representation, bank: AnyBank, options: BankOptions, device: str, views: Views | None
) -> Tensor:
    """Features [n, d] float32 on the CPU, each the mean over its views."""
    seen = as_seen(representation, bank)
    known = isinstance(bank, ArrayPictures) and not callable(bank.pixels)
    parts, start, count = [], 0, _ROWS_AT_ONCE if known else _FIRST_ROWS
    while start < len(bank.y):
        rows = torch.arange(start, min(start + count, len(bank.y)))
        x = seen.examples(rows).x
        largest = max(picture.numel() for picture in x)
        start, count = start + len(rows), min(max(1, _BYTES_AT_ONCE // largest), _ROWS_AT_ONCE)
        x = [picture.to(device) for picture in x] if isinstance(x, list) else x.to(device)
        parts.append(averaged_features(representation, x, rows, options, views))
    return torch.cat(parts).cpu()  # copied once: each copy waits for the device


def _embed_apart(job: tuple[Representation, AnyBank, BankOptions, Views | None], start: int) -> np.ndarray:
    """In a worker: the features [n, d] float32 of some rows."""
    representation, seen, options, views = job
    rows = torch.arange(start, min(start + _ROWS_APART, len(seen.y)))
    return averaged_features(representation, seen.examples(rows).x, rows, options, views).numpy()


def as_seen(representation: Representation, bank: Bank) -> Bank:
    """The bank with pictures no larger than the representation makes use of: large JPEG files are decoded in part.

    The shorter side keeps twice the pixels that it is brought to, so that crops of half the area have enough of them.
    """
    short_side = capabilities(representation).short_side
    return bank.reduced(2 * short_side) if short_side and isinstance(bank, FilePictures) else bank


def _check_views(options: BankOptions, views: Views | None) -> None:
    known = (*_SHIFTED, *_CROPPED)
    if options.views not in known and views is None:
        raise InputError(f"views={options.views!r} is unknown; expected {', '.join(known)} or a classical preset")


def averaged_features(
    representation: Representation,
    x: Tensor | list[Tensor],
    rows: Tensor,
    options: BankOptions,
    views: Views | None = None,
) -> Tensor:
    """Features [n, d] float32 of pictures [n, c, h, w] or a list of n [c, h, w], each the mean over its views.

    Those of "crops" and "crops-4" are brought to length 1 before the mean. `rows` [n] int64 are the pictures' places in
    their bank, by which views of another name draw. Raises InputError for unknown views.
    """
    _check_views(options, views)
    kind = x[0].device.type
    dtype = _dtype(options, str(x[0].device))
    with torch.no_grad(), full_float32(kind), torch.autocast(kind, dtype, enabled=dtype == torch.bfloat16):
        all_views = _views_of_list(x, rows, options, views) if isinstance(x, list) else _views(x, rows, options, views)
        embedded = [representation.embed(view).float() for view in all_views]
    if options.views in _CROPPED:
        embedded = [F.normalize(features, dim=1) for features in embedded]
    return torch.stack(embedded).mean(0)  # [views, n, d] -> [n, d]


@contextmanager
def full_float32(kind: str) -> Iterator[None]:
    """float32 on a device of the kind "cuda" has all its 24 bits of precision here; cuDNN's default is TF32, with 11.

    The settings of the process are put back at the end; on other devices nothing happens.
    """
    if kind != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn  # whose `conv` and `rnn` type checkers do not know
    backends: list[Any] = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _views(x: Tensor, rows: Tensor, options: BankOptions, views: Views | None) -> Iterator[Tensor]:
    """The views of pictures [n, c, h, w], one batch after the other."""
    if options.views in _CROPPED:
        yield x
        yield x.flip(3)
        for i, box in enumerate(_CROPPED[options.views]):
            cut = _cut(x, *box)
            yield cut.flip(3) if i % 2 else cut
        return
    if views is None or options.views in _SHIFTED:
        reach = max(1, min(x.shape[2:]) // 16)
        for down, right in _SHIFTED[options.views]:
            shifted = _shifted(x, down * reach, right * reach, options.views == "flip-shift-wide")
            yield shifted
            if options.views != "none":
                yield shifted.flip(3)
        return
    yield x
    for i in range(options.n_views):
        yield views(x, chance.row_keys(i, options.views, rows))


def _views_of_list(x: list[Tensor], rows: Tensor, options: BankOptions, views: Views | None) -> Iterator[list[Tensor]]:
    """The views of pictures of several sizes: lists of [c, h, w]."""
    each = [_views(p[None], row[None], options, views) for p, row in zip(x, rows, strict=True)]
    for view in zip(*each, strict=True):
        yield [picture[0] for picture in view]


def _cut(x: Tensor, area: float, down: float, right: float) -> Tensor:
    """A part of pictures [n, c, h, w] with that share of their area and their proportions, at least one pixel."""
    sides = [max(1, round(side * area**0.5)) for side in x.shape[2:]]
    top, left = (round(at * (whole - side)) for at, whole, side in zip((down, right), x.shape[2:], sides, strict=True))
    return x[:, :, top : top + sides[0], left : left + sides[1]]


def _shifted(x: Tensor, down: int, right: int, mirror: bool) -> Tensor:
    """Pictures [n, c, h, w] moved by whole pixels, with the border repeated, or the picture mirrored at it."""
    if not (down or right):
        return x
    rows, columns = (
        _places(side, by, mirror).to(x.device) for side, by in zip(x.shape[2:], (down, right), strict=True)
    )
    return x[:, :, rows][:, :, :, columns]


def _places(side: int, by: int, mirror: bool) -> Tensor:
    """Where the pixels [side] of a row or column that moved `by` pixels come from."""
    place = torch.arange(side) - by
    return (mirrored(place, side) if mirror else place).clamp(0, side - 1)


def _read(path: Path, facts: dict[str, str | int], n: int) -> Tensor | None:
    """The features of a cache file; None where it is absent, damaged or of something else."""
    try:
        with safe_open(path, "pt") as file:
            metadata, x = file.metadata() or {}, file.get_tensor("features")
    except (OSError, SafetensorError):
        return None
    whole = metadata.get("sha256") == hashlib.sha256(x.numpy().data).hexdigest()
    return x if whole and len(x) == n and metadata.get("facts") == json.dumps(facts) else None


def _write(path: Path, x: Tensor, facts: dict[str, str | int]) -> None:
    """Write a cache file under another name and rename it; raises InputError where the folder cannot be written."""
    metadata = {"facts": json.dumps(facts), "sha256": hashlib.sha256(x.contiguous().numpy().data).hexdigest()}
    partial = f"{path}.{os.getpid()}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": x.contiguous()}, partial, metadata)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{str(path.parent)!r} cannot be written ({error.strerror})") from error
