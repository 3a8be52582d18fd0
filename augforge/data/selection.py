"""Which rows of a source are used: at most so many of each class, and which rows are near-copies of each other."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augforge import chance
from augforge.data.banks import AnyBank, B, keep_rows
from augforge.types import InputError

GROUP = "group"  # the column of a bank's `groups` that says which rows are near-copies: frames of a track, one day


@dataclass(frozen=True)
class Selection:
    """What `--max-per-class` and `--group-by` ask of every bank of a source.

    Raises InputError for a number below 1 and for what is no regular expression.
    """

    max_per_class: int | None = None  # rows of each class, chosen by the seed; None: all
    group_by: str | None = None  # a regular expression, searched in the name of each row
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what was given."""
        if self.max_per_class is not None and self.max_per_class < 1:
            raise InputError(f"--max-per-class {self.max_per_class} was given; expected at least 1")
        if self.group_by is not None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of what a later Python may read otherwise
                    re.compile(self.group_by)
            except (re.error, RecursionError, OverflowError) as error:
                raise InputError(f"--group-by {self.group_by!r} is no regular expression ({error})") from error

    def of(self, bank: AnyBank) -> AnyBank:
        """The rows of a bank that were asked for, with the column GROUP where there is `group_by`; InputError."""
        if self.max_per_class is not None:
            bank = at_most(bank, self.max_per_class, self.seed)  # type: ignore[type-var]
        return bank if self.group_by is None else grouped(bank, self.group_by)  # type: ignore[type-var]


def at_most(bank: B, most: int, seed: int) -> B:
    """The bank with at most `most` rows of each class, in their old order; the rows for fewer are among those for more.

    A class keeps its rows whatever other classes there are.
    """
    return keep_rows(bank, (ranks_within_classes(bank, seed, "max-per-class") < most).nonzero(as_tuple=True)[0])


def grouped(bank: B, pattern: str) -> B:
    """The bank with the column GROUP: the first group of `pattern` that matches in a row's name, or the whole match.

    Raises InputError where the pattern is not found in a name.
    """
    found = [re.search(pattern, bank.name(row)) for row in range(len(bank))]
    missing = [row for row, match in enumerate(found) if match is None]
    if missing:
        raise InputError(
            f"--group-by {pattern!r} is not found in {len(missing)} of the {len(bank)} names of {bank.origin!r}, as "
            f"{bank.name(missing[0])!r}; expected a pattern that is in each of them"
        )
    column = tuple(_first_group(match) for match in found if match is not None)
    return replace(bank, groups={**bank.groups, GROUP: column})


def group_numbers(bank: AnyBank) -> Tensor | None:
    """The column GROUP as numbers [n] int64 from 0, equal where rows are of one group; None without the column."""
    column = bank.groups.get(GROUP)
    if column is None:
        return None
    if isinstance(column, Tensor):
        return torch.unique(column, return_inverse=True)[1]
    ids = {name: i for i, name in enumerate(dict.fromkeys(column))}
    return torch.tensor([ids[name] for name in column], dtype=torch.int64)


def ranks_within_classes(bank: AnyBank, seed: int, purpose: str) -> Tensor:
    """The place [n] int64 of every row, from 0, in a random order of the rows of its class."""
    ranks = torch.empty(len(bank.y), dtype=torch.int64)
    by_class = torch.argsort(bank.y, stable=True).split(bank.counts().tolist())
    for name, rows in zip(bank.classes, by_class, strict=True):
        keys = chance.fork(chance.row_keys(seed, name, torch.arange(len(rows))), purpose)
        order = torch.argsort(chance.uniform64(keys), stable=True)
        ranks[rows[order]] = torch.arange(len(rows))
    return ranks


def _first_group(match: re.Match[str]) -> str:
    return next((text for text in match.groups() if text is not None), match.group())
