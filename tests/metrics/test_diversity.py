import itertools
import math

import pytest
import torch

from augforge.metrics.diversity import diversity, mean_distance
from augforge.metrics.rows import TooFewRows, squared_distances
from augforge.types import InputError


def _draw(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_mean_over_pairs():
    x = _draw(23) + 100
    pairs = [math.dist(a, b) for a, b in itertools.combinations(x.tolist(), 2)]
    assert mean_distance(x) == pytest.approx(sum(pairs) / len(pairs), rel=1e-10)
    more = _draw(2100)  # more pairs than are held at a time
    assert mean_distance(more) == pytest.approx(float(torch.pdist(more).mean()), rel=1e-10)


def test_a_set_and_half_its_size():
    x = _draw(30)
    found = diversity(x, 0.5 * x + 9)
    assert found.ratio == pytest.approx(0.5)
    assert found.made == pytest.approx(0.5 * found.real)


def test_collapse_is_zero():
    assert diversity(_draw(30), _draw(1).expand(12, -1)).ratio == pytest.approx(0.0, abs=1e-7)


def test_what_is_refused():
    x = _draw(5)
    with pytest.raises(TooFewRows, match="there is 1 made row; diversity needs at least 2"):
        diversity(x, x[:1])
    with pytest.raises(TooFewRows, match="all 3 real rows are alike"):
        diversity(x[:1].expand(3, -1), x)
    with pytest.raises(InputError, match="numbers wide"):
        diversity(x, x[:, :2])
    with pytest.raises(InputError, match="not finite"):
        mean_distance(x / 0)


def test_distances_are_never_negative():
    x = 1000 + torch.rand(50, 8, generator=torch.Generator().manual_seed(0))
    assert float(squared_distances(x, x).min()) >= 0
