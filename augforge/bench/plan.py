"""What a benchmark measures: how many classes, shots, queries and episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from augforge.types import InputError

Shots = int | tuple[int, int]


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
