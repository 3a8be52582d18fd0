"""`augforge fit` of what is trained: time limits, folders of a training, and methods of pictures that train."""

import json
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from augforge.parts import catalog
from augforge.training.loop import Loop, Stage
from augforge.types import Examples

QUICK = ("--set", "epochs=2", "--set", "batch_size=8", "--set", "augment=none", "--device", "cpu")
SEEN = []


@dataclass
class Learner:
    """Pictures in a grey that it was trained to."""

    space: ClassVar[str] = "image"
    one_parent: ClassVar[bool] = False
    support_needed: ClassVar[int] = 1
    trains: ClassVar[bool] = True

    steps: int = 30
    grey_: torch.Tensor | None = field(default=None, init=False, repr=False)

    def fit(self, base, rng, val=None, run=None):
        SEEN.append((len(base.classes), None if val is None else val.classes, run))
        net = nn.Linear(1, 1)
        nn.init.zeros_(net.weight), nn.init.zeros_(net.bias)
        loop = Loop(net, torch.optim.SGD(net.parameters(), 0.1), Stage("grey", self.steps, {}), run)
        for _ in loop:
            loop.step((net(torch.ones(1, 1)) - 0.5).square().sum())
        if run.folder is not None:
            (run.folder / "step-30.png").write_bytes(b"grid")
        self.grey_ = net.bias.detach().clone()
        return self

    def synthesize(self, support, want, keys):
        grey = (255 * self.grey_).to(torch.uint8).expand(len(want), 1, 16, 16).clone()
        return Examples(grey, want)


@pytest.fixture(autouse=True)
def _methods(monkeypatch):
    SEEN.clear()
    monkeypatch.setitem(catalog.SYNTHESIZERS, "learner", f"{Learner.__module__}:{Learner.__qualname__}")


