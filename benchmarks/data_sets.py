"""Data sets of features, as tasks, which classes of each are for what, and rows for benchmarks/results.

CLASSES is the one place that says which classes are there to train on, to choose by and to report on. A set is `fresh`
where nothing of made features was ever chosen, or looked at, on the classes that are reported on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from record import facts

from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank
from augforge.data.features import open_features
from augforge.data.glyphs import draw_classes
from augforge.data.glyphs.classes import GlyphClass, class_name
from augforge.data.selection import Selection
from augforge.data.source import open_source
from augforge.episodes.named_tasks import open_task
from augforge.episodes.tasks import Task
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions

RESULTS = Path(__file__).parent / "results"
Role = Literal["train", "choose", "report"]


class Classes(NamedTuple):
    """Which classes of a set are for what."""

    train: str
    choose: str
    report: str
    fresh: bool


_BY_HASH = "by `role_by_hash` of the class name: a fifth to choose by, two fifths to report on"
CLASSES: dict[str, Classes] = {
    "glyphs": Classes("344 letters of ten scripts", "59 Cyrillic", "82 Georgian and Armenian", fresh=False),
    "omniglot": Classes("1,028 characters", "172", "423, each in four rotations", fresh=False),
    "omniglot-alphabet": Classes("25 background alphabets", "5", "20 evaluation alphabets", fresh=False),
    "cifar-fs": Classes("64 classes of CIFAR-100", "16", "20", fresh=False),
    "fresh-letters": Classes("as glyphs", "as glyphs", "166 of FRESH_LETTERS: phonetic, digits, signs", fresh=True),
    "caltech": Classes(f"caltech101_small, {_BY_HASH}: 45", "16", "39", fresh=True),
    "signs": Classes(f"gtsrb_small, {_BY_HASH}: 18", "12", "13", fresh=True),
    "fc100": Classes("60 classes of FC100", "20", "11 of its 20, those that `cifar-fs` only trains on", fresh=True),
}  # fmt: skip

# Letters that no split of `glyphs` has, found by `augforge.data.glyphs.shapes.distinct` behind all of its classes: code
# points in hexadecimal, first-last for a run of them.
FRESH_LETTERS = {
    "phonetic": (
        "181 184 187 18a 195 19d 1a2-1a4 1b8 1ba 1e4 221 224 235-236 23a 23e-23f 241-242 246 255 25a 25d 260 263 26e "
        "271-272 27b 281 289 28d 291 29a-29b 29d-29e 2a3-2a4 2a6 2a8-2ad 1d12-1d13 1d16 1d1a 1d1e 2c64-2c65 2c71 2c74 "
        "2c7f a728 a734 a736-a737 a739-a73a a73c-a73d a74b a753 a764 a7a2-a7a3 a7a5-a7a7 a7aa a7fd a7ff"
    ),
    "lisu": "a4d8 a4de a4ed",
    "digits": "34 7c2 ed1-ed2 ed4 ed8",
    "signs": (
        "20a0 20a2-20a5 20a7 20aa 20ae-20b1 20b4-20b5 20b9-20ba 20bd 2104 2114 2118 211e 2123 213a 214b 260a-260b 260e "
        "2611-2612 2614-2617 2619-261c 261e 2620 2623-2624 2627 262a-262b 262d-262f 2631-2632 2634 2637-2638 263c-263d "
        "2642-2643 2645-2646 2648-264f 2690-2692 2696-2697 269c 269e-26a5 26a9"
    ),
}
_ARCHIVES = {"caltech": ("caltech101_small.tar", 30, None), "signs": ("gtsrb_small.tar", 60, r"/(\d{5})_")}
_EVERY = 10  # of the 1,280 features of `photos` every tenth, so that networks can be trained on two cores


def role_by_hash(name: str) -> Role:
    """What a class is for, by the SHA-256 of its name alone: no class changes its role when others come or go."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "report" if place < 0.4 else "choose" if place < 0.6 else "train"


