import pickle
from dataclasses import replace

import pytest
import torch

from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.networks.pixels import load_pixels
from augforge.parts import catalog
from augforge.parts.saving import load_part, made_by, part_digest, save_part
from augforge.representations.convnet import ConvNet
from augforge.representations.episodic import (
    draw_episodes,
    nearest_mean_score,
    prototypical_accuracy,
    prototypical_logits,
    prototypical_loss,
)
from augforge.representations.supervised import leave_one_out_loss, squared_gradients, turned
from augforge.training.loop import Run
from augforge.types import InputError

QUICK = {"augment": "none", "epochs": 3, "batch_size": 16, "lr": 0.02, "steps": 12, "way": 4, "shot": 2, "query": 2}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _bank(classes=6, each=8, side=16, channels=1, seed=0):
    """Classes that differ in a coarse pattern, with noise."""
    g = _rng(seed)
    pattern = torch.rand(classes, side // 4, side // 4, channels, generator=g)
    pattern = pattern.repeat_interleave(4, 1).repeat_interleave(4, 2)
    y = torch.arange(classes).repeat_interleave(each)
    x = (pattern[y] * 200 + 50 * torch.rand(len(y), side, side, channels, generator=g)).to(torch.uint8)
    groups = {"script": tuple("ab"[c % 2] for c in y.tolist())}
    return ArrayPictures(y, tuple(f"c{i}" for i in range(classes)), x.numpy(), "here", groups=groups)


@pytest.fixture(scope="module")
def bank():
    return _bank()


@pytest.fixture(scope="module")
def fitted(bank):
    return ConvNet(method="both", **QUICK).fit(bank, _rng())


@pytest.mark.parametrize("method", ["supervised", "episodic", "both"])
def test_fitting_is_a_function_of_the_seed(bank, method):
    state = torch.get_rng_state()
    a, b, c = (ConvNet(method=method, **{**QUICK, "augment": "crop"}).fit(bank, _rng(seed), bank) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert made_by(a) == made_by(b)
    assert made_by(a) != made_by(c)
    assert not a.net_.training


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "supervised"},
        {"method": "supervised", "head": "cosine", "lr": 0.1},
        {"method": "supervised", "turns": True, "epochs": 6},
        {"method": "supervised", "penalty": "sgm"},
        {"method": "supervised", "penalty": "l2", "penalty_weight": 0.001},
        {"method": "supervised", "penalty": "prototypes", "penalty_weight": 0.3},
        {"method": "episodic"},
        {"method": "episodic", "within": "script", "episodes": 2, "way": 3, "temperature": 4.0},
    ],
)
def test_training_helps_novel_classes(bank, settings):
    novel = load_pixels(_bank(seed=7), 0, "cpu")
    x = novel.x.permute(0, 3, 1, 2)
    part = ConvNet(**{**QUICK, "epochs": 4, "steps": 30, "average": 0.9, **settings}).fit(bank, _rng())
    untrained = ConvNet(**QUICK)
    untrained.build(part.facts_)
    assert part.embed(x).shape == (48, 64)
    assert nearest_mean_score(part.embed(x), novel)[0] > 60  # 20 by chance


class Killed(Exception):
    """What stands for a process that is killed."""


@pytest.mark.parametrize("stage", ["supervised", "episodic"])
def test_a_killed_fit_goes_on_to_the_same_weights(bank, tmp_path, stage):
    part = ConvNet(method="both", **{**QUICK, "epochs": 18, "steps": 52, "average": 0.9})

    def kill(name, fraction, loss):
        if name == stage and fraction > 0:
            raise Killed

    with pytest.raises(Killed):
        replace(part).fit(bank, _rng(), run=Run(folder=tmp_path, checkpoint_every=0.05, progress=kill))
    with pytest.raises(InputError, match="was begun with epochs=18, and now epochs=3 is asked for"):
        replace(part, epochs=3).fit(bank, _rng(), run=Run(folder=tmp_path))
    resumed = replace(part).fit(bank, _rng(), run=Run(folder=tmp_path))
    assert made_by(resumed) == made_by(replace(part).fit(bank, _rng()))


