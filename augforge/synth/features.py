"""`augforge synth` on a feature bank: features in, features out, in one file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from augforge import __version__, chance
from augforge.adapters.ray import PROCESSES
from augforge.data.banks import FeatureBank
from augforge.data.features import open_features, write_features
from augforge.imagine import concatenate, support_spread, trust_of, usual_share, weighed, weight_of_each
from augforge.inputs import open_method
from augforge.parts import catalog
from augforge.representations.bank import MADE_BY
from augforge.synth import run_folder
from augforge.synth.encode import AS_SOURCE
from augforge.synth.generate import Chosen
from augforge.synth.manifest import REAL, ManifestRow, read_rows
from augforge.synth.plan import ClassPlan, Plan, Quota, Taken, make_plan, say_balance
from augforge.synth.request import Request, method_record, run_record
from augforge.synth.run_folder import RunOptions
from augforge.synth.written import PARTIAL
from augforge.types import Examples, InputError, capabilities

FILE = "features.safetensors"
_ROWS_AT_ONCE = 8192


def plan_features(request: Request, bank: FeatureBank, chosen: Chosen | None) -> tuple[Any, Plan, dict[str, Any]]:
    """The fitted part, the plan of a run on features, and its report: counts, and the bytes that the rows will take.

    In place of the part there is what was `chosen` where rows are taken from a pool.
    """
    if request.format != "folder" or request.size is not None:
        made = "--representation makes" if request.inputs.representation else f"{request.inputs.source!r} holds"
        raise InputError(f"{made} features, which go to one {FILE}; --format and --size are for images")
    if request.kept:
        option = "--reject" if request.reject else "--keep"
        raise InputError(f"{option} is for pictures, and {request.inputs.source!r} holds features")
    part, plan = _planned(request, bank, chosen)
    say_balance(plan, request.to, request.include_real)
    size = plan.total * bank.x.shape[1] * bank.x.element_size()
    report = {
        "made": sum(c.make for c in plan.classes),
        "real": sum(c.real for c in plan.classes),
        "per_class": {c.name: c.make for c in plan.classes},
        "size": size,
        "pool": part.report if isinstance(part, Chosen) else None,
    }
    return part, plan, report


def _planned(request: Request, bank: FeatureBank, chosen: Chosen | None) -> tuple[Any, Plan]:
    if chosen is not None:
        return chosen, chosen.plan(request.include_real, 1)
    part = open_method(request.inputs, bank)
    of_class = torch.argsort(bank.y, stable=True).split(bank.counts().tolist())
    rows = {name: members.numpy() for name, members in zip(bank.classes, of_class, strict=True)}
    quota = Quota(request.per_class, request.to, request.counts)
    plan = make_plan(rows, quota, capabilities(part).support_needed, request.include_real, 1)
    if catalog.describe(part)["name"] == "nothing":
        plan = Plan(tuple(replace(c, make=0) for c in plan.classes), 1)
    return part, plan


def synth_features(
    request: Request, bank: FeatureBank, out: Path, options: RunOptions, chosen: Chosen | None = None
) -> dict[str, Any]:
    """Make the rows, or take those `chosen` from a pool; write `features.safetensors`, `manifest.jsonl` and `run.json`.

    It gives the report's columns.

    All rows are held in memory and written at once, so a run that was stopped simply starts anew. Raises InputError.
    """
    if options.shard[1] > 1:
        raise InputError("--shards was given; expected none: features are made in one go")
    if options.engine != PROCESSES and request.inputs.representation is None:
        raise InputError(f"--engine {options.engine} was given; expected none: features are made in one go")
    part, plan, report = plan_features(request, bank, chosen)
    as_before = replace(request, encoding="png" if request.encoding == AS_SOURCE else request.encoding, mark=False)
    method = part.method if isinstance(part, Chosen) else method_record(part)
    source, record = Path(bank.origin), run_record(as_before, bank, method, plan)
    if isinstance(part, Chosen):
        record["pool"] = part.facts
    if request.inputs.representation is not None:
        record["representation"] = bank.groups[MADE_BY][0]
    run_folder.claim(out, record, source if source.exists() else None, options)
    if (out / run_folder.MANIFEST).exists() and _is_there(out, _rows(request, bank, part, plan), options.verify):
        return report | {"already": plan.total, "made": 0, "real": 0}
    trust, apart = _trust(bank, part), support_spread(Examples(bank.x, bank.y, weight=bank.weight))
    whole = concatenate([made_of_class(request, bank, part, c, (trust, apart)) for c in plan.classes])
    parent = torch.full((len(whole),), -1) if whole.parent is None else whole.parent
    if bank.index is not None:  # rows of the source's file, not of the part of it that was opened
        parent = torch.where(parent < 0, parent, bank.index[parent])
    result = FeatureBank(torch.as_tensor(whole.x), whole.y, tuple(bank.classes), parent=parent, weight=whole.weight)
    try:
        (out / PARTIAL).mkdir(exist_ok=True)
        lines = (_with_digest(row, result, i).to_line() for i, row in enumerate(_rows(request, bank, part, plan)))
        whole_manifest = out / PARTIAL / f"whole.{os.getpid()}.jsonl"
        whole_manifest.write_bytes(b"".join(lines))
        write_features(out / FILE, result)
        run_folder.finish_run(out, whole_manifest)
    except OSError as error:
        with contextlib.suppress(OSError):
            (out / FILE).unlink(missing_ok=True)
        raise InputError(f"--out {str(out)!r} cannot be written ({error.strerror or error})") from error
    return report | {
        "chosen": part.said if isinstance(part, Chosen) else _said_of_weights(request, part, plan, (result, trust))
    }


def _said_of_weights(request: Request, part: Any, plan: Plan, found: tuple[FeatureBank, float]) -> str:
    """A line where the made rows of some classes weigh nothing, and why; "" where all weigh something.

    `found` is the result, and how far the method's statistics were trusted.
    """
    result, trust = found
    made = torch.cat([torch.arange(c.make + c.real) >= c.real for c in plan.classes])
    weight = torch.ones(len(result.y)) if result.weight is None else result.weight
    together = torch.zeros(len(plan.classes)).index_add(0, result.y[made], weight[made].float())
    none = [c for c, total in zip(plan.classes, together.tolist(), strict=True) if c.make and total == 0]
    if not none:
        return ""
    said = f"the made rows of {len(none)} classes, as {none[0].name!r}, have weight 0: "
    if capabilities(part).tested_on_support:
        alone = max(len(c.rows) for c in plan.classes) < 2
        return said + ("with one row of each class none can be held out to test them" if alone else
                       "rows of the source that were held out did not gain by them")  # fmt: skip
    if trust == 0:
        return f"{said}rows of the source do not bear out what {request.inputs.method} learnt from other classes"
    return (
        f"{said}on held-out classes {request.inputs.method} gained nothing before {request.classifier} from "
        f"{len(none[0].rows)} real rows"
    )


def _trust(bank: FeatureBank, part: Any) -> float:
    """How far the whole source bears out what a method learnt from other classes; 1 for rows of a pool."""
    return 1.0 if isinstance(part, Chosen) else trust_of(part, Examples(bank.x, bank.y, weight=bank.weight))


def made_of_class(
    request: Request, bank: FeatureBank, part: Any, plan: ClassPlan, whole: tuple[float, float]
) -> Examples:
    """The rows of one class that go out: real ones where they are included, then made ones, weighed beside all real
    rows of the class; parents are bank rows. What is known of the `whole` source is how far it bears out what was
    learnt from other classes, and how far its rows lie from the middle.
    """
    rows = torch.from_numpy(plan.rows)
    real = rows[: plan.real]
    weight = None if bank.weight is None else bank.weight[real]
    out = Examples(bank.x[real], torch.full_like(real, plan.label), torch.full_like(real, -1), weight)
    known = Examples(bank.x[rows], torch.full_like(rows, plan.label), weight=None if bank.weight is None else
                     bank.weight[rows])  # fmt: skip
    if plan.taken is not None:
        return concatenate([out, _taken_of_class(part, plan, plan.taken, known)])
    parts = []
    for start in range(0, plan.make, _ROWS_AT_ONCE):
        places, indices = plan.items(start, min(start + _ROWS_AT_ONCE, plan.make))
        parts.append(features_of(request, bank, part, plan, (places, indices)))
    if not parts:
        return out
    made = weighed(concatenate(parts), known, part, catalog.family_of(request.classifier), *whole)
    return concatenate([out, made])


def _taken_of_class(chosen: Chosen, plan: ClassPlan, taken: Taken, known: Examples) -> Examples:
    """The rows of a pool that are taken for a class, of no parent in the source.

    Where their weights are not known they weigh as rows do that are made before logistic regression.
    """
    x = chosen.pool.x[torch.from_numpy(taken.rows)].to(torch.as_tensor(known.x))  # type: ignore[union-attr]
    labels = torch.full((len(x),), plan.label)
    if taken.weight is None:
        real, made = (torch.tensor(float(len(side))) for side in (known, x))
        weight = weight_of_each(usual_share("discriminative", real), real, made).expand(len(x))
    else:
        weight = torch.tensor(taken.weight)
    return Examples(x, labels, torch.full_like(labels, -1), weight)


def features_of(
    request: Request, bank: FeatureBank, part: Any, plan: ClassPlan, items: tuple[np.ndarray, np.ndarray]
) -> Examples:
    """Made rows of one class, for parents (places in the plan's rows) and indices, as `ClassPlan.items` gives them."""
    places, indices = items
    rows = torch.from_numpy(plan.rows)
    step = len(rows) if capabilities(part).one_parent else 1  # a pair of rows has one parent
    keys = chance.pair_keys(request.inputs.seed, plan.name, torch.from_numpy(indices), step)
    if capabilities(part).one_parent:
        support, want = Examples(bank.x[rows], torch.arange(len(rows))), torch.from_numpy(places)
    elif capabilities(part).one_class:
        support, want = Examples(bank.x[rows], torch.zeros_like(rows)), torch.zeros(len(places), dtype=torch.int64)
    else:
        support, want = Examples(bank.x, bank.y, weight=bank.weight), torch.full((len(places),), plan.label)
        rows = torch.arange(len(bank))
    made = part.synthesize(support, want, keys)
    parent = torch.full((len(made),), -1) if made.parent is None else made.parent
    parent = torch.where(parent < 0, parent, rows[parent])
    return Examples(made.x, torch.full((len(made),), plan.label), parent, made.weight)


def _is_there(out: Path, expected: list[ManifestRow], verify: bool) -> bool:
    """Whether a finished run has all rows of its plan, in its manifest and its file; with `verify`, number for number.

    Raises InputError for a row that was made of another parent than the source has now.
    """
    try:
        found = list(read_rows(out / run_folder.MANIFEST))
        written = open_features(out / FILE)["all"]
    except (InputError, KeyError):
        return False
    if len(found) != len(expected) or len(found) != len(written):
        return False
    for i, (row, wanted) in enumerate(zip(found, expected, strict=True)):
        if row.parent == wanted.parent and row.parent_sha256 != wanted.parent_sha256:
            raise InputError(f"row {row.parent!r} of the source is not what it was when features were made of it; "
                             "expected the same source, or --overwrite to make all of them anew")  # fmt: skip
        if row != (_with_digest(wanted, written, i) if verify else replace(wanted, size=row.size, sha256=row.sha256)):
            return False
    return True


def _with_digest(row: ManifestRow, bank: FeatureBank, i: int) -> ManifestRow:
    """A row with the bytes and the SHA-256 of what row `i` of a bank has: features, label, parent and weight."""
    columns = [column for column in (bank.x, bank.y, bank.parent, bank.weight) if column is not None]
    data = b"".join(column[i : i + 1].contiguous().view(torch.uint8).numpy().tobytes() for column in columns)
    return replace(row, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _rows(request: Request, bank: FeatureBank, part: Any, plan: Plan) -> list[ManifestRow]:
    said = part.method if isinstance(part, Chosen) else method_record(part)
    method, settings = said["name"], said["digest"]
    rows: list[ManifestRow] = []
    one_parent = not isinstance(part, Chosen) and capabilities(part).one_parent
    for c in plan.classes:
        parents = [_parent(bank, row) for row in c.rows.tolist()] if c.real or one_parent else []
        for place in range(c.real):
            facts = (REAL, "", parents[place], place)
            rows.append(_row(request, c.name, len(rows), facts))
        places, indices = c.items(0, c.make) if c.make else (np.zeros(0, np.int64),) * 2
        for place, index in zip(places.tolist(), indices.tolist(), strict=True):
            parent = parents[place] if one_parent else ("", "")
            if c.taken is not None:
                parent = _parent(part.pool, int(c.taken.rows[place]))
            row = _row(request, c.name, len(rows), (method, settings, parent, index))
            rows.append(row if c.taken is None else replace(row, **c.taken.facts(place)))
    return rows


def _parent(bank: FeatureBank, row: int) -> tuple[str, str]:
    """The name of a row and the SHA-256 of its numbers."""
    numbers = bank.x[row].contiguous().view(torch.uint8).numpy()
    return bank.name(row), hashlib.sha256(numbers.data).hexdigest()


def _row(request: Request, cls: str, number: int, facts: tuple[str, str, tuple[str, str], int]) -> ManifestRow:
    method, settings, (parent, sha256), index = facts
    return ManifestRow(
        FILE, f"features[{number}]", cls, method, settings, parent, sha256, request.inputs.seed, index, __version__
    )
