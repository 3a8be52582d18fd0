"""`augforge synth --pool`: unlabelled pictures, or features, as new examples of the classes they seem to be of.

They are named as `predict --pool` names them (`label_pool`); `retrieved` are the nearest ones instead, its control.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augforge.classifiers.pool import label_pool, nearest_rows, weights_of
from augforge.data.banks import AnyBank, FeatureBank, FilePictures, keep_rows, row_digests
from augforge.inputs import (
    Skipped,
    default_representation,
    default_views,
    device_of,
    embed_pictures,
    open_pool,
    open_split,
    readable_rows,
)
from augforge.parts import catalog, saving
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions
from augforge.synth.generate import Chosen
from augforge.synth.plan import Quota, Taken
from augforge.synth.request import Request
from augforge.synth.run_folder import check_outside
from augforge.types import Examples, InputError, UnreadablePicture

_NAMED = 3  # classes in a line
_DIGITS = 6  # of weights and confidences


@dataclass(frozen=True)
class FromPool:
    """The settings of `pool` and of `retrieved`. Raises InputError for a confidence out of range."""

    representation: str | None = None  # what pictures are compared by; None: as `predict`, by what the source holds
    views: str | None = None  # of a picture that are averaged; None: as `predict`
    confidence: float = 0.5  # least confidence of a class, 0 to 1: at 0.5 it is more likely than all else together

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 <= self.confidence <= 1:
            raise InputError(f"confidence={self.confidence} was given; expected 0 to 1")


def choose(request: Request, bank: AnyBank, out: Path) -> Chosen | None:
    """Which rows of the pool go to which class of a bank; None without a pool. Nothing is drawn or written.

    Rows are compared with all classes of the source, so that a class alone is given what it is given among others. A
    row that the source has too, and all but the first of equal ones in the pool, are left out. Raises InputError where
    nothing is left, the pool is of another kind than the source, or has `out` in it.
    """
    if request.pool is None:
        return None
    given = request.inputs
    quota = Quota(request.per_class, request.to, request.counts)
    quota.check_names(bank.classes)
    settings = catalog.with_settings(given.method, FromPool, given.settings)
    check_outside(out, Path(request.pool), "pool")
    pool, whole = open_pool(request.pool, given.data_root), open_split(given) if given.classes else bank
    if given.representation is not None:
        pool, skipped = embed_pictures(_one_class(pool), given.representation, device_of(given.device, "cpu"))
        whole = embed_pictures(whole, given.representation)[0] if whole.space == "image" else whole
    else:
        skipped = [*pool.skipped] if not isinstance(pool, FeatureBank) else []
    if pool.space != whole.space:
        raise InputError(f"--pool {request.pool!r} holds {pool.space}s, and {given.source!r} {whole.space}s; expected "
                         "the same kind")  # fmt: skip
    pool, copies, digests = _without_copies(pool, whole, request)
    x, (pool, whole), bad = _features(pool, whole, settings, given.device)
    readable = {whole.name(row) for row in range(len(whole))}
    rows = {
        name: np.array([row for row in bank.rows_of(k).tolist() if bank.name(row) in readable], dtype=np.int64)
        for k, name in enumerate(bank.classes)
    }
    wanted = {name: quota.to_make(name, len(members)) for name, members in rows.items()}
    support = Examples(x[1], whole.y, weight=getattr(whole, "weight", None))
    counts = {whole.classes.index(name): count for name, count in wanted.items()}
    taken, report = _taken(settings, given.method, support, x[0], counts)
    by_name = {name: taken[whole.classes.index(name)] for name in bank.classes}
    method = {"name": given.method, "settings": asdict(settings)}
    return Chosen(
        pool,
        by_name,
        rows,
        method | {"digest": saving.digest(method)},
        {"rows": len(pool), "digest": _digest(pool, by_name, digests)},
        skipped + bad,
        _said(by_name, wanted, report, copies),
        report | {"rows": len(pool), "left_out": copies},
    )


def _one_class(pool: AnyBank) -> AnyBank:
    """A pool whose labels, which mean nothing, are one class: so none is missed that has no picture to read."""
    return replace(pool, y=torch.zeros_like(pool.y), classes=("",), attributes=None)


def _without_copies(pool: AnyBank, bank: AnyBank, request: Request) -> tuple[AnyBank, int, dict[str, str]]:
    """The pool without rows that the bank has, or the pool twice; how many those are; and digests by name."""
    encoded = isinstance(bank, FilePictures) and isinstance(pool, FilePictures)
    if not encoded and not isinstance(pool, FeatureBank):
        pool = keep_rows(pool, readable_rows(pool)[0])  # type: ignore[type-var]
    known, kept, digests = set(_digests(bank, encoded)), list[int](), dict[str, str]()
    for row, digest in enumerate(row_digests(pool, encoded)):
        if digest not in known:
            known.add(digest)
            kept.append(row)
            digests[pool.name(row)] = digest.hex()
    if not kept:
        raise InputError(f"all {len(pool)} rows of the pool {request.pool!r} are rows of {request.inputs.source!r}; "
                         "expected other pictures")  # fmt: skip
    return keep_rows(pool, torch.tensor(kept)), len(pool) - len(kept), digests  # type: ignore[type-var]


def _digests(bank: AnyBank, encoded: bool) -> list[bytes]:
    if not encoded and not isinstance(bank, FeatureBank):
        bank = keep_rows(bank, readable_rows(bank)[0])  # type: ignore[type-var]
    return row_digests(bank, encoded)


def _features(
    pool: AnyBank, bank: AnyBank, settings: FromPool, device: str
) -> tuple[list[Tensor], list[AnyBank], Skipped]:
    """The features of a pool and a bank, what of both could be read, and the (name, reason) of what could not."""
    banks, skipped = [pool, bank], []
    if isinstance(pool, FeatureBank) or isinstance(bank, FeatureBank):
        if (settings.representation, settings.views) != (None, None):
            raise InputError("--set representation or views was given, and there are features; expected neither")
        return [torch.as_tensor(side.x) for side in banks if isinstance(side, FeatureBank)], banks, []
    name = settings.representation or default_representation(bank)
    representation = saving.open_part(name, None, "representation")
    options = BankOptions(views=settings.views or default_views(representation), precision="float32")
    found: list[Tensor] = []
    for i, side in enumerate((pool, bank)):
        part = side
        try:
            made = embed_bank(representation, part, options, device=device_of(device, "cpu"))
        except UnreadablePicture:
            good, bad = readable_rows(part)
            skipped += bad
            part = keep_rows(part, good)  # type: ignore[type-var]
            made = embed_bank(representation, part, options, device=device_of(device, "cpu"))
        banks[i] = part
        found.append(made.x.cpu())
    lost = [name for name, count in zip(bank.classes, banks[1].counts().tolist(), strict=True) if not count]
    if lost:
        raise InputError(f"class {lost[0]!r} has no picture that can be read; the method needs at least 1")
    if not len(banks[0]):
        raise InputError(f"the pool {pool.origin!r} has no picture that can be read")
    return found, banks, skipped


def _taken(
    settings: FromPool, method: str, support: Examples, pool: Tensor, wanted: Mapping[int, int]
) -> tuple[dict[int, Taken], dict[str, Any]]:
    """The rows of a pool [m, d] for the classes of a support of which some are wanted, and what there is to say."""
    if method == "retrieved":
        order = nearest_rows(support, pool)
        return {k: Taken(order[k, :count].numpy()) for k, count in wanted.items()}, {}
    found, way = label_pool(support, pool), int(support.y.max()) + 1
    rows = {}
    for k, count in wanted.items():
        own = ((found.y == k) & (found.confidence >= settings.confidence)).nonzero()[:, 0]
        rows[k] = own[found.confidence[own].argsort(descending=True, stable=True)][:count]
    taken, together = {}, 0.0
    for k, own in rows.items():
        weight = weights_of(found, own, way)
        together += float(weight.sum())
        taken[k] = Taken(own.numpy(), _rounded(weight), _rounded(found.confidence[own]))
    return taken, {"trust": round(found.trust, _DIGITS), "weight": round(together / max(1, len(rows)), _DIGITS)}


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), _DIGITS) for value in values)


def _said(taken: Mapping[str, Taken], wanted: Mapping[str, int], report: Mapping[str, Any], copies: int) -> str:
    """One line: what the taken rows weigh, which classes have fewer than were wanted, and what was left out."""
    weight = report.get("weight", math.nan)
    said = [] if math.isnan(weight) else [f"what the pool gives weighs {weight:.1f} real rows a class"]
    short = [name for name, count in wanted.items() if len(taken[name].rows) < count]
    if short:
        named = ", ".join(f"{len(taken[name].rows)} of {wanted[name]} for {name!r}" for name in short[:_NAMED])
        more = f" and {len(short) - _NAMED} more" if len(short) > _NAMED else ""
        said.append(f"fewer than were wanted for {len(short)} of {len(wanted)} classes: {named}{more}")
    if copies:
        said.append(f"left out {copies} that are in the source too, or twice in the pool")
    return "; ".join(said)


def _digest(pool: AnyBank, taken: Mapping[str, Taken], digests: Mapping[str, str]) -> str:
    """Of which rows of the pool go to which class, and what is in them."""
    digest = hashlib.sha256()
    for name, rows in taken.items():
        for row in rows.rows.tolist():
            digest.update(f"{name}\0{pool.name(row)}\0{digests[pool.name(row)]}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
