"""The Delta-encoder and the conditional VAE: both learn from pairs of rows of one base class."""

from dataclasses import replace

import pytest
import torch

from augforge import chance
from augforge.data.banks import FeatureBank
from augforge.generators.delta_encoder import DeltaEncoder, weighted_error
from augforge.generators.feature_vae import FeatureVae, negative_bound
from augforge.types import Examples, InputError

QUICK = {"steps": 3, "batch": 16}
PARTS = [DeltaEncoder(codes=50, **QUICK), FeatureVae(**QUICK)]
both = pytest.mark.parametrize("part", PARTS, ids=["delta-encoder", "feature-vae"])


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _bank(classes=30, each=12, seed=0, size=1.0):
    """Classes far apart, all spread along one direction, (1, -1, 0, ...)."""
    rng = _rng(seed)
    y = torch.arange(classes).repeat_interleave(each)
    spread = torch.randn(len(y), 1, generator=rng) * torch.tensor([1.0, -1, 0, 0, 0, 0])
    x = 4 + torch.randn(classes, 6, generator=rng)[y] + spread
    return FeatureBank(size * x, y, tuple(map(str, range(classes))))


SUPPORT = Examples(_bank(seed=4).x[:6], torch.tensor([0, 1, 1, 2, 0, 2]))
WANT = torch.tensor([2, 0, 1, 1, 0, 2, 2])
KEYS = chance.row_keys(0, "pairs", torch.arange(7))


@pytest.mark.parametrize(
    "part",
    [
        DeltaEncoder(steps=100, rate=2e-3, dropout=0.0, code_width=4, width=64, batch=128),
        FeatureVae(steps=150, rate=5e-3, code_width=4, width=64, batch=128),
    ],
    ids=["delta-encoder", "feature-vae"],
)
def test_it_learns_how_base_classes_spread(part):
    part.fit(_bank(), _rng())
    seed = Examples(_bank(seed=4).x[:1], torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        made = part.synthesize(seed, torch.zeros(500, dtype=torch.int64), chance.row_keys(0, "many", torch.arange(500)))
    values, vectors = torch.linalg.eigh(torch.cov(made.x.double().T))
    assert abs(float(vectors[0, -1] - vectors[1, -1])) > 1.3  # along (1, -1, 0, ...), 2 ** 0.5 at most
    assert values[-1] > 2 * values[-2]


@both
def test_without_noise_a_row_is_a_function_of_its_parent(part):
    part.fit(_bank(), _rng())
    still = replace(part, noise_scale=0.0)
    for name in ("encoder_", "decoder_", "codes_", "size_", "facts_"):
        if hasattr(part, name):
            setattr(still, name, getattr(part, name))
    made, moving = still.synthesize(SUPPORT, WANT, KEYS), part.synthesize(SUPPORT, WANT, KEYS)
    for row in made.parent.unique():
        assert len(torch.unique(made.x[made.parent == row], dim=0)) == 1
    assert torch.equal(made.parent, moving.parent)
    assert not torch.equal(made.x, moving.x)


@both
def test_features_of_another_size_train_alike(part):
    made = []
    for size in (1.0, 64.0):
        fitted = replace(part).fit(_bank(size=size), _rng())
        made.append(fitted.synthesize(Examples(size * SUPPORT.x, SUPPORT.y), WANT, KEYS).x / size)
    assert torch.allclose(*made, rtol=1e-3)


@both
def test_it_is_differentiable_in_the_support_and_the_decoder(part):
    part.fit(_bank(), _rng())
    x = SUPPORT.x.clone().requires_grad_()
    part.synthesize(Examples(x, SUPPORT.y), WANT, KEYS).x.sum().backward()
    assert x.grad.abs().sum() > 0
    assert part.decoder_.last.weight.grad.abs().sum() > 0


@both
def test_classes_of_one_row_are_refused(part):
    bank = FeatureBank(torch.rand(4, 6, generator=_rng()), torch.arange(4), tuple("abcd"))
    with pytest.raises(InputError, match="every base class has 1 row"):
        replace(part).fit(bank, _rng())


@both
def test_history_ends_with_how_far_it_has_collapsed(part):
    history = part.fit(_bank(), _rng()).history
    assert "loss" in history[0]
    assert set(history[-1]["collapse"]) == {"made_over_real", "moved", "from_noise"}


@pytest.mark.parametrize("cls", [DeltaEncoder, FeatureVae])
@pytest.mark.parametrize("bad", [{"steps": 0}, {"rate": 0.0}, {"width": 0}, {"noise_scale": -1.0}, {"code_width": 0}])
def test_settings_out_of_range_are_refused(cls, bad):
    with pytest.raises(InputError):
        cls(**bad)


def test_the_weighted_error_of_a_known_row():
    target = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    found = torch.tensor([[4.0, 6.0], [0.0, 2.0]], requires_grad=True)
    loss = weighted_error(target, found)  # errors 3 and 4 with weights 9/25 and 16/25; 2 with weight 1
    assert float(loss.detach()) == pytest.approx(((27 + 64) / 25 + 2) / 2)
    loss.backward()
    assert torch.allclose(found.grad, torch.tensor([[9 / 25, 16 / 25], [0.0, 1.0]]) / 2)


def test_the_bound_of_known_numbers():
    mean, log_variance = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]).log().nan_to_num(neginf=0.0)
    target, found = torch.zeros(1, 3), torch.full((1, 3), 2.0)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(mean, torch.tensor([[1.0, 2.0]]).sqrt()), normal(0.0, 1.0)
    ).sum()
    assert float(negative_bound(target, found, mean, log_variance)) == pytest.approx(
        1.5 * float(torch.tensor(4.0).log()) + float(expected), rel=1e-5
    )
