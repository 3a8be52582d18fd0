"""Rows of a source: at most so many of each class, and columns of near-copies."""

import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.data.selection import GROUP, Selection, at_most, group_numbers, grouped
from augforge.data.source import open_source
from augforge.types import InputError


def bank(counts=(9, 4, 0, 12)):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    names = tuple(f"{'abcd'[k]}/track{i // 3:02d}_{i:03d}.jpg" for k, n in enumerate(counts) for i in range(n))
    return FeatureBank(torch.arange(float(len(y)))[:, None], y, tuple("abcd"[: len(counts)]), "/x", names)


@pytest.mark.parametrize("most", [1, 4, 5, 20])
def test_every_class_keeps_so_many_rows_and_its_place(most):
    whole = bank()
    some = at_most(whole, most, seed=0)
    assert some.classes == whole.classes
    assert some.counts().tolist() == [min(most, n) for n in whole.counts().tolist()]
    kept = [whole.names.index(name) for name in some.names]
    assert kept == sorted(kept)
    assert torch.equal(some.x[:, 0], torch.tensor(kept, dtype=torch.float32))


def test_fewer_are_among_more_and_another_seed_chooses_others():
    names = {most: set(at_most(bank(), most, seed=3).names) for most in range(1, 13)}
    assert all(names[most] < names[most + 1] for most in range(1, 12))
    assert set(at_most(bank(), 4, seed=4).names) != names[4]


def test_a_class_keeps_its_rows_whatever_other_classes_there_are():
    alone, among = at_most(bank().only(["d"]), 5, seed=0), at_most(bank(), 5, seed=0).only(["d"])
    assert alone.names == among.names


def test_each_row_is_as_likely_as_another():
    kept = torch.zeros(12)
    for seed in range(600):
        some = at_most(bank((12,)), 3, seed)
        kept[some.x[:, 0].long()] += 1
    assert (kept - 150).abs().max() < 45  # binomial(600, 1/4) has a standard deviation of 10.6


def test_a_column_of_groups_by_the_first_group_that_matches():
    by_track = grouped(bank(), r"^(.*)_\d+\.jpg$")
    assert by_track.groups[GROUP][:4] == ("a/track00", "a/track00", "a/track00", "a/track01")
    assert grouped(bank(), "track").groups[GROUP] == ("track",) * 25
    assert grouped(bank(), "^a/(track..)|^([bd])").groups[GROUP][8:11] == ("track02", "b", "b")
    numbers = group_numbers(by_track)
    assert len(numbers.unique()) == 3 + 2 + 4
    assert torch.equal(numbers[:4], torch.tensor([0, 0, 0, 1]))
    assert group_numbers(bank()) is None


def test_the_column_follows_its_rows():
    some = at_most(grouped(bank(), r"(track\d+)"), 2, seed=1).only(["d", "a"])
    assert all(name.split("/")[1].startswith(group) for name, group in zip(some.names, some.groups[GROUP], strict=True))


def test_every_split_is_selected_from(tmp_path):
    for split in ("train", "test"):
        for name, count in (("cat", 5), ("dog", 2)):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / split / name / f"{i}_{i}.png").touch()
    banks = open_source(tmp_path, selection=Selection(3, r"_(\d+)\.", seed=0))
    assert {split: found.counts().tolist() for split, found in banks.items()} == {"train": [3, 2], "test": [3, 2]}
    assert all(name[-5] == group for found in banks.values()
               for name, group in zip(found.names, found.groups[GROUP], strict=True))  # fmt: skip


def test_what_cannot_be_selected():
    with pytest.raises(InputError, match="--max-per-class 0 was given; expected at least 1"):
        Selection(0)
    with pytest.raises(InputError, match=r"--group-by '\(' is no regular expression"):
        Selection(group_by="(")
    for pattern in ("[[", "[" * 300, "(" * 5000, "a{" + "9" * 40 + "}"):  # of some Python warns, some are too deep
        with pytest.raises(InputError, match=r"is no regular expression"):
            Selection(group_by=pattern)
    with pytest.raises(InputError, match=r"not found in 4 of the 25 names of '/x', as 'b/track00_000\.jpg'; expected"):
        Selection(group_by="^[ad]").of(bank())
