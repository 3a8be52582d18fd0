import warnings

import pytest
import torch

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.softmax_regression import KernelProblem, Problem, minimise
from augforge.types import Examples


def affine(part, support, d):
    """W [way, d] and b [way] of a classifier that is affine in the query, one episode."""
    probes = torch.cat([torch.zeros(1, d), torch.eye(d)]).to(support.x)
    scores = part.scores(support, probes)
    return (scores[1:] - scores[0]).T, scores[0]


def one(support, e=0):
    return Examples(support.x[e], support.y[e], weight=support.weight[e])


@pytest.mark.parametrize(("d", "C"), [(7, 1.0), (40, 1.0), (7, 100.0), (40, 0.01)])
def test_the_gradient_of_the_published_objective_is_zero(episodes, d, C):
    support, _ = episodes(d=d)
    support = one(support)
    w, b = affine(Logistic(C=C), support, d)
    w, b = w.requires_grad_(), b.requires_grad_()
    loss = w.square().sum() / 2
    for x, y, weight in zip(support.x, support.y, support.weight, strict=True):
        loss = loss - C * weight * torch.log_softmax(w @ x + b, 0)[y]
    for gradient in torch.autograd.grad(loss, (w, b)):
        assert float(gradient.abs().max()) < 1e-6 * C * len(support)


@pytest.mark.parametrize("d", [5, 30])
def test_it_is_scikit_learns_minimum(episodes, d):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed here")
    support, query = episodes(d=d)
    support = one(support)
    peer = linear.LogisticRegression(C=0.7, tol=1e-10, max_iter=10000)
    peer.fit(support.x.numpy(), support.y.numpy(), sample_weight=support.weight.numpy())
    expected = torch.from_numpy(peer.predict_log_proba(query[0].numpy()))
    found = Logistic(C=0.7).scores(support, query[0]).log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_slow_gradient_descent_comes_to_the_same(episodes):
    support, query = episodes(d=4, shot=2)
    support = one(support)
    w, b = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    target = torch.nn.functional.one_hot(support.y).double()
    for _ in range(3000):
        p = torch.softmax(support.x @ w.T + b, -1)
        wrong = support.weight[:, None] * (p - target)
        w, b = w - 0.03 * (wrong.T @ support.x + w), b - 0.03 * wrong.sum(0)
    expected = (query[0] @ w.T + b).softmax(-1)
    torch.testing.assert_close(Logistic().scores(support, query[0]).softmax(-1), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("d", [3, 9])
def test_derivatives_are_those_of_the_minimum(episodes, d):
    support, query = episodes(way=3, shot=2, n_query=2, d=d, b=2)

    def scores(x, w, q):
        return Logistic().scores(Examples(x, support.y, weight=w), q)

    given = [t.clone().requires_grad_() for t in (support.x, support.weight, query)]
    assert torch.autograd.gradcheck(scores, given, eps=1e-4, atol=1e-5)


def test_separable_copies_and_single_classes_converge():
    x = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [-1, 0, 0, 0]]) * 50
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Logistic(C=1e4).scores(Examples(x, torch.tensor([0, 0, 1])), x)
        alone = Logistic().scores(Examples(x, torch.zeros(3, dtype=torch.int64)), x)
    assert found.argmax(-1).tolist() == [0, 0, 1]
    assert torch.isfinite(alone).all()


def test_rows_of_zeros_converge():
    found = Logistic().scores(Examples(torch.zeros(3, 5), torch.arange(3)), torch.ones(2, 5))
    torch.testing.assert_close(found, torch.zeros(2, 3))


def test_turning_all_rows_changes_nothing(episodes):
    support, query = episodes(d=6)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    turned = Examples(support.x @ turn, support.y, weight=support.weight)
    torch.testing.assert_close(Logistic().scores(turned, query @ turn), Logistic().scores(support, query))


def problems(support, way):
    """The same problems by their rows and by the products of these, float64."""
    x, one = support.x.double(), torch.ones(*support.y.shape, 1).double()
    member = support.weight.double()[:, None] * (support.y[:, None] == torch.arange(way)[:, None])  # [b, way, n]
    penalty = torch.cat([torch.ones(x.shape[2]), torch.zeros(1)]).double()
    return Problem(torch.cat([x, one], -1), member, penalty), KernelProblem(x @ x.mT, member)


def test_it_warns_where_it_did_not_converge(episodes):
    rows, _ = problems(episodes()[0], 4)
    with pytest.warns(RuntimeWarning, match="3 of 3 episodes did not converge"):
        minimise(rows, tolerance=0.0)


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_rows_in_float32_come_to_the_same_minimum(episodes, size):
    support, query = episodes(way=6, shot=8, d=12, b=2)
    support, query = Examples(support.x * size, support.y, weight=support.weight), query * size
    single = Examples(support.x.float(), support.y, weight=support.weight.float())
    expected, found = Logistic().scores(support, query), Logistic().scores(single, query.float()).double()
    assert float((found - expected).abs().max()) < 2e-4 * float(expected.std())


