import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from augforge.cli.main import main
from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.parts import catalog
from augforge.parts.learning import learn
from augforge.parts.saving import load_part, made_by, open_part, save_part
from augforge.representations.finetuning import (
    FineTuning,
    Learner,
    dropped,
    found_rate,
    penalty,
    rate_groups,
    split,
)
from augforge.representations.photos import Photos
from augforge.representations.tuning_data import Photographs, cropped, with_fold
from augforge.training.loop import Run, one_cycle, restarts
from augforge.types import InputError, NothingToLearn, capabilities

BRIEF = {"steps": 2, "batch_size": 2, "lr": 0.01, "augment": False}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _bank(classes=("dark", "light"), each=2, seed=0):
    y = torch.arange(len(classes)).repeat_interleave(each)
    pixels = np.random.default_rng(seed).integers(0, 120, (len(y), 64, 64, 3), dtype=np.uint8)
    pixels[y.numpy() == 1] += 130
    return ArrayPictures(y, classes, pixels, "made up")


def _settings(**changed):
    plain = {"finetune": "last", "steps": 4, "batch_size": 4, "lr": 0.0, "lr_decay": 0.5, "schedule": "one-cycle",
             "weight_decay": 0.0, "l1": 0.0, "l2_sp": 0.0, "drop": 0.0, "augment": True, "flip": True,
             "patience": 0}  # fmt: skip
    return FineTuning(**{**plain, **changed})


def _learner(width=6):
    learner = Learner(nn.Sequential(nn.Linear(4, width), nn.Linear(width, width)), nn.Linear(width, 3))
    with torch.no_grad():
        for p in learner.parameters():
            p.copy_(torch.randn(p.shape, generator=_rng(1)))
    return learner


