import math

import pytest
import torch

from augforge.metrics.frechet import enough_rows, frechet_distance
from augforge.metrics.rows import TooFewRows
from augforge.types import InputError


def _draw(n, d, seed, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    return shift + scale * torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing


def _by_square_root(real, made):
    """The published formula with a matrix square root, in another order of work."""
    from scipy import linalg

    real, made = real.numpy(), made.numpy()
    c, g = (((x - x.mean(0)).T @ (x - x.mean(0))) / (len(x) - 1) for x in (real, made))
    root = linalg.sqrtm(c @ g).real
    return float(((real.mean(0) - made.mean(0)) ** 2).sum() + (c + g - 2 * root).trace())


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 12), (400, 90, 64), (120, 120, 40)])
def test_it_is_the_published_formula(n, m, d):
    real, made = _draw(n, d, 1), _draw(m, d, 2, shift=0.3, scale=1.4)
    assert frechet_distance(real, made) == pytest.approx(_by_square_root(real, made), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(10, 8), (10, 300), (300, 10)])
def test_with_fewer_rows_than_dimensions_it_is_the_published_formula(n, m):
    real, made = _draw(n, 24, 1), _draw(m, 24, 2, shift=0.5)
    eigenvalues = torch.linalg.eigvals(torch.cov(real.mT) @ torch.cov(made.mT))
    root = eigenvalues.real.clamp(min=0).sqrt().sum()
    apart = (real.mean(0) - made.mean(0)).square().sum()
    wanted = apart + torch.cov(real.mT).trace() + torch.cov(made.mT).trace() - 2 * root
    assert frechet_distance(real, made) == pytest.approx(float(wanted), rel=1e-5)


def test_agrees_with_torchmetrics():
    from torchmetrics.image import fid as image

    real, made = _draw(500, 16, 1), _draw(400, 16, 2, shift=0.2)
    wanted = image._compute_fid(real.mean(0), torch.cov(real.mT), made.mean(0), torch.cov(made.mT))
    assert frechet_distance(real, made) == pytest.approx(float(wanted), rel=1e-3)


def test_agrees_with_pytorch_fid():
    from pytorch_fid import fid_score as published

    real, made = _draw(500, 16, 1).numpy(), _draw(400, 16, 2, shift=0.2).numpy()
    moments = [(x.mean(0), (x - x.mean(0)).T @ (x - x.mean(0)) / (len(x) - 1)) for x in (real, made)]
    wanted = published.calculate_frechet_distance(*moments[0], *moments[1])
    assert frechet_distance(torch.from_numpy(real), torch.from_numpy(made)) == pytest.approx(float(wanted), rel=1e-3)


def test_agrees_with_torch_fidelity():
    from torch_fidelity import metric_fid as published

    real, made = _draw(500, 16, 1), _draw(400, 16, 2, shift=0.2)
    moments = [published.fid_features_to_statistics(x) for x in (real, made)]
    wanted = published.fid_statistics_to_metric(*moments, False)["frechet_inception_distance"]
    assert frechet_distance(real, made) == pytest.approx(float(wanted), rel=1e-3)


@pytest.mark.parametrize(("n", "d"), [(80, 20), (12, 20), (540, 520), (520, 540)])
def test_a_stretched_set_at_large_and_small_widths(n, d):
    """Covariances C and 4 C have the roots of one matrix: the distance is |m - 2 m - s|^2 + tr(C) (2 - 1)^2."""
    real = torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = (real.mean(0) + 0.5).square().sum() + torch.cov(real.mT).trace()
    assert frechet_distance(real, 2 * real + 0.5) == pytest.approx(float(wanted), rel=1e-6)


def test_known_gaussians():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200_000, 3, generator=generator)
    made = torch.randn(200_000, 3, generator=generator) * torch.tensor([2.0, 1.0, 0.5]) + torch.tensor([1.0, 0.0, -1.0])
    wanted = 2 + (2 - 1) ** 2 + (0.5 - 1) ** 2  # diagonal: the squared differences of means and of deviations
    assert frechet_distance(real, made) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("n", [9, 300])
def test_of_a_set_to_itself_is_nothing(n):
    x = _draw(n, 20, 3)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-7 * float(x.square().sum(1).mean()))


def test_symmetric_and_blind_to_turns_and_order():
    real, made = _draw(100, 8, 1), _draw(70, 8, 2, shift=1.0)
    turn = torch.linalg.qr(_draw(8, 8, 5)).Q
    wanted = frechet_distance(real, made)
    assert frechet_distance(made, real) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(real @ turn + 3, made @ turn + 3) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(real.flip(0), made) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(2 * real, 2 * made) == pytest.approx(4 * wanted, rel=1e-9)


def test_dead_features_change_nothing():
    real, made = _draw(100, 8, 1), _draw(90, 8, 2, shift=1.0)
    wider = [torch.cat([x, torch.zeros(len(x), 5, dtype=x.dtype)], 1) for x in (real, made)]
    assert frechet_distance(*wider) == pytest.approx(frechet_distance(real, made), rel=1e-6)


def test_with_few_rows_it_measures_their_number():
    few, many = ([_draw(n, 64, seed) for seed in (1, 2)] for n in (30, 640))
    assert frechet_distance(*few) > 5 * frechet_distance(*many)
    assert not enough_rows(639, 64)
    assert enough_rows(640, 64)


def test_float32_and_float16_rows_are_taken():
    real, made = _draw(60, 4, 1), _draw(60, 4, 2, shift=1.0)
    wanted = frechet_distance(real, made)
    assert frechet_distance(real.float(), made.float()) == pytest.approx(wanted, rel=1e-5)
    assert math.isfinite(frechet_distance(real.half(), made.half()))


def test_what_is_refused():
    x = _draw(10, 4, 1)
    with pytest.raises(InputError, match="made rows are 3 numbers wide and the real rows 4"):
        frechet_distance(x, x[:, :3])
    with pytest.raises(InputError, match=r"\[10, 2, 2\]"):
        frechet_distance(x.reshape(10, 2, 2), x)
    with pytest.raises(TooFewRows, match="there is 1 made row; the Fréchet distance needs at least 2"):
        frechet_distance(x, x[:1])
    broken = x.clone()
    broken[7, 2] = torch.nan
    with pytest.raises(InputError, match="made row 7 holds a number that is not finite"):
        frechet_distance(x, broken)
