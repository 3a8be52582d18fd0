import pytest
import torch

from augforge import chance
from augforge.classifiers.gaussian import Gaussian
from augforge.data.banks import FeatureBank
from augforge.generators.calibration import Calibration, low_rank, signed_power
from augforge.types import Examples, InputError

N = 30000
KEYS = chance.row_keys(0, "calibration", torch.arange(N))
D = 5


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _bank(d=D, each=60):
    """Six non-negative classes, each with a covariance of its own."""
    y = torch.arange(6).repeat_interleave(each)
    shape = torch.randn(6, d, d, generator=_rng(1)) / d**0.5
    noise = torch.einsum("nd,nde->ne", torch.randn(len(y), d, generator=_rng(2)), shape[y])
    return FeatureBank((3 * torch.rand(6, d, generator=_rng(3))[y] + 0.4 * noise).relu(), y, tuple("abcdef"))


def _powered(bank, power):
    return FeatureBank(bank.x**power, bank.y, bank.classes)


def _reference(bank, x, part):
    """Equations 3 to 6 as they stand in the paper for a raw row, in the transformed space."""
    base = [bank.x[bank.y == c].double() for c in range(6)]
    means, covariances = [b.mean(0) for b in base], [torch.cov(b.T) for b in base]
    t = x.double() ** part.power
    near = sorted(range(6), key=lambda c: float((means[c] - t).square().sum()))[: part.k]
    mean = (sum(means[c] for c in near) + t) / (part.k + 1)
    alpha = torch.full((D, D), part.alpha) if part.alpha_on == "full" else part.alpha * torch.eye(D)
    return mean, sum(covariances[c] for c in near) / part.k + alpha


@pytest.mark.parametrize("alpha_on", ["full", "diagonal"])
@pytest.mark.parametrize(("power", "k"), [(0.5, 2), (1.0, 3), (0.7, 1)])
def test_draws_have_the_moments_of_the_paper(alpha_on, power, k):
    bank, x = _bank(), torch.rand(1, D, generator=_rng(5)) * 2
    powered = _powered(bank, power)
    part = Calibration(power=power, k=k, alpha_on=alpha_on, given="powered").fit(powered, _rng())
    zero = torch.zeros(N, dtype=torch.int64)
    made = part.synthesize(Examples(x**power, zero[:1]), zero, KEYS).x.double()
    mean, covariance = _reference(bank, x[0], part)
    assert (made.mean(0) - mean).abs().max() < 5 * (covariance.diagonal().max() / N) ** 0.5
    assert (torch.cov(made.T) - covariance).abs().max() < 0.03 * covariance.diagonal().max()
    centre = Calibration(power=power, k=k, noise_scale=0, given="powered").fit(powered, _rng())
    still = centre.synthesize(Examples(x**power, zero[:1]), zero[:9], KEYS[:9]).x.double()
    assert torch.allclose(still, mean.expand(9, -1), atol=1e-5)


def test_every_support_row_has_a_gaussian_of_its_own():
    bank, y = _bank(), torch.tensor([0, 1, 0, 1, 1])
    x = torch.rand(5, D, generator=_rng(5)) * 3
    part = Calibration(noise_scale=0).fit(bank, _rng())
    made = part.synthesize(Examples(x, y), torch.tensor([0, 1] * 50), KEYS[:100])
    assert set(made.parent.tolist()) == {0, 1, 2, 3, 4}
    for row, parent in zip(made.x, made.parent.tolist(), strict=True):
        assert torch.allclose(row.double() ** 0.5, _reference(bank, x[parent], part)[0], atol=1e-5)


