from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from augforge import chance
from augforge.data.banks import FeatureBank
from augforge.generators.feature_gan import FeatureGan, critic_loss, diversity
from augforge.types import Examples, InputError

QUICK = {"steps": 3, "way": 4, "shots": "1,2", "episodes": 2}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _bank(seed=0, size=1.0):
    rng = _rng(seed)
    y = torch.arange(20).repeat_interleave(10)
    x = 3 + torch.randn(20, 4, generator=rng)[y] + 0.3 * torch.randn(200, 4, generator=rng)
    return FeatureBank(size * x, y, tuple(map(str, range(20))))


SUPPORT = Examples(_bank(4).x[:6], torch.tensor([0, 1, 1, 2, 0, 2]))
WANT = torch.tensor([2, 0, 1, 1, 0, 2, 2])
KEYS = chance.row_keys(0, "gan", torch.arange(7))


def test_it_depends_on_the_mean_of_the_class_and_the_key():
    part = FeatureGan(**QUICK).fit(_bank(), _rng())
    made = part.synthesize(SUPPORT, WANT, KEYS)
    means = torch.stack([SUPPORT.x[SUPPORT.y == c].mean(0) for c in range(3)])
    of_means = part.synthesize(Examples(means, torch.arange(3)), WANT, KEYS)
    assert torch.allclose(made.x, of_means.x, atol=1e-5)
    assert (made.parent == -1).all()
    assert len(torch.unique(made.x, dim=0)) == len(WANT)


def test_without_noise_each_class_gets_one_row():
    part = FeatureGan(**QUICK).fit(_bank(), _rng())
    still = replace(part, noise_scale=0.0)
    still.generator_, still.size_, still.facts_ = part.generator_, part.size_, part.facts_
    assert len(torch.unique(still.synthesize(SUPPORT, WANT, KEYS).x, dim=0)) == 3


def _share_near_their_class(part):
    """The share of made rows whose largest cosine is that with the mean of their own class."""
    bank = _bank(7)
    want = torch.arange(20).repeat_interleave(20)
    with torch.no_grad():
        made = part.synthesize(Examples(bank.x, bank.y), want, chance.row_keys(0, "near", torch.arange(400))).x
    means = torch.stack([bank.x[bank.y == c].mean(0) for c in range(20)])
    cosines = F.normalize(made, dim=1) @ F.normalize(means, dim=1).T
    return float((cosines.argmax(1) == want).double().mean())


def test_training_brings_rows_near_their_class():
    few = {"way": 10, "shots": "2", "episodes": 2, "width": 64}
    part = FeatureGan(steps=100, critic_steps=2, rate=5e-3, classify=10.0, **few).fit(_bank(), _rng())
    assert _share_near_their_class(part) > 0.3
    assert _share_near_their_class(FeatureGan(steps=1, **few).fit(_bank(), _rng())) < 0.15
    assert part.history[-1]["collapse"]["from_noise"] > 0.02


def test_features_of_another_size_train_alike():
    made = []
    for size in (1.0, 64.0):
        part = FeatureGan(**QUICK).fit(_bank(size=size), _rng())
        made.append(part.synthesize(Examples(size * SUPPORT.x, SUPPORT.y), WANT, KEYS).x / size)
    assert torch.allclose(*made, rtol=1e-3, atol=1e-4)


def test_it_is_differentiable_in_the_support_and_the_generator():
    part = FeatureGan(**QUICK).fit(_bank(), _rng())
    x = SUPPORT.x.clone().requires_grad_()
    part.synthesize(Examples(x, SUPPORT.y), WANT, KEYS).x.sum().backward()
    assert x.grad.abs().sum() > 0
    assert part.generator_.last.weight.grad.abs().sum() > 0


def test_the_critics_loss_of_a_linear_critic():
    critic = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[3.0, 4.0, 1.0, 1.0]]))  # its gradient with respect to x has length 5
    real, fake, means = torch.ones(6, 2), torch.zeros(6, 2), torch.rand(6, 2, generator=_rng())
    part = torch.rand(6, 1, generator=_rng(1))
    loss = critic_loss(critic, real, fake, means, part, 10.0)
    assert float(loss.detach()) == pytest.approx(-7 + 10 * 16, rel=1e-5)
    loss.backward()
    assert critic.weight.grad.abs().sum() > 0


def test_diversity_of_known_pairs():
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    z = torch.stack([one, other])[None]
    assert float(diversity(z, z)) == pytest.approx(1)
    assert float(diversity(torch.stack([one, one])[None], z)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"rate": 0.0}, {"penalty": -1.0}, {"way": 1}, {"shots": "a"}, {"noise_scale": -1.0}]
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(InputError):
        FeatureGan(**bad)
