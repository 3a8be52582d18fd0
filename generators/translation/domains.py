"""The two domains that `translation` learns from: which rows of a bank are of which, and what goes with what."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augforge import chance
from augforge.networks.pixels import Pixels, class_table, load_pixels
from augforge.types import Bank, InputError, NothingToLearn

_FEWEST = 5  # groups of which none is held out
Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class DomainSettings:
    """Which rows of a bank are of which domain, and what goes with what."""

    paired: bool
    domain: str  # column whose values are the domains ("": the two classes are)
    source: str  # value of the column, or class
    target: str
    pair: str  # column that says more about which rows go together
    size: int  # side of the pictures in px (0: as they are)


@dataclass(frozen=True, eq=False)
class Domains:
    """Two domains of pictures: the `classes` of each are units, of which one is drawn with equal chance.

    A unit is a class, a pair or a picture; its entry of `groups` is what is held out as a whole. Paired, unit i of the
    source goes with unit i of the target. With `named` the groups are the bank's classes.
    """

    source: Pixels
    target: Pixels
    named: bool


def load_domains(bank: Bank, settings: DomainSettings, device: str | torch.device) -> Domains:
    """The domains of a bank on a device; raises what `Translation.fit` says."""
    if not len(bank.y):
        raise NothingToLearn("translation learns from pictures; there are none")
    values, source, target = _values(bank, settings)
    sides = [[row for row, value in enumerate(values) if value == name] for name in (source, target)]
    keys = _keys(bank, settings, sides)
    if settings.paired:
        if not settings.domain and not settings.pair and len(sides[0]) != len(sides[1]):
            raise InputError(f"{source!r} has {len(sides[0])} pictures and {target!r} has {len(sides[1])}, which "
                             "cannot be paired by their order; expected as many of each, or mode=unpaired")  # fmt: skip
        both = set(keys[0]) & set(keys[1])
        units = [list(dict.fromkeys(key for key in keys[0] if key in both))] * 2
    else:
        units = [list(dict.fromkeys(side)) for side in keys]
    found, what = len(units[0]), "pairs"
    if not settings.paired:
        found, what = min(map(len, keys)), "pictures of one of them"
    if found < 2:
        raise InputError(f"translation from {source!r} to {target!r} found {found} {what} in "
                         f"{getattr(bank, 'origin', 'the bank')!r}; expected 2 or more")  # fmt: skip
    data = load_pixels(bank, settings.size, device)
    loaded = [_side(data, *columns, bool(settings.domain)) for columns in zip(sides, keys, units, strict=True)]
    return Domains(loaded[0], loaded[1], bool(settings.domain))


def _values(bank: Bank, settings: DomainSettings) -> tuple[list[str], str, str]:
    """The domain [n] of every row, and the names of source and target; InputError where there are no such."""
    if settings.domain:
        values = _column(bank, "domain", settings.domain)
        known = sorted(set(values))
        names = (settings.source, settings.target)
    else:
        known = list(bank.classes)
        values = [known[label] for label in bank.y.tolist()]
        if len(known) != 2:
            raise InputError("translation with domain='' needs a bank of two classes, which are the domains, and this "
                             f"has {len(known)}; expected domain=COLUMN, source=VALUE and target=VALUE")  # fmt: skip
        first = settings.source or known[settings.target == known[0]]
        names = (first, settings.target or known[first == known[0]])
    for setting, name in zip(("source", "target"), names, strict=True):
        if name not in known or names[0] == names[1]:
            raise InputError(f"{setting}={name!r} was given; expected two different ones of {', '.join(known[:20])}")
    return values, *names


def _column(bank: Bank, setting: str, name: str) -> list[str]:
    """A column [n] of the bank's groups as text."""
    columns = getattr(bank, "groups", {})
    if name not in columns:
        raise InputError(f"{setting}={name!r} was given; the columns of this source are {sorted(columns)}")
    column = columns[name]
    return [str(value) for value in (column.tolist() if isinstance(column, Tensor) else column)]


def _keys(bank: Bank, settings: DomainSettings, sides: list[list[int]]) -> list[list[Key]]:
    """What tells the unit of each row of each side: its class, where classes are not domains, and what pairs it."""
    labels = [(label,) if settings.domain else () for label in bank.y.tolist()]
    if settings.pair:
        column = _column(bank, "pair", settings.pair)
        return [[(*labels[row], column[row]) for row in rows] for rows in sides]
    return [[labels[row] or (place,) for place, row in enumerate(rows)] for rows in sides]


def _side(data: Pixels, rows: list[int], keys: list[Key], units: list[Key], named: bool) -> Pixels:
    """The rows [m] of one domain by unit; rows of no unit are left out."""
    number = {key: i for i, key in enumerate(units)}
    kept = [(number[key], row) for key, row in zip(keys, rows, strict=True) if key in number]
    unit, row = (torch.tensor(column) for column in zip(*kept, strict=True))  # [m] each
    table, counts = class_table(unit, len(units))
    groups = torch.tensor([key[0] for key in units] if named else range(len(units)), dtype=torch.int64)
    device = data.x.device
    return Pixels(data.x, data.y, row[table].to(device), counts.to(device), groups.to(device))


def split_domains(data: Domains, share: float, seed: int) -> tuple[Domains, Domains]:
    """What is trained on, and a share of the groups held out: at least two, drawn by `seed`.

    Both are all of it in a domain of fewer than five groups.
    """
    sides = [_split(side, share, seed) for side in (data.source, data.target)]
    trained, held_out = (Domains(first, second, data.named) for first, second in zip(*sides, strict=True))
    return trained, held_out


def _split(side: Pixels, share: float, seed: int) -> tuple[Pixels, Pixels]:
    groups = torch.unique(side.groups)
    if len(groups) < _FEWEST:
        return side, side
    draw = chance.uniform(chance.row_keys(seed, "held-out groups", groups))
    out = groups[torch.argsort(draw, stable=True)[: max(2, round(share * len(groups)))]]
    is_out = torch.isin(side.groups, out)
    return only_units(side, ~is_out), only_units(side, is_out)


def only_units(side: Pixels, kept: Tensor) -> Pixels:
    """A domain limited to some units: numbers [k] or bool [units]."""
    return replace(side, table=side.table[kept], counts=side.counts[kept], groups=side.groups[kept])
