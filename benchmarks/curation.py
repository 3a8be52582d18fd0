"""What `augforge check` finds of planted faults, and how many good rows it takes for faulty ones.

    python benchmarks/curation.py --data-root DIR [--set NAME] [--fault NAME] [--rows 400] [--seed 0]

Three sources: Caltech 101 (20 classes), traffic signs (every third class, one frame of each track, as frames of a
track are near-copies) and the test letters of `glyphs`. In each, 20 % of the pictures are spoilt in one way at a
time: their labels are swapped, or they become blank (one colour, a little noise, JPEG), noise (uniform, or the
picture under so much of it that nothing is left), or, in the second half of the source as test data, near-copies of
pictures of the first half: coded as JPEG, resized, brighter, mirrored, turned by 3 degrees, moved by 4 % or cut by 6
%. `caught` is the share of them with a finding of the kind that belongs to the fault, blanks and noise with `--fast`,
`lost` the share of all other rows with one, in percent.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from record import append, facts

from augforge.check.audit import check
from augforge.check.sides import CheckRequest
from augforge.data.banks import PictureBank, keep_rows
from augforge.data.source import open_source

SETS = ("caltech101_small", "gtsrb_small", "glyphs")
SHARE = 0.2
KIND = {"swapped labels": "label", "blanks": "not an example", "noise": "not an example", "near-copies": "leak"}


def main() -> None:
    """Measure, append, and show the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--set", dest="sets", action="append", choices=SETS)
    parser.add_argument("--fault", dest="faults", action="append", choices=tuple(KIND))
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    how = facts(given.seed)
    for name in given.sets or SETS:
        bank = opened(name, given.data_root, given.rows)
        for fault in given.faults or KIND:
            rng = np.random.default_rng((given.seed, len(fault)))
            append("curation", [{"set": name, "fault": fault, **measured(bank, fault, rng), **how}])


def opened(name: str, root: Path, rows: int) -> PictureBank:
    """About `rows` pictures of a source, as many of each class as there are then."""
    if name == "glyphs":
        bank = open_source("glyphs")["test"]
        return keep_rows(bank, torch.arange(len(bank))[bank.y < rows // 20])  # type: ignore[type-var, return-value]
    bank = open_source(root / f"{name}.tar")["all"]
    if name == "caltech101_small":
        return keep_rows(bank, torch.arange(len(bank))[bank.y < 20][:: max(1, 600 // rows)])  # type: ignore[type-var, return-value]
    seen, chosen = set(), []
    for row in range(len(bank)):
        found = re.search(r"/(\d{5})_", bank.name(row))
        track = int(bank.y[row]), found[1] if found else ""
        if track[0] % 3 == 0 and track not in seen:
            seen.add(track)
            chosen.append(row)
    return keep_rows(bank, torch.tensor(chosen[:rows]))  # type: ignore[type-var, return-value]


def measured(bank: PictureBank, fault: str, rng: np.random.Generator) -> dict[str, Any]:
    """What `check` finds of one kind of fault, in percent, and how long it took."""
    pictures, labels = [bank.load(row)[0] for row in range(len(bank))], bank.y.numpy().copy()
    apart = fault == "near-copies"
    rows = rng.permutation(len(bank))
    train, asked = (rows[: len(rows) // 2], rows[len(rows) // 2 :]) if apart else (rows[:0], rows)
    spoilt = asked[: round(SHARE * len(asked))]
    present = np.unique(labels)
    for row in spoilt.tolist():
        if fault == "swapped labels":
            labels[row] = rng.choice(present[present != labels[row]])
        elif apart:
            pictures[row] = near_copy(pictures[int(rng.choice(train))], rng)
        else:
            pictures[row] = (blank if fault == "blanks" else noise)(pictures[row], rng)
    with tempfile.TemporaryDirectory() as folder:
        names = {}
        for row in range(len(bank)):
            part = ("train/" if row in train else "test/") if apart else ""
            path = Path(folder, part, f"class-{labels[row]:03d}", f"{row:05d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pictures[row][..., ::-1])
            names[str(path.relative_to(folder))] = row
        audit = check(CheckRequest(folder, fast=KIND[fault] == "not an example"))
    found = {names[one.file] for one in audit.of(KIND[fault])}
    any_kind = {names[one.file] for one in audit.findings}
    good = set(asked.tolist()) - set(spoilt.tolist())
    caught = len(found & set(spoilt.tolist()))
    return {"rows": len(asked), "spoilt": len(spoilt), "caught": round(100 * caught / len(spoilt), 1),
            "lost": round(100 * len(found & good) / len(good), 1),
            "lost_by_any_finding": round(100 * len(any_kind & good) / len(good), 1),
            "representation": audit.representation, "seconds": round(audit.seconds, 1)}  # fmt: skip


def blank(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One colour with noise of at most one and a half grey levels, coded as JPEG half of the time."""
    flat = rng.integers(0, 256, (1, 1, picture.shape[2])) + rng.normal(0, rng.uniform(0, 1.5), picture.shape)
    flat = np.clip(flat, 0, 255).astype(np.uint8)
    return as_jpeg(flat, 90) if rng.random() < 0.5 else flat


def noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uniform noise, or a tenth of the picture under nine tenths of it."""
    found = rng.integers(0, 256, picture.shape)
    return (found if rng.random() < 0.5 else 0.1 * picture + 0.9 * found).astype(np.uint8)


def near_copy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture again, changed in one of seven ways."""
    height, width = picture.shape[:2]
    which = rng.integers(7)
    if which == 0:
        return as_jpeg(picture, 75)
    if which == 1:
        small = cv2.resize(picture, (round(0.75 * width), round(0.75 * height)), interpolation=cv2.INTER_AREA)
        return np.atleast_3d(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
    if which == 2:
        return np.clip(1.1 * picture + 8, 0, 255).astype(np.uint8)
    if which == 3:
        return np.ascontiguousarray(picture[:, ::-1])
    if which == 6:
        top, left = max(1, round(0.06 * height)), max(1, round(0.06 * width))
        return np.atleast_3d(cv2.resize(picture[top:, left:], (width, height)))
    how = cv2.getRotationMatrix2D((width / 2, height / 2), 3, 1) if which == 4 else np.array(
        [[1, 0, 0.04 * width], [0, 1, -0.04 * height]])  # fmt: skip
    return np.atleast_3d(cv2.warpAffine(picture, how, (width, height), borderMode=cv2.BORDER_REPLICATE))


def as_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """A picture coded as JPEG and decoded."""
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.atleast_3d(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))


if __name__ == "__main__":
    main()
