"""Tasks: a source with its protocol: base classes to learn from, validation classes to choose by, novel ones to test.

An episode is rows of one of the three banks, so the same episodes serve the pictures and every feature bank that is
made from them, and all comparisons are paired.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from augforge.data.banks import AnyBank
from augforge.data.selection import group_numbers
from augforge.episodes import check_episode, draw_episodes, draw_within_groups, with_shots
from augforge.episodes.apart import draw_apart
from augforge.types import Episode, InputError

Part = Literal["base", "val", "novel"]


@dataclass(frozen=True)
class Task:
    """What is compared on: `base` to learn from, `val` to choose by, `novel` to test on; the first two may be None.

    `groups` names a column of the banks ("alphabet"): an episode then stays within one group of classes; None means
    that it may take any. `fixed` are episodes of `novel` that the protocol prescribes, or None where they are drawn; a
    single one that holds all there is to test has `tested` set, and what is said of it is said of its queries. `sides`
    names a column of `novel` that is 0 for rows that may be support and 1 for those that may be queries. Rows that are
    alike in the column "group" are never both in the support and among the queries of an episode. Raises InputError
    where a class is in two of the parts, and for a fixed episode that is none.
    """

    name: str
    base: AnyBank | None
    val: AnyBank | None
    novel: AnyBank
    groups: str | None = None
    fixed: Sequence[Episode] | None = None
    sides: str | None = None
    tested: str | None = None  # what its queries were read from, beside a fixed support

    def __post_init__(self) -> None:
        """Refuse leakage: no class is in two parts, and no query is in its support."""
        parts = {"base": self.base, "val": self.val, "novel": self.novel}
        known = {part: set(bank.classes) for part, bank in parts.items() if bank is not None}
        for one, other in itertools.combinations(known, 2):
            both = sorted(known[one] & known[other])
            if both:
                raise InputError(
                    f"the class {both[0]!r} of the task {self.name!r} is among its {one} classes and its {other} "
                    f"classes; expected no class in both ({len(both)} of them are)"
                )
        for episode in self.fixed or ():
            check_episode(episode, self.novel.y)


def task_episodes(
    task: Task,
    *,
    way: int,
    shot: int | Sequence[int],
    n_query: int,
    trials: int,
    seed: int = 0,
    part: Part = "novel",
) -> list[Episode]:
    """The episodes of a part of a task: rows of `task.novel`, `task.val` or `task.base`.

    `shot` may be a sequence of length `way`: class i then has shot[i] support rows, and `support` is
    [way, max(shot)] with -1 behind the rows of the smaller ones. Episode i depends on (labels, way, max(shot),
    n_query, seed, i) alone. Its classes and the first support row of each are the same for every shot and n_query,
    as long as all classes have enough rows. Within groups, each episode's group is drawn first, evenly among those
    with enough classes. Fixed episodes are given in their order. Raises InputError where the part lacks the
    classes or rows, and where fixed episodes have another form or are fewer.
    """
    shots = (shot,) * way if isinstance(shot, int) else tuple(shot)
    if len(shots) != way or min(shots, default=0) < 1:
        raise InputError(f"shot={shot} was given for {way}-way episodes; expected 1 or more, or {way} such numbers")
    if part == "novel" and task.fixed is not None:
        return _fixed(task, (way, max(shots), n_query), trials)
    bank = {"base": task.base, "val": task.val, "novel": task.novel}[part]
    if bank is None:
        what = "validation" if part == "val" else part
        raise InputError(f"the task {task.name!r} has no {what} classes")
    form, group = (way, max(shots), n_query), group_numbers(bank)
    side = None if task.sides is None or part != "novel" else torch.as_tensor(bank.groups[task.sides])
    if task.groups is None and group is None and side is None:
        drawn = draw_episodes(bank.y, way=way, shot=max(shots), n_query=n_query, trials=trials, seed=seed)
    elif task.groups is None:
        drawn = draw_apart(bank.y, form, trials, seed, group=group, side=side)
    else:
        if group is not None:
            raise InputError(f"--group-by was given with {task.name!r}, whose episodes stay within one {task.groups}; "
                             "expected another task")  # fmt: skip
        column = bank.groups.get(task.groups)
        if column is None:
            raise InputError(f"the {part} bank of {task.name!r} has no column {task.groups!r} to keep episodes within")
        drawn = draw_within_groups(bank.y, _numbered(column), form, trials, seed)
    return drawn if isinstance(shot, int) else [with_shots(episode, shots) for episode in drawn]


def _fixed(task: Task, form: tuple[int, int, int], trials: int) -> list[Episode]:
    """The first `trials` of the fixed episodes; raises InputError where they are not (way, shot, queries) `form`."""
    fixed = list(task.fixed or ())
    found = (*fixed[0].support.shape, fixed[0].query.shape[1])
    if found != form or not 1 <= trials <= len(fixed):
        raise InputError(
            f"the task {task.name!r} is {len(fixed)} fixed episodes of way {found[0]}, shot {found[1]} and query "
            f"{found[2]}; {trials} of way {form[0]}, shot {form[1]} and query {form[2]} were asked for"
        )
    return fixed[:trials]


def _numbered(column: Tensor | tuple[str, ...]) -> Tensor:
    """A column [n] of numbers or names as group numbers [n] int64."""
    if isinstance(column, Tensor):
        return torch.unique(column, return_inverse=True)[1]
    ids = {name: i for i, name in enumerate(dict.fromkeys(column))}
    return torch.tensor([ids[name] for name in column], dtype=torch.int64)
