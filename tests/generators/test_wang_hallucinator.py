from dataclasses import replace

import pytest
import torch

from augforge import chance
from augforge.classifiers.pmn import PrototypeMatching
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import FeatureBank
from augforge.generators.shared.feature_learning import EpisodeSettings
from augforge.generators.wang_hallucinator import WangHallucinator
from augforge.generators.wang_hallucinator.meta_training import MetaTraining, ThroughClassifier
from augforge.generators.wang_hallucinator.network import Hallucination, RowEmbedding
from augforge.parts.saving import load_part, save_part
from augforge.types import Examples, InputError

QUICK = {"steps": 4, "way": 3, "shots": "1,2", "queries": 2, "episodes": 2, "fill": 4}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _bank(classes=8, each=6, d=5, seed=0, shift=1.0):
    rng = _rng(seed)
    y = torch.arange(classes).repeat_interleave(each)
    x = (torch.rand(classes, d, generator=rng)[y] * 3 + 0.3 * torch.randn(len(y), d, generator=rng) + shift).relu()
    return FeatureBank(x, y, tuple(f"{seed}-{i}" for i in range(classes)))


SUPPORT = Examples(_bank(seed=5).x[:9], torch.tensor([0, 0, 1, 2, 2, 2, 1, 0, 1]))
WANT = torch.tensor([2, 0, 1, 1, 0, 2, 2])
KEYS = chance.row_keys(0, "wang", torch.arange(7))


def test_at_its_start_made_rows_are_copies():
    part = WangHallucinator()
    part.build({"features": 5, "relus": 3})
    made = part.synthesize(SUPPORT, WANT, KEYS)
    assert torch.equal(made.x, SUPPORT.x[made.parent])


def test_training_through_prototypes_lowers_the_loss_and_uses_the_noise():
    rng = _rng()
    y = torch.arange(12).repeat_interleave(12)
    x = (torch.randn(12, 8, generator=rng)[y] + torch.randn(144, 8, generator=rng) + 2).relu()
    base = FeatureBank(x, y, tuple("abcdefghijkl"))
    part = WangHallucinator(steps=51, rate=5e-3, way=8, shots="1", queries=4, episodes=4, fill=5).fit(base, _rng())
    first, last = (line["loss"] for line in part.history if "loss" in line)
    assert last < 0.95 * first
    found = part.history[-1]["collapse"]
    assert found["moved"] > 0.01
    assert found["from_noise"] > 0
    still = replace(part, noise_scale=0.0)
    still.net_, still.facts_ = part.net_, part.facts_
    alone, one = Examples(x[:1], torch.zeros(1, dtype=torch.int64)), torch.zeros(4, dtype=torch.int64)
    assert len(torch.unique(still.synthesize(alone, one, KEYS[:4]).x, dim=0)) == 1
    assert len(torch.unique(part.synthesize(alone, one, KEYS[:4]).x, dim=0)) > 1


@pytest.mark.parametrize(("shift", "asked", "relus"), [(1.0, None, 3), (-9.0, None, 3), (1.0, False, 2)])
def test_the_last_relu_is_chosen_by_the_features(shift, asked, relus):
    assert WangHallucinator(final_relu=asked, **QUICK).fit(_bank(shift=shift), _rng()).facts_["relus"] == relus


def test_negative_features_leave_out_the_last_relu():
    base = _bank()
    signed = FeatureBank(base.x - 2, base.y, base.classes)
    part = WangHallucinator(**QUICK).fit(signed, _rng())
    assert part.facts_["relus"] == 2
    assert WangHallucinator(final_relu=True, **QUICK).fit(signed, _rng()).facts_["relus"] == 3


def test_features_of_another_size_train_alike():
    base = _bank()
    larger = FeatureBank(base.x * 64, base.y, base.classes)
    one, other = (WangHallucinator(**QUICK).fit(bank, _rng()) for bank in (base, larger))
    large = Examples(SUPPORT.x * 64, SUPPORT.y)
    assert torch.allclose(other.synthesize(large, WANT, KEYS).x, 64 * one.synthesize(SUPPORT, WANT, KEYS).x, rtol=1e-3)


@pytest.mark.parametrize("through", ["matching", "pmn"])
def test_the_classifier_is_trained_too_and_saved(through, tmp_path):
    part = WangHallucinator(through=through, **QUICK).fit(_bank(), _rng())
    assert part.classifier_.context_ is part.context_
    longer = WangHallucinator(through=through, **{**QUICK, "steps": 8}).fit(_bank(), _rng())
    assert any(
        not torch.equal(a, b) for a, b in zip(part.context_.parameters(), longer.context_.parameters(), strict=True)
    )
    save_part(part, tmp_path / "part")
    loaded = load_part(tmp_path / "part")
    query = SUPPORT.x[:4]
    assert torch.equal(loaded.classifier_.scores(SUPPORT, query), part.classifier_.scores(SUPPORT, query))
    if through == "pmn":
        save_part(part.classifier_, tmp_path / "pmn", "classifier")
        again = load_part(tmp_path / "pmn", "classifier")
        assert isinstance(again, PrototypeMatching)
        assert torch.equal(again.scores(SUPPORT, query), part.classifier_.scores(SUPPORT, query))