def fresh_letters(per_class: int = 20) -> ArrayPictures:
    """The letters of FRESH_LETTERS, drawn as `glyphs` draws its own: pictures [28, 28, 1] uint8."""
    points = [(script, point) for script, runs in FRESH_LETTERS.items() for run in runs.split() for point in _run(run)]
    classes = [GlyphClass(class_name(point), script, point) for script, point in points]
    pixels, _ = draw_classes(classes, 0, per_class)
    return ArrayPictures(
        y=torch.arange(len(classes)).repeat_interleave(per_class),
        classes=tuple(c.name for c in classes),
        pixels=pixels,
        origin="fresh letters",
        groups={"script": tuple(c.script for c in classes for _ in range(per_class))},
    )


def _run(run: str) -> range:
    first, last = (int(v, 16) for v in (run.split("-") * 2)[:2])
    return range(first, last + 1)


def open_embedded(name: str, data_root: Path | None, cache: Path) -> Task:
    """A set of CLASSES whose features a shipped network makes: base classes are those to train on, and so on.

    Letters are embedded by `conv4-glyphs`, photographs by `photos` (four views; one of FC100's small pictures), which
    was trained on ImageNet; of its features every tenth is kept. Features are kept in `cache`.
    """
    task = _pictures(name, data_root)
    letters = name in ("glyphs", "fresh-letters")
    part = open_part("conv4-glyphs" if letters else "photos", None, "representation")
    options = BankOptions(views="none" if letters or name == "fc100" else "crops-4", precision="float32")
    found = {}
    for role in ("base", "val", "novel"):
        features = embed_bank(part, getattr(task, role), options, cache)
        found[role] = features if letters else replace(features, x=features.x[:, ::_EVERY].contiguous())
    return replace(task, **found)


def _pictures(name: str, data_root: Path | None) -> Task:
    if name in ("glyphs", "fresh-letters"):
        task = open_task("glyphs")
        return task if name == "glyphs" else replace(task, name=name, novel=fresh_letters())
    if name == "fc100":
        task, other = (open_task(one, data_root, Selection(30)) for one in ("fc100", "cifar-fs"))
        assert other.val is not None
        looked_at = {*other.val.classes, *other.novel.classes}
        return replace(task, novel=task.novel.only([c for c in task.novel.classes if c not in looked_at]))
    file, most, near = _ARCHIVES[name]
    bank = open_source(str(file if data_root is None else data_root / file), None)["all"]
    parts: dict[Role, AnyBank] = {
        role: Selection(most, near).of(bank.only([c for c in bank.classes if role_by_hash(c) == role]))
        for role in ("train", "choose", "report")
    }
    return Task(name, parts["train"], parts["choose"], parts["report"])


def open_data_set(folder: Path, name: str, data_root: Path | None, views: bool = False) -> Task:
    """The task `name` in the features of a folder; `views` takes those that were averaged over ten views.

    Columns such as the alphabet, and lake-runs' fixed episodes, come from the task itself.
    """
    pictures = open_task(name, data_root)
    suffix = "-views" if views else ""
    banks = {split: open_features(folder / f"{split}{suffix}.safetensors")["all"] for split in ("train", "val", "test")}
    novel, val = pictures.novel, pictures.val
    assert val is not None
    return Task(name, _float(banks["train"]), _like(banks["val"], val), _like(banks["test"], novel), pictures.groups,
                pictures.fixed)  # fmt: skip


def _like(features: FeatureBank, pictures: Any) -> FeatureBank:
    """The features with the columns of the pictures that they were made of, row by row."""
    assert list(features.classes) == list(pictures.classes)
    assert features.y.equal(pictures.y)
    return replace(_float(features), groups=pictures.groups)


def _float(bank: FeatureBank) -> FeatureBank:
    return replace(bank, x=bank.x.float())


def append(path: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """Add rows to a file of results, with the command, the commit and the machine."""
    how = facts() | about
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row | how) + "\n")
