"""What a benchmark measures: how many classes, shots, queries and episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from augforge.data.selection import GROUP, group_numbers
from augforge.episodes.apart import sides
from augforge.episodes.tasks import Task
from augforge.types import InputError

Shots = int | tuple[int, int]
SHOTS = (1, 2, 5, 10, 20)  # of a task of one's own, as far as its classes go
_QUERIES = 15  # of each class, as far as its classes go


@dataclass(frozen=True)
class BenchPlan:
    """Which episodes, and what gains are against. Raises InputError for numbers out of range.

    With a `fit_seed` several trainings can be compared on the same episodes.
    """

    way: int = 5  # classes of an episode, at least 2
    shots: tuple[Shots, ...] = (1, 5)  # support rows of each class, in turn; in (low, high) each class draws its own
    query: int = 15  # queries of each class, at least 1
    trials: int = 600  # episodes, at least 2
    seed: int = 0  # draws the episodes
    part: Literal["novel", "val"] = "novel"  # the classes that episodes are of; val to choose settings by
    against: Literal["nothing", "best"] = "nothing"  # best: gains over the best plain classifier on validation too
    fit_seed: int | None = None  # of fitting and making; None: that of the episodes
    controls: bool = True  # whether the table has its controls; without them only nothing made stands beside methods
    tested: bool = False  # one episode, whose queries are what is counted: a fixed support against a test set

    def __post_init__(self) -> None:
        """Check the numbers."""
        lows = [shots if isinstance(shots, int) else shots[0] for shots in self.shots]
        if self.way < 2 or self.query < 1 or self.trials < 2 - self.tested or min(lows, default=0) < 1:
            raise InputError(
                f"way={self.way}, shots={self.shots}, query={self.query}, trials={self.trials} was given; expected "
                "at least 2 classes, 1 shot, 1 query and 2 trials"
            )
        highs = [shots if isinstance(shots, int) else shots[1] for shots in self.shots]
        if max(self.way, self.query, self.trials, *highs, 0) >= 2**31 or not -(2**63) <= self.seed < 2**64:
            raise InputError("a number of the plan was given that is larger than any data set; expected way, shots, "
                             "query and trials below 2,147,483,648 and a seed of 64 bits")  # fmt: skip
        if len(set(self.shots)) < len(self.shots):
            raise InputError(f"shots={self.shots} was given; expected each number once")
        if any(not isinstance(shots, int) and (len(shots) != 2 or shots[0] >= shots[1]) for shots in self.shots):
            raise InputError(f"shots={self.shots} was given; expected the lower number of a range first, as (1, 5)")
        if self.part not in ("novel", "val") or self.against not in ("nothing", "best"):
            raise InputError(
                f"part={self.part!r}, against={self.against!r} was given; expected novel or val, nothing or best"
            )

    @property
    def training_seed(self) -> int:
        """The seed of fitting and making."""
        return self.seed if self.fit_seed is None else self.fit_seed


def shots_name(shots: Shots) -> int | str:
    """A number of shots as JSON has it: 5, or "1-5" for a range."""
    return shots if isinstance(shots, int) else f"{shots[0]}-{shots[1]}"


def mean_shots(shots: Shots) -> float:
    """The mean number of shots of a class."""
    return sum(shots) / 2 if isinstance(shots, tuple) else float(shots)


def plan_of(task: Task, asked: Mapping[str, Any]) -> BenchPlan:
    """The plan of what was `asked`, fields of a BenchPlan; what is None or absent there is what suits the task.

    Of a task of one's own: all classes, the shots of 1, 2, 5, 10 and 20 that its smallest class has rows for beside a
    query at least, up to 15 queries, and as many episodes as give about 3,000 classes, from 50 to 600. Of fixed
    episodes their form; else 600 episodes, 5-way, 1 and 5 shots, 15 queries. Raises InputError for numbers out of
    range.
    """
    wanted = {name: value for name, value in asked.items() if value is not None}
    usual: dict[str, Any] = {"way": 5, "shots": (1, 5), "query": 15, "trials": 600}
    if task.fixed is not None and asked.get("part", "novel") == "novel":
        first = task.fixed[0]
        way, shot = first.support.shape
        fewest = int((first.support >= 0).sum(1).min())
        shots = (shot,) if fewest == shot or task.tested is None else ((fewest, shot),)
        usual = {"way": way, "shots": shots, "query": first.query.shape[1], "trials": len(task.fixed),
                 "tested": task.tested is not None}  # fmt: skip
    elif task.base is None and asked.get("part", "novel") == "novel":
        usual = _of_own(task, wanted.get("shots"), wanted.get("query"))
        usual["trials"] = min(600, max(50, 3000 // wanted.get("way", usual["way"])))
    return BenchPlan(**(usual | wanted))


def _of_own(task: Task, shots: tuple[Shots, ...] | None, query: int | None) -> dict[str, Any]:
    """Way, shots and queries of episodes within the classes of a source; InputError where they allow none."""
    capacities = own_capacities(task)
    most = max(max(s) if isinstance(s, tuple) else s for s in shots or (1,))
    enough = [one for one in capacities if one.fits(most, query or 1)]
    if len(enough) < 2:
        of = ", in different groups" if GROUP in task.novel.groups else ""
        raise InputError(
            f"{task.name!r} has {len(enough)} classes with {most} support rows and {query or 1} for a query{of}; "
            "episodes need 2 such classes"
        )
    found = shots or tuple(s for s in SHOTS if all(one.fits(s, query or 1) for one in enough))
    most = max(max(s) if isinstance(s, tuple) else s for s in found)
    asked = max(q for q in range(1, _QUERIES + 1) if q == 1 or all(one.fits(most, q) for one in enough))
    return {"way": len(enough), "shots": found, "query": query or asked}


@dataclass(frozen=True)
class Capacity:
    """How many rows a class has for support and for queries; `rows` together, where any may be either."""

    support: int
    query: int
    rows: int | None = None

    def fits(self, shot: int, query: int) -> bool:
        """Whether there are so many of each."""
        return shot <= self.support and query <= self.query and (self.rows is None or shot + query <= self.rows)


def own_capacities(task: Task) -> list[Capacity]:
    """What each class of a task of one's own allows; with groups, what dealing these out evenly leaves."""
    bank, group = task.novel, group_numbers(task.novel)
    counts = bank.counts().tolist()
    if group is not None:
        least = sides(bank.y, group)[1]
        if task.sides is None:
            return [Capacity(n, n) for n in least]
    if task.sides is None:
        return [Capacity(n, n, n) for n in counts]
    side, k = torch.as_tensor(bank.groups[task.sides]), len(bank.classes)
    of_support, of_query = (torch.bincount(bank.y[side == i], minlength=k).tolist() for i in (0, 1))
    if group is None:
        return [Capacity(s, q) for s, q in zip(of_support, of_query, strict=True)]
    return [Capacity(min(s // 2, n), min(q // 2, n)) for s, q, n in zip(of_support, of_query, least, strict=True)]


def in_words(task: Task, plan: BenchPlan) -> str:
    """What is run on a task of one's own, in one line."""
    shots = ", ".join(str(shots_name(shot)) for shot in plan.shots)
    if task.tested is not None:
        return f"{shots} rows of each of the {plan.way} classes of {task.name} against {plan.query} of {task.tested}"
    counts = task.novel.counts()
    smallest = int(counts.argmin())
    return (
        f"episodes within {task.name}: {plan.way} of its {len(counts)} classes, {shots} shots, {plan.query} queries of "
        f"each, {plan.trials} times; its smallest class, {task.novel.classes[smallest]!r}, has {int(counts.min())} rows"
    )
