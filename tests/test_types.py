import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.types import Bank, Examples, InputError, LackError, QuotaError


def _features(n, start=0.0):
    return torch.arange(n * 2, dtype=torch.float32).reshape(n, 2) + start


def test_joining_fills_missing_parents_and_weights():
    real = Examples(_features(2), torch.tensor([0, 1]))
    made = Examples(_features(3, 10), torch.tensor([1, 1, 0]), torch.tensor([1, 1, 0]), torch.tensor([0.5, 0.25, 2.0]))
    both = real + made
    assert torch.equal(both.x, torch.cat([real.x, made.x]))
    assert both.y.tolist() == [0, 1, 1, 1, 0]
    assert both.parent.tolist() == [-1, -1, 1, 1, 0]
    assert both.weight.tolist() == [1, 1, 0.5, 0.25, 2]
    swapped = made + real
    assert swapped.parent.tolist() == [1, 1, 0, -1, -1]
    assert swapped.weight.tolist() == [0.5, 0.25, 2, 1, 1]
    assert (both.parent.dtype, both.weight.dtype) == (torch.int64, torch.float32)


def test_joining_real_rows_keeps_them_real():
    both = Examples(_features(1), torch.tensor([0])) + Examples(_features(2), torch.tensor([1, 2]))
    assert both.parent is None
    assert both.weight is None
    assert len(both) == 3


def test_joining_lists_and_pictures_of_other_sizes_gives_a_list():
    a, b = torch.zeros(2, 3, 4, 4), torch.ones(1, 3, 5, 5)
    ya, yb = torch.tensor([0, 1]), torch.tensor([2])
    for left, right in ((a, b), (list(a), b), (a, list(b)), (list(a), list(b))):
        x = (Examples(left, ya) + Examples(right, yb)).x
        assert isinstance(x, list)
        assert [tuple(p.shape) for p in x] == [(3, 4, 4), (3, 4, 4), (3, 5, 5)]


def test_joining_with_nothing_changes_nothing():
    real = Examples(_features(2), torch.tensor([0, 1]))
    both = real + Examples(real.x[:0], real.y[:0], real.y[:0])
    assert torch.equal(both.x, real.x)
    assert both.parent.tolist() == [-1, -1]


@pytest.mark.parametrize("wrong", [{"x": _features(3)}, {"parent": torch.zeros(1)}, {"weight": torch.zeros(3)}])
def test_unequal_columns_are_refused(wrong):
    with pytest.raises(ValueError, match="differ in length"):
        Examples(**({"x": _features(2), "y": torch.zeros(2)} | wrong))


def test_taking_rows():
    rows = Examples(_features(4), torch.arange(4), torch.tensor([3, 2, 1, 0]), torch.tensor([1.0, 2, 3, 4]))
    some = rows.take(torch.tensor([2, 0, 2]))
    assert torch.equal(some.x, rows.x[[2, 0, 2]])
    assert (some.y.tolist(), some.parent.tolist(), some.weight.tolist()) == ([2, 0, 2], [1, 3, 1], [3, 1, 3])
    masked = rows.take(torch.tensor([False, True, False, True]))
    assert masked.y.tolist() == [1, 3]
    listed = Examples(list(rows.x), rows.y)
    assert isinstance(listed.take(torch.tensor([3, 1])).x, list)
    assert torch.equal(torch.stack(listed.take(torch.tensor([3, 1])).x), rows.x[[3, 1]])
    assert listed.take(torch.tensor([True, False, False, False])).y.tolist() == [0]


def test_a_bank_is_known_by_what_it_has():
    assert isinstance(FeatureBank(_features(1), torch.zeros(1, dtype=torch.int64), ("a",)), Bank)
    assert not isinstance(object(), Bank)


def test_exit_codes():
    assert [error.exit_code for error in (InputError, QuotaError, LackError)] == [2, 3, 4]
    assert issubclass(InputError, ValueError)
