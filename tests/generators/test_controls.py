import pytest
import torch

from augforge import chance
from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.generators.nothing import Nothing
from augforge.generators.shared.support import choose_parents
from augforge.types import Examples, InputError

KEYS = chance.row_keys(0, "controls", torch.arange(20000))


def _bank(n=4000, d=3):
    """Classes far apart, with one covariance within each."""
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 8
    mixing = torch.tensor([[2.0, 0, 0], [1, 0.5, 0], [0, -0.3, 0.1]])
    x = torch.randn(n, d, generator=rng) @ mixing.T + 50 * torch.randn(8, d, generator=rng)[y]
    return FeatureBank(x, y, tuple("abcdefgh")), mixing @ mixing.T


def _fit(part, bank):
    return part.fit(bank, torch.Generator())


def test_parents_are_chosen_evenly_among_their_class():
    y = torch.tensor([1, 0, 1, 3, 1, 0])
    want = torch.tensor([0, 1, 3, 1]).repeat(5000)
    parent = choose_parents(y, want, KEYS)
    assert torch.equal(y[parent], want)
    counts = torch.bincount(parent, minlength=6).double()
    expected = torch.tensor([10000 / 3, 2500, 10000 / 3, 5000, 10000 / 3, 2500])
    assert ((counts - expected) ** 2 / expected).sum() < 19.0  # 3 degrees of freedom free, p = 3e-4
    assert choose_parents(y, want[:0], KEYS[:0]).tolist() == []
    for absent in (2, 4):
        with pytest.raises(InputError, match=f"class {absent} is wanted but has no support row"):
            choose_parents(y, torch.tensor([1, absent]), KEYS[:2])


def test_copies_are_bytes_of_the_support():
    x = torch.randint(0, 256, (4, 1, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = Copies().synthesize(Examples(x, torch.tensor([0, 0, 1, 1])), torch.tensor([1, 0] * 50), KEYS[:100])
    assert torch.equal(made.x, x[made.parent])
    assert len(made.parent.unique()) == 4


def test_nothing_keeps_the_kind_of_its_support():
    pictures = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for x in (pictures, torch.zeros(2, 6, dtype=torch.float64), list(pictures)):
        made = Nothing().synthesize(Examples(x, torch.tensor([0, 1])), torch.tensor([0, 5]), KEYS[:2])
        assert len(made) == 0
        assert isinstance(made.x, list) or (made.x.shape, made.x.dtype) == (x[:0].shape, x.dtype)


def test_noise_has_the_pooled_covariance_within_classes():
    bank, covariance = _bank()
    part = _fit(Noise(scale=2.0), bank)
    assert torch.allclose(part.factor_ @ part.factor_.T, covariance, atol=0.2)
    support = Examples(bank.x[:1], torch.zeros(1, dtype=torch.int64))
    moved = part.synthesize(support, torch.zeros(len(KEYS), dtype=torch.int64), KEYS).x - support.x
    assert moved.mean(0).abs().max() < 4 * 2 * (5**0.5) / len(KEYS) ** 0.5
    assert torch.allclose(torch.cov(moved.T), 4 * part.factor_ @ part.factor_.T, atol=0.6)


def test_the_covariance_is_that_of_its_definition():
    bank, _ = _bank(n=83)
    part = _fit(Noise(), bank)
    x = bank.x.double()
    centred = torch.cat([x[bank.y == c] - x[bank.y == c].mean(0) for c in range(8)])
    pooled = (centred.T @ centred / (83 - 8)).float()
    assert torch.allclose(part.factor_ @ part.factor_.T, pooled, rtol=1e-3, atol=1e-3)


def test_a_class_with_one_row_says_nothing_of_the_spread():
    bank, _ = _bank(n=80)
    lonely = FeatureBank(
        torch.cat([bank.x, torch.full((1, 3), 1e4)]), torch.cat([bank.y, torch.tensor([8])]), (*"abcdefghi",)
    )
    assert torch.allclose(_fit(Noise(), lonely).factor_, _fit(Noise(), bank).factor_, atol=1e-3)
    with pytest.raises(InputError, match="at least 2 rows"):
        _fit(Noise(), FeatureBank(bank.x[:8], bank.y[:8], bank.classes))


def test_noise_of_size_zero_makes_copies():
    bank, _ = _bank(80)
    support = Examples(bank.x[:4], torch.tensor([0, 0, 1, 1]))
    want = torch.tensor([0, 1] * 10)
    made = _fit(Noise(scale=0), bank).synthesize(support, want, KEYS[:20])
    assert torch.equal(made.x, Copies().synthesize(support, want, KEYS[:20]).x)


@pytest.mark.parametrize("whole", [255, 1])
def test_noise_on_pictures_is_white_and_stays_in_range(whole):
    grey = torch.full((1, 3, 16, 16), 0.5) if whole == 1 else torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
    part = _fit(Noise(pixel_deviation=0.1), ArrayPictures(torch.zeros(0, dtype=torch.int64), (), grey.numpy(), ""))
    want = torch.zeros(200, dtype=torch.int64)
    moved = (part.synthesize(Examples(grey, want[:1]), want, KEYS[:200]).x.double() - grey.double()) / whole
    n = moved.numel()
    assert abs(moved.mean()) < 4 * 0.1 / n**0.5
    assert abs(moved.std() - 0.1) < 4 * 0.1 / (2 * n) ** 0.5 + 1e-4
    neighbours = torch.corrcoef(torch.stack([moved[..., 1:].flatten(), moved[..., :-1].flatten()]))[0, 1]
    assert abs(neighbours) < 4 / n**0.5
    white = torch.full_like(grey, whole)
    bright = part.synthesize(Examples(white, want[:1]), want, KEYS[:200]).x
    assert bright.max() == whole
    assert (bright < whole).double().mean() == pytest.approx(0.5, abs=0.05)


def test_noise_says_what_it_lacks():
    support = Examples(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InputError, match="not fitted yet"):
        Noise().synthesize(support, support.y, KEYS[:1])
    with pytest.raises(InputError, match="fitted on 3 features; these rows have 4"):
        _fit(Noise(), _bank(80)[0]).synthesize(support, support.y, KEYS[:1])
    for wrong in (-1.0, float("nan")):
        with pytest.raises(InputError, match="at least 0"):
            Noise(scale=wrong)
