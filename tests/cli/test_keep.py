"""`synth --keep`: what is kept, and the same bytes for any way of working, also where pictures must be distinct."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from augforge import chance
from augforge.curate.copies import SAME_PICTURE
from augforge.curate.looks import looks_of
from augforge.generators.shared.support import choose_parents
from augforge.parts import catalog
from augforge.synth.manifest import rejected_tries
from augforge.types import Examples

KEEP = ("--keep", "sound", "--keep", "new", "--keep", "distinct", "--tries", 60)


@dataclass
class Few:
    """Makes one of 90 patterns, a flat picture, or its parent again: by chance, and not always another one."""

    space: ClassVar[str] = "image"
    support_needed: ClassVar[int] = 1
    single: bool = True

    @property
    def one_parent(self):
        return self.single

    def fit(self, base, rng):
        return self

    def synthesize(self, support, want, keys):
        parent = choose_parents(support.y, want, keys) if self.single else torch.zeros_like(want)
        x = support.x[parent].clone()
        for row, which in enumerate(chance.choice(keys, 100).tolist()):
            if which < 90:
                small = np.random.default_rng(which).integers(0, 256, (5, 5), dtype=np.uint8)
                x[row] = torch.from_numpy(cv2.resize(small, (24, 20), interpolation=cv2.INTER_CUBIC))
            elif which < 95:
                x[row] = 77
        return Examples(x, want, parent if self.single else None)


@pytest.fixture(autouse=True)
def _methods(monkeypatch):
    monkeypatch.setitem(catalog.SYNTHESIZERS, "few", f"{Few.__module__}:{Few.__qualname__}")


@pytest.fixture
def patterns(tmp_path):
    """Two classes, three pictures each."""
    for number in range(6):
        small = np.random.default_rng(1000 + number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        path = tmp_path / "patterns" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cv2.resize(small, (24, 20), interpolation=cv2.INTER_CUBIC)).save(path)
    return tmp_path / "patterns"


def _pictures(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("[!.]*/*.png")}


@pytest.mark.parametrize("single", ["true", "false"])
def test_kept_pictures_are_sound_new_and_distinct_for_any_way_of_working(
    augforge, patterns, manifest_of, snapshot, tmp_path, single
):
    count = 75 if single == "true" else 50  # 25 of each parent; 50 of a class
    how = ("--with", "few", "--set", f"single={single}", "--per-class", count, *KEEP)
    found = augforge("synth", patterns, "--out", tmp_path / "whole", *how, "--workers", 1, "--json").json()
    assert found["made"] == 2 * count
    assert set(found["rejected"]) == {"blank", "copy of a real row", "near-duplicate of a made row"}
    rows = manifest_of(tmp_path / "whole")
    for group in {(row["class"], row["parent"]) for row in rows}:
        files = [tmp_path / "whole" / row["file"] for row in rows if (row["class"], row["parent"]) == group]
        looks = looks_of(cv2.imread(str(file))[..., ::-1].copy() for file in files)
        hashes = looks.hashes()
        likest = (hashes @ hashes.T).fill_diagonal_(-1).max()
        assert float(likest) < SAME_PICTURE
        assert looks.contrast.min() > 2.5
    whole = snapshot(tmp_path / "whole")
    augforge("synth", patterns, "--out", tmp_path / "batches", *how, "--workers", 2, "--batch-size", 7)
    assert snapshot(tmp_path / "batches") == whole
    rejected = {}
    for turn in (1, 0):
        part = augforge("synth", patterns, "--out", tmp_path / "shards", *how, "--shards", f"{turn}/2", "--json").json()
        rejected = {name: rejected.get(name, 0) + number for name, number in part["rejected"].items()} | {
            name: number for name, number in rejected.items() if name not in part["rejected"]
        }
    assert snapshot(tmp_path / "shards") == whole
    assert rejected == found["rejected"]  # rows that were made for comparison alone are not counted
    kept = sum((Counter(row.get("rejected")) for row in rows), Counter())
    assert kept == found["rejected"] == rejected_tries(tmp_path / "shards" / "manifest.jsonl")
    page = (tmp_path / "shards" / "report.html").read_text()  # of both shards
    assert f"Filters refused {kept.total():,} of {kept.total() + 2 * count:,} tries: " in page
    assert all(f"{number} {reason}" in page for reason, number in kept.items())
    for number in (1, 26, 60, 2 * count):
        augforge("regen", tmp_path / "whole" / "manifest.jsonl", number, "--out", tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "whole" / rows[number - 1]["file"]).read_bytes()
    fewer = ("--per-class", count - 30)
    augforge("synth", patterns, "--out", tmp_path / "fewer", *how[:4], *fewer, *KEEP)
    assert _pictures(tmp_path / "fewer").items() <= _pictures(tmp_path / "whole").items()


def test_more_distinct_pictures_than_there_are_is_exit_code_3(augforge, patterns, tmp_path):
    how = ("--with", "few", "--set", "single=false", "--per-class", 64, "--keep", "distinct", "--tries", 3)
    said = augforge("synth", patterns, "--out", tmp_path / "out", *how).error(3)
    assert "near-duplicate of a made row" in said


def test_a_record_names_what_was_kept_and_a_resume_needs_the_same(augforge, patterns, tmp_path):
    how = ("--with", "few", "--per-class", 4)
    augforge("synth", patterns, "--out", tmp_path / "out", *how, *KEEP)
    order = json.loads((tmp_path / "out" / "run.json").read_text())["order"]
    assert (order["keep"], order["tries"]) == (["sound", "new", "distinct"], 60)
    assert "reject" not in order
    assert "holds another run" in augforge("synth", patterns, "--out", tmp_path / "out", *how, "--resume").error()
    assert augforge("synth", patterns, "--out", tmp_path / "out", *how, *KEEP, "--resume").code == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--keep", "sounds"), "--keep 'sounds' was given; expected sound, new, distinct, class, plausible or class:R"),
        (("--keep", "class:"), "expected sound, new, distinct, class, plausible or class:R"),
        (("--keep", "new", "--keep", "new"), "--keep names something twice"),
        (("--keep", "plausible"), "--keep plausible was given, and copies has none"),
    ],
)
def test_what_is_no_filter_is_one_sentence(augforge, patterns, tmp_path, given, said):
    how = ("--with", "copies", "--per-class", 1, *given)
    assert said in augforge("synth", patterns, "--out", tmp_path / "out", *how).error()
