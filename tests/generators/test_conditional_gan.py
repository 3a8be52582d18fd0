"""The conditional GAN: what it promises beside the contract of every synthesizer, which it keeps by class."""

import copy
import functools
import subprocess
import sys

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.classifiers.logistic import Logistic
from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.generators.conditional_gan import ConditionalGan
from augforge.parts import catalog
from augforge.parts.saving import save_part
from augforge.types import Examples, InputError

SMALL = {"width": 8, "judge_width": 4, "noise": 4, "code": 4, "steps": 3, "batch": 8}
BOTH = pytest.mark.parametrize("condition", ["class", "support"])
WANT = torch.tensor([2, 0, 1, 1, 0, 2, 2])
KEYS = chance.row_keys(0, "gan", torch.arange(7))


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _bank(counts=(8, 8, 8, 8, 8, 8), side=16, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    pixels = rng.integers(0, 256, (len(y), side, side, channels), dtype=np.uint8)
    return ArrayPictures(y, tuple("abcdefgh"[: len(counts)]), pixels, "base")


@functools.cache
def _fitted(condition):
    return ConditionalGan(**SMALL, condition=condition, shots="1,2").fit(_bank(), _rng())


def _support(seed=5, y=(0, 0, 1, 2, 2)):
    x = _bank(seed=seed).examples(torch.arange(len(y))).x
    return Examples(x, torch.tensor(y))


def _letters(n, seed=0, side=16):
    """Pictures of T and of L at different places, in different ink."""
    rng = np.random.default_rng(seed)
    x = np.zeros((2 * n, side, side, 1), np.uint8)
    for i in range(2 * n):
        (top, left), tall, ink = rng.integers(2, 5, 2), rng.integers(8, 11), rng.integers(160, 256)
        bar, stem = (top, left + 3) if i < n else (top + tall - 2, left)
        x[i, bar : bar + 2, left : left + 9] = ink
        x[i, top : top + tall, stem : stem + 2] = ink
    return ArrayPictures(torch.arange(2).repeat_interleave(n), ("T", "L"), x, "letters")


def test_it_learns_two_classes_apart():
    sizes = {"width": 12, "judge_width": 8, "noise": 8, "code": 8, "batch": 16, "warmup": 0.0}
    part = ConditionalGan(**sizes, steps=260, rate=1.5e-3, judge_rate=4e-3, average=0.98).fit(_letters(60), _rng())
    real, held_out = _letters(60).examples(torch.arange(120)), _letters(40, 1).examples(torch.arange(80))
    want = torch.arange(2).repeat_interleave(50)
    made = part.synthesize(real, want, chance.row_keys(0, "two", torch.arange(100)))

    def accuracy(rows):
        flat = Examples(real.x.flatten(1) / 255, real.y)
        return float((Logistic().scores(flat, rows.x.flatten(1) / 255).argmax(1) == rows.y).double().mean())

    assert accuracy(held_out) > 0.95
    assert accuracy(made) > 0.9
    dark = (made.x < 64).double().mean()
    assert abs(dark - (real.x < 64).double().mean()) < 0.3  # not noise: strokes on a dark ground
    apart = [made.x[want == c].float().std(0).mean() for c in range(2)]
    assert min(apart) > 2  # of 255: not one picture a class


@BOTH
def test_rows_depend_on_class_and_key_alone(condition):
    part, support = _fitted(condition), _support()
    made = part.synthesize(support, WANT, KEYS)
    assert (made.parent == -1).all()
    order = torch.randperm(len(WANT), generator=_rng(3))
    assert torch.equal(part.synthesize(support, WANT[order], KEYS[order]).x, made.x[order])
    for i in range(len(WANT)):
        assert torch.equal(part.synthesize(support, WANT[i : i + 1], KEYS[i : i + 1]).x, made.x[i : i + 1])
    assert len(torch.unique(made.x.flatten(1), dim=0)) == len(WANT)


def test_by_support_a_row_depends_on_all_pictures_of_its_class_and_on_no_other():
    part, support = _fitted("support"), _support()
    made = part.synthesize(support, WANT, KEYS).x.int()
    for changed in range(5):
        x = support.x.clone()
        x[changed] = 255 - x[changed]
        differs = (part.synthesize(Examples(x, support.y), WANT, KEYS).x.int() != made).flatten(1).any(1)
        assert torch.equal(differs, support.y[changed] == WANT)


@BOTH
@pytest.mark.parametrize(("channels", "side"), [(3, 28), (1, 32)])
def test_other_shapes_are_trained_on(condition, channels, side):
    bank = _bank((4, 4, 4), side, channels)
    part = ConditionalGan(**SMALL | {"steps": 1}, condition=condition, r1=1.0, lecam=0.1).fit(bank, _rng())
    made = part.synthesize(bank.examples(torch.arange(12)), WANT, KEYS)
    assert made.x.shape == (7, channels, side, side)
    assert made.x.dtype == torch.uint8


def test_classes_go_by_name():
    part = _fitted("class")
    names = part.named(["f", "b"])
    want = torch.tensor([0, 1, 0])
    numbers = part.synthesize(_support(), torch.tensor([5, 1, 5]), KEYS[:3])
    by_name = names.synthesize(_support(), want, KEYS[:3])
    assert torch.equal(by_name.x, numbers.x)
    assert torch.equal(by_name.y, want)
    assert part.places is None
    with pytest.raises(InputError, match="was not trained on class 'z'"):
        part.named(["a", "z"])
    for label, wrong in ((6, part), (-1, part), (2, names)):
        with pytest.raises(InputError, match=f"class {label} is wanted"):
            wrong.synthesize(_support(), torch.tensor([label]), KEYS[:1])
    by_support = _fitted("support")
    assert by_support.named(["z"]) is by_support


def test_by_class_no_support_is_needed():
    part = _fitted("class")
    assert (part.support_needed, _fitted("support").support_needed) == (0, 1)
    none = Examples(torch.zeros(0, 1, 16, 16, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    made = part.synthesize(none, WANT, KEYS)
    assert made.x.dtype == torch.uint8
    assert torch.equal(made.x, part.synthesize(_support(), WANT, KEYS).x)


@BOTH
def test_plausibility_is_a_share_of_real_pictures(condition):
    part, support = _fitted(condition), _support()
    made = part.synthesize(support, WANT, KEYS)
    share = part.plausibility(support, made)
    assert share.shape == (7,)
    assert (share >= 0).all()
    assert (share <= 1).all()
    order = torch.randperm(7, generator=_rng(3))
    assert torch.equal(part.plausibility(support, made.take(order)), share[order])
    if condition == "class":
        moved = Examples(made.x, torch.searchsorted(torch.tensor([0, 1, 2]), made.y))
        assert torch.equal(part.named(["a", "b", "c"]).plausibility(support, moved), share)


@BOTH
def test_truncation_brings_pictures_together(condition):
    part, want = _fitted(condition), torch.zeros(32, dtype=torch.int64)
    keys = chance.row_keys(0, "spread", torch.arange(32))
    near = copy.copy(part)
    near.truncation = 0.3
    still = copy.copy(near)
    still.truncation = 1e-30
    made = still.synthesize(_support(), WANT, KEYS)
    assert [len(made.x[c == WANT].unique(dim=0)) for c in range(3)] == [1, 1, 1]
    spread = [p.synthesize(_support(), want, keys).x.float().std(0).mean() for p in (part, near)]
    assert spread[1] < 0.6 * spread[0]


@BOTH
def test_the_way_from_class_to_class_starts_and_ends_there(condition):
    part, support, key = _fitted(condition), _support(), int(KEYS[0])
    way = part.between(support, 0, 2, 5, key)
    ends = part.synthesize(support, torch.tensor([0, 2]), KEYS[[0, 0]])
    assert torch.equal(way[[0, -1]], ends.x)
    assert len(torch.unique(way.flatten(1), dim=0)) == 5


def test_sampling_imports_no_training(tmp_path):
    save_part(_fitted("class"), tmp_path / "class")
    save_part(_fitted("support"), tmp_path / "support")
    code = f"""
import sys, torch
from pathlib import Path
from augforge.parts.saving import load_part
from augforge.types import Examples
for name in ("class", "support"):
    part = load_part(Path({str(tmp_path)!r}) / name)
    support = Examples(torch.zeros(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64))
    made = part.synthesize(support, support.y, torch.tensor([7]))
    part.plausibility(support, made)
print([name for name in sys.modules if name.endswith((".gan.trainer", ".gan.validation"))])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.strip() == "[]"


def test_what_cannot_be_is_said():
    with pytest.raises(InputError, match="is not fitted yet"):
        ConditionalGan().synthesize(_support(), WANT, KEYS)
    with pytest.raises(InputError, match="is not fitted yet"):
        ConditionalGan().named(["a"])
    with pytest.raises(InputError, match="has no support row"):
        _fitted("support").synthesize(_support(), torch.tensor([4]), KEYS[:1])
    with pytest.raises(InputError, match="class 'b' has no picture"):
        ConditionalGan(**SMALL).fit(_bank((3, 0, 3)), _rng())
    with pytest.raises(InputError, match="every class here has one"):
        ConditionalGan(**SMALL, condition="support").fit(_bank((1, 1)), _rng())
    with pytest.raises(InputError, match="learns from pictures"):
        ConditionalGan(**SMALL).fit(FeatureBank(torch.zeros(4, 3), torch.arange(4) % 2, ("a", "b")), _rng())
    with pytest.raises(InputError, match="batch=7"):
        ConditionalGan(condition="support", batch=7)
    with pytest.raises(InputError, match="needs square pictures"):
        ConditionalGan(**SMALL).fit(_bank((2, 2), side=15), _rng())
    with pytest.raises(InputError, match="condition"):
        catalog.make("conditional-gan", {"condition": "name"})


@pytest.mark.parametrize("name", ["warmup", "average", "width", "steps", "rate", "r1"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(InputError, match=name):
        ConditionalGan(**{name: -1})
