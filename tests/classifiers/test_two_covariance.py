import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from augforge.classifiers import two_covariance as tc
from augforge.classifiers.adaptation import adapted
from augforge.classifiers.feature_transforms import TRANSFORMS, centre_of, lengths, restored, signed_root, transformed
from augforge.types import InputError


def rows(classes=60, each=12, d=4, seed=0, spread=1.5):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(each)
    between, within = torch.randn(d, d, generator=rng), torch.randn(d, d, generator=rng)
    x = spread * torch.randn(classes, d, generator=rng)[y] @ between + torch.randn(len(y), d, generator=rng) @ within
    return x, y


def learnt(x, y, rank=99, tau=0.0, shrinkage=0.1):
    found = tc.gather(x, y)
    model = tc.TwoCovariance("raw", x.shape[1], min(rank, x.shape[1]), len(found.counts))
    tc.learn(model, found, found.within(), shrinkage)
    model.tau.fill_(tau)
    return model.double().requires_grad_(False)


def covariances(model):
    """S_w and S_b [d, d] of a model with all coordinates."""
    return model.back.T @ model.back, model.back.T @ torch.diag(model.psi) @ model.back


def support_of(counts, d=4, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(n, d, generator=rng, dtype=torch.float64) for n in counts]


def summed_up(model, support):
    z = [model.mapped(x) for x in support]
    means = torch.stack([x.mean(0) for x in z])
    scatter = torch.stack([(x - x.mean(0)).square().sum(0) for x in z])
    return means, torch.tensor([float(len(x)) for x in support], dtype=torch.float64), scatter


def test_sums_are_those_of_the_rows_and_add_up():
    x, y = rows(classes=7, each=5)
    found = tc.gather(x, y)
    apart = torch.cat([x[y == k].double() - x[y == k].double().mean(0) for k in range(7)])
    torch.testing.assert_close(found.scatter, apart.T @ apart, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.means, torch.stack([x[y == k].double().mean(0) for k in range(7)]))
    assert found.free == 28
    mixed = torch.randperm(35, generator=torch.Generator().manual_seed(1))
    some = y < 3
    for other in (tc.gather(x[mixed], y[mixed]), tc.gather(x[some], y[some]) + tc.gather(x[~some], y[~some] + 5)):
        torch.testing.assert_close(other.scatter, found.scatter, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(other.means, found.means)


def test_exact_sums_keep_a_spread_that_is_tiny_beside_another():
    x, y = rows(classes=20, each=10, d=2)
    wide = x * torch.tensor([1e4, 1.0]) @ torch.tensor([[1.0, 1.0], [0.0, 1.0]])  # nearly one line
    smallest = [float(torch.linalg.eigvalsh(tc.gather(wide, y, exact).within())[0]) for exact in (False, True)]
    apart = wide.double() - torch.stack([wide[y == k].double().mean(0) for k in range(20)])[y]
    expected = float(torch.linalg.eigvalsh(apart.T @ apart / 180)[0])
    assert smallest[1] == pytest.approx(expected, rel=1e-4)
    assert abs(smallest[0] - expected) > 10 * abs(smallest[1] - expected)


def test_scores_are_the_posterior_predictive_with_whole_matrices():
    model = learnt(*rows())
    within, between = covariances(model)
    support, query = support_of((1, 2, 5, 20)), support_of((9,), seed=2)[0]
    expected = []
    for x in support:
        precision = between.inverse() + len(x) * within.inverse()
        mean = precision.inverse() @ (between.inverse() @ model.mean + len(x) * within.inverse() @ x.mean(0))
        expected.append(MultivariateNormal(mean, within + precision.inverse()).log_prob(query))
    expected = torch.stack(expected, 1)
    mean, variance = model.predictive(*summed_up(model, support))
    found = model.log_density(model.mapped(query)[None], mean[None], variance[None])[0]
    torch.testing.assert_close(
        found - found.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True), atol=1e-4, rtol=1e-5
    )


