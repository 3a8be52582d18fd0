import pytest
import torch
from torch.nn import functional as F

from augforge.classifiers.mlp import Mlp
from augforge.types import Examples, InputError


def slow(part, support, query, e):
    """The same network trained by torch's own SGD and automatic derivatives."""
    x, y, w = support.x[e], support.y[e], support.weight[e]
    mean = (w[:, None] * x).sum(0) / w.sum()
    size = ((w[:, None] * (x - mean) ** 2).sum() / w.sum()).sqrt()
    x = (x - mean) / size
    start = [layer[0].clone().contiguous() for layer in part._start(x[None])]
    start[2], start[3] = start[2].expand(-1, 4), start[3].expand(-1, 4)
    layers = [torch.nn.Parameter(layer.clone()) for layer in start]
    optimiser = torch.optim.SGD(layers, part.rate, momentum=part.momentum)

    def logits(x, kept):
        return (x @ layers[0] + layers[1]).relu() * kept @ layers[2] + layers[3]

    for kept in part._kept(x):
        loss = (w * F.cross_entropy(logits(x, kept), y, reduction="none")).sum() / w.sum()
        loss = loss + part.decay / 2 * sum(((now - was) ** 2).sum() for now, was in zip(layers, start, strict=True))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return logits((query[e] - mean) / size, 1.0).detach()


@pytest.mark.parametrize("d", [5, 30])
def test_it_is_gradient_descent_with_dropout(episodes, d):
    support, query = episodes(d=d)
    part = Mlp(hidden=8, steps=25, decay=0.01)
    found = part.scores(support, query)
    for e in range(3):
        torch.testing.assert_close(found[e], slow(part, support, query, e))


def test_it_learns(episodes):
    support, _ = episodes(shot=5)
    predicted = Mlp(hidden=64).scores(support, support.x).argmax(-1)
    assert float((predicted == support.y).double().mean()) > 0.9


def test_units_are_left_out_at_the_rate_that_is_asked_for():
    kept = Mlp(hidden=200, dropout=0.3)._kept(torch.zeros(1))
    assert kept.shape == (100, 200)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((kept == 0).double().mean()) == pytest.approx(0.3, abs=0.02)


def test_the_seed_decides(episodes):
    support, query = episodes()
    found = [Mlp(hidden=8, steps=5, seed=seed).scores(support, query) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_shift_and_size_of_all_features_do_not_matter(episodes):
    support, query = episodes()
    moved = Examples(support.x * 100 + 5, support.y, weight=support.weight)
    found = Mlp(hidden=8, steps=20).scores(moved, query * 100 + 5)
    torch.testing.assert_close(found, Mlp(hidden=8, steps=20).scores(support, query))


def test_gradients_go_through_the_steps(episodes):
    support, query = episodes(way=2, shot=2, n_query=2, d=3, b=2)
    part = Mlp(hidden=4, steps=3)

    def scores(x, w, q):
        return part.scores(Examples(x, support.y, weight=w), q)

    given = [t.clone().requires_grad_() for t in (support.x, support.weight, query)]
    assert torch.autograd.gradcheck(scores, given)
    torch.testing.assert_close(scores(*given).detach(), part.scores(support, query))


def test_rows_of_no_spread_are_survived():
    found = Mlp(hidden=4).scores(Examples(torch.ones(3, 5), torch.arange(3)), torch.ones(2, 5))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"steps": -1}, {"dropout": 1.0}, {"rate": 0}, {"decay": -1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match="was given"):
        Mlp(**settings)
