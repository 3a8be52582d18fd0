import copy
import math

import pytest
import torch

from augforge import chance
from augforge.classifiers.feature_transforms import TRANSFORMS
from augforge.classifiers.prototype import Prototype
from augforge.classifiers.two_covariance import IGNORE_SPREAD, SPREAD, WEIGHT, WEIGHT_SLOPE
from augforge.data.banks import FeatureBank
from augforge.generators.hallucinator import Hallucinator
from augforge.generators.posterior import Posterior
from augforge.generators.shared.posterior.domain import in_domain
from augforge.generators.shared.posterior.gate import gated, plain_scores
from augforge.generators.shared.posterior.held_out import SHOTS
from augforge.parts.saving import load_part, part_digest, save_part
from augforge.types import Examples, InputError

BRIEF = {"steps": 20, "way": 5, "made": 4}


def bank(classes=24, each=12, d=6, seed=0):
    """Classes of one two-covariance model; `seed` says which."""
    rng = torch.Generator().manual_seed(7)
    width = torch.exp(torch.randn(d, generator=rng))
    between, turn = torch.randn(d, d, generator=rng), torch.linalg.qr(torch.randn(d, d, generator=rng))[0]
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(each)
    x = torch.randn(classes, d, generator=rng)[y] @ between + torch.randn(len(y), d, generator=rng) * width @ turn
    return FeatureBank(x, y, tuple(f"{seed}-{k}" for k in range(classes)))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def episode(counts=(1, 3, 2), d=6, seed=3, dtype=torch.float32):
    new = bank(len(counts), 12, d, seed).x.view(len(counts), 12, d).to(dtype)
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Examples(torch.cat([new[k, :n] for k, n in enumerate(counts)]), y), new[:, 6:].flatten(0, 1)


def keys_of(n):
    return chance.row_keys(0, "test", torch.arange(n))


@pytest.fixture(scope="module")
def fitted():
    return Hallucinator(**BRIEF).fit(bank(), rng(), bank(seed=1))


@pytest.fixture(scope="module")
def started():
    """Four posteriors, weighed alike, with nothing learnt."""
    return Hallucinator(**BRIEF, bend=False).fit(bank(), rng(), bank(seed=1))


def without_noise(part):
    """The same fitted part with draws that do not spread, and models of its own."""
    still = copy.deepcopy(part)
    still.noise_scale = 0.0
    return still


def test_on_classes_of_the_model_imagination_counts_and_new_classes_gain(fitted):
    assert (fitted.gate_[:3, 0] > 0).all()  # 1, 2 and 5 shots, which 12 rows are enough for
    new = bank(classes=20, seed=11).x.view(20, 12, 6)
    for shot in (1, 5):
        support = Examples(new[:, :shot].flatten(0, 1), torch.arange(20).repeat_interleave(shot))
        query, target = new[:, 5:].flatten(0, 1), torch.arange(20).repeat_interleave(7)
        ours, plain = (p.scores(support, query).argmax(1) for p in (fitted, Prototype()))
        assert float((ours == target).float().mean()) > float((plain == target).float().mean()) + 0.1


def test_learning_gains_on_held_out_classes(fitted, started):
    learnt, not_learnt = ([line["gain"] for line in part.history] for part in (fitted, started))
    assert [line["shot"] for line in fitted.history] == [1, 2, 5]
    assert all(now > before + 2 for now, before in zip(learnt, not_learnt, strict=True))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_at_the_start_one_transform_alone_is_the_posterior(transform, started):
    base, val = bank(), bank(seed=1)
    # Where there are as many validation rows as base rows, half of S_w from each is S_w of all.
    part = without_noise(started)
    for i, model in enumerate(part.models_):
        model.numbers[WEIGHT] = 0.0 if i == TRANSFORMS.index(transform) else -math.inf
    part.gate_, part.plain_gate_ = torch.tensor([1.0, 0.0, 0.0]).repeat(len(SHOTS), 1), None
    other = Posterior(transform, 0.4, 1.0, "gaussian", gated=False, noise_scale=0.0).fit(base, rng(), val)
    support, query = episode()
    found, expected = (p.scores(support, query) for p in (part, other))
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-3)
    made, expected = (p.synthesize(support, torch.arange(3), keys_of(3)).x for p in (part, other))
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=1e-3)


