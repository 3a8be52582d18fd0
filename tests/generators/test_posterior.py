import dataclasses

import pytest
import torch
from torch.distributions import MultivariateNormal

from augforge import chance
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import FeatureBank
from augforge.generators import posterior as module
from augforge.generators.posterior import Posterior
from augforge.generators.shared.posterior.shares import FAMILIES
from augforge.imagine import usual_share
from augforge.parts.saving import load_part, part_digest, save_part
from augforge.types import Examples, InputError

GIVEN = {"transform": "raw", "shrinkage": 0.1, "between_scale": 1.0, "prior": "gaussian", "gated": False, "way": 5}


def bank(classes=40, each=30, d=6, seed=0, world=7, spread=1.0, tilt=2.0):
    """Classes of the two-covariance model: `world` says the covariances, `seed` what is drawn of them."""
    rng = torch.Generator().manual_seed(world)
    width = torch.exp(tilt * torch.randn(d, generator=rng)) ** 0.5  # of rows, along a turn of the axes
    turn = torch.linalg.qr(torch.randn(d, d, generator=rng))[0]
    between = spread * torch.randn(d, d, generator=rng)
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(each)
    x = torch.randn(classes, d, generator=rng)[y] @ between + torch.randn(len(y), d, generator=rng) * width @ turn
    return FeatureBank(x, y, tuple(f"{seed}-{k}" for k in range(classes)))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def support_of(counts, d=6, seed=3, dtype=torch.float64):
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = bank(len(counts), 30, d, seed).x.view(len(counts), 30, d)
    return Examples(torch.cat([x[k, :n] for k, n in enumerate(counts)]).to(dtype), y)


def keys_of(n, name="test"):
    return chance.row_keys(0, name, torch.arange(n))


@pytest.fixture(scope="module")
def given():
    return Posterior(**GIVEN).fit(bank(), rng(), bank(seed=1))


@pytest.fixture(scope="module")
def chosen():
    return Posterior(gated=False).fit(bank(), rng(), bank(seed=1))


def explicit(part, x):
    """Mean and covariance of what comes next of a class with rows [n, d], with whole matrices."""
    model = part.model_.double()
    within, between = model.back.T @ model.back, model.back.T @ torch.diag(model.psi) @ model.back
    precision = between.inverse() + len(x) * within.inverse()
    mean = precision.inverse() @ (between.inverse() @ model.mean + len(x) * within.inverse() @ x.mean(0))
    part.model_.float()
    return mean, within + precision.inverse()


def test_draws_have_the_predictive_mean_and_covariance(given):
    support = support_of((1, 3))
    want = torch.arange(2).repeat_interleave(20000)
    made = given.synthesize(support, want, keys_of(40000)).x
    for k in range(2):
        mean, covariance = explicit(given, support.x[support.y == k])
        drawn, scale = made[want == k], covariance.diagonal().sqrt()
        torch.testing.assert_close(drawn.mean(0) / scale, mean / scale, atol=0.03, rtol=0)
        found = torch.cov(drawn.T) / scale / scale[:, None]
        torch.testing.assert_close(found, covariance / scale / scale[:, None], atol=0.04, rtol=0)


def test_a_gaussian_fitted_to_many_draws_scores_as_the_exact_formula(given):
    support, query = support_of((1, 2, 5)), support_of((8, 8, 8), seed=3).x
    want = torch.arange(3).repeat_interleave(30000)
    made = given.synthesize(support, want, keys_of(90000)).x
    fitted = torch.stack(
        [MultivariateNormal(made[want == k].mean(0), torch.cov(made[want == k].T)).log_prob(query) for k in range(3)],
        1,
    )
    exact = given.scores(support, query)
    apart = (fitted - fitted.mean(1, keepdim=True)) - (exact - exact.mean(1, keepdim=True))
    assert float(apart.abs().mean()) < 0.05 * float((exact - exact.mean(1, keepdim=True)).abs().mean()) + 0.05


def test_without_noise_a_draw_is_the_predictive_mean(given):
    part = dataclasses.replace(given, noise_scale=0.0)
    part.model_, part.shares_ = given.model_, given.shares_
    support = support_of((1, 3))
    made = part.synthesize(support, torch.tensor([0, 1, 1]), keys_of(3)).x
    for k, row in zip((0, 1, 1), made, strict=True):
        torch.testing.assert_close(row, explicit(given, support.x[support.y == k])[0], atol=1e-4, rtol=1e-4)


