"""The episodes of a comparison as tensors, checked, with what is right and which classes go together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augforge.data.banks import AnyBank
from augforge.data.selection import group_numbers
from augforge.episodes import check_episode
from augforge.types import Episode, Examples, InputError

_FEWEST_GROUPS = 5  # with fewer, the spread between groups is too uncertain


@dataclass(frozen=True, eq=False)
class Stacked:
    """n episodes of one form: `classes` [n, way], `support` [n, way, shot] and `query` [n, way, q], all int64."""

    classes: Tensor
    support: Tensor
    query: Tensor


@dataclass(frozen=True, eq=False)
class Trials:
    """n episodes of one form: `rows` as tensors (-1 in `support` is padding), `target` [n, m] the position of the
    class of each query, and `clusters` [n, way] which classes stand and fall together, for intervals over classes.
    `near` says the same of the rows of the bank: those of one group of near-copies have one number.

    Of a task of one's `own` the classes stay, and intervals are over pictures. A single episode that is `tested` is
    looked at query by query: `clusters` is then [m, 1], of the class of each.
    """

    rows: Stacked
    target: Tensor
    clusters: NDArray[np.int64]
    near: NDArray[np.int64] | None = None  # [rows of the bank]; None: each row for itself
    tested: bool = False
    own: bool = False

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.target)

    @property
    def way(self) -> int:
        """Classes of an episode."""
        return self.rows.classes.shape[1]

    def counts(self) -> Tensor:
        """How many real support rows each class of each episode has: [n, way]."""
        return (self.rows.support >= 0).sum(2)

    def part(self, start: int, end: int) -> Trials:
        """The episodes from `start` up to, not including, `end`."""
        return self._at(slice(start, end))

    def take(self, places: Tensor) -> Trials:
        """The episodes at `places` [m] int64, in that order."""
        return self._at(places)

    def _at(self, places: slice | Tensor) -> Trials:
        r, rows = self.rows, places if isinstance(places, slice) else places.numpy()
        clusters = self.clusters if self.tested else self.clusters[rows]
        stacked = Stacked(r.classes[places], r.support[places], r.query[places])
        return replace(self, rows=stacked, target=self.target[places], clusters=clusters)

    def pictures(self) -> NDArray[np.int64]:
        """The row of each query, or its group's number: [n, m]; what an interval over pictures draws anew."""
        rows = self.rows.query.flatten(1).numpy()
        return rows if self.near is None else self.near[rows]

    def by_class(self, correct: NDArray) -> NDArray[np.float64]:
        """The part of right answers for each class, [n, way], from `correct` [n, m]; of a tested support [m, 1].

        Where the queries are not in lines, one for each class, every class has the mean of its episode.
        """
        n, lines, each = self.rows.query.shape
        if self.tested:
            return correct.reshape(-1, 1).astype(np.float64)
        if lines == self.way:
            return correct.reshape(n, lines, each).mean(2)
        return np.repeat(correct.mean(1, keepdims=True), self.way, axis=1)

    def digest(self) -> str:
        """16 hexadecimal digits of all the rows."""
        hashed = hashlib.sha256()
        for tensor in (self.rows.classes, self.rows.support, self.rows.query):
            hashed.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
        return hashed.hexdigest()[:16]


MadeRows = tuple[Tensor, Tensor | None]  # rows [b, way, made, d] of b episodes, and their weights; None: 1 each
RowMaker = Callable[[int, Trials], MadeRows]  # of the number of the first episode, and b episodes


def as_trials(
    episodes: Sequence[Episode], bank: AnyBank, groups: str | None = None, tested: bool = False, own: bool = False
) -> Trials:
    """Episodes of `bank` as tensors; `groups` names the column that classes are grouped by, as in a Task, and `tested`
    and `own` are as in Trials.

    Raises InputError where one is not of this bank, a query row is in its support, or their forms differ.
    """
    forms = {(e.support.shape, e.query.shape) for e in episodes}
    if len(forms) != 1:
        raise InputError(f"{len(episodes)} episodes of {len(forms)} different forms were given; expected one form")
    rows = Stacked(*(torch.stack([getattr(e, key) for e in episodes]) for key in ("classes", "support", "query")))
    _check(rows, episodes, bank.y)
    labels = bank.y[rows.query.flatten(1)]
    target = (labels[:, :, None] == rows.classes[:, None, :]).to(torch.int8).argmax(2)  # [n, m, way] -> [n, m]
    of_class, near = cluster_of_classes(bank, groups), group_numbers(bank)
    clusters = of_class[labels.reshape(-1, 1).numpy()] if tested else of_class[rows.classes.numpy()]
    return Trials(rows, target, clusters, None if near is None else near.numpy(), tested, own)


