"""`suggest`: which rows of a pool are most worth a label, in Python and from the command line."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from augforge.data.banks import FeatureBank
from augforge.suggest import suggest, suggest_rows
from augforge.types import Examples, InputError

WAY, D = 6, 24


def toy(seed=0):
    """One labelled row of each of three of six classes, and a pool of all six with its labels."""
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(WAY, D, generator=rng)
    truth = torch.arange(WAY).repeat_interleave(8)
    pool = means[truth] + 0.3 * torch.randn(len(truth), D, generator=rng)
    return Examples(means[:3] + 0.3 * torch.randn(3, D, generator=rng), torch.arange(3)), pool, truth


def test_what_nothing_stands_for_comes_first():
    for seed in range(5):
        support, pool, truth = toy(seed)
        found = suggest_rows(support, pool, 3)
        assert set(truth[[row for row, _ in found]].tolist()) == {3, 4, 5}
        assert all(gain > 0 for _, gain in found)


def test_the_first_choice_written_out():
    support, pool, _ = toy(1)
    x, u = F.normalize(support.x.double(), dim=1), F.normalize(pool.double(), dim=1)
    centre = torch.cat([x, u]).mean(0)
    x, u = F.normalize(x - centre, dim=1), F.normalize(u - centre, dim=1)
    gains = []
    for i in range(len(u)):
        gains.append(sum(max(0.0, float(u[j] @ u[i]) - max(float(u[j] @ row) for row in x)) for j in range(len(u))))
    assert suggest_rows(support, pool, 1)[0][0] == int(np.argmax(gains))


def test_choices_are_different_and_few_where_there_are_few():
    support, pool, _ = toy()
    rows = [row for row, _ in suggest_rows(support, pool, 100)]
    assert sorted(rows) == list(range(len(pool)))
    assert suggest_rows(support, pool[:0], 5) == []
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))
    assert order[suggest_rows(support, pool[order], 1)[0][0]] == rows[0]
    with pytest.raises(InputError, match="count=0"):
        suggest_rows(support, pool, 0)


def test_labels_that_were_suggested_name_more_than_random_ones():
    chosen, drawn = 0, 0
    for seed in range(8):
        support, pool, truth = toy(seed)
        random = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:3]
        chosen += len(set(truth[[row for row, _ in suggest_rows(support, pool, 3)]].tolist()) - {0, 1, 2})
        drawn += len(set(truth[random].tolist()) - {0, 1, 2})
    assert chosen >= 22
    assert drawn < 16


def test_names_and_banks():
    support, pool, _ = toy()
    bank = FeatureBank(support.x, support.y, ("a", "b", "c"), "mine")
    unlabelled = FeatureBank(pool, torch.zeros(len(pool), dtype=torch.int64), ("",), "pool")
    found = suggest(bank, unlabelled, count=2)
    assert [one.name for one in found] == [f"features[{one.row}]" for one in found]