def test_noise_scale_multiplies_all_of_the_spread():
    parts = [
        Posterior(**GIVEN, rank=2, noise_scale=scale).fit(bank(), rng(), bank(seed=1)) for scale in (0.0, 0.5, 1.0)
    ]
    support, want = support_of((2,)), torch.zeros(5, dtype=torch.int64)
    none, half, whole = (part.synthesize(support, want, keys_of(5)).x for part in parts)
    torch.testing.assert_close(whole - none, 2 * (half - none), atol=1e-6, rtol=1e-6)


def test_draws_of_few_coordinates_spread_as_rows_do():
    generator = rng(5)
    y = torch.arange(200).repeat_interleave(10)
    x = 2 * torch.randn(200, 2, generator=generator)[y] @ torch.randn(2, 12, generator=generator)
    base = FeatureBank(x + torch.randn(2000, 12, generator=generator), y, tuple(map(str, range(200))))
    part = Posterior(**GIVEN | {"shrinkage": 0.0}, rank=4).fit(base, generator)
    many = Examples(base.x[:10].double(), y[:10])
    made = part.synthesize(many, torch.zeros(20000, dtype=torch.int64), keys_of(20000)).x
    assert float(torch.cov(made.T).trace()) == pytest.approx(12 * 1.1, rel=0.08)  # a mean of 10 rows is a tenth off


@pytest.mark.parametrize("transform", ["sqrt", "centred-l2", "both"])
def test_transformed_draws_have_the_predictive_mean(transform):
    part = Posterior(**GIVEN | {"transform": transform}, noise_scale=0.0).fit(bank(), rng(), bank(seed=1))
    support, model = support_of((3,)), part.model_
    made = part.synthesize(support, torch.zeros(4, dtype=torch.int64), keys_of(4)).x
    z = model.mapped(support.x)
    mu, _ = model.predictive(z.mean(0, keepdim=True), torch.tensor([3.0]).double(), None)
    place = model.mean + mu @ model.back.double()
    if transform != "sqrt":  # a length was given back, of one row or another
        place = torch.nn.functional.normalize(place, dim=1)
    torch.testing.assert_close(model.transformed(made), place.expand(4, -1), atol=1e-4, rtol=1e-4)


