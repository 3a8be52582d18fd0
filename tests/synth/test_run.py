"""Synthesis from Python, and methods of other kinds than the catalog has today."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.inputs import Inputs
from augforge.parts import catalog
from augforge.synth.manifest import read_rows
from augforge.synth.regen import regen
from augforge.synth.request import Request
from augforge.synth.run import dry_run, synth
from augforge.synth.run_folder import RunOptions
from augforge.types import Examples, InputError, QuotaError

ONE = RunOptions(workers=1)


@dataclass
class Mean:
    """The mean of all pictures of the class, made brighter by the key."""

    space: ClassVar[str] = "image"
    one_parent: ClassVar[bool] = False
    support_needed: ClassVar[int] = 2

    def fit(self, base, rng):
        return self

    def synthesize(self, support, want, keys):
        assert support.y.tolist() == [0] * len(support)
        mean = support.x.float().mean(0)  # [n, c, h, w] -> [c, h, w]
        return Examples((mean + keys[:, None, None, None] % 50).clamp(max=255).to(torch.uint8), want)


@dataclass
class Lazy:
    """Makes one row fewer than is wanted."""

    space: ClassVar[str] = "image"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    def fit(self, base, rng):
        return self

    def synthesize(self, support, want, keys):
        return Examples(support.x[want[1:]], want[1:])


@pytest.fixture
def source(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("cat", 4), ("dog", 3)):
        (tmp_path / "source" / name).mkdir(parents=True)
        for i in range(count):
            picture = Image.fromarray(rng.integers(0, 200, (9, 8, 3), dtype=np.uint8))
            picture.save(tmp_path / "source" / name / f"{i}.png")
    return tmp_path / "source"


@pytest.fixture
def methods(monkeypatch):
    for cls in (Mean, Lazy):
        monkeypatch.setitem(catalog.SYNTHESIZERS, cls.__name__.lower(), f"{cls.__module__}:{cls.__qualname__}")


def _pictures(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("*/*")}


def test_a_report_says_what_was_done(source, tmp_path):
    seen = []
    options = RunOptions(workers=1, progress=lambda done, total: seen.append((done, total)))
    report = synth(Request(Inputs(str(source)), per_class=70, include_real=True), tmp_path / "out", options)
    assert (report.made, report.real, report.already, report.finished) == (140, 7, 0, True)
    assert report.size == sum(map(len, _pictures(tmp_path / "out").values()))
    assert report.images_per_second == pytest.approx(147 / report.seconds)
    assert seen == [(64, 147), (128, 147), (147, 147)]


def test_a_run_moves_no_global_random_state(source, tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    synth(Request(Inputs(str(source)), per_class=3), tmp_path / "out", ONE)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_a_method_of_many_parents(source, methods, tmp_path):
    request = Request(Inputs(str(source), "mean"), per_class=70)
    synth(request, tmp_path / "a", ONE)
    synth(request, tmp_path / "b", RunOptions(workers=2, batch_size=7))
    assert _pictures(tmp_path / "a") == _pictures(tmp_path / "b")
    rows = list(read_rows(tmp_path / "a" / "manifest.jsonl"))
    assert {(row.parent, row.parent_sha256) for row in rows} == {("", "")}
    assert [row.file for row in rows[:2]] == ["cat/cat-m00000.png", "cat/cat-m00004.png"]  # by parent
    for number in (1, 70, 71, 140):
        regen(tmp_path / "a" / "manifest.jsonl", str(number), tmp_path / "again.png")
        assert (tmp_path / "again.png").read_bytes() == (tmp_path / "a" / rows[number - 1].file).read_bytes()


def test_a_method_of_many_parents_leaves_unreadable_ones_out(source, methods, tmp_path):
    synth(Request(Inputs(str(source), "mean"), per_class=3), tmp_path / "without", ONE)
    (source / "cat" / "torn.png").write_bytes(b"torn")
    report = synth(Request(Inputs(str(source), "mean"), per_class=3), tmp_path / "with", ONE)
    assert report.skipped[0][0] == "cat/torn.png"
    assert _pictures(tmp_path / "with") == _pictures(tmp_path / "without")
    regen(tmp_path / "with" / "manifest.jsonl", "1", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == _pictures(tmp_path / "with")["cat/cat-m00000.png"]


def test_a_run_of_many_parents_does_not_go_on_with_another_picture(source, methods, tmp_path):
    request = Request(Inputs(str(source), "mean"), per_class=3)
    synth(request, tmp_path / "out", ONE)
    (source / "cat" / "1.png").write_bytes((source / "dog" / "1.png").read_bytes())
    with pytest.raises(InputError, match="holds another run: its content is"):
        synth(request, tmp_path / "out", RunOptions(workers=1, resume=True))


def test_a_class_with_fewer_pictures_than_a_method_needs_is_named(source, methods, tmp_path):
    for name in ("1.png", "2.png"):
        (source / "dog" / name).write_bytes(b"torn")
    with pytest.raises(InputError, match="class 'dog' has 1 readable pictures; the method needs at least 2"):
        synth(Request(Inputs(str(source), "mean"), per_class=3), tmp_path / "out", ONE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_method_that_makes_too_few_is_a_quota_error(source, methods, tmp_path, workers):
    with pytest.raises(QuotaError, match="lazy made 63 of the 64 rows wanted of class 'cat'") as caught:
        synth(Request(Inputs(str(source), "lazy"), per_class=70), tmp_path / "out", RunOptions(workers=workers))
    assert caught.value.exit_code == 3


def test_a_dry_run_of_a_method_of_many_parents(source, methods, tmp_path):
    report = dry_run(Request(Inputs(str(source), "mean"), per_class=30), tmp_path / "out", ONE)
    assert (report.made, report.dry_run) == (60, True)
    assert not (tmp_path / "out").exists()