def test_no_bit_of_a_picture_depends_on_the_others(fitted, bank, products):
    x = bank.examples(torch.arange(48)).x
    order = torch.randperm(48, generator=_rng())
    with products():
        whole = fitted.embed(x)
        assert torch.equal(fitted.embed(x[5:9]), whole[5:9])
        assert torch.equal(fitted.embed(x[order]), whole[order])
        assert torch.equal(fitted.embed(x / 255), whole)
        assert torch.equal(fitted.embed(list(x)), whole)
        assert torch.equal(pickle.loads(pickle.dumps(fitted)).embed(x), whole)
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    assert fitted.embed(x[:0]).shape == (0, 64)


def test_embedding_leaves_the_part_as_it_was_and_follows_its_weights(fitted, bank):
    x = bank.examples(torch.arange(4)).x
    part = pickle.loads(pickle.dumps(fitted))
    before, size = made_by(part), len(pickle.dumps(part))
    first = part.embed(x)
    assert (made_by(part), len(pickle.dumps(part))) == (before, size)
    with torch.no_grad():
        part.net_.mean += 0.5
    moved = part.embed(x)
    assert not torch.equal(moved, first)
    part.net_.load_state_dict(fitted.net_.state_dict())
    assert torch.equal(part.embed(x), first)
    other = ConvNet(**QUICK, method="episodic").fit(bank, _rng(3))
    assert not torch.equal(other.embed(x), first)
    other.net_ = part.net_
    assert torch.equal(other.embed(x), first)


def test_pictures_of_another_form_are_refused_or_made_to_fit(fitted, bank):
    with pytest.raises(InputError, match=r"was trained on pictures \[1, 16, 16\] and got \[3, 16, 16\]"):
        fitted.embed(torch.zeros(2, 3, 16, 16))
    with pytest.raises(InputError, match=r"and got \[1, 20, 20\]"):
        fitted.embed(torch.zeros(2, 1, 20, 20))
    part = ConvNet(**{**QUICK, "epochs": 1}, size=16).fit(_bank(channels=3), _rng())
    grey = torch.randint(0, 256, (3, 1, 20, 24), dtype=torch.uint8, generator=_rng())
    assert torch.allclose(part.embed(grey), part.embed(grey.expand(-1, 3, -1, -1)))


