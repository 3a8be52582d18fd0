from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from augforge import measuring
from augforge.bench_features import features_of
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.episodes import draw_episodes
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.making_rows import from_features, from_parents
from augforge.measuring import predict, predict_fast, prepared
from augforge.prototype_episodes import prepare, prototype_scores
from augforge.representations.bank import BankOptions
from augforge.trials import as_trials
from augforge.types import Episode, Examples


def features(k, each, d, seed, prefix, spread=1.0):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(k).repeat_interleave(each)
    x = spread * torch.randn(k, d, generator=rng)[y] + torch.randn(k * each, d, generator=rng)
    return FeatureBank(x, y, tuple(f"{prefix}{i}" for i in range(k)), origin=prefix)


def pictures(k, each, seed, prefix):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(k), each)
    base = rng.integers(0, 256, (k, 8, 8, 1))
    pixels = np.clip(base[y] + rng.normal(0, 40, (k * each, 8, 8, 1)), 0, 255).astype(np.uint8)
    return ArrayPictures(torch.from_numpy(y), tuple(f"{prefix}{i}" for i in range(k)), pixels, prefix)


def embed(x):
    return x.float().flatten(1) / 255


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


def trials_of(bank, way=5, shot=1, n_query=5, n=30, seed=0):
    return as_trials(draw_episodes(bank.y, way=way, shot=shot, n_query=n_query, trials=n, seed=seed), bank)


# The fast path


@pytest.mark.parametrize(("way", "shot", "q", "d"), [(5, 1, 15, 640), (5, 5, 15, 64), (3, 2, 1, 7), (2, 1, 4, 33)])
def test_the_fast_path_is_the_straightforward_formula(way, shot, q, d):
    bank = features(8, 25, d, 0, "n")
    bank = replace(bank, x=bank.x + 30)  # far from the origin, where ||q||^2 - 2 q.p + ||p||^2 cancels
    trials = trials_of(bank, way, shot, q, 60)
    found = prototype_scores(prepare(bank.x), trials.rows)
    x = bank.x.double()
    means, query = x[trials.rows.support].mean(2), x[trials.rows.query]  # [n, way, d], [n, way, q, d]
    slow = -((query[:, :, :, None] - means[:, None, None]) ** 2).sum(-1)
    centred = x - bank.x.mean(0).double()
    offset = (centred[trials.rows.query] ** 2).sum(-1, keepdim=True)
    assert torch.allclose(2 * found.double() - offset, slow, atol=2e-5 * float(slow.abs().max()))
    said = predict_fast(prepare(bank.x), trials).predicted
    assert np.array_equal(said.reshape(len(trials), way, q), slow.argmax(-1).numpy())


def test_the_fast_path_is_the_classifier():
    novel = features(10, 24, 64, 2, "n")
    ready = features_of(None, features(8, 8, 64, 0, "b"), novel, BankOptions(), None)
    for shot in (1, 5):
        trials = trials_of(novel, shot=shot, n=300)
        assert measuring.is_fast(Prototype(), ready, trials)
        fast = predict_fast(prepared(ready), trials)
        slow = predict([Prototype()], ready, trials, None, True)[0]
        assert np.array_equal(fast.predicted, slow.predicted)
        assert np.array_equal(fast.in_top5, slow.in_top5)
    assert not measuring.is_fast(Prototype(distance="cosine"), ready, trials)
    assert not measuring.is_fast(Prototype(), ready, trials_of(novel, way=6))


# Made rows


def test_made_rows_do_not_depend_on_the_batch():
    bank = features(8, 20, 6, 0, "n")
    trials = trials_of(bank, shot=2, n=7)
    for part in (Copies(), Noise().fit(bank, torch.Generator()), Shifter().fit(bank, torch.Generator())):
        rows = from_features(part, bank.x, 3, seed=5)
        whole = rows(0, trials)
        assert whole.shape == (7, 5, 3, 6)
        assert torch.allclose(torch.cat([rows(i, trials.part(i, i + 1)) for i in range(7)]), whole, atol=1e-6)
        assert not torch.equal(from_features(part, bank.x, 3, seed=6)(0, trials), whole) or isinstance(part, Copies)


def test_copies_use_every_real_row_alike_and_padding_never():
    bank = features(6, 20, 4, 0, "n")
    episode = draw_episodes(bank.y, way=3, shot=3, n_query=2, trials=1)[0]
    support = episode.support.clone()
    support[1, 1:] = -1
    trials = as_trials([Episode(episode.classes, support, episode.query)], bank)
    made = from_features(Copies(), bank.x, 4, seed=0)(0, trials)[0]
    assert torch.equal(made[0], bank.x[support[0, [0, 1, 2, 0]]])
    assert torch.equal(made[1], bank.x[support[1, [0, 0, 0, 0]]])


def test_pictures_are_made_once_for_each_parent_and_are_the_same_for_any_episodes():
    bank = pictures(6, 12, 0, "n")
    trials = trials_of(bank, shot=2, n=6)
    part = Classical(preset="handwriting")
    whole = from_parents(part, bank, embed, trials, 5, seed=1)(0, trials)
    alone = trials.part(4, 5)
    assert torch.equal(from_parents(part, bank, embed, alone, 5, seed=1)(0, alone)[0], whole[4])
    assert whole.shape == (6, 5, 5, 64)
    assert len(torch.unique(whole[0, 0], dim=0)) == 5
