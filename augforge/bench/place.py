"""Where a benchmark computes: on a device of this machine, or, in items of work, on the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from augforge.adapters.ray import PROCESSES, RayRunner
from augforge.types import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
Job = TypeVar("Job")
RunItems = Callable[..., Iterator[Any]]  # (function, job, items, workers): the results of function(job, item), in order


@dataclass(frozen=True, eq=False)
class Place:
    """Where parts are fitted and evaluated. What is fitted is fitted in this process.

    With `shared`, as `RayRunner("ray:auto").in_order`, the pictures of banks and of made rows are embedded and batches
    of episodes are predicted by its workers, on CPUs. An item is a pure function of its number: results are the same.
    """

    device: str = "cpu"
    shared: RunItems | None = None

    def __post_init__(self) -> None:
        """Raise InputError for workers that would need a device."""
        if self.shared is not None and self.device != "cpu":
            raise InputError(f"--device {self.device} was given with --engine, whose workers compute on CPUs; expected "
                             "--device cpu")  # fmt: skip

    def each(self, function: Callable[[Job, Item], Result], job: Job, items: Iterable[Item]) -> Iterator[Result]:
        """`function(job, item)` for every item, in order."""
        if self.shared is None:
            return (function(job, item) for item in items)
        return self.shared(function, job, items, 0)


HERE = Place()  # all in this process, on the CPU


@contextmanager
def place_of(device: str, engine: str, workers: int = 0) -> Iterator[Place]:
    """The place that `--device`, `--engine` and `--workers` name; a cluster that it starts is gone afterwards.

    Raises InputError for what is no engine, and for an engine with another device than the CPU; LackError for an
    engine that this machine cannot use.
    """
    if engine == PROCESSES:
        if workers:
            raise InputError(f"--workers {workers} was given without --engine; expected --engine ray beside it")
        yield Place(device)
        return
    with RayRunner(engine, workers) as runner:
        yield Place(device, runner.in_order)