def accuracy(scores, way):
    return float((scores.argmax(1) == torch.arange(way).repeat_interleave(len(scores) // way)).float().mean())


@pytest.mark.parametrize("shot", [1, 5])
def test_on_classes_of_the_model_it_beats_nearest_means(chosen, shot):
    new = bank(classes=20, seed=11).x.view(20, 30, 6)
    support = Examples(new[:, :shot].flatten(0, 1), torch.arange(20).repeat_interleave(shot))
    query = new[:, 10:].flatten(0, 1)
    assert accuracy(chosen.scores(support, query), 20) > accuracy(Prototype().scores(support, query), 20) + 0.05


def test_where_base_classes_mislead_rows_weigh_nothing():
    def lie(seed, wide):
        """Classes differ along four axes, and rows along the other four."""
        generator, y = rng(seed), torch.arange(40).repeat_interleave(30)
        x = torch.randn(40, 8, generator=generator)[y] * (3.5 - wide) + torch.randn(1200, 8, generator=generator) * wide
        return FeatureBank(x, y, tuple(f"{seed}-{k}" for k in range(40)))

    wide = torch.tensor([3.0] * 4 + [0.5] * 4)
    part = Posterior(**GIVEN).fit(lie(1, wide), rng(), lie(2, wide.flip(0)))
    of_means_and_logistic = [FAMILIES.index("means"), FAMILIES.index("discriminative")]
    assert not part.shares_[of_means_and_logistic, :3].any()
    assert Posterior(**GIVEN).fit(lie(1, wide), rng(), lie(2, wide)).shares_[of_means_and_logistic, :3].all()
    new = lie(3, wide.flip(0)).x.view(40, 30, 8)[:10]
    support, query = Examples(new[:, :2].flatten(0, 1), torch.arange(10).repeat_interleave(2)), new[:, 9:].flatten(0, 1)
    both = support + part.synthesize(support, torch.arange(10).repeat_interleave(5), keys_of(50))
    torch.testing.assert_close(Prototype().scores(both, query), Prototype().scores(support, query))


def test_what_is_judged_is_not_in_the_statistics_meanwhile(monkeypatch):
    seen, real = [], module.learn

    def spy(model, found, *rest, **more):
        seen.append((model.transform, found))
        real(model, found, *rest, **more)

    monkeypatch.setattr(module, "learn", spy)
    base, val = bank(), bank(seed=1)
    part = Posterior(gated=False).fit(base, rng(), val)
    *choosing, (_, last) = seen
    kept = torch.stack([val.x[val.y == k].double().mean(0) for k in range(40)])
    assert len(choosing) > 12
    for transform, found in choosing:
        assert len(found.counts) == 40
        if transform == "raw":
            assert float(torch.cdist(found.means, kept).min()) > 1e-3
    assert len(last.counts) == 80
    assert part.model_.classes.shape[0] == 80


def test_settings_are_chosen_by_what_they_give(chosen):
    best = max(chosen.history, key=lambda tried: tried["right"])
    assert best["transform"] == chosen.model_.transform
    assert bool(chosen.model_.tau > 0) == (best["prior"] == "mixture")
    assert float(chosen.model_.numbers[module.SCALE].exp()) == pytest.approx(best["between_scale"])
    assert {tried["transform"] for tried in chosen.history} == set(module.TRANSFORMS)


def test_without_validation_classes_it_chooses_by_folds_of_the_base():
    part = Posterior(transform="both", gated=False).fit(bank(), rng())
    assert part.model_.classes.shape[0] == 40
    assert len(part.history) == 3 * 3 + 3


def test_what_is_given_is_not_chosen():
    part = Posterior(**GIVEN | {"prior": "mixture", "between_scale": 2.5}).fit(bank(), rng())
    assert (part.model_.transform, float(part.model_.tau) > 0) == ("raw", True)
    assert float(part.model_.numbers[module.SCALE].exp()) == pytest.approx(2.5)


def test_fitting_is_a_function_of_the_generator_alone():
    first = part_digest(Posterior("both").fit(bank(each=8), rng(4)))
    assert part_digest(Posterior("both").fit(bank(each=8), rng(4))) == first


@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
def test_saved_and_read_it_scores_and_draws_the_same(tmp_path, prior):
    part = Posterior(**GIVEN | {"transform": "both", "prior": prior}, rank=4).fit(bank(), rng(), bank(seed=1))
    save_part(part, tmp_path)
    other, support = load_part(tmp_path), support_of((1, 4, 2))
    want, query = torch.tensor([2, 0, 1, 1]), support_of((2, 2), seed=9).x
    made, again = (p.synthesize(support, want, keys_of(4)) for p in (part, other))
    assert torch.equal(made.x, again.x)
    assert torch.equal(made.weight, again.weight)
    assert torch.equal(part.scores(support, query), other.scores(support, query))


def test_a_weight_is_that_many_rows_and_no_weight_is_none(given):
    support = support_of((2, 3))
    copied = support.take(torch.tensor([0, 1, 1, 2, 3]))
    weighted = Examples(support.x, support.y, weight=torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0]))
    want, query = torch.tensor([0, 0, 1]), support_of((2, 2), seed=9).x
    torch.testing.assert_close(given.scores(weighted, query), given.scores(copied, query))
    made, expected = (given.synthesize(s, want, keys_of(3)) for s in (weighted, copied))
    torch.testing.assert_close(made.x, expected.x)
    assert torch.equal(made.weight, expected.weight)
    with pytest.raises(InputError, match="class 1 is wanted but has no support row"):
        given.synthesize(Examples(support.x, support.y, weight=(support.y == 0).double()), want, keys_of(3))


def test_a_class_does_not_depend_on_the_others(given):
    support, want = support_of((1, 20, 3)), torch.tensor([2, 1, 0, 1, 2])
    made = given.synthesize(support, want, keys_of(5))
    for k in range(3):
        alone = Examples(support.x[support.y == k], support.y[support.y == k])
        mine = want == k
        found = given.synthesize(alone, want[mine], keys_of(5)[mine])
        torch.testing.assert_close(found.x, made.x[mine])
        assert torch.equal(found.weight, made.weight[mine])


def test_a_row_weighs_its_part_of_the_share_at_its_number_of_shots(given):
    part = dataclasses.replace(given)
    part.model_, part.shares_ = given.model_, torch.zeros(4, 5)
    part.shares_[FAMILIES.index("discriminative")] = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    counts = torch.tensor([1, 2, 5, 10, 30])
    made = part.synthesize(support_of(counts.tolist()), torch.arange(5), keys_of(5))
    torch.testing.assert_close(made.weight, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]) * counts / part.made)
    between = part.share("discriminative", torch.tensor([2.0, 10**0.5, 5.0]))
    assert between.tolist() == pytest.approx([0.2, 0.25, 0.3])
    assert not part.share("means", counts).any()