def test_it_starts_as_posteriors_weighed_alike(started):
    for model in started.models_:
        expected = torch.zeros(8)
        expected[SPREAD], expected[WEIGHT] = IGNORE_SPREAD, -math.log(4)
        assert torch.equal(model.numbers, expected)


def test_scores_add_up_the_models_by_their_weights(fitted):
    support, query = episode((2, 2, 2))
    total = 0
    for model in fitted.models_:
        x = model.mapped(support.x).view(3, 2, -1)
        mean, scatter = x.mean(1), (x - x.mean(1, keepdim=True)).square().sum(1)
        mean, variance = model.predictive(mean, torch.full((3,), 2.0), scatter)
        weight = torch.exp(model.numbers[WEIGHT] + model.numbers[WEIGHT_SLOPE] * math.log(2))
        total = total + weight * model.log_density(model.mapped(query)[None], mean[None], variance[None])[0]
    part = copy.copy(fitted)
    part.within_rows, part.plain_gate_ = 0.0, None
    total = float(fitted.gate_[1, 0]) * total
    for which, weight in enumerate(fitted.gate_[1, 1:].tolist()):
        total = total + weight * plain_scores(which, support, query, fitted.centre_)
    torch.testing.assert_close(part.scores(support, query), total, atol=1e-3, rtol=1e-4)


def test_in_the_end_all_classes_are_known(fitted):
    assert all(len(model.classes) == 48 for model in fitted.models_)


def test_with_no_classes_left_to_test_on_nothing_is_learnt():
    part = Hallucinator(**BRIEF).fit(bank(), rng(), bank(classes=8, seed=1))
    assert all(float(model.numbers[SPREAD]) == pytest.approx(IGNORE_SPREAD) for model in part.models_)
    assert len(part.models_[0].classes) == 32


def test_trust_is_how_much_of_s_w_comes_from_validation_classes():
    base, val = bank(each=7), bank(each=7, seed=1)
    wide = FeatureBank(val.x * 3, val.y, val.classes)
    sizes = []
    for trust in (0.0, 0.5, 1.0):
        part = Hallucinator(**BRIEF, trust=trust, shrinkage=0.0, bend=False).fit(base, rng(), wide)
        raw = part.models_[0]
        sizes.append(float((raw.back.T @ raw.back).trace()))
    spread = [sum(float(torch.cov(b.x[b.y == k].T).trace()) for k in range(24)) / 24 for b in (base, wide)]
    assert sizes == pytest.approx([spread[0], (spread[0] + spread[1]) / 2, spread[1]], rel=1e-3)


def test_where_the_gate_is_closed_a_plain_classifier_gives_the_scores(fitted):
    part = copy.copy(fitted)
    support, query = episode((2, 2, 2))
    for which in range(4):
        part.gate_ = torch.tensor([0.0, float(which), 4.0]).repeat(len(SHOTS), 1)
        part.plain_gate_ = None
        torch.testing.assert_close(part.scores(support, query), plain_scores(which, support, query, part.centre_))


def test_features_that_hold_nothing_of_classes_show_no_gain_and_rows_weigh_little():
    """Held-out classes that were in the statistics would: in many dimensions their means alone give them away."""

    def noise(seed):
        y = torch.arange(24).repeat_interleave(8)
        return FeatureBank(torch.randn(192, 24, generator=rng(seed)), y, tuple(f"{seed}-{k}" for k in range(24)))

    part = Hallucinator(**BRIEF).fit(noise(1), rng(), noise(2))
    assert (part.shares_[:, 0] < 0.5).all()
    assert all(line["gain"] < 3 * line["error"] for line in part.history)


def test_fitting_is_a_function_of_the_generator_alone():
    base, val = bank(each=7), bank(each=7, seed=1)
    digests = [part_digest(Hallucinator(**BRIEF).fit(base, rng(seed), val)) for seed in (4, 5, 4)]
    assert digests[2] == digests[0]
    assert digests[0] != digests[1]


