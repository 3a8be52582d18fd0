"""Rows from one Gaussian of the support's own spread, and how far its held-out rows trust them."""

import pytest
import torch

from augforge import chance
from augforge.adapters.sklearn import Resampler
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.own_support import support_trust
from augforge.data.banks import FeatureBank
from augforge.data.features import open_features, write_features
from augforge.generators.support_gaussian import SupportGaussian
from augforge.imagine import enlarge, usual_share
from augforge.inputs import Inputs
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.types import Examples

READER = Logistic(C=100.0, normalise="l2")


def rows(way, each, seed, spread=1.0, apart=1.0, d=24):
    """Rows [way * each, d] of classes whose means lie `apart` in 8 coordinates; most of the spread is in 6 others."""
    rng = torch.Generator().manual_seed(seed)
    means = torch.zeros(way, d)
    means[:, :8] = apart * torch.randn(way, 8, generator=rng)
    y = torch.arange(way).repeat_interleave(each)
    noise = torch.randn(len(y), d, generator=rng)
    noise[:, 8:14] *= 4 * spread
    noise[:, :8] *= 0.5 * spread
    return Examples(means[y] + noise, y), means


def draws(support, part, count):
    want = torch.arange(int(support.y.max()) + 1).repeat_interleave(count)
    return part.synthesize(support, want, chance.pair_keys(0, "c", torch.arange(len(want))))


def test_draws_have_the_pooled_covariance_of_the_support_drawn_towards_a_sphere():
    support, _ = rows(4, 5, 0, d=16)
    x, y = support.x.double(), support.y
    means = torch.stack([x[y == k].mean(0) for k in range(4)])
    scatter = (x - means[y]).T @ (x - means[y]) / (len(y) - 4)
    for shrinkage in (0.0, 0.5, 1.0):
        made = draws(support, SupportGaussian(shrinkage=shrinkage), 12000)
        own = made.x.double() - means[made.y]
        expected = (1 - shrinkage) * scatter + shrinkage * scatter.trace() / 16 * torch.eye(16)
        found = own.T @ own / len(own)
        assert (found - expected).norm() < 0.04 * expected.norm()
        pairs = own.view(-1, 2, 16).sum(1)
        assert pairs.abs().max() < 1e-4  # opposite noise
    assert torch.allclose(draws(support, SupportGaussian(scale=0), 3).x.double(), means.repeat_interleave(3, 0))


def test_one_row_of_each_class_says_nothing_and_weighs_nothing():
    support, _ = rows(4, 1, 0)
    made = draws(support, SupportGaussian(), 6)
    assert (made.weight == 0).all()
    assert torch.allclose(made.x, support.x[made.y])
    assert support_trust(support, lambda known: known) == 0


def test_noise_is_not_trusted_and_nothing_is_lost():
    trusts, gains = [], []
    for seed in range(12):
        support, _ = rows(5, 4, seed, apart=0.0)
        query = rows(5, 20, 100 + seed, apart=0.0)[0]
        more = support + draws(support, SupportGaussian(), 20)
        trusts.append(float(more.weight[-1]) / float(usual_share("discriminative", torch.tensor(4.0)) * 4 / 20))
        right = [(READER.scores(s, query.x).argmax(1) == query.y).double().mean() for s in (support, more)]
        gains.append(float(right[1] - right[0]))
    assert sum(trusts) / len(trusts) < 0.5
    assert min(trusts) == 0
    assert sum(gains) / len(gains) > -0.02


def test_what_harms_the_support_is_not_trusted_and_what_helps_is():
    support, means = rows(6, 4, 1, spread=0.6)
    harm = Examples(means[torch.arange(6).roll(1)].repeat_interleave(5, 0), torch.arange(6).repeat_interleave(5))
    assert support_trust(support, lambda known: harm) == 0
    help_ = Examples(means.repeat_interleave(5, 0), torch.arange(6).repeat_interleave(5))
    assert support_trust(support, lambda known: help_) > 0.95
    assert support_trust(support, lambda known: Examples(known.x[:0], known.y[:0])) == 0


def test_all_rows_have_one_trust_whatever_their_keys():
    support, _ = rows(4, 3, 2)
    made = draws(support, SupportGaussian(), 4)
    again = SupportGaussian().synthesize(support, made.y[:5], chance.row_keys(3, "c", torch.arange(5)))
    assert torch.unique(torch.cat([made.weight, again.weight])).numel() == 1  # of all rows alike, whatever the keys


def test_rows_of_one_folder_are_made_weighed_and_said(tmp_path):
    for each, said in ((5, ""), (1, "with one row of each class none can be held out")):
        support, _ = rows(4, each, 3, spread=0.6)
        path = tmp_path / f"{each}.safetensors"
        write_features(path, FeatureBank(support.x, support.y, tuple("abcd")))
        request = Request(Inputs(str(path), "support-gaussian"), per_class=6)
        report = synth(request, tmp_path / f"out{each}")
        assert report.made == 24
        written = open_features(tmp_path / f"out{each}" / "features.safetensors")["all"]
        whole = SupportGaussian().synthesize(support, torch.zeros(1, dtype=torch.int64), torch.zeros(1).long())
        assert torch.allclose(written.weight, whole.weight.expand(24))  # by the test on the whole support
        assert said in report.chosen
        assert bool(said) == bool(report.chosen) or float(whole.weight) == 0


def test_enlarge_and_the_resampler_keep_the_weights():
    support, _ = rows(4, 4, 5, spread=0.6)
    want = torch.arange(4).repeat_interleave(3)
    more = enlarge(support, SupportGaussian(), want, torch.arange(12))
    assert torch.equal(more.weight[16:], SupportGaussian().synthesize(support, want, torch.arange(12)).weight)
    one, _ = rows(3, 1, 6)
    x = torch.cat([one.x, one.x[:1] + 1]).numpy()  # class 0 has two rows, the others one
    with pytest.warns(UserWarning, match="held-out rows of X do not gain by them"):
        Resampler("support-gaussian").fit_resample(x, [0, 1, 2, 0])