def test_validation_classes_choose_among_points_of_training():
    part = WangHallucinator(**{**QUICK, "steps": 10, "shots": "1"}).fit(_bank(), _rng(), _bank(seed=3))
    judged = [line for line in part.history if "val_accuracy" in line]
    assert [line["step"] for line in judged] == [0, *range(1, 11)]
    assert all(0 <= line["val_accuracy"] <= 100 for line in judged)
    without = WangHallucinator(**{**QUICK, "steps": 10, "shots": "1"}).fit(_bank(), _rng())
    assert not any("val_accuracy" in line for line in without.history)


def test_the_best_point_of_training_is_kept():
    base, val = _bank(), _bank(seed=3)
    settings = EpisodeSettings(3, (1,), 2, 2, 4)

    def run(steps, rate):
        net = Hallucination(5)
        model = ThroughClassifier(net, None, 1.0, 1.0)
        history = MetaTraining(model, Prototype(), settings, steps, rate, _rng()).run((base.x, base.y), (val.x, val.y))
        return net, [line["val_accuracy"] for line in history if "val_accuracy" in line]

    net, accuracies = run(10, 1.0)  # a rate at which training goes astray
    best = max(accuracies[1:])  # the start is no candidate
    assert min(accuracies[1:]) < best
    again = MetaTraining(ThroughClassifier(net, None, 1.0, 1.0), Prototype(), settings, 1, 1e-30, _rng())
    kept = again.run((base.x, base.y), (val.x, val.y))
    assert kept[0]["val_accuracy"] == best  # the same episodes and noise, as the generator is the same


def test_it_is_differentiable_in_the_support_and_the_network():
    part = WangHallucinator(**QUICK).fit(_bank(), _rng())
    x = SUPPORT.x.clone().requires_grad_()
    part.synthesize(Examples(x, SUPPORT.y), WANT, KEYS).x.sum().backward()
    assert x.grad.abs().sum() > 0
    assert part.net_.noise.weight.grad.abs().sum() > 0


def test_several_episodes_at_once_are_the_mean_of_one_at_a_time():
    net = Hallucination(5)
    with torch.no_grad():
        net.noise.weight.add_(0.1 * torch.randn(5, 5, generator=_rng()))
    model, classifier = ThroughClassifier(net, None, 1.0, 2.0), Prototype()
    support, query, z = (torch.rand(4, 3, n, 5, generator=_rng(n)) for n in (2, 4, 6))
    together = model.loss(classifier, support, query, z)
    apart = [model.loss(classifier, *(part[i : i + 1] for part in (support, query, z))) for i in range(4)]
    assert torch.allclose(together, torch.stack(apart).mean(), rtol=2e-2)  # bfloat16 on some machines


def test_rows_of_a_class_are_used_in_turn():
    model = ThroughClassifier(Hallucination(5), None, 1.0, 1.0)  # copies
    support = torch.rand(1, 2, 2, 5, generator=_rng()).to(torch.bfloat16).float()
    query = torch.rand(1, 3, 5, generator=_rng(1))
    found = model.scores(Prototype(), support, query, torch.randn(1, 2, 3, 5, generator=_rng()))
    rows = torch.cat([support[0], support[0][:, [0, 1, 0]]], 1)  # [way, 5, d]
    expected = Prototype().scores(Examples(rows.flatten(0, 1), torch.tensor([0] * 5 + [1] * 5)), query[0])
    assert torch.allclose(found[0], expected, atol=1e-4)


def test_episodes_are_drawn_shot_by_shot_without_overlap():
    y = _bank().y
    settings = EpisodeSettings(20, (1, 3), 2, 4, 5).within(y)
    assert settings.way == 8
    batches = settings.batches(y, 0)
    for i in range(70):  # more than are drawn at once
        support, query = next(batches)
        assert support.shape == (4, 8, (1, 3)[i % 2])
        rows = torch.cat([support, query], 2)
        assert torch.equal(y[rows], y[rows[:, :, :1]].expand_as(rows))
        assert all(len(torch.unique(episode)) == episode.numel() for episode in rows)


