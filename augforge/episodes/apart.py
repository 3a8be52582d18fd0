"""Episodes whose support and query come from different sides: of a source's splits, or of groups of near-copies.

A module of its own because `draw_episodes` serves millions of episodes at once, and these are drawn one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augforge import chance
from augforge.types import Episode, InputError

_ATTEMPTS = 200  # orders of the groups that are tried
_NOWHERE = -1  # a group that lies on no side yet

Rows = NDArray[np.int64]
Form = tuple[int, int, int]  # way, shot, queries of each class


@dataclass(frozen=True, eq=False)
class _Class:
    """The rows of a class that may be support and those that may be queries, and how its groups lie."""

    support: Rows
    query: Rows
    groups: Rows  # [g] ascending, each once
    counts: tuple[Rows, Rows]  # [g] how many support and how many query rows each group has


def draw_apart(
    y: Tensor, form: Form, trials: int, seed: int = 0, *, group: Tensor | None = None, side: Tensor | None = None
) -> list[Episode]:
    """Episodes of `form` (way, shot, n_query) of the labels `y` [n] in which two kinds of row never meet.

    Where `side` [n] is given, support rows are those of side 0 and queries those of side 1. Where `group` [n] is given,
    no group of rows, of whatever class, has rows in the support and rows among the queries of an episode: the groups
    of each class are shuffled and cut in two, as near to the middle as there are rows enough on both sides, and rows
    are drawn on either. Episode i depends on (y, form, seed, i, group, side) alone. Raises InputError where fewer than
    `way` classes have the rows, or groups, for it.
    """
    way, shot, n_query = form
    if min(way, shot, n_query, trials) < 1:
        raise InputError(f"way={way}, shot={shot}, n_query={n_query}, trials={trials} was given; expected at least 1")
    numbered = None if group is None else torch.unique(group, return_inverse=True)[1]
    classes = _classes(y, numbered, side)
    eligible = [k for k, rows in enumerate(classes) if _is_enough(rows, shot, n_query, group is not None, k)]
    if len(eligible) < way:
        of = " in different groups" if group is not None else ""
        raise InputError(
            f"{way}-way episodes need {way} classes with {shot} support and {n_query} query rows each{of}; "
            f"there are {len(eligible)}"
        )
    keys = chance.row_keys(seed, "episode", torch.arange(trials))
    groups = None if numbered is None else numbered.numpy()
    return [_episode(classes, eligible, form, key, groups) for key in keys.split(1)]


def sides(y: Tensor, group: Tensor) -> tuple[list[int], list[int]]:
    """How many rows each class has on the larger and on the smaller side where its groups are dealt out evenly.

    Groups go, largest first, to the side with fewer rows: ([k], [k]); a class with a single group has 0.
    """
    found = []
    for label in range(int(y.max()) + 1 if len(y) else 0):
        _, counts = np.unique(group[y == label].numpy(), return_counts=True)
        dealt = [0, 0]
        for count in sorted(counts.tolist(), reverse=True):
            dealt[dealt.index(min(dealt))] += count
        found.append((max(dealt), min(dealt)))
    return [most for most, _ in found], [least for _, least in found]


def _classes(y: Tensor, group: Tensor | None, side: Tensor | None) -> list[_Class]:
    labels = y.numpy()
    groups = np.zeros(len(labels), np.int64) if group is None else group.numpy()
    found = []
    for label in range(int(labels.max()) + 1 if len(labels) else 0):
        rows = (labels == label).nonzero()[0]
        of_class, place = np.unique(groups[rows], return_inverse=True)
        allowed = [np.ones(len(rows), bool) if side is None else side.numpy()[rows] == i for i in (0, 1)]
        counts = [np.bincount(place.reshape(-1)[some], minlength=len(of_class)) for some in allowed]
        found.append(_Class(rows[allowed[0]], rows[allowed[1]], of_class, (counts[0], counts[1])))
    return found


def _is_enough(rows: _Class, shot: int, n_query: int, grouped: bool, label: int) -> bool:
    """Whether a class has the rows and, by itself, an order of its groups in which they can be cut."""
    if len(rows.support) < shot or len(rows.query) < n_query:
        return False
    if not grouped:
        return True
    orders = chance.row_keys(label, "enough", torch.arange(_ATTEMPTS))
    nowhere = np.full(int(rows.groups.max()) + 1, _NOWHERE)
    return any(
        _cut(rows, nowhere, shot, n_query, chance.integers(key, len(nowhere))[0].numpy()) is not None
        for key in orders.split(1)
    )


def _episode(classes: list[_Class], eligible: list[int], form: Form, key: Tensor, group: Rows | None) -> Episode:
    way, shot, n_query = form
    order = chance.integers(chance.fork(key, "classes"), len(classes))[0].numpy()
    chosen = _shuffled(np.array(eligible), order)[:way].tolist()
    side_of = None if group is None else _sides_of_groups([classes[k] for k in chosen], form, key, int(group.max()) + 1)
    most = max(int(max(classes[k].support.max(), classes[k].query.max())) for k in chosen)
    order = chance.integers(chance.fork(key, "rows"), most + 1)[0].numpy()  # of rows of the bank
    lines = []
    for k in chosen:
        support, query = classes[k].support, classes[k].query
        if side_of is not None and group is not None:
            support, query = support[side_of[group[support]] == 0], query[side_of[group[query]] == 1]
        lines.append((_shuffled(support, order)[:shot], _shuffled(query, order)[-n_query:]))
    support_rows, query_rows = (torch.from_numpy(np.stack(part)) for part in zip(*lines, strict=True))
    return Episode(torch.tensor(chosen), support_rows, query_rows)


def _sides_of_groups(chosen: list[_Class], form: Form, key: Tensor, n_groups: int) -> Rows:
    """The side of each group of the bank, 0 for support, 1 for queries and -1 for those of other classes."""
    way, shot, n_query = form
    for attempt in range(_ATTEMPTS):
        order = chance.integers(chance.fork(key, f"groups {attempt}"), n_groups)[0].numpy()
        side_of = np.full(n_groups, _NOWHERE)
        for rows in chosen:
            found = _cut(rows, side_of, shot, n_query, order)
            if found is None:
                break
            for side, groups in enumerate(found):
                side_of[groups] = side
        else:
            return side_of
    raise InputError(
        f"the groups of the {way} classes of an episode cannot be dealt out so that each class has {shot} support "
        f"and {n_query} query rows; expected fewer of them, or smaller groups"
    )


def _cut(rows: _Class, side_of: Rows, shot: int, n_query: int, order: Rows) -> tuple[Rows, Rows] | None:
    """The groups of a class without a side, cut nearest to the middle of their order: those of either side."""
    now = side_of[rows.groups]
    free = _shuffled((now == _NOWHERE).nonzero()[0], order[rows.groups])
    of_support, of_query = rows.counts
    support = of_support[now == 0].sum() + np.concatenate([[0], of_support[free].cumsum()])
    query = of_query[now == 1].sum() + of_query[free].sum() - np.concatenate([[0], of_query[free].cumsum()])
    cuts = ((support >= shot) & (query >= n_query)).nonzero()[0]
    if not len(cuts):
        return None
    cut = int(cuts[np.abs(cuts - len(free) / 2).argmin()])
    return rows.groups[free[:cut]], rows.groups[free[cut:]]


def _shuffled(values: Rows, order: Rows) -> Rows:
    """Sorted by the number that each of them has in `order`."""
    return values[np.argsort(order[values], kind="stable")]
