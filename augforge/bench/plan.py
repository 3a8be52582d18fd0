"""What a benchmark measures: how many classes, shots, queries and episodes, and the episodes that this means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from augforge import chance
from augforge.data.banks import AnyBank
from augforge.episodes.batch import Trials, as_trials
from augforge.episodes.tasks import Task, task_episodes
from augforge.group_episodes import with_shots
from augforge.types import InputError

Shots = int | tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """Which episodes: `way` classes, each of `shots` support rows in turn, `query` queries of each class, `trials` of
    them drawn by `seed`, of the classes of `part`: novel, or val to choose settings by.

    One of the `shots` may be a pair (low, high): each class of each episode then draws its own number from low to
    high. `fit_seed` is the seed of fitting and making (None: that of the episodes), so that several trainings can be
    judged on the same episodes. `against` "best" adds to every row its gain over the best classifier with nothing
    made, chosen on the validation classes. Raises InputError for numbers out of range.
    """

    way: int = 5
    shots: tuple[Shots, ...] = (1, 5)
    query: int = 15
    trials: int = 600
    seed: int = 0
    part: Literal["novel", "val"] = "novel"
    against: Literal["nothing", "best"] = "nothing"
    fit_seed: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        lows = [shots if isinstance(shots, int) else shots[0] for shots in self.shots]
        if self.way < 2 or self.query < 1 or self.trials < 2 or min(lows, default=0) < 1:
            raise InputError(
                f"way={self.way}, shots={self.shots}, query={self.query}, trials={self.trials} was given; expected "
                "at least 2 classes, 1 shot, 1 query and 2 trials"
            )
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


def plan_trials(task: Task, bank: AnyBank, plan: Plan, shots: Shots) -> Trials:
    """The episodes of a plan at one of its shots; `bank` is the part of the task that they are of.

    In a range every number is equally likely, and a class's draw depends on (plan.seed, episode, position) alone.
    Raises InputError where the classes or rows do not suffice.
    """
    low, most = shots if isinstance(shots, tuple) else (shots, shots)
    episodes = task_episodes(task, way=plan.way, shot=most, n_query=plan.query, trials=plan.trials, seed=plan.seed,
                             part=plan.part)  # fmt: skip
    if low < most:
        keys = chance.row_keys(plan.seed, "shots", torch.arange(plan.trials))
        drawn = low + (chance.uniform64(keys, (plan.way,)) * (most - low + 1)).to(torch.int64)  # [n, way]
        episodes = [with_shots(episode, each) for episode, each in zip(episodes, drawn.tolist(), strict=True)]
    return as_trials(episodes, bank, task.groups)