def test_saved_and_read_it_scores_and_draws_the_same(tmp_path, fitted):
    save_part(fitted, tmp_path)
    other, (support, query) = load_part(tmp_path), episode()
    want = torch.tensor([2, 0, 1, 1, 0, 2])
    made, again = (p.synthesize(support, want, keys_of(6)) for p in (fitted, other))
    assert torch.equal(made.x, again.x)
    assert torch.equal(made.weight, again.weight)
    assert torch.equal(fitted.scores(support, query), other.scores(support, query))


def test_a_batch_of_episodes_is_its_episodes(fitted):
    pairs = [episode((2, 2, 2), seed=seed) for seed in (3, 4)]
    batch = Examples(torch.stack([s.x for s, _ in pairs]), torch.stack([s.y for s, _ in pairs]))
    found = fitted.scores(batch, torch.stack([q for _, q in pairs]))
    for scores, (support, query) in zip(found, pairs, strict=True):
        torch.testing.assert_close(scores, fitted.scores(support, query), atol=1e-3, rtol=1e-4)


def test_draws_come_from_all_models_as_they_weigh(started):
    support, _ = episode((1,))
    part = without_noise(started)
    made = part.synthesize(support, torch.zeros(400, dtype=torch.int64), keys_of(400)).x
    _, counts = made.unique(dim=0, return_counts=True)  # without noise each model makes one row
    assert len(counts) == 4
    assert (counts - 100).abs().max() < 40


def test_gradients_reach_rows_and_numbers():
    part = Hallucinator(**BRIEF).fit(bank(d=3, each=7), rng(), bank(d=3, each=7, seed=1))
    part.gate_ = torch.tensor([1.0, 0.0, 4.0]).repeat(len(SHOTS), 1)  # open, with a vote, whatever was seen
    part.plain_gate_ = None
    support, query = episode((1, 2), d=3, dtype=torch.float64)
    part.models_.double()
    for model in part.models_:
        model.numbers.requires_grad_()

    def run(x):
        given = Examples(x, support.y)
        return part.scores(given, query), part.synthesize(given, torch.tensor([0, 1, 1]), keys_of(3)).x

    x = support.x.clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (x,))
    sum(out.square().sum() for out in run(x)).backward()
    for model in part.models_:
        assert torch.isfinite(model.numbers.grad).all()
        assert float(model.numbers.grad.abs().sum()) > 0


def test_what_it_cannot_use_is_refused(fitted):
    support, query = episode(d=5)
    with pytest.raises(InputError, match="hallucinator is not fitted yet"):
        Hallucinator().scores(support, query)
    with pytest.raises(InputError, match="fitted on 6 features; these rows have 5"):
        fitted.scores(support, query)
    for wrong in ({"trust": 2.0}, {"shrinkage": -0.1}, {"steps": 0}, {"lr": 0.0}, {"made": 0}):
        with pytest.raises(InputError, match="was given"):
            Hallucinator(**wrong)


@pytest.mark.parametrize("shot", [1, 3])
def test_rows_of_another_domain_are_left_to_plain_classifiers(fitted, shot):
    generator = rng(9)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0] * 6
    known, strange = bank(classes=8, seed=21).x, bank(classes=8, seed=21).x @ turn
    y = torch.arange(8).repeat_interleave(shot)
    for x, own_counts in ((known, True), (strange, False)):
        rows = x.view(8, 12, 6)
        support, query = Examples(rows[:, :shot].flatten(0, 1), y), rows[:, 6:].flatten(0, 1)
        trusted = float(in_domain(fitted.domain_, list(fitted.models_), support, query))
        assert (trusted > 0.9) if own_counts else (trusted < 0.01)
        plain = gated(fitted.plain_gate_, fitted.centre_, torch.zeros(48, 8), support, query)
        apart = (fitted.scores(support, query) - plain).abs().max() / plain.std()
        assert (float(apart) > 0.1) if own_counts else (float(apart) < 0.1)
