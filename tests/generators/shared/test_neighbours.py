import pytest
import torch

from augforge.generators.shared.neighbours import nearest_of_class


def _by_hand(x, y, rows, count):
    found = torch.zeros(len(rows), count, dtype=torch.int64)
    for i, row in enumerate(rows.tolist()):
        members = (y == y[row]).nonzero()[:, 0]
        members = members[members != row]
        far = (x[members].double() - x[row].double()).square().sum(1)
        near = members[far.argsort(stable=True)][:count]
        found[i] = row
        found[i, : len(near)] = near
    return found


@pytest.mark.parametrize("d", [1, 3, 40])
@pytest.mark.parametrize("kind", ["spread", "far from 0", "many alike"])
def test_neighbours_are_those_by_hand_also_where_many_are_equally_near(kind, d):
    draw = torch.Generator().manual_seed(d)
    x, y = torch.randn(300, d, generator=draw), torch.randint(0, 3, (300,), generator=draw)
    x = {"spread": x, "far from 0": x + 1e4, "many alike": (x / 2).round()}[kind]
    y[:2], y[2] = 3, 4  # a class of two rows, and one of a single row
    rows = torch.randperm(300, generator=draw)
    assert torch.equal(nearest_of_class(x, y, rows, 5), _by_hand(x, y, rows, 5))


def test_neighbours_do_not_depend_on_which_rows_are_asked_for_together():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 6, generator=draw).round(decimals=1), torch.arange(200) % 2
    found = nearest_of_class(x, y, torch.arange(200), 7)
    assert torch.equal(nearest_of_class(x, y, torch.tensor([150, 3]), 7), found[[150, 3]])
    assert torch.equal(found, _by_hand(x, y, torch.arange(200), 7))