def test_a_part_of_before_has_the_usual_shares(given):
    part = dataclasses.replace(given)
    part.model_, part.row_weights_ = given.model_, torch.zeros(5)  # what was saved in place of shares
    counts = torch.tensor([1, 5, 20])
    assert torch.equal(part.share("means", counts), usual_share("means", counts))
    assert part.synthesize(support_of((2,)), torch.tensor([0]), keys_of(1)).weight.all()


def test_a_pair_of_keys_has_the_mean_between():
    part = Posterior(**GIVEN).fit(bank(), rng(), bank(seed=1))
    still, support, want = dataclasses.replace(part, noise_scale=0.0), support_of((1, 3)), torch.tensor([0, 0, 1, 1])
    still.model_ = part.model_
    keys = chance.pair_keys(0, "pairs", torch.arange(4))
    drawn, middle = (p.synthesize(support, want, keys).x.view(2, 2, -1).mean(1) for p in (part, still))
    torch.testing.assert_close(drawn, middle)


def test_nothing_wanted_is_nothing_made(given):
    none, wanted = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    made = given.synthesize(support_of((2,)), wanted, keys_of(0))
    assert made.x.shape == (0, 6)
    assert len(given.synthesize(Examples(torch.zeros(0, 6), none), wanted, keys_of(0))) == 0
    with pytest.raises(InputError):
        given.synthesize(Examples(torch.zeros(0, 6), none), torch.tensor([0]), keys_of(1))


@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
@pytest.mark.parametrize("rank", [2, 9])
def test_gradients_of_rows_and_numbers(prior, rank):
    part = Posterior(**GIVEN | {"transform": "both", "prior": prior}, rank=rank).fit(bank(d=3), rng())
    model, support = part.model_.double(), support_of((1, 2), d=3)
    query = support_of((1, 1), d=3, seed=9).x
    numbers = torch.full((8,), 0.2, dtype=torch.float64, requires_grad=True)
    x, want = support.x.clone().requires_grad_(), torch.tensor([0, 1, 1])

    def run(x, numbers):
        del model._parameters["numbers"]
        model.numbers = numbers
        try:
            given = Examples(x, support.y)
            return part.scores(given, query), part.synthesize(given, want, keys_of(3)).x
        finally:
            del model.numbers
            model.numbers = torch.nn.Parameter(numbers.detach(), requires_grad=False)

    assert torch.autograd.gradcheck(run, (x, numbers))


def test_what_it_cannot_use_is_refused(given):
    with pytest.raises(InputError, match="posterior is not fitted yet"):
        Posterior().synthesize(support_of((1,)), torch.tensor([0]), keys_of(1))
    for call in (lambda s: given.scores(s, s.x), lambda s: given.synthesize(s, torch.tensor([0]), keys_of(1))):
        with pytest.raises(InputError, match="fitted on 6 features; these rows have 5"):
            call(support_of((1,), d=5))
    with pytest.raises(InputError, match="there are 3 base classes, expected at least 4"):
        Posterior().fit(bank(classes=3), rng())
    with pytest.raises(InputError, match="at least 2 rows to learn their spread"):
        Posterior().fit(bank(each=1), rng(), bank(seed=1))
    with pytest.raises(InputError, match="at least 2 classes with 6 rows"):
        Posterior().fit(bank(), rng(), bank(each=5, seed=1))
    for wrong in ({"shrinkage": 1.5}, {"between_scale": 0.0}, {"rank": 0}, {"way": 1}, {"noise_scale": -1.0}):
        with pytest.raises(InputError, match="was given"):
            Posterior(**wrong)
