"""Nearest-prototype episodes in blocks: the same as one by one, however many there are."""

import numpy as np
import pytest
import torch

from augforge.bench import fast_prototypes
from augforge.bench.fast_prototypes import prepare, prototype_predictions, prototype_scores
from augforge.episodes import draw_episodes
from augforge.episodes.batch import Stacked


def bank(offset=0.0, d=12, classes=9, each=20):
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(classes).repeat_interleave(each)
    return torch.randn(classes, d, generator=rng)[y] + torch.randn(len(y), d, generator=rng) + offset, y


def stacked(y, way=4, shot=1, n_query=3, trials=23):
    drawn = draw_episodes(y, way=way, shot=shot, n_query=n_query, trials=trials)
    return Stacked(*(torch.stack([getattr(e, key) for e in drawn]) for key in ("classes", "support", "query")))


def plainly(x, episodes):
    """The largest -||q - c||^2 in float64, [n, way, q]."""
    means, query = x.double()[episodes.support].mean(2), x.double()[episodes.query]
    return -((query[:, :, :, None] - means[:, None, None]) ** 2).sum(-1)


@pytest.mark.parametrize("shot", [1, 3])
@pytest.mark.parametrize(("chunk", "block"), [(5, 100), (1, 1), (2048, 10**7)])
def test_chunks_and_blocks_change_nothing(monkeypatch, shot, chunk, block):
    x, y = bank()
    episodes = stacked(y, shot=shot)
    monkeypatch.setattr(fast_prototypes, "CHUNK", chunk)
    monkeypatch.setattr(fast_prototypes, "BLOCK", block)
    assert np.array_equal(prototype_predictions(prepare(x), episodes), plainly(x, episodes).argmax(-1).numpy())


def test_class_numbers_may_be_large_and_no_episodes_are_none():
    x, y = bank()
    episodes = stacked(y)
    large = Stacked(episodes.classes * (1 << 16), episodes.support, episodes.query)
    assert torch.equal(prototype_scores(prepare(x), large), prototype_scores(prepare(x), episodes))
    none = Stacked(episodes.classes[:0], episodes.support[:0], episodes.query[:0])
    assert prototype_predictions(prepare(x), none).shape == (0, 4, 3)


def test_equal_scores_go_to_the_first_class():
    x, y = bank()
    x = torch.ones_like(x)
    assert not prototype_predictions(prepare(x), stacked(y)).any()


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_bank_larger_than_the_sample_of_its_mean(offset):
    x, y = bank(offset, each=300)
    ready = prepare(x)
    assert bool((ready.x.mean(0).abs() < 1).all())
    assert torch.allclose(ready.half, ready.x.square().sum(1) / 2, rtol=1e-5)
    episodes = stacked(y)
    expected = plainly(x, episodes).argmax(-1).numpy()
    assert np.array_equal(prototype_predictions(ready, episodes), expected)