def test_the_mixture_prior_has_the_moments_of_the_explicit_sum():
    tau = 0.5
    model = learnt(*rows(classes=9), tau=tau)
    support = support_of((1, 2, 7))
    z, counts, scatter = summed_up(model, support)
    mean, variance = model.predictive(z, counts, scatter)
    for k, n in enumerate(counts.tolist()):
        psi = tau * model.psi
        like = torch.stack([MultivariateNormal(m, torch.diag(psi + 1 / n)).log_prob(z[k]) for m in model.classes])
        share = torch.softmax(like, 0)
        pull = n * psi / (1 + n * psi)
        means = [m + pull * (z[k] - m) for m in model.classes]  # of the predictive, if the class lies near this one
        first = sum(w * m for w, m in zip(share, means, strict=True))
        second = sum(w * (m**2 + 1 + psi / (1 + n * psi)) for w, m in zip(share, means, strict=True))
        torch.testing.assert_close(mean[k], first, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(variance[k], second - first**2, atol=1e-4, rtol=1e-4)


def test_what_the_numbers_bend():
    psi = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    z, counts = torch.randn(2, 3, dtype=torch.float64), torch.tensor([2.0, 5.0], dtype=torch.float64)
    scatter = torch.rand(2, 3, dtype=torch.float64) * 4

    def by(psi=psi, scatter=None, **given):
        numbers = torch.zeros(1, len(tc.PARAMETERS), dtype=torch.float64)
        for name, value in given.items():
            numbers[0, tc.PARAMETERS.index(name)] = value
        return tc.predictive(psi, numbers, z, counts, scatter)

    def same(found, expected):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)

    middle = psi.log().mean().exp()
    same(by(SCALE=math.log(2)), by(2 * psi))
    same(by(POWER=1.0), by(psi**2 / middle))
    same(by(TILT=1.0), (by()[0], by()[1] * middle / psi))
    n = counts[:, None]
    own = math.e  # what a support row's own variance is
    same(by(NOISE=1.0), (n * psi / (own + n * psi) * z, 1 + own * psi / (own + n * psi)))
    s = (3 + scatter) / (3 + n - 1)
    same(by(scatter=scatter, SPREAD=math.log(3)), (n * psi / (s + n * psi) * z, s + s * psi / (s + n * psi)))
    same(by(scatter=scatter, SPREAD=tc.IGNORE_SPREAD), by())


def test_the_bias_adds_half_the_length_of_the_mean():
    mean, variance = torch.randn(1, 3, 4), torch.rand(1, 3, 4) + 0.5
    query, numbers = torch.randn(1, 5, 4), torch.zeros(1, len(tc.PARAMETERS))
    plain = tc.log_density(numbers, query, mean, variance)
    numbers[0, tc.BIAS] = 0.7
    added = 0.7 * (mean.square() / variance).sum(-1) / 2
    torch.testing.assert_close(tc.log_density(numbers, query, mean, variance), plain + added[:, None])


@pytest.mark.parametrize("queries", [1, 3])
def test_many_models_at_once_are_as_one_by_one(queries):
    rng = torch.Generator().manual_seed(3)
    psi, numbers = torch.rand(3, 5, generator=rng) + 0.1, torch.randn(3, 8, generator=rng) / 4
    z, scatter = torch.randn(3, 2, 4, 5, generator=rng), torch.rand(3, 2, 4, 5, generator=rng)
    query, mixture = torch.randn(queries, 2, 6, 5, generator=rng), (torch.randn(7, 5, generator=rng), 0.5)
    shot = torch.tensor(2.0)
    mean, variance = tc.predictive(psi[:, None, None], numbers[:, None, None, None], z, shot, scatter, mixture)
    scores = tc.log_density(numbers[:, None, None, None], query, mean, variance)
    for k in range(3):
        one, width = tc.predictive(psi[k], numbers[k][None], z[k], shot, scatter[k], mixture)
        torch.testing.assert_close(mean[k], one)
        torch.testing.assert_close(variance[k], width)
        expected = tc.log_density(numbers[k][None], query[min(k, queries - 1)], one, width)
        torch.testing.assert_close(scores[k], expected, atol=1e-4, rtol=1e-4)