@pytest.mark.parametrize("size", [0.01, 1.0, 1e4])  # steps are solved in float32, and in float64 where rows are long
def test_the_minimum_has_no_gradient_whatever_steps_are_solved_in(episodes, size):
    support, _ = episodes(way=5, shot=6, d=9)
    rows, _ = problems(Examples(support.x * size, support.y, weight=support.weight), 5)
    w = minimise(rows, 1e-9)
    gradient = rows.gradient(w, torch.softmax(rows.logits(w), 1))
    scale = rows.member.sum((1, 2)) * rows.longest()
    assert (gradient.square().sum((1, 2)).sqrt() <= 1e-9 * scale).all()


def test_the_inverse_diagonal_is_that_of_the_hessian(episodes):
    support, _ = episodes(way=3, shot=2, d=4, b=1)
    member = support.weight[:, None] * (support.y[:, None] == torch.arange(3)[:, None])  # [1, 3, 6]
    z = torch.cat([support.x, torch.ones(1, 6, 1).double()], -1)
    problem = Problem(z, member, torch.tensor([1.0, 1, 1, 1, 0]).double())
    w = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(flat):
        w = flat.view(1, 3, 5)
        return problem.loss(w, problem.logits(w)).sum()

    hessian = torch.autograd.functional.hessian(loss, w.flatten())
    p = torch.softmax(problem.logits(w), 1)
    torch.testing.assert_close(problem.inverse_diagonal(p).flatten(), 1 / hessian.diagonal())
    v = torch.randn(15, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(problem.curvature(p)(v.view(1, 3, 5)).flatten(), hessian @ v)


@pytest.mark.parametrize("normalise", ["l2", "spread"])
def test_normalised_features_have_no_size(episodes, normalise):
    support, query = episodes()
    part = Logistic(C=5.0, normalise=normalise)
    larger = Examples(support.x * 1000, support.y, weight=support.weight)
    torch.testing.assert_close(part.scores(larger, query * 1000), part.scores(support, query))


def test_spread_is_the_distance_of_the_rows_to_their_mean(episodes):
    support, query = episodes(b=1)
    support = one(support)
    share = support.weight / support.weight.sum()
    apart = support.x - share @ support.x
    size = float((share @ apart.square().sum(1)).sqrt())
    divided = Examples(support.x / size, support.y, weight=support.weight)
    found = Logistic(C=2.0, normalise="spread").scores(support, query[0])
    torch.testing.assert_close(found, Logistic(C=2.0).scores(divided, query[0] / size))


def test_rows_that_are_all_alike_have_a_spread(episodes):
    found = Logistic(normalise="spread").scores(Examples(torch.ones(3, 5), torch.arange(3)), torch.ones(2, 5))
    torch.testing.assert_close(found, torch.zeros(2, 3))


def test_products_of_rows_and_rows_come_to_the_same_minimum(episodes):
    support, _ = episodes(way=5, shot=4, d=40, b=3)
    rows, products = problems(support, 5)
    w, a = minimise(rows, 1e-9), minimise(products, 1e-9)[:, :5]
    torch.testing.assert_close(a[..., :-1] @ support.x.double(), w[..., :-1], atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("size", [0.1, 50.0])  # many rows are met by their products where they are short
def test_many_rows_have_the_minimum_of_the_objective(size):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(4).repeat_interleave(40)
    x = size * (torch.randn(4, 200, generator=generator)[y] + torch.randn(160, 200, generator=generator)).double()
    w, b = affine(Logistic(C=0.5), Examples(x, y), 200)
    wrong = torch.softmax(x @ w.T + b, 1) - torch.nn.functional.one_hot(y)
    assert float((w + 0.5 * wrong.T @ x).abs().max()) < 1e-6 * len(x) * float(x.norm(dim=1).max())
    assert float(wrong.sum(0).abs().max()) < 1e-6 * len(x)


def test_layers_of_products_are_those_of_the_rows(episodes):
    support, _ = episodes(way=3, shot=2, d=9, b=2)
    rng = torch.Generator().manual_seed(0)
    member = support.weight[:, None] * (support.y[:, None] == torch.arange(3)[:, None])  # [2, 3, 6]
    one = torch.ones(2, 6, 1).double()
    rows = Problem(torch.cat([support.x, one], -1), member, torch.tensor([1.0] * 9 + [0.0]).double())
    products = KernelProblem(support.x @ support.x.mT, member)
    upper = torch.randn(2, 3, 7, generator=rng, dtype=torch.float64)
    lower = torch.cat([upper[..., :-1] @ products.kernel, upper[..., -1:]], -1)

    def as_rows(layer):
        return torch.cat([layer[:, :3, :-1] @ support.x, layer[:, :3, -1:]], -1)

    w = torch.cat([upper, lower], 1)
    logits = products.logits(w)
    p = torch.softmax(logits, 1)
    torch.testing.assert_close(logits, rows.logits(as_rows(w)))
    torch.testing.assert_close(products.loss(w, logits), rows.loss(as_rows(w), logits))
    torch.testing.assert_close(products.dot(w, w), rows.dot(as_rows(w), as_rows(w)))
    torch.testing.assert_close(as_rows(products.gradient(w, p)), rows.gradient(as_rows(w), p))
    torch.testing.assert_close(as_rows(products.curvature(p)(w)), rows.curvature(p)(as_rows(w)))
    torch.testing.assert_close(products.longest(), rows.longest())