def test_a_classifier_that_transforms_rows_sees_the_published_draws():
    bank, x = _bank(), torch.rand(4, D, generator=_rng(5))
    support, want = Examples(x, torch.arange(4)), torch.arange(4).repeat(50)
    rooted = _powered(bank, 0.5)
    raw = Calibration().fit(bank, _rng()).synthesize(support, want, KEYS[:200])
    given = Calibration(given="powered").fit(rooted, _rng())
    powered = given.synthesize(Examples(x.sqrt(), support.y), want, KEYS[:200])
    assert (powered.x < 0).any()
    assert torch.allclose(signed_power(raw.x, 0.5), powered.x, atol=1e-4)
    query = torch.rand(30, D, generator=_rng(6))
    by_sqrt = Gaussian(transform="sqrt").fit(bank, _rng()).scores(support + raw, query)
    plain = Gaussian(transform="raw").fit(rooted, _rng())
    by_hand = plain.scores(Examples(x.sqrt(), support.y) + powered, query.sqrt())
    assert torch.allclose(by_sqrt, by_hand, rtol=1e-3, atol=1e-3)


def test_the_power_keeps_signs_and_is_undone():
    x = torch.tensor([-4.0, 0.0, 0.25, 9.0])
    assert signed_power(x, 0.5).tolist() == [-2, 0, 0.5, 3]
    assert torch.allclose(signed_power(signed_power(x, 0.3), 1 / 0.3), x, atol=1e-5)
    assert signed_power(x, 1) is x


@pytest.mark.parametrize(("n", "d", "rank", "exact"), [(50, 12, 12, True), (9, 40, 8, True), (80, 40, 6, False)])
def test_a_covariance_of_low_rank_keeps_the_strongest_directions_and_the_trace(n, d, rank, exact):
    x = torch.randn(n, d, generator=_rng(), dtype=torch.float64) @ torch.diag(0.8 ** torch.arange(d).double())
    apart = x - x.mean(0)
    start = torch.randn(d, min(d, rank + 8), generator=_rng(1), dtype=torch.float64)
    factor, rest = low_rank(apart, start, rank)
    real = apart.T @ apart / (n - 1)
    made = factor.T @ factor + rest * torch.eye(d, dtype=torch.float64)
    assert torch.allclose(made.trace(), real.trace())
    if exact:
        assert rest == 0
        assert torch.allclose(made, real, atol=1e-9)
    else:
        strongest = torch.linalg.eigvalsh(real).flip(0)[:rank]
        assert torch.allclose(factor.square().sum(1).sort(descending=True).values, strongest, rtol=1e-3)


def test_a_low_rank_draw_has_the_covariance_that_is_kept():
    bank = _bank()
    part = Calibration(rank=2, k=1, power=1, alpha=0).fit(bank, _rng())
    zero = torch.zeros(N, dtype=torch.int64)
    made = part.synthesize(Examples(part.means_[3:4], zero[:1]), zero, KEYS).x.double()
    kept = part.factors_[3].T @ part.factors_[3] + part.rest_[3] * torch.eye(D)
    assert part.rest_[3] > 0
    assert (torch.cov(made.T) - kept).abs().max() < 0.03 * kept.diagonal().max()


def test_classes_of_one_row_are_left_out():
    bank = _bank()
    lonely = FeatureBank(torch.cat([bank.x, torch.zeros(1, D)]), torch.cat([bank.y, torch.tensor([7])]), (*"abcdefgh",))
    part = Calibration().fit(lonely, _rng())
    assert torch.equal(part.means_, Calibration().fit(bank, _rng()).means_)
    with pytest.raises(InputError, match="k=9 needs that many base classes of at least 2 rows; there are 6"):
        Calibration(k=9).fit(bank, _rng())


def test_gradients_reach_the_support():
    part = Calibration(power=0.5).fit(_bank(), _rng())
    x = (torch.rand(2, D, generator=_rng(5)) + 0.1).requires_grad_()
    made = part.synthesize(Examples(x, torch.arange(2)), torch.tensor([0, 1, 0]), KEYS[:3])
    made.x.sum().backward()
    assert (x.grad != 0).all()


def test_what_calibration_lacks_is_said():
    support = Examples(torch.rand(1, D), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InputError, match="not fitted yet"):
        Calibration().synthesize(support, support.y, KEYS[:1])
    with pytest.raises(InputError, match="fitted on 5 features; these have 4"):
        Calibration().fit(_bank(), _rng()).synthesize(Examples(support.x[:, :4], support.y), support.y, KEYS[:1])
    for wrong in ({"power": 0.0}, {"k": 0}, {"alpha": -1.0}, {"rank": 0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            Calibration(**wrong)
