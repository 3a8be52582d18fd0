"""The audit itself: leaks between parts, copies within one, what is no example of anything, and suspicious labels."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from augforge.check.report import KINDS, Audit, Finding
from augforge.check.sides import CheckRequest, Side, open_sides
from augforge.curate.children import parents_by_row, rows_by_sha256
from augforge.curate.labels import check_labels
from augforge.curate.near import near_pairs
from augforge.curate.same import Match, same_pictures
from augforge.curate.sound import OUT_OF_RANGE, sound_pictures

SAME_PIXELS, SAME_NUMBERS, MADE_OF, NEAR = (
    "same pixels",
    "same numbers",
    "made of it, by the manifest",
    "near in features",
)
_LONG = 8.0  # times the median length of rows, or as much shorter: features out of range


def check(request: CheckRequest) -> Audit:
    """Audit one source or two; raises InputError for what cannot be opened. Nothing is written."""
    start = time.perf_counter()
    sides, name = open_sides(request)
    bad = [_not_examples(side) for side in sides]
    findings = [Finding("broken", side.named(file), reason)
                for side in sides for file, reason in side.broken]  # fmt: skip
    for side, reasons in zip(sides, bad, strict=True):
        findings += [Finding("not an example", side.name(row), reason) for row, reason in reasons.items()]
    for i, one in enumerate(sides):
        for j in range(i, len(sides)):
            findings += _pairs(one, sides[j], (bad[i], bad[j]), request)
    for side, reasons in zip(sides, bad, strict=True):
        findings += _labels(side, reasons, request.seed)
    order = {kind: place for place, kind in enumerate(KINDS)}
    findings.sort(key=lambda one: (order[one.kind], -(one.score or 0.0), one.file, one.other))
    sizes = [
        (side.title, len(side.bank), int((side.bank.counts() > 0).sum()) if side.labelled else 0) for side in sides
    ]
    return Audit(sizes, name, findings, time.perf_counter() - start)


def _not_examples(side: Side) -> dict[int, str]:
    """Rows that are no example of anything, and why."""
    if side.looks is not None:
        one = sound_pictures(side.looks)
        margins = one.margins_of(side.looks)
        rows = (margins < 0).any(1).nonzero()[:, 0].tolist()
        return {row: one.reasons[int((margins[row] < 0).nonzero()[0, 0])] for row in rows}
    assert side.features is not None
    if not len(side.features):
        return {}
    length = side.features.double().norm(dim=1)
    usual = float(length.median())
    out = (length > _LONG * usual) | (length < usual / _LONG)
    return dict.fromkeys(out.nonzero()[:, 0].tolist(), OUT_OF_RANGE)


def _pairs(a: Side, b: Side, bad: tuple[dict[int, str], dict[int, str]], request: CheckRequest) -> list[Finding]:
    """Rows of b that are rows of a again, or made of them; with a side and itself, the later of two rows."""
    within = a is b
    kind, found = ("duplicate" if within else "leak"), dict[int, tuple[int, str, float]]()
    known: dict[bytes, int] = {}
    for row, digest in enumerate(a.digests):
        known.setdefault(digest, row)
    exact = SAME_PIXELS if a.looks is not None else SAME_NUMBERS
    for row, digest in enumerate(b.digests):
        place = known.get(digest)
        if place is not None and not (within and place == row) and not (a.looks is not None and row in bad[1]):
            found[row] = place, exact, 1.0
    if not within:
        for row, place in _children(a, b).items():
            found.setdefault(row, (place, MADE_OF, 1.0))
    for row, place, reason, score in _near(a, b, bad, request):
        found.setdefault(row, (place, reason, score))
    pairs = [Finding(kind, b.name(row), _said(reason, a, b, place, row), a.name(place), round(score, 4))
             for row, (place, reason, score) in found.items()]  # fmt: skip
    if not within:
        taken = {one.file for one in pairs}
        pairs += [Finding(kind, a.name(row), MADE_OF, b.name(place), 1.0) for row, place in _children(b, a).items()
                  if b.name(place) not in taken]  # fmt: skip
    return pairs


def _said(reason: str, a: Side, b: Side, place: int, row: int) -> str:
    """A reason, with the two labels where they differ."""
    labels = a.label(place), b.label(row)
    return reason if labels[0] == labels[1] or not all(labels) else f"{reason}, there of class {labels[0]!r}"


def _children(parents: Side, children: Side) -> dict[int, int]:
    """Rows that were made of a row of another side, by their manifest: row -> the parent's."""
    known = parents_by_row(children.bank)
    if not known:
        return {}
    rows = rows_by_sha256(parents.bank)
    return {row: rows[sha256] for row, sha256 in known.items() if sha256 in rows}


def _near(
    a: Side, b: Side, bad: tuple[dict[int, str], dict[int, str]], request: CheckRequest
) -> list[tuple[int, int, str, float]]:
    """Near-duplicates as (row of b, row of a, reason, score), the likest of each row of b."""
    good = [torch.tensor([row for row in range(len(side.bank)) if row not in out], dtype=torch.int64)
            for side, out in zip((a, b), bad, strict=True)]  # fmt: skip
    if not all(map(len, good)):
        return []
    found: list[tuple[int, int, str, float]] = []
    features = _around_mean(a, b, good)
    if a.looks is not None and b.looks is not None:
        matches: list[Match] = same_pictures((a.looks, b.looks if a is not b else None), good, features, request.fast)
        found += [(one.second, one.first, one.reason, one.score) for one in matches]
    if features is not None:
        pairs = near_pairs(features[0], None if a is b else features[1], request.near)
        order = torch.argsort(pairs.cosine, descending=True, stable=True).tolist()
        found += [(int(good[1][pairs.second[i]]), int(good[0][pairs.first[i]]), NEAR, float(pairs.cosine[i]))
                  for i in order]  # fmt: skip
    return found


def _around_mean(a: Side, b: Side, good: list[Tensor]) -> tuple[Tensor, Tensor] | None:
    """The features of the good rows of both sides around their mean, at length 1; None where there are none."""
    if a.features is None or b.features is None:
        return None
    x, y = a.features[good[0]].float(), b.features[good[1]].float()
    mean = torch.cat([x, y]).mean(0)
    return F.normalize(x - mean, dim=1), F.normalize(y - mean, dim=1)


def _labels(side: Side, bad: dict[int, str], seed: int) -> list[Finding]:
    """Rows whose label another class fits better, by features of rows that are examples of something."""
    if not side.labelled or side.features is None:
        return []
    rows = torch.tensor([row for row in range(len(side.bank)) if row not in bad], dtype=torch.int64)
    if not len(rows):
        return []
    found = check_labels(side.features[rows], side.bank.y[rows], seed)
    names = side.bank.classes
    return [Finding("label", side.name(int(rows[i])), f"looks like {names[int(found.other[i])]}",
                    names[int(found.other[i])], round(float(found.odds[i].clamp(max=20).exp()), 1))
            for i in found.suspect.nonzero()[:, 0].tolist()]  # fmt: skip
