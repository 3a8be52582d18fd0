"""The training of the conditional GAN: its objective, what is held out, going on, and adapting to novel classes."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.data.banks import ArrayPictures
from augforge.generators.conditional_gan import ConditionalGan
from augforge.generators.conditional_gan.networks import (
    LabelDiscriminator,
    LabelGenerator,
    SupportDiscriminator,
    SupportGenerator,
)
from augforge.generators.conditional_gan.objective import ConditionalObjective, split_rows
from augforge.networks.layers import built
from augforge.networks.pixels import load_pixels
from augforge.parts.saving import load_part, part_digest, save_part
from augforge.training.loop import Run
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


@BOTH
@pytest.mark.parametrize("symmetry", ["mirror", "turns"])
def test_batches_in_parts_and_symmetries_train(condition, symmetry):
    part = ConditionalGan(**SMALL, condition=condition, symmetry=symmetry, accumulate=2, augment="none")
    assert part.fit(_bank(), _rng()).quantiles_.isfinite().all()


def _objective(counts, **changes):
    bank, shape = _bank(counts), (1, 16)
    data = load_pixels(bank, 0, "cpu")
    settings = {"batch": 4000, "shots": (), "symmetry": "none", "policy": (), "noise": 4} | changes
    if settings["shots"]:
        generator, discriminator = (
            built(lambda: SupportGenerator(shape, 4, 4, 4), _rng()),
            built(lambda: SupportDiscriminator(shape, 4), _rng()),
        )
    else:
        generator = built(lambda: LabelGenerator(shape, 4, 4, 4, len(counts)), _rng())
        discriminator = built(lambda: LabelDiscriminator(shape, 4, len(counts)), _rng())
    return ConditionalObjective(generator, discriminator, discriminator, data, data, **settings), bank


@pytest.mark.parametrize("shots", [(), (2,)], ids=["class", "support"])
def test_parts_of_a_batch_are_scored_as_the_whole_is(shots):
    settings = {"batch": 16 if shots else 8, "shots": shots, "policy": ("colour", "translation", "cutout")}
    objective, _ = _objective((8, 8, 8), **settings, warmup=1.0)
    whole = objective.draw(_rng(1), 0.7)
    parts = [{key: value[i : i + 4] for key, value in whole.items()} for i in (0, 4)]
    with torch.no_grad():
        together = objective.scores(whole, objective.generate(whole))
        cut = [objective.scores(part, objective.generate(part)) for part in parts]
    for scores, pieces in zip(together, zip(*cut, strict=True), strict=True):
        assert torch.allclose(scores, torch.cat(pieces), atol=1e-4)


def test_by_support_real_pictures_of_other_classes_count_with_those_made():
    objective, bank = _objective((8, 8, 8), batch=128, shots=(2,))
    part = objective.draw(_rng(1), 0.5)
    whole = bank.examples(torch.arange(24)).x.float() / 255

    def labels(x):
        return bank.y[[int((whole == picture).flatten(1).all(1).nonzero()) for picture in x]]

    own = labels(part["condition"][:, 0])
    for pictures in (part["condition"][:, 1], part["real"][:, 0], part["real"][:, 1]):
        assert torch.equal(labels(pictures), own)
    other = labels(part["other"][:, 0])
    assert (other != own).all()
    assert len(torch.unique(torch.stack([own, other], 1), dim=0)) == 6
    with torch.no_grad():
        made = objective.generate(part)
        fake = objective.scores(part, made)[1]
        assert torch.equal(fake[:, 2:], objective.whole.alone(part["other"], objective.whole.codes(part["condition"])))
        hidden = objective.scores(part | {"shown": torch.zeros(64, 1)}, made)[1]
    assert fake.shape == (64, 3)
    assert (hidden[:, 2] == -1).all()  # adds nothing to the hinge loss
    assert "other" not in _objective((8,), batch=8, shots=(1,))[0].draw(_rng(), 0.5)


def test_codes_of_supports_lie_round_the_middle_of_the_pictures():
    x = torch.rand(32, 1, 16, 16, generator=_rng(2)) * torch.rand(32, 1, 1, 1, generator=_rng(3))
    for new in (lambda: SupportGenerator((1, 16), 8, 4, 8), lambda: SupportDiscriminator((1, 16), 8)):
        net = built(new, _rng())
        with torch.no_grad():
            before = net.codes(x[:, None])
            net.follow_(x, 1.0)
            code = net.codes(x[:, None])
            assert code.mean(0).abs().max() < 1e-4
            assert (code.var(0, correction=0) - 1).abs().max() < 1e-3
            net.follow_(x / 2, 0.1)
            assert 0 < (net.codes(x[:, None]) - code).abs().max() < (before - code).abs().max()


def test_training_keeps_codes_of_supports_in_the_middle():
    part = ConditionalGan(**SMALL | {"steps": 20}, condition="support", shots="1,2").fit(_bank(), _rng())
    rows = torch.arange(48)
    x = _bank().examples(rows).x.float() / 255
    with torch.no_grad():
        for net in (part.generator_, part.judge_):
            code = net.codes(x[:, None])
            assert code.mean(0).norm() < 0.3 * code.norm(dim=1).mean()


def test_classes_are_drawn_with_equal_chance_whatever_their_sizes():
    objective, bank = _objective((40, 2, 10))
    part = objective.draw(_rng(1), 0.5)
    counts = torch.bincount(part["condition"], minlength=3)
    assert (counts / 4000 - 1 / 3).abs().max() < 0.03
    whole = bank.examples(torch.arange(52)).x.float() / 255
    rows = torch.tensor([int((whole == x).flatten(1).all(1).nonzero()) for x in part["real"][:, 0]])
    assert torch.equal(bank.y[rows], part["condition"])
    for label, n in enumerate((40, 2, 10)):
        drawn = torch.bincount(rows[part["condition"] == label] - int((bank.y < label).sum()), minlength=n)
        assert (drawn / drawn.sum() - 1 / n).abs().max() < 0.06


def test_the_condition_fades_in():
    objective, _ = _objective((8, 8), batch=4, warmup=0.5)
    part = objective.draw(_rng(), 0.0)
    other = part | {"condition": 1 - part["condition"]}
    with torch.no_grad():
        made = objective.generate(part)
        assert torch.equal(objective.generate(other)[0], made[0])
        assert torch.equal(objective.scores(other, made)[1], objective.scores(part, made)[1])
        part = objective.draw(_rng(), 0.5)
        other = part | {"condition": 1 - part["condition"]}
        assert not torch.equal(objective.generate(other)[0], objective.generate(part)[0])
        assert not torch.equal(objective.scores(other, made)[1], objective.scores(part, made)[1])


def test_a_tenth_of_each_class_is_held_out():
    bank = _bank((40, 3, 4, 15, 1))
    data = load_pixels(bank, 0, "cpu")
    kept, held_out = split_rows(data, 0.1, 7)
    assert held_out.counts.tolist() == [4, 0, 1, 2, 0]
    assert (kept.counts + held_out.counts).tolist() == [40, 3, 4, 15, 1]
    both = torch.cat([kept.x, held_out.x]).flatten(1)
    assert len(torch.unique(both, dim=0)) == 63
    whole = {tuple(x.tolist()): int(y) for x, y in zip(data.x.flatten(1), data.y, strict=True)}
    for part in (kept, held_out):
        assert all(whole[tuple(x.tolist())] == y for x, y in zip(part.x.flatten(1), part.y, strict=True))
        for label in range(5):
            assert (part.y[part.table[label, : part.counts[label]]] == label).all()
    assert torch.equal(split_rows(data, 0.1, 7)[1].x, held_out.x)
    assert not torch.equal(split_rows(data, 0.1, 8)[1].x, held_out.x)


def test_an_evaluation_says_how_pictures_lie_within_classes():
    objective, _ = _objective((8, 8, 8), batch=4)
    with torch.no_grad():
        found = objective.evaluate()
    assert found.score == -found.facts["kernel_distance_within"]
    assert {"diversity", "kernel_distance"} <= found.facts.keys()
    assert any(alarm.startswith("collapse") for alarm in found.alarms)  # so it begins: grey for every noise
    assert objective.sheet().shape == (3, 8, 1, 16, 16)


@BOTH
def test_a_run_that_is_killed_goes_on_to_the_same_weights(condition, tmp_path):
    settings = SMALL | {"steps": 60, "warmup": 0.8, "condition": condition, "shots": "1,2"}
    whole = ConditionalGan(**settings).fit(_bank(), _rng())

    def kill(stage, fraction, loss):
        if fraction > 0:
            raise KeyboardInterrupt

    run = Run(folder=tmp_path, checkpoint_every=-1)
    with pytest.raises(KeyboardInterrupt):
        ConditionalGan(**settings).fit(_bank(), _rng(), run=replace(run, progress=kill))
    resumed = ConditionalGan(**settings).fit(_bank(), _rng(), run=run)
    assert part_digest(resumed) == part_digest(whole)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert "kernel_distance_within" in lines[-1] or "alarm" in lines[-1]
    assert (tmp_path / "step-000060.png").exists()


@BOTH
def test_adapting_makes_novel_classes_and_changes_no_frozen_layer(condition, tmp_path):
    part, novel = _fitted(condition), _support(9, (0, 0, 0, 1))
    digest = part_digest(part)
    adapted = part.adapt(novel, _rng(), steps=3, rate=1e-3, names=("x", "y"))
    assert part_digest(part) == digest
    trunk = "judge.trunk." if condition == "class" else "trunk."
    before, after = part.judge_.state_dict(), adapted.judge_.state_dict()
    moved = {key for key, value in after.items() if value.shape != before[key].shape or (value != before[key]).any()}
    frozen = {key for key in before if key.startswith(f"{trunk}blocks.0")}
    assert frozen
    assert not frozen & moved
    assert any(key.startswith(f"{trunk}blocks.1") for key in moved)  # the last of two at 16 px
    made = adapted.synthesize(novel, WANT[1:5] % 2, KEYS[1:5])
    assert not torch.equal(made.x, part.synthesize(novel, WANT[1:5] % 2, KEYS[1:5]).x)
    assert part_digest(part.adapt(novel, _rng(), steps=3, rate=1e-3, names=("x", "y"))) == part_digest(adapted)
    assert part_digest(part.adapt(novel, _rng(1), steps=3, rate=1e-3, names=("x", "y"))) != part_digest(adapted)
    save_part(adapted, tmp_path / "adapted")
    loaded = load_part(tmp_path / "adapted")
    assert torch.equal(loaded.synthesize(novel, WANT[1:5] % 2, KEYS[1:5]).x, made.x)
    assert loaded.plausibility(novel, made).shape == (4,)
    if condition == "class":
        assert torch.equal(loaded.named(["y"]).synthesize(novel, WANT[2:3] * 0, KEYS[2:3]).x, made.x[1:2])
        with pytest.raises(InputError, match="expected 0 to k - 1"):
            part.adapt(_support(9, (0, 2)), _rng(), steps=1)


def test_adapting_learns_a_novel_class_from_one_picture():
    novel = Examples(torch.full((1, 1, 16, 16), 255, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    want, keys = torch.zeros(16, dtype=torch.int64), chance.row_keys(0, "white", torch.arange(16))
    part = _fitted("class")
    adapted = part.adapt(novel, _rng(), steps=40, rate=5e-3)
    means = [p.synthesize(novel, want, keys).x.float().mean() for p in (part, adapted)]
    assert means[1] > means[0] + 20