@pytest.fixture
def arrays(tmp_path):
    """Classes a, b to learn from, c, d to validate on, e, f to expand."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8)
    np.savez(
        tmp_path / "letters.npz",
        images=rng.integers(0, 256, (48, 16, 16, 1), dtype=np.uint8),
        labels=labels,
        classes=np.array(list("abcdef")),
        split=np.repeat(["train", "val", "test"], 16),
    )
    return tmp_path / "letters.npz"


def test_a_method_that_trains_keeps_its_log_and_drops_its_checkpoints(augforge, arrays, tmp_path):
    out = tmp_path / "out"
    found = augforge("fit", "learner", arrays, "--out", out, "--device", "cpu", "--json").json()
    assert found["kind"] == "synthesizer"
    ((classes, val, run),) = SEEN
    assert (classes, tuple(val), run.device, run.folder, run.minutes) == (2, ("c", "d"), "cpu", out / "training", None)
    kept = ["curves.pdf", "curves.png", "curves.svg", "log.jsonl", "step-30.png"]
    assert sorted(path.name for path in (out / "training").iterdir()) == kept
    assert "holds a fitted method" in augforge("fit", "learner", arrays, "--out", out).error()
    made = augforge("synth", arrays, "--split", "test", "--with", out, "--per-class", 2, "--out", tmp_path / "more")
    assert made.code == 0, made.err
    assert len(SEEN) == 1


def test_a_training_that_was_stopped_goes_on(augforge, arrays, tmp_path, monkeypatch):
    whole = augforge("fit", "learner", arrays, "--out", tmp_path / "whole", "--json").json()

    def stop(self, loss):
        real(self, loss)
        if self.done == 12:
            self.save()
            raise KeyboardInterrupt

    real = Loop.step
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", stop)
        assert augforge("fit", "learner", arrays, "--out", tmp_path / "out").code == 130
    assert (tmp_path / "out" / "training" / "grey.safetensors").exists()
    assert "a fit that was stopped" in augforge("fit", "learner", arrays, "--out", tmp_path / "out").error()
    again = augforge("fit", "learner", arrays, "--out", tmp_path / "out", "--resume", "--json").json()
    assert again["kind"] == whole["kind"]
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "out" / "training" / "log.jsonl").read_text().splitlines()
    ]
    assert steps == [0]  # and not once more from the start
    assert not (tmp_path / "out" / "training" / "grey.safetensors").exists()


def test_a_method_that_trains_is_trained_by_synth_where_no_folder_is_given(augforge, arrays, manifest_of, tmp_path):
    how = ("--with", "learner", "--set", "steps=3", "--split", "test", "--per-class", 2)
    assert augforge("synth", arrays, "--out", tmp_path / "out", *how).code == 0
    assert [(seen[0], seen[1], seen[2].device, seen[2].folder) for seen in SEEN] == [(2, None, "cpu", None)]
    file = manifest_of(tmp_path / "out")[2]["file"]
    augforge("regen", tmp_path / "out" / "manifest.jsonl", 3, "--out", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "out" / file).read_bytes()


@pytest.mark.parametrize("name", ["learner", "conv4"])
def test_minutes_end_a_training(augforge, arrays, tmp_path, name):
    long = ("--set", "steps=100000000") if name == "learner" else ("--set", "epochs=100000", *QUICK[2:])
    result = augforge("fit", name, arrays, "--out", tmp_path / "out", *long, "--minutes", 0.005, "--json")
    assert result.json()["kind"]


@pytest.mark.parametrize(
    ("name", "minutes", "said"),
    [
        ("learner", 0, "'--minutes': 0.0 is not in the range x>0"),
        ("conv4", -1, "'--minutes': -1.0 is not in the range x>0"),
        ("classical", 1, "--minutes was given, and classical does not train"),
        ("hallucinator-glyphs", 1, "--minutes was given, and hallucinator-glyphs does not train"),
        ("logistic", 1, "--minutes was given, and logistic does not train"),
    ],
)
def test_minutes_that_mean_nothing_are_refused(augforge, arrays, tmp_path, name, minutes, said):
    assert said in augforge("fit", name, arrays, "--out", tmp_path / "out", "--minutes", minutes).error()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("classes", "each"), [(10, 2), (5, 2), (2, 2)])
@pytest.mark.parametrize("method", ["image-gan", "conditional-gan"])
def test_a_gan_of_classes_with_two_pictures_is_saved(augforge, tmp_path, method, classes, each):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (classes * each, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "few.npz", images=images, labels=np.repeat(np.arange(classes), each))
    small = ["width=8", "judge_width=8", "noise=4", "code=4", "steps=4", "batch=4"]
    how = [word for setting in small for word in ("--set", setting)]
    assert augforge("fit", method, tmp_path / "few.npz", "--out", tmp_path / "part", *how, "--device", "cpu").code == 0
    out = ("--out", tmp_path / "made", "--per-class", 2)
    assert augforge("synth", tmp_path / "few.npz", "--with", tmp_path / "part", *out).code == 0


def test_a_name_that_must_be_trained_for_long_is_asked_about(augforge, arrays, snapshot, tmp_path):
    small = ("--set", "width=8", "--set", "judge_width=8", "--set", "batch=4")
    how = ("--out", tmp_path / "out", "--per-class", 2, *small)
    for more in ((), ("--dry-run",)):
        said = augforge("synth", arrays, "--with", "image-gan", *how, *more, "--set", "steps=100000000").error()
        assert "image-gan must be trained before it makes anything, 100,000,000 steps, for about" in said
        assert " hours here on cpu; 'image-gan-glyphs' is trained already, on letters" in said
        assert f"`augforge fit image-gan {arrays} --out DIR --minutes M`" in said
        assert "--fit to train it now" in said
    assert not (tmp_path / "out").exists()


def test_with_fit_it_is_trained_and_its_rows_are_made_again_with_fit(
    augforge, arrays, manifest_of, tmp_path, monkeypatch
):
    monkeypatch.setattr("augforge.inputs._LONG", 0.0)
    how = ("--with", "learner", "--set", "steps=101", "--split", "test", "--per-class", 2, "--out", tmp_path / "out")
    assert (
        "learner must be trained before it makes anything, 101 steps, for about a minute"
        in augforge("synth", arrays, *how).error()
    )
    assert augforge("synth", arrays, *how, "--fit").code == 0
    again = ("regen", tmp_path / "out" / "manifest.jsonl", 3, "--out", tmp_path / "again")
    assert "learner must be trained before" in augforge(*again).error()
    assert augforge(*again, "--fit").code == 0
    made = tmp_path / "out" / manifest_of(tmp_path / "out")[2]["file"]
    assert (tmp_path / "again").read_bytes() == made.read_bytes()


def test_a_training_of_seconds_just_runs(augforge, arrays, tmp_path):
    how = ("--with", "learner", "--set", "steps=300", "--split", "test", "--per-class", 2, "--out", tmp_path / "out")
    assert augforge("synth", arrays, *how).code == 0
