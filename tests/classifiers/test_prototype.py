import pytest
import torch

from augforge.classifiers.prototype import Prototype
from augforge.classifiers.weighted import as_rows, class_means, squared_distances
from augforge.types import Examples, InputError


def slow_means(support, e):
    way = int(support.y.max()) + 1
    means = []
    for k in range(way):
        total, weight = torch.zeros(support.x.shape[-1], dtype=torch.float64), 0.0
        for x, y, w in zip(support.x[e], support.y[e], support.weight[e], strict=True):
            if int(y) == k:
                total, weight = total + float(w) * x, weight + float(w)
        means.append(total / weight)
    return means


def test_scores_are_equation_2(episodes):
    support, query = episodes()
    found = Prototype(temperature=2.0).scores(support, query)
    for e in range(3):
        for k, mean in enumerate(slow_means(support, e)):
            for q in range(query.shape[1]):
                assert found[e, q, k] == pytest.approx(-float(((query[e, q] - mean) ** 2).sum()) / 2)


def test_cosine(episodes):
    support, query = episodes()
    found = Prototype("cosine").scores(support, query)
    for e in range(3):
        for k, mean in enumerate(slow_means(support, e)):
            expected = [float(q @ mean / (q.norm() * mean.norm())) for q in query[e]]
            assert found[e, :, k].tolist() == pytest.approx(expected)


def test_mahalanobis(episodes, base, rng):
    support, query = episodes()
    part = Prototype("mahalanobis", shrinkage=0.3).fit(base, rng)
    covariance = torch.zeros(7, 7, dtype=torch.float64)
    for k in range(9):
        x = base.x[base.y == k].double()
        covariance += (x - x.mean(0)).T @ (x - x.mean(0))
    covariance /= len(base.y) - 9
    covariance = 0.7 * covariance + 0.3 * covariance.trace() / 7 * torch.eye(7)
    found = part.scores(support, query)
    for e in range(3):
        for k, mean in enumerate(slow_means(support, e)):
            expected = [-float((q - mean) @ covariance.inverse() @ (q - mean)) for q in query[e]]
            assert found[e, :, k].tolist() == pytest.approx(expected, rel=1e-4)


def test_mahalanobis_needs_fit_and_spread(episodes, make_base, rng):
    support, query = episodes()
    with pytest.raises(InputError, match="not fitted"):
        Prototype("mahalanobis").scores(support, query)
    with pytest.raises(InputError, match="every class has 1"):
        Prototype("mahalanobis").fit(make_base(rows=1), rng)
    with pytest.raises(InputError, match="shrinkage over 0"):
        Prototype("mahalanobis", shrinkage=0.0).fit(make_base(d=200), rng)
    with pytest.raises(InputError, match="fitted on 5 features; these rows have 7"):
        Prototype("mahalanobis").fit(make_base(d=5), rng).scores(support, query)


def test_distances_keep_their_digits_far_from_the_origin():
    rng = torch.Generator().manual_seed(0)
    query, points = torch.randn(2, 50, 64, generator=rng) + 1000, torch.randn(2, 5, 64, generator=rng) + 1000
    exact = torch.cdist(query.double(), points.double()).square()
    found = squared_distances(query, points)
    differences = found - found[..., :1], exact - exact[..., :1]
    torch.testing.assert_close(differences[0].double(), differences[1], atol=0.05, rtol=1e-3)


def test_distances_do_not_move_with_both(episodes):
    support, query = episodes()
    moved = Examples(support.x + 3, support.y, weight=support.weight)
    torch.testing.assert_close(Prototype().scores(moved, query + 3), Prototype().scores(support, query))


def test_gradients(episodes):
    support, query = episodes(way=2, shot=2, n_query=2, d=3, b=2)
    for distance in ("squared-euclidean", "cosine"):
        part = Prototype(distance)

        def scores(x, w, q, part=part):
            return part.scores(Examples(x, support.y, weight=w), q)

        given = [t.clone().requires_grad_() for t in (support.x, support.weight, query)]
        assert torch.autograd.gradcheck(scores, given)


@pytest.mark.parametrize(
    ("x", "y", "weight", "query", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.arange(2), None, torch.zeros(1, 3), "a classifier takes features"),
        ([torch.zeros(3)] * 2, torch.arange(2), None, torch.zeros(1, 3), "are a list"),
        (torch.zeros(2, 3, dtype=torch.uint8), torch.arange(2), None, torch.zeros(1, 3), "a classifier takes features"),
        (torch.zeros(2, 3), torch.arange(2), None, torch.zeros(1, 4), "does not go with"),
        (torch.zeros(2, 3), torch.arange(2), None, torch.zeros(1, 1, 3), "does not go with"),
        (torch.zeros(2, 3), torch.tensor([0, 2]), None, torch.zeros(1, 3), "no support row of positive weight"),
        (torch.zeros(2, 3), torch.arange(2), torch.tensor([1.0, 0.0]), torch.zeros(1, 3), "positive weight"),
        (torch.zeros(2, 3), torch.arange(2), torch.tensor([1.0, -1.0]), torch.zeros(1, 3), "negative weight"),
        (torch.zeros(0, 3), torch.arange(0), None, torch.zeros(1, 3), "no rows"),
    ],
)
def test_rows_that_do_not_go_together_are_refused(x, y, weight, query, message):
    with pytest.raises(InputError, match=message):
        Prototype().scores(Examples(x, y, weight=weight), query)


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": float("nan")}, {"shrinkage": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match="was given"):
        Prototype(**settings)


def test_means_are_weighted(episodes):
    support, query = episodes()
    rows = as_rows(support, query)
    means = class_means(rows.x, rows.member)
    for e in range(3):
        torch.testing.assert_close(means[e], torch.stack(slow_means(support, e)))