def _check(rows: Stacked, episodes: Sequence[Episode], y: Tensor) -> None:
    """`check_episode` for all, at once where nothing is wrong: it goes one by one, and takes a tenth of a second for
    each thousand episodes.
    """
    way = rows.classes.shape[1]
    used = torch.cat([rows.support.flatten(1), rows.query.flatten(1)], 1)  # [n, all rows]
    inside = bool((used >= 0).all()) and bool((used < len(y)).all())
    ordered = used.sort(1).values
    own = rows.classes[:, :, None]
    if (
        inside
        and not bool((ordered[:, 1:] == ordered[:, :-1]).any())
        and rows.query.shape[1] == way
        and bool((y[rows.support] == own).all())
        and bool((y[rows.query] == own).all())
    ):
        return
    for episode in episodes:
        check_episode(episode, y)


def cluster_of_classes(bank: AnyBank, groups: str | None) -> NDArray[np.int64]:
    """The cluster of each class, [k]: its group where the bank has at least five, else itself.

    Classes that are one picture's rotations are one cluster.
    """
    k = len(bank.classes)
    if "rotation" in bank.groups:
        names = [re.sub(r"/rot\d+$", "", name) for name in bank.classes]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)
    column = None if groups is None else bank.groups.get(groups)
    if column is None:
        return np.arange(k)
    values = column.tolist() if isinstance(column, Tensor) else list(column)
    first = {label: values[row] for row, label in reversed(list(enumerate(bank.y.tolist())))}
    found = np.unique([str(first.get(i)) for i in range(k)], return_inverse=True)[1].astype(np.int64)
    return found if len(np.unique(found)) >= _FEWEST_GROUPS else np.arange(k)


def gather(features: Tensor, episodes: Sequence[Episode], y: Tensor | None = None) -> tuple[Examples, Tensor, Tensor]:
    """A batch of b episodes of one form, as what a classifier takes: support, query [b, m, d], target [b, m].

    `features` [n, d] are those of the bank that the episodes index, and `y` [n] its labels, needed where the queries
    are not a line for each class. The support has x [b, way * shot, d], y [b, way * shot] and weight None, or
    [b, way * shot] in the dtype of the features, 0 where a class has fewer rows than `shot` (x is 0 there too).
    A target is a position in `classes` [way]. Raises InputError for episodes of different forms.
    """
    forms = {(e.support.shape, e.query.shape) for e in episodes}
    if len(forms) != 1:
        raise InputError(f"{len(episodes)} episodes of {len(forms)} different forms were given; expected one form")
    (_, shot), _ = forms.pop()
    device = features.device
    rows = torch.stack([e.support for e in episodes]).flatten(1).to(device)  # [b, way * shot]
    query = torch.stack([e.query for e in episodes])  # [b, lines, q]
    target = _targets(torch.stack([e.classes for e in episodes]), query, y).to(device)
    labels = (torch.arange(rows.shape[1], device=device) // shot).expand(rows.shape)
    unused = rows < 0
    x, weight = _rows(features, rows.clamp(min=0)), None
    if bool(unused.any()):
        x = x.masked_fill(unused[:, :, None], 0)
        weight = (~unused).to(features.dtype)
    return Examples(x, labels, weight=weight), _rows(features, query.flatten(1).to(device)), target


def _rows(features: Tensor, rows: Tensor) -> Tensor:
    """features[rows] for rows [b, m] -> [b, m, d]: index_select is a quarter faster than indexing."""
    return features.index_select(0, rows.reshape(-1)).unflatten(0, rows.shape)


def _targets(classes: Tensor, query: Tensor, y: Tensor | None) -> Tensor:
    """Positions [b, lines * q] in `classes` [b, way] of the classes of `query` [b, lines, q]."""
    episodes, lines, each = query.shape
    way = classes.shape[1]
    if y is not None:
        labels = y.to(query.device)[query.reshape(episodes, lines * each)]
        return (labels[:, :, None] == classes[:, None, :]).to(torch.int8).argmax(2)  # [b, lines * q, way] -> [b, m]
    if lines != way:
        raise InputError(
            f"an episode of {way} classes has {lines} lines of queries, so the labels of the bank are needed to tell "
            "their classes; expected y"
        )
    return torch.arange(way, device=query.device).repeat_interleave(each).expand(episodes, -1)
