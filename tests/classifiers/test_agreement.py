"""The same predictions as an independent implementation, easyfsl 1.5.0, on 200 identical episodes."""

import functools
import warnings

import pytest
import torch

from augforge.classifiers.context import start
from augforge.classifiers.matching import Matching
from augforge.classifiers.prototype import Prototype
from augforge.classifiers.simpleshot import SimpleShot
from augforge.episodes import draw_episodes
from augforge.types import Examples

EPISODES, D = 200, 32


def heads():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("easyfsl.methods", reason="easyfsl is not installed here (the extra `peers`)")


@functools.cache
def all_episodes(shot, count=EPISODES):
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(20).repeat_interleave(40)
    x = (torch.randn(20, D, generator=rng)[y] * 0.6 + torch.randn(len(y), D, generator=rng)).relu()
    drawn = draw_episodes(y, way=5, shot=shot, n_query=15, trials=count)
    labels = torch.arange(5).repeat_interleave(shot)
    mean = x.mean(0)
    return [(Examples(x[e.support.flatten()], labels), x[e.query.flatten()]) for e in drawn], mean


def theirs(head, episodes):
    found = []
    with torch.no_grad():
        for support, query in episodes:
            head.process_support_set(support.x, support.y)
            found.append(head(query))
    return torch.stack(found)


def ours(part, episodes):
    support = Examples(torch.stack([s.x for s, _ in episodes]), torch.stack([s.y for s, _ in episodes]))
    with torch.no_grad():
        return part.scores(support, torch.stack([q for _, q in episodes]))


@pytest.mark.parametrize("shot", [1, 5])
def test_prototypes(shot):
    episodes, _ = all_episodes(shot)
    expected, found = theirs(heads().PrototypicalNetworks(), episodes), ours(Prototype(), episodes)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    torch.testing.assert_close(
        -found.clamp(max=0).neg().sqrt(), expected, atol=1e-3, rtol=1e-4
    )  # theirs are not squared


@pytest.mark.parametrize("shot", [1, 5])
def test_simpleshot(shot):
    episodes, mean = all_episodes(shot)
    head = heads().SimpleShot(feature_centering=mean, feature_normalization=2)
    expected = theirs(head, episodes)
    part = SimpleShot(distance="cosine")
    part.mean_ = mean
    found = ours(part, episodes)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    torch.testing.assert_close(found, expected)
    part.distance = "euclidean"  # as published; theirs divides by the centroid's length too
    same = float((ours(part, episodes).argmax(-1) == expected.argmax(-1)).float().mean())
    assert same == 1 if shot == 1 else 0.9 < same < 1  # 93 % on these episodes


class _NoState(torch.nn.Module):
    """A bi-LSTM that says nothing: g(x_i, S) = x_i."""

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), torch.zeros_like(x)], -1), None


class _NoCell(torch.nn.Module):
    """An LSTM cell that says nothing: f(x, S) = x."""

    def forward(self, given, state):
        return torch.zeros_like(state[0]), state[1]


@pytest.mark.parametrize("shot", [1, 5])
def test_matching_without_context(shot):
    episodes, _ = all_episodes(shot)
    head = heads().MatchingNetworks(feature_dimension=D, support_encoder=_NoState(), query_encoder=_NoCell())
    expected = theirs(head, episodes)
    found = ours(Matching(scale=1.0, unit_query=False), episodes)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    torch.testing.assert_close(found.exp(), expected.exp() - 1e-6, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("shot", [1, 5])
def test_matching_with_full_context(shot):
    episodes, _ = all_episodes(shot)
    part = Matching(scale=1.0, unit_query=False, full_context=True, order="given", context_steps=5 * shot)
    part.build({"features": D})
    start(part.context_, 1)
    net = part.context_
    head = heads().MatchingNetworks(feature_dimension=D, support_encoder=net.support, query_encoder=net.query)
    expected, found = theirs(head, episodes), ours(part, episodes)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    torch.testing.assert_close(found.exp(), expected.exp() - 1e-6, atol=1e-5, rtol=1e-4)