@pytest.mark.parametrize(
    "bad",
    [{"fill": 5}, {"shots": "1,x"}, {"shots": ""}, {"shots": "0"}, {"rate": 0.0}, {"way": 1}, {"steps": 0},
     {"noise_scale": -1.0}, {"noise_width": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(InputError):
        WangHallucinator(**bad)


def test_classes_too_few_are_refused():
    with pytest.raises(InputError, match="need 2 classes"):
        WangHallucinator(**QUICK).fit(_bank(classes=1), _rng())


def test_made_rows_count_as_rows_through_prototypes():
    net, generator = Hallucination(5), _rng()
    with torch.no_grad():
        net.noise.weight.add_(0.3 * torch.randn(5, 5, generator=generator))
    support, query = torch.rand(2, 3, 2, 5, generator=generator), torch.rand(2, 4, 5, generator=generator)
    z = torch.randn(2, 3, 6, 5, generator=generator)
    found = ThroughClassifier(net, None, 2.0, 1.0).scores(Prototype(), support, query, z)
    made = 2 * net(support[:, :, torch.arange(6) % 2] / 2, z)
    rows = torch.cat([support, made], 2).flatten(1, 2)
    expected = Prototype().scores(Examples(rows, torch.arange(3).repeat_interleave(8).expand(2, -1)), query)
    torch.testing.assert_close(found, expected, atol=3e-2, rtol=3e-2)  # bfloat16 on some machines


def _moved(module, scale=0.3, seed=0):
    """The module with random numbers added to its parameters."""
    generator = _rng(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def test_the_embedding_starts_as_the_identity_and_is_rescaled_as_said():
    x = torch.randn(7, 5, generator=_rng())
    assert torch.equal(RowEmbedding(5)(x), x)
    embed, other = _moved(RowEmbedding(5)), _moved(RowEmbedding(5))
    other.rescale_(4.0, 0.5)
    torch.testing.assert_close(other(4 * x), 0.5 * embed(x))


def test_the_classifier_is_trained_behind_the_embedding():
    net, embed = _moved(Hallucination(5)), _moved(RowEmbedding(5))
    support, query, z = (torch.rand(2, 3, n, 5, generator=_rng(n)) for n in (2, 4, 6))
    found = ThroughClassifier(net, None, 2.0, 1.0, embed).scores(Prototype(), support, query.flatten(1, 2), z)
    rows = torch.cat([support, 2 * net(support[:, :, torch.arange(6) % 2] / 2, z)], 2)
    labels = torch.arange(3).repeat_interleave(8).expand(2, -1)
    expected = Prototype().scores(Examples(embed(rows).flatten(1, 2), labels), embed(query).flatten(1, 2))
    torch.testing.assert_close(found, expected, atol=0.1, rtol=5e-2)  # bfloat16 on some machines


def test_own_scores_are_those_of_the_classifier_in_training():
    base = _bank()
    part = WangHallucinator(**{**QUICK, "shots": "1", "rate": 3e-2}).fit(base, _rng())
    x = SUPPORT.x[[0, 2, 3]]  # one row of each of three classes
    query = _bank(seed=5).x[9:20]
    made = part.net_(x[:, None], torch.zeros(5))
    embed = part.embedding_
    still = replace(part, noise_scale=0.0)
    for name in ("net_", "embedding_", "facts_", "classifier_"):
        setattr(still, name, getattr(part, name))
    rows = torch.cat([x[:, None], made.expand(3, part.fill - 1, 5)], 1)
    expected = Prototype().scores(
        Examples(embed(rows).flatten(0, 1), torch.arange(3).repeat_interleave(part.fill)), embed(query)
    )
    torch.testing.assert_close(still.scores(Examples(x, torch.arange(3)), query), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("through", ["prototype", "matching", "pmn"])
def test_own_scores_know_no_order_and_no_batch_and_are_saved(through, tmp_path):
    part = WangHallucinator(through=through, **QUICK).fit(_bank(), _rng())
    query = _bank(seed=5).x[9:15]
    with torch.no_grad():
        found = part.scores(SUPPORT, query)
        assert found.shape == (6, 3)
        order = torch.randperm(9, generator=_rng())
        torch.testing.assert_close(part.scores(SUPPORT.take(order), query), found, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(part.scores(SUPPORT, query[2:3]), found[2:3], atol=1e-4, rtol=1e-4)
        two = Examples(SUPPORT.x.expand(2, -1, -1), SUPPORT.y.expand(2, -1))
        torch.testing.assert_close(part.scores(two, query.expand(2, -1, -1))[1], found, atol=1e-4, rtol=1e-4)
        padded = Examples(torch.cat([SUPPORT.x, SUPPORT.x[:2]]), torch.cat([SUPPORT.y, torch.tensor([-1, -1])]),
                          weight=torch.tensor([1.0] * 9 + [0.0] * 2))  # fmt: skip
        torch.testing.assert_close(part.scores(padded, query), found, atol=1e-4, rtol=1e-4)
        save_part(part, tmp_path / "part")
        assert torch.equal(load_part(tmp_path / "part").scores(SUPPORT, query), found)


def test_own_scores_need_a_fit_and_as_many_features():
    with pytest.raises(InputError, match="fit"):
        WangHallucinator().scores(SUPPORT, SUPPORT.x)
    part = WangHallucinator(embedding=False, **QUICK).fit(_bank(), _rng())
    assert part.embedding_ is None
    wide = torch.rand(9, 6, generator=_rng())
    with pytest.raises(InputError, match="5 features; these rows have 6"):
        part.scores(Examples(wide, SUPPORT.y), wide)