def test_wrong_settings_and_banks_are_refused(bank):
    for settings, said in (
        ({"way": 1}, "way=1 was given; expected at least 2"),
        ({"epochs": 0}, "epochs=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"drop": 1.0}, "drop=1.0"),
        ({"size": -1}, "size=-1"),
        ({"penalty_weight": -1.0}, "penalty_weight=-1.0"),
        ({"penalty": "sgm", "head": "cosine"}, "expected head='linear'"),
    ):
        with pytest.raises(InputError, match=said):
            ConvNet(**settings)
    with pytest.raises(InputError, match="at least 2 base classes"):
        ConvNet(**QUICK).fit(bank.only(["c1"]), _rng())
    with pytest.raises(InputError, match="holds features"):
        ConvNet(**QUICK).fit(FeatureBank(torch.rand(4, 2), torch.arange(4) % 2, ("a", "b")), _rng())
    with pytest.raises(InputError, match="conv4 is not fitted yet"):
        ConvNet().embed(torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="the loss became"):
        ConvNet(**{**QUICK, "lr": 1e30, "epochs": 20}).fit(bank, _rng())


def test_it_is_saved_and_loaded(fitted, bank, tmp_path):
    save_part(fitted, tmp_path, "representation")
    loaded = load_part(tmp_path, "representation")
    assert loaded == fitted or made_by(loaded) == made_by(fitted)
    assert part_digest(loaded, "representation") == part_digest(fitted, "representation")
    x = bank.examples(torch.arange(4)).x
    assert torch.equal(loaded.embed(x), fitted.embed(x))


def test_catalog_names_carry_their_backbone():
    for name in ("conv4", "resnet10", "resnet12", "resnet18"):
        part = catalog.make(name, {"epochs": "7"}, "representation")
        assert (part.arch, part.epochs) == (name, 7)
        described = catalog.describe(part, "representation")
        assert described["name"] == name
        assert catalog.make(**described, kind="representation") == part


def test_training_episodes_hold_no_row_twice_and_begin_with_a_group():
    bank = _bank(classes=8)
    data = load_pixels(bank, 0, "cpu", "script")
    rows = draw_episodes(data, (40, 5, 6), True, _rng())
    labels = data.y[rows]
    assert (labels == labels[..., :1]).all()
    assert all(len(episode.unique()) == 30 for episode in rows)
    for episode in labels[..., 0]:
        assert len(episode.unique()) == 5
        assert max((episode % 2 == side).sum() for side in (0, 1)) == 4  # all four of one script, and another
    assert len(labels[:, :, 0].unique()) == 8


def test_classes_with_few_rows_are_leave_one_out_loss():
    bank = _bank()
    few = torch.arange(48)[(bank.y != 2) | (torch.arange(48) % 8 < 2)]
    data = load_pixels(replace(bank, y=bank.y[few], index=few, groups={}), 0, "cpu")
    assert 2 not in data.y[draw_episodes(data, (30, 5, 4), False, _rng())]


def test_turning_tells_the_angle():
    x = torch.rand(8, 3, 4, 4, generator=_rng())
    pictures, angle = turned(x)
    assert angle.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for picture, old, k in zip(pictures, x, angle.tolist(), strict=True):
        assert torch.equal(picture, torch.rot90(old, k, (1, 2)))


def test_the_sgm_loss_is_the_squared_gradient_of_each_row():
    layer, bias = torch.randn(4, 5, generator=_rng(1)).requires_grad_(), torch.randn(4, generator=_rng(2))
    x, y = torch.randn(7, 5, generator=_rng()), torch.arange(7) % 4
    closed = squared_gradients(x, x @ layer.T + bias, y)
    each = []
    for row, label in zip(x, y, strict=True):
        loss = torch.nn.functional.cross_entropy((layer @ row + bias)[None], label[None])
        each.append(torch.autograd.grad(loss, layer)[0].square().sum())
    assert torch.allclose(closed, torch.stack(each).mean(), rtol=1e-5)


def test_prototypical_logits_against_a_loop():
    support, query = torch.randn(2, 3, 4, 5, generator=_rng()), torch.randn(2, 3, 6, 5, generator=_rng(1))
    logits = prototypical_logits(support, query.flatten(1, 2), temperature=2.0)
    for e in range(2):
        for q, row in enumerate(query[e].flatten(0, 1)):
            for c in range(3):
                distance = float((row - support[e, c].mean(0)).square().sum())
                assert float(logits[e, q, c]) == pytest.approx(-distance / 2, rel=1e-4)
    target = torch.arange(3).repeat_interleave(6)
    expected = sum(torch.nn.functional.cross_entropy(logits[e], target) for e in range(2)) / 2
    assert torch.allclose(prototypical_loss(support, query, 2.0), expected)
    assert torch.allclose(prototypical_accuracy(support, query), (logits.argmax(2) == target).float().mean(1))


def test_left_out_prototypes_are_the_means_of_all_other_rows():
    x = torch.randn(9, 4, generator=_rng())
    y = torch.tensor([5, 1, 5, 2, 1, 5, 7, 2, 2])  # 7 has one row: it asks nothing
    unit, losses = torch.nn.functional.normalize(x, dim=1), []
    for i in range(9):
        others = torch.arange(9) != i
        if not (y[others] == y[i]).any():
            continue
        means = torch.stack([unit[others & (y == c)].mean(0) for c in (1, 2, 5, 7)])
        scores = 10 * torch.nn.functional.cosine_similarity(unit[i], means)
        losses.append(torch.nn.functional.cross_entropy(scores, torch.tensor((1, 2, 5, 7).index(int(y[i])))))
    assert len(losses) == 8
    assert torch.allclose(leave_one_out_loss(x, y), torch.stack(losses).mean(), rtol=1e-5)
    alone = x[:4].clone().requires_grad_()
    leave_one_out_loss(alone, torch.arange(4)).backward()  # nothing is asked, and nothing pulls
    assert torch.equal(alone.grad, torch.zeros(4, 4))


@pytest.mark.parametrize("penalty", ["sgm", "l2"])
def test_a_penalty_makes_features_shorter_and_zero_weight_is_none(bank, penalty):
    x = bank.examples(torch.arange(48)).x
    plain, none, much = (
        ConvNet(**{**QUICK, "epochs": 6, "average": 0.0}, **settings).fit(bank, _rng()).embed(x)
        for settings in ({}, {"penalty": penalty, "penalty_weight": 0.0}, {"penalty": penalty, "penalty_weight": 0.5})
    )
    assert torch.equal(plain, none)
    assert much.norm(dim=1).mean() < 0.8 * plain.norm(dim=1).mean()
