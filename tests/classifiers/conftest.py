"""Episodes of features to classify, and base classes to learn from."""

import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.types import Examples


def draw(way=4, shot=3, n_query=6, d=7, b=3, seed=0, dtype=torch.float64):
    """b episodes: support rows in random order, with weights, and queries."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.stack([torch.arange(way).repeat(shot)[torch.randperm(way * shot, generator=rng)] for _ in range(b)])
    centres = torch.randn(b, way, d, generator=rng, dtype=torch.float64)
    x = centres.gather(1, y[..., None].expand(-1, -1, d)) + torch.randn(b, way * shot, d, generator=rng).double() / 2
    weight = torch.rand(b, way * shot, generator=rng, dtype=torch.float64) + 0.5
    query = torch.randn(b, n_query, d, generator=rng, dtype=torch.float64)
    return Examples(x.to(dtype), y, weight=weight.to(dtype)), query.to(dtype)


def base_bank(d=7, classes=9, rows=12, seed=4):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(rows)
    mix = torch.randn(d, d, generator=rng) / 2
    x = torch.randn(classes, d, generator=rng)[y] + torch.randn(len(y), d, generator=rng) @ mix
    return FeatureBank(x, y, tuple(f"c{i}" for i in range(classes)))


@pytest.fixture(scope="session")
def episodes():
    return draw


@pytest.fixture(scope="session")
def make_base():
    return base_bank


@pytest.fixture(scope="session")
def base():
    return base_bank()


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)
