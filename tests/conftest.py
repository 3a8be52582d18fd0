"""What every test shares. Threads are kept at one: the pictures here are small, and starting threads costs more."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch

from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.episodes.tasks import Task
from augforge.parts import catalog
from augforge.types import Examples


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets."""
    root = os.environ.get("AUGFORGE_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("AUGFORGE_DATA does not name a folder with the real data sets")
    return Path(root)


@dataclass
class Means:
    """A stand-in for a representation: the mean of each channel over a grid of 2 x 2, times `gain`."""

    space: ClassVar[str] = "image"
    gain: float = 1.0

    def fit(self, base, rng):
        return self

    def embed(self, x):
        x = torch.stack([torch.nn.functional.adaptive_avg_pool2d(p.float(), 2) for p in x])
        return self.gain * x.flatten(1)


@pytest.fixture
def means(monkeypatch):
    """The class, which the catalog knows as the representation "means"."""
    monkeypatch.setitem(catalog.REPRESENTATIONS, "means", f"{__name__}:Means")
    return Means


# What the tests of the benchmark compare on and with


def features(k, each, d, seed, prefix, spread=1.0):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(k).repeat_interleave(each)
    x = spread * torch.randn(k, d, generator=rng)[y] + torch.randn(k * each, d, generator=rng)
    return FeatureBank(x, y, tuple(f"{prefix}{i}" for i in range(k)), origin=prefix)


def feature_task(d=16, seed=0):
    return Task(
        "toy", features(12, 12, d, seed, "b"), features(6, 24, d, seed + 1, "v"), features(10, 24, d, seed + 2, "n")
    )


def pictures(k, each, seed, prefix):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(k), each)
    base = rng.integers(0, 256, (k, 8, 8, 1))
    pixels = np.clip(base[y] + rng.normal(0, 40, (k * each, 8, 8, 1)), 0, 255).astype(np.uint8)
    return ArrayPictures(torch.from_numpy(y), tuple(f"{prefix}{i}" for i in range(k)), pixels, prefix)


@dataclass
class Pixels:
    """A representation without weights."""

    scale: float = 1.0

    def fit(self, base, rng):
        return self

    def embed(self, x):
        return x.float().flatten(1) / 255 * self.scale


@dataclass
class Shifter:
    """A generator of features that looks at its whole episode, and has a size of noise."""

    space: ClassVar[str] = "feature"
    one_parent: ClassVar[bool] = False
    support_needed: ClassVar[int] = 1
    noise_scale: float = 1.0
    mean_: torch.Tensor | None = field(default=None, init=False, repr=False)

    def fit(self, base, rng):
        self.mean_ = base.x.mean(0)
        return self

    def synthesize(self, support, want, keys):
        first = support.x[torch.searchsorted(support.y, want)]  # the rows come class by class
        noise = (keys % 1000).float()[:, None] / 1000 - 0.5
        return Examples(first + self.noise_scale * noise + 0.1 * (self.mean_ - support.x.mean(0)), want)


@pytest.fixture(scope="session")
def toys() -> SimpleNamespace:
    """Banks, a task and parts that are small."""
    return SimpleNamespace(features=features, feature_task=feature_task, pictures=pictures, Pixels=Pixels,
                           Shifter=Shifter)  # fmt: skip
