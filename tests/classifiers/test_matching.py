import math

import pytest
import torch

from augforge.classifiers.context import empty, start
from augforge.classifiers.matching import Matching
from augforge.classifiers.pmn import PrototypeMatching
from augforge.types import Examples, InputError

BOTH = [Matching, PrototypeMatching]


def with_context(part, d=5, dtype=torch.float64):
    part.build({"features": d})
    start(part.context_, 3)
    part.context_.to(dtype)
    return part


def test_equation_1(episodes):
    support, query = episodes()
    found = Matching(scale=4.0).scores(support, query).exp()
    for e in range(3):
        for q in range(query.shape[1]):
            p, total = [0.0] * 4, 0.0
            for x, y, w in zip(support.x[e], support.y[e], support.weight[e], strict=True):
                a = float(w) * math.exp(4 * float(x @ query[e, q] / x.norm() / query[e, q].norm()))
                p[int(y)] += a
                total += a
            assert found[e, q].tolist() == pytest.approx([v / total for v in p])


def test_prototype_matching_attends_to_class_means(episodes):
    support, query = episodes()
    found = PrototypeMatching(scale=4.0, full_context=False).scores(support, query).exp()
    for e in range(3):
        for q in range(query.shape[1]):
            attention = []
            for k in range(4):
                w = support.weight[e] * (support.y[e] == k)
                mean = (w[:, None] * support.x[e]).sum(0) / w.sum()
                attention.append(math.exp(4 * float(mean @ query[e, q] / mean.norm() / query[e, q].norm())))
            assert found[e, q].tolist() == pytest.approx([a / sum(attention) for a in attention])


def lstm(cell, prefix, x, h, c):
    """One LSTM step by its textbook formula, from the parameters of a torch module."""
    p = dict(cell.named_parameters())
    gates = p[f"weight_ih{prefix[0]}"] @ x + p[f"bias_ih{prefix[0]}"] + p[f"weight_hh{prefix[0]}"] @ h
    i, f, g, o = (gates + p[f"bias_hh{prefix[0]}"]).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def test_full_context_embeddings_by_hand(episodes):
    support, query = episodes(d=5, b=1, way=3, shot=2)
    net = with_context(Matching(context_steps=4)).context_
    x, there = support.x, torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        g, f = net(x, there, query, "given")
        zero = torch.zeros(5, dtype=torch.float64)
        states = {}
        for suffix, order in (("_l0", range(6)), ("_l0_reverse", reversed(range(6)))):
            h, c = zero, zero
            for i in order:
                h, c = lstm(net.support, (suffix,), x[0, i], h, c)
                states[suffix, i] = h
        slow_g = torch.stack([x[0, i] + states["_l0", i] + states["_l0_reverse", i] for i in range(6)])
        torch.testing.assert_close(g[0], slow_g)
        for q in range(query.shape[1]):
            h, c = query[0, q], zero
            for _ in range(4):
                r = torch.softmax(slow_g @ h, 0) @ slow_g
                h, c = lstm(net.query, ("",), torch.cat([query[0, q], r]), h, c)
                h = h + query[0, q]
            torch.testing.assert_close(f[0, q], h)


@pytest.mark.parametrize("kind", BOTH)
def test_the_order_of_the_support_does_not_matter(episodes, kind):
    support, query = episodes(d=5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    shuffled = Examples(support.x[:, order], support.y[:, order], weight=support.weight[:, order])
    part = with_context(kind(full_context=True))
    torch.testing.assert_close(part.scores(shuffled, query), part.scores(support, query))
    given = with_context(kind(full_context=True, order="given"))
    assert not torch.allclose(given.scores(shuffled, query), given.scores(support, query))


@pytest.mark.parametrize("kind", BOTH)
def test_padding_is_not_read(episodes, kind):
    support, query = episodes(d=5)
    pad = torch.full((3, 2, 5), 7.0, dtype=torch.float64)
    x = torch.cat([pad[:, :1], support.x, pad[:, 1:]], 1)
    y = torch.cat([torch.zeros(3, 1), support.y, -torch.ones(3, 1)], 1).long()
    weight = torch.cat([torch.zeros(3, 1), support.weight, torch.zeros(3, 1)], 1)
    for order in ("content", "given"):
        part = with_context(kind(full_context=True, order=order))
        torch.testing.assert_close(part.scores(Examples(x, y, weight=weight), query), part.scores(support, query))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("full_context", [False, True])
def test_gradients(episodes, kind, full_context):
    support, query = episodes(way=2, shot=2, n_query=2, d=3, b=2)
    part = kind(scale=2.0, full_context=full_context, context_steps=2)
    if full_context:
        with_context(part, 3)

    def scores(x, w, q):
        return part.scores(Examples(x, support.y, weight=w), q)

    given = [t.clone().requires_grad_() for t in (support.x, support.weight, query)]
    assert torch.autograd.gradcheck(scores, given)


@pytest.mark.parametrize("kind", BOTH)
def test_the_context_is_trained_through_the_scores(make_base, episodes, kind):
    base, (support, query) = make_base(d=5, rows=15), episodes(d=5, dtype=torch.float32)
    brief, long = (
        kind(full_context=True, train_steps=n, train_rate=0.01).fit(base, torch.Generator().manual_seed(0))
        for n in (1, 25)
    )

    def loss(part):
        rows = torch.arange(len(base.y)).view(9, 15)
        x, y = base.x[rows[:5, :3].flatten()], torch.arange(5).repeat_interleave(3)
        found = part.scores(Examples(x, y), base.x[rows[:5, 3:].flatten()])
        return float(torch.nn.functional.cross_entropy(found.detach(), torch.arange(5).repeat_interleave(12)))

    assert loss(long) < loss(brief)
    again = kind(full_context=True, train_steps=25, train_rate=0.01).fit(base, torch.Generator().manual_seed(0))
    assert torch.equal(again.scores(support, query), long.scores(support, query))


def test_modules_follow_the_dtype_of_the_rows(episodes):
    support, query = episodes(d=5)
    part = with_context(Matching(full_context=True), dtype=torch.float32)
    found = part.scores(support, query)
    assert found.dtype == torch.float64
    exact = part.context_.to(torch.float64) and part.scores(support, query)
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("kind", BOTH)
def test_full_context_needs_fit(episodes, kind):
    with pytest.raises(InputError, match="not fitted"):
        kind(full_context=True).scores(*episodes())
    with pytest.raises(InputError, match="fitted on 5 features; these have 7"):
        with_context(kind(full_context=True)).scores(*episodes())


def test_start_is_a_function_of_its_key():
    nets = [empty(4, 2) for _ in range(3)]
    for net, key in zip(nets, (1, 1, 2), strict=True):
        start(net, key)
    same = [[torch.equal(a, b) for a, b in zip(nets[0].parameters(), n.parameters(), strict=True)] for n in nets[1:]]
    assert all(same[0])
    assert not any(same[1])