def flat(classes=300, each=10, d=30, few=3, seed=4):
    """Classes that differ in a few directions, and rows that spread alike in all."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(each)
    turn = torch.linalg.qr(torch.randn(d, d, generator=rng))[0][:few]
    return 3 * torch.randn(classes, few, generator=rng)[y] @ turn + torch.randn(len(y), d, generator=rng), y


def test_few_coordinates_say_the_same_where_classes_differ_in_few():
    x, y = flat(classes=1000, each=20, few=6)
    whole, few = learnt(x, y), learnt(x, y, rank=9)
    support, query = [x[y == k][:2].double() for k in range(20)], x[y < 20].double()
    said = []
    for model in (whole, few):
        mean, variance = model.predictive(*summed_up(model, support))
        said.append(model.log_density(model.mapped(query)[None], mean[None], variance[None])[0].argmax(1))
    assert float((said[0] == said[1]).double().mean()) > 0.97


def test_what_few_coordinates_leave_out_keeps_its_spread():
    x, y = flat()
    model = learnt(x, y, rank=3, shrinkage=0.0)
    assert float(model.rest.mean()) == pytest.approx(1.0, abs=0.03)
    assert float(model.rest_psi) < 0.02  # classes do not differ there
    z = torch.zeros(1, 3, dtype=torch.float64)
    place, outside = model.places(z, model.mean[None], z, torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(place[0], model.mean)
    rng = torch.Generator().manual_seed(5)
    noise, rest = torch.randn(20000, 3, generator=rng).double(), torch.randn(20000, 30, generator=rng).double()
    led = model.project_back(noise, outside * rest)
    torch.testing.assert_close(torch.cov(led.T), torch.eye(30).double(), atol=0.06, rtol=0)
    torch.testing.assert_close(led @ model.map, noise, atol=1e-5, rtol=1e-5)  # the rest is outside of them


def test_classes_that_differ_outside_of_the_coordinates_keep_their_place():
    x, y = flat(few=20)
    model = learnt(x, y, rank=5)
    assert float(model.rest_psi) > 1
    known = x[y == 0].double().mean(0, keepdim=True)
    z = model.mapped(known)
    many, once = (model.places(z, known, z, torch.tensor([n]).double())[0] for n in (1e6, 1.0))
    torch.testing.assert_close(many, known, atol=1e-3, rtol=1e-3)
    assert float((once - known).norm()) > float((many - known).norm())


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transforms_and_their_inverse(transform, dtype):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(6), dtype=dtype)
    centre = centre_of(x, transform).to(dtype)
    if transform == "centred-l2":
        torch.testing.assert_close(centre, x.mean(0))
    if transform in ("raw", "sqrt"):
        assert not centre.any()
    moved, length = transformed(x, transform, centre), lengths(x, transform, centre)
    torch.testing.assert_close(restored(moved, transform, centre, length), x, atol=1e-5, rtol=1e-5)
    if transform in ("centred-l2", "both"):
        torch.testing.assert_close(moved.norm(dim=1), torch.ones(40, dtype=dtype))


def test_the_root_is_the_same_with_and_without_a_gradient():
    x = torch.tensor([-4.0, -0.0, 0.0, 2.25])
    assert signed_root(x).tolist() == [-2.0, 0.0, 0.0, 1.5]
    given = x.clone().requires_grad_()
    root = signed_root(given)
    assert torch.equal(root.detach(), signed_root(x))
    root.sum().backward()
    assert given.grad.tolist() == pytest.approx([0.25, 0, 0, 1 / 3])


def test_what_cannot_be_learnt_from_is_refused():
    x, y = rows(classes=3, each=3)
    with pytest.raises(InputError, match="something needs a base class with at least 2 rows"):
        tc.check_enough(tc.gather(x, torch.arange(9)), "something")
    with pytest.raises(InputError, match="something learns how classes differ"):
        tc.check_enough(tc.gather(x, torch.zeros(9, dtype=torch.int64)), "something")
    with pytest.raises(InputError, match="shrinkage over 0"):
        learnt(torch.cat([x, x], 1), y, shrinkage=0.0)


def test_a_class_of_hundreds_of_rows_is_heard_like_one_of_twenty():
    """Else base classes, whose rows the backbone drew together, take all queries."""
    numbers = torch.zeros(1, 8, dtype=torch.float64)
    numbers[0, tc.SPREAD] = math.log(50)
    psi, z = torch.ones(1, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
    counts = torch.tensor([2.0, 20, 21, 500], dtype=torch.float64)
    narrow = 0.25 * (counts - 1)[:, None] * torch.ones(3)  # the sum of squares of classes a quarter as wide as others
    numbers[0, tc.SCALE] = 30.0  # the prior says nothing: what is left of the variance is the class's own
    own = tc.predictive(psi, numbers, z, counts, narrow)[1][:, 0] / (1 + 1 / counts)
    expected = [(50 + 0.25 * n) / (50 + n) for n in (1, 19, 19, 19)]
    torch.testing.assert_close(own, torch.tensor(expected, dtype=torch.float64))


def _episodes(shots=4, way=3, d=5, b=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, way * shots, d, generator=generator, dtype=torch.float64)
    member = torch.eye(way, dtype=torch.float64).repeat_interleave(shots, 0).expand(b, -1, -1)
    return x, member, torch.rand(d, generator=generator, dtype=torch.float64) + 0.1


def test_adapted_coordinates_make_both_covariances_diagonal():
    x, member, psi = _episodes()
    found = adapted(psi, x, member, rows=20.0)
    for rows, turn, values in zip(x, found.turn, found.psi[:, 0], strict=True):
        apart = rows - rows.view(3, 4, 5).mean(1).repeat_interleave(4, 0)
        within = (20 * torch.eye(5, dtype=torch.float64) + apart.T @ apart) / (20 + 3 * 3)
        torch.testing.assert_close(turn.T @ within @ turn, torch.eye(5, dtype=torch.float64))
        torch.testing.assert_close(turn.T @ psi.diag() @ turn, values.diag())
    torch.testing.assert_close(found.rows(x), x @ found.turn)


def test_nothing_is_adapted_by_one_row_of_each_class_or_where_it_is_turned_off():
    x, member, psi = _episodes(shots=1)
    assert adapted(psi, x, member, 20.0).turn is None
    assert adapted(psi, x, member, 20.0).rows(x) is x
    assert adapted(psi, *_episodes()[:2], 0.0).turn is None


def test_a_weight_of_two_adapts_as_two_rows_and_of_none_as_none():
    x, member, psi = _episodes(b=1)
    twice = torch.cat([x, x[:, :1], 9 * x[:, :1]], 1)
    weights = torch.cat([member, member[:, :1], 0 * member[:, :1]], 1)
    weighed = member.clone()
    weighed[:, 0] *= 2
    found, expected = adapted(psi, x, weighed, 20.0), adapted(psi, twice, weights, 20.0)
    torch.testing.assert_close(found.psi, expected.psi)
    torch.testing.assert_close(found.turn.abs(), expected.turn.abs())


def test_of_many_coordinates_the_last_are_turned(monkeypatch):
    monkeypatch.setattr("augforge.classifiers.adaptation._MOST", 3)
    x, member, psi = _episodes()
    found, alone = adapted(psi, x, member, 20.0), adapted(psi[2:], x[..., 2:], member, 20.0)
    torch.testing.assert_close(found.psi, torch.cat([psi[:2].expand(2, 1, 2), alone.psi], -1))
    torch.testing.assert_close(found.rows(x), torch.cat([x[..., :2], alone.rows(x[..., 2:])], -1))
    assert found.rows(x[0]).shape == x.shape
