import pytest
import torch

from augforge.metrics.by_class import by_class
from augforge.metrics.diversity import diversity
from augforge.metrics.kid import kid
from augforge.metrics.memorisation import memorisation
from augforge.types import InputError


def _draw(n, seed):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_class_is_measured_on_its_own_rows():
    real, real_y = _draw(30, 1), torch.arange(30) % 3
    made, made_y = _draw(24, 2), torch.arange(24) % 3
    found = by_class(kid, [(real, real_y), (made, made_y)])
    assert found.values == {c: kid(real[c::3], made[c::3]) for c in range(3)}
    assert not found.too_few


def test_classes_with_too_few_rows_are_named():
    real, real_y = _draw(10, 1), torch.tensor([0] * 5 + [4] * 5)
    made, made_y = _draw(9, 2), torch.tensor([0] * 6 + [4] + [7] * 2)
    found = by_class(diversity, [(real, real_y), (made, made_y)])
    assert list(found.values) == [0]
    assert list(found.too_few) == [4, 7]
    assert "there is 1 made row" in found.too_few[4]
    assert "there are 0 real rows" in found.too_few[7]


def test_a_collapse_within_classes_is_seen_only_class_by_class():
    centres = 20 * _draw(5, 1)
    y = torch.arange(50) % 5
    real, made = centres[y] + _draw(50, 2), centres[y]
    assert diversity(real, made).ratio > 0.9
    assert all(value.ratio < 1e-6 for value in by_class(diversity, [(real, y), (made, y)]).values.values())


def test_three_sets():
    y = torch.arange(20) % 2
    sets = [(_draw(20, seed), y) for seed in range(3)]
    found = by_class(lambda *x: memorisation(*x, resamples=20), sets)
    assert found.values[1] == memorisation(*(x[1::2] for x, _ in sets), resamples=20)


def test_what_is_refused():
    x, y = _draw(4, 1), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match="set 1 has 4 rows and labels"):
        by_class(kid, [(x, y), (x, y[:3])])
    with pytest.raises(InputError, match="not finite"):
        by_class(kid, [(x, y), (x / 0, y)])