def _torchs(schedule, steps, **options):
    """The factors that a schedule of torch gives."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimiser, **options)
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return torch.tensor(found)


def test_the_schedules_are_torchs():
    steps = 500
    expected = _torchs(partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=steps, div_factor=25,
                               final_div_factor=1e9, cycle_momentum=False), steps)  # fmt: skip
    assert torch.allclose(torch.tensor([one_cycle(i / steps) for i in range(steps)]), expected, atol=0.02)
    expected = _torchs(partial(torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, T_0=100, T_mult=2), 700)
    assert torch.allclose(torch.tensor([restarts(i / 700) for i in range(700)]), expected, atol=1e-6)
    assert restarts(1.0) == pytest.approx(0, abs=1e-9)


def test_the_rates_fall_from_the_head_to_the_first_stage():
    learner = _learner()
    groups = rate_groups(learner, 0.8, 0.5)
    assert [group["lr"] for group in groups] == [0.8, 0.4, 0.2]
    assert [group["params"][0] is layer.weight for group, layer in
            zip(groups, (learner.head, learner.tail[1], learner.tail[0]), strict=True)] == [True] * 3  # fmt: skip
    assert sum(len(group["params"]) for group in groups) == len(list(learner.parameters()))


def test_the_penalty_is_its_formula():
    learner = _learner()
    start = [p.detach() + 0.5 for p in learner.tail.parameters()]
    weights = [learner.tail[0].weight, learner.tail[1].weight, learner.head.weight]
    found = penalty(learner, start, _settings(weight_decay=0.3, l1=0.2, l2_sp=0.7))
    expected = sum(0.15 * w.square().sum() + 0.2 * w.abs().sum() for w in weights)
    expected = expected + 0.35 * 0.25 * sum(p.numel() for p in learner.tail.parameters())
    assert torch.allclose(found, expected)
    here = [p.detach() for p in learner.tail.parameters()]
    assert float(penalty(learner, here, _settings(l2_sp=9.0)).detach()) == 0


def test_dropout_keeps_the_mean_and_takes_chance_from_its_generator():
    x, state = torch.ones(200, 100), torch.random.get_rng_state()
    found = dropped(x, 0.4, _rng())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
    assert float(found.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(found, dropped(x, 0.4, _rng()))
    assert dropped(x, 0.4, None) is x


def test_crops_are_of_each_picture_alone_and_mirrored_only_where_asked():
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).expand(40, 3, 64, 64).contiguous()
    found = cropped(ramp, 32, True, _rng())
    assert found.shape == (40, 3, 32, 32)
    assert 0 <= float(found.min()) < float(found.max()) <= 1
    assert torch.equal(found, cropped(ramp, 32, True, _rng()))
    falls = found[:, 1, 16, -1] < found[:, 1, 16, 0]
    assert 8 < int(falls.sum()) < 32
    shown = cropped(ramp, 32, False, _rng())
    assert bool((shown[:, 1, 16, -1] > shown[:, 1, 16, 0]).all())
    assert len({tuple(row.tolist()) for row in shown[:, 1, 16]}) == 40


def test_a_quarter_is_held_out_where_every_class_has_eight():
    x = torch.arange(24, dtype=torch.uint8)[:, None, None, None].expand(24, 3, 2, 2)
    data = Photographs(x, torch.tensor([0, 1]).repeat(12)[:20], ("a", "b"), 2)
    data = replace(data, x=x[:20])
    kept, held = with_fold(data, 3)
    assert torch.bincount(held.y).tolist() == [2, 2]
    assert torch.equal(torch.cat([kept.x, held.x])[:, 0, 0, 0].sort().values, torch.arange(20, dtype=torch.uint8))
    assert torch.equal(held.x[:, 0, 0, 0] % 2, held.y.to(torch.uint8))
    few = data.take(torch.arange(14))
    assert with_fold(few, 3) == (few, None)


def test_groups_are_held_out_as_a_whole_and_never_all_of_a_class():
    y = torch.tensor([0] * 12 + [1] * 9 + [2] * 8)
    group = torch.cat([torch.arange(12) // 3, 10 + torch.arange(9) // 8, torch.full((8,), 20)])  # the third has one
    x = torch.arange(len(y), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    for seed in range(5):
        kept, held = with_fold(Photographs(x, y, ("a", "b", "c"), 2, group), seed)
        assert set(kept.group.tolist()).isdisjoint(held.group.tolist())
        assert set(kept.y.tolist()) == {0, 1, 2}
        assert int((held.y == 0).sum()) == 3
        assert int((held.y == 1).sum()) in (1, 8)
        assert int((held.y == 2).sum()) == 0
        assert torch.equal(group[held.x[:, 0, 0, 0].long()], held.group)
    alone = Photographs(x, y, ("a", "b", "c"), 2, y)
    assert with_fold(alone, 0) == (alone, None)


def test_the_range_test_leaves_the_learner_and_its_curve(tmp_path):
    learner, x, y = _learner(), torch.randn(12, 4, generator=_rng()), torch.arange(12) % 3
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    settings, run = _settings(), Run(folder=tmp_path)
    found = found_rate(learner, lambda step, generator: (x, y), settings, run)
    assert all(torch.equal(value, before[key]) for key, value in learner.state_dict().items())
    record = json.loads((tmp_path / "learning-rate.json").read_text())
    assert found == record["chosen"]
    losses = record["smoothed_losses"]
    near = [rate for rate, loss in zip(record["rates"], losses, strict=True) if loss <= 1.25 * min(losses) + 0.05]
    assert found == near[-1] / 10
    assert (tmp_path / "learning-rate.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "learning-rate.json").write_text(json.dumps(record | {"chosen": 0.123}))
    assert found_rate(learner, lambda step, generator: (x, y), settings, run) == 0.123
    assert found_rate(learner, lambda step, generator: (x, y), replace(settings, steps=9), run) == found
    with pytest.raises(InputError, match="expected the setting lr=RATE"):
        found_rate(learner, lambda step, generator: (x * torch.nan, y), settings, Run())


@pytest.mark.parametrize(("finetune", "first"), [("head", 8), ("last", 6), ("all", 0)])
def test_the_stages_are_the_network(finetune, first):
    net = open_part("photos", None, "representation").net_
    frozen, tail = split(net, finetune)
    x = torch.rand(1, 3, 64, 64, generator=_rng()) * 2 - 1
    with torch.no_grad():
        assert torch.equal(tail(frozen(x)), net(x))
    assert len(frozen) == first


def test_fine_tuning_moves_what_it_says_and_goes_on_from_a_folder(tmp_path):
    part = catalog.make("photos", {"finetune": "last", **BRIEF, "schedule": "restarts"}, "representation")
    assert (capabilities(part).pretrained, capabilities(part).trains) == (False, True)
    plain = open_part("photos", None, "representation")
    assert (capabilities(plain).pretrained, capabilities(plain).trains) == (True, False)
    state = torch.random.get_rng_state()
    tuned = learn(replace(part), _bank(), _rng(), None)
    assert torch.equal(torch.random.get_rng_state(), state)
    moved = {".".join(name.split(".")[:2]) for (name, a), b in
             zip(tuned.net_.state_dict().items(), plain.net_.state_dict().values(), strict=True)
             if not torch.equal(a, b)}  # fmt: skip
    assert moved == {"blocks.5", "blocks.6", "conv_head.weight", "bn2.weight", "bn2.bias"}
    for name, value in tuned.net_.state_dict().items():
        if "running" in name:
            assert torch.equal(value, plain.net_.state_dict()[name])
    assert made_by(learn(replace(part), _bank(), _rng(), None)) == made_by(tuned)
    save_part(tuned, tmp_path, "representation")
    again, pictures = load_part(tmp_path, "representation"), _bank().examples(torch.arange(3)).x
    assert made_by(again) == made_by(tuned)
    assert torch.equal(again.embed(pictures), tuned.embed(pictures))
    assert not torch.allclose(tuned.embed(pictures), plain.embed(pictures), atol=1e-3)


class Killed(Exception):
    """What stands for a process that is killed."""


@pytest.fixture(scope="module")
def tuned_head():
    """A part that is not fitted, and one that was fitted without a stop."""
    part = catalog.make("photos", {"finetune": "head", **BRIEF, "augment": True}, "representation")
    return part, learn(replace(part), _bank(), _rng(), None)


@pytest.mark.parametrize("stage", ["head", "finetune"])
def test_a_killed_fit_goes_on_to_the_same_weights(tuned_head, tmp_path, stage):
    part, straight = tuned_head

    def kill(name, fraction, loss):
        if name == stage and (fraction > 0.5 or name == "finetune"):
            raise Killed

    with pytest.raises(Killed):
        learn(replace(part), _bank(), _rng(), None, Run(folder=tmp_path, checkpoint_every=0.2, progress=kill))
    assert made_by(learn(replace(part), _bank(), _rng(), None, Run(folder=tmp_path))) == made_by(straight)


def test_where_it_loses_on_held_out_pictures_the_network_stays():
    part = catalog.make("photos", {"finetune": "head", **BRIEF, "lr": 0.3, "steps": 5}, "representation")
    wrong = _bank(("light", "dark"))
    tuned = learn(replace(part), _bank(), _rng(), wrong)
    (alarm,) = tuned.alarms
    assert alarm.startswith("fine-tuning lost on the held-out pictures")
    plain = open_part("photos", None, "representation")
    assert all(torch.equal(a, b) for a, b in
               zip(tuned.net_.state_dict().values(), plain.net_.state_dict().values(), strict=True))  # fmt: skip
    others = _bank(("third", "fourth"), seed=5)
    assert capabilities(learn(replace(part), _bank(), _rng(), others)).alarms in ([], [alarm])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps=0 was given; expected a whole number of at least 1"),
        ({"patience": -1}, "patience=-1 was given; expected a whole number of at least 0"),
        ({"l2_sp": -0.1}, "l2_sp=-0.1 was given; expected a number of at least 0"),
        ({"lr_decay": 0.0}, "lr_decay=0.0 was given; expected a number above 0 and at most 1"),
        ({"drop": 1.0}, "drop=1.0 was given; expected at least 0 and below 1"),
        ({"finetune": "tail"}, "expected none, head, last, all"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        catalog.make("photos", settings, "representation")


def test_what_it_cannot_learn_from_is_refused():
    part = Photos(finetune="head", **BRIEF)
    with pytest.raises(InputError, match="fine-tuning needs at least 2 classes; there is 1"):
        learn(replace(part), _bank(("dark",)), _rng(), None)
    with pytest.raises(InputError, match="this source holds features"):
        learn(replace(part), FeatureBank(torch.zeros(2, 3), torch.arange(2), ("a", "b")), _rng(), None)
    with pytest.raises(NothingToLearn, match="finetune='head' learns from pictures"):
        replace(part).fit(None, None)


def test_the_command(tmp_path, capsys):
    out = tmp_path / "tuned"
    given = ["--set", "finetune=head", "--set", "steps=2", "--set", "augment=false", "--max-per-class", "1"]
    main(["fit", "photos", "scenes", *given, "--minutes", "5", "--out", str(out)])
    assert capsys.readouterr().out.startswith("fitted photos (")
    assert json.loads((out / "part.json").read_text())["settings"]["finetune"] == "head"
    assert sorted(path.name for path in (out / "training").iterdir()) == [
        "curves.pdf",
        "curves.png",
        "curves.svg",
        "learning-rate.json",
        "learning-rate.png",
        "log.jsonl",
    ]
    with pytest.raises(SystemExit):
        main(["fit", "photos", "scenes", "--minutes", "5", "--out", str(tmp_path / "plain")])
    assert "--minutes was given, and photos does not train" in capsys.readouterr().err
