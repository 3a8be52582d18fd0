import pytest
import torch
from torch.nn import functional as F

from augforge.classifiers.cosine import CosineClassifier
from augforge.types import Examples, InputError


def slow(part, support, query, e):
    """The same layer trained by torch's own SGD and automatic derivatives."""
    x, y, w = F.normalize(support.x[e], dim=-1), support.y[e], support.weight[e]
    means = torch.stack([(w[y == k, None] * x[y == k]).sum(0) for k in range(4)])
    layer = torch.nn.Parameter(F.normalize(means, dim=-1))
    optimiser = torch.optim.SGD([layer], part.rate, momentum=part.momentum, weight_decay=part.decay)
    for _ in range(part.steps):
        logits = part.scale * F.normalize(x, dim=-1) @ F.normalize(layer, dim=-1).T
        loss = (w * F.cross_entropy(logits, y, reduction="none")).sum() / w.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (part.scale * F.normalize(query[e], dim=-1) @ F.normalize(layer, dim=-1).T).detach()


@pytest.mark.parametrize("d", [5, 30])
def test_it_is_gradient_descent_on_the_cosines(episodes, d):
    support, query = episodes(d=d)
    part = CosineClassifier(steps=20, rate=0.3)
    found = part.scores(support, query)
    for e in range(3):
        torch.testing.assert_close(found[e], slow(part, support, query, e))


def test_no_steps_are_class_means(episodes):
    support, query = episodes()
    unit = Examples(F.normalize(support.x, dim=-1), support.y, weight=support.weight)
    found = CosineClassifier(steps=0).scores(support, query)
    for e in range(3):
        for k in range(4):
            w = unit.weight[e] * (unit.y[e] == k)
            mean = (w[:, None] * unit.x[e]).sum(0)
            torch.testing.assert_close(found[e, :, k], 10 * F.cosine_similarity(query[e], mean[None]))


def test_training_lowers_the_loss_and_lengths_do_not_matter(episodes):
    support, query = episodes()

    def loss(steps):
        scores = CosineClassifier(steps=steps).scores(support, support.x)
        return float(F.cross_entropy(scores.flatten(0, 1), support.y.flatten()))

    assert loss(50) < loss(0)
    scaled = Examples(support.x * 9, support.y, weight=support.weight)
    found = CosineClassifier().scores(scaled, query / 3)
    torch.testing.assert_close(found, CosineClassifier().scores(support, query))


def test_gradients_go_through_the_steps(episodes):
    support, query = episodes(way=2, shot=2, n_query=2, d=3, b=2)
    part = CosineClassifier(steps=4)

    def scores(x, w, q):
        return part.scores(Examples(x, support.y, weight=w), q)

    given = [t.clone().requires_grad_() for t in (support.x, support.weight, query)]
    assert torch.autograd.gradcheck(scores, given)
    torch.testing.assert_close(scores(*given).detach(), part.scores(support, query))


@pytest.mark.parametrize("settings", [{"steps": -1}, {"scale": 0}, {"rate": -1}, {"momentum": 2}, {"decay": -1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match="was given"):
        CosineClassifier(**settings)
