"""How fast a training is, whatever it trains: its steps are counted by those of the optimiser that moves first.

A training is begun with more steps than it will ever take and is left by an exception, so that nothing but steps is
measured: no evaluation, no checkpoint. First it warms up, then it is timed, then profiled, then its operations counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

_PROFILED = 8  # steps
_COUNTED = 4  # steps: where a penalty is worked out in every fourth, one of them has it


class _Enough(Exception):
    """Leaves the training."""


@dataclass
class Measured:
    """`steps` in `seconds`, floating-point operations of one step, and the profile of a few."""

    steps: int
    seconds: float
    flops: float
    profile: profile


def measured_training(
    train: Callable[[], object],
    phases: tuple[int, float],
    synchronise: Callable[[], None],
    profiler: Callable[[], profile],
) -> Measured:
    """Measure the training that `train` begins: `phases` are (steps of warming up, seconds that are timed).

    Raises RuntimeError where the training ends by itself before it was measured.
    """
    watch = _Watch(phases, synchronise, profiler)
    handle = register_optimizer_step_post_hook(watch.after_step)
    try:
        train()
    except _Enough:
        assert watch.profile is not None
        return Measured(watch.steps, watch.seconds, watch.counter.get_total_flops() / _COUNTED, watch.profile)
    finally:
        handle.remove()
    raise RuntimeError("the training ended before it was measured; expected more steps")


class _Watch:
    """Follows a training step by step through its phases."""

    def __init__(self, phases: tuple[int, float], synchronise: Callable[[], None], profiler: Callable[[], profile]):
        self.warm_up, self.least_seconds = phases
        self.synchronise, self.profiler = synchronise, profiler
        self.first: int | None = None
        self.seen = self.steps = 0
        self.started = self.seconds = 0.0
        self.profile: profile | None = None
        self.counter = FlopCounterMode(display=False)

    def after_step(self, optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """What an optimiser calls after it has moved; one of several counts."""
        self.first = id(optimiser) if self.first is None else self.first
        if id(optimiser) != self.first:
            return
        self.seen += 1
        if self.seen == self.warm_up:
            self.synchronise()
            self.started = time.perf_counter()
        elif self.seen > self.warm_up and not self.steps:
            if time.perf_counter() - self.started > self.least_seconds:
                self._end_timing()
        elif self.steps:
            self._look_inside(self.seen - self.warm_up - self.steps)

    def _end_timing(self) -> None:
        self.synchronise()
        self.seconds = time.perf_counter() - self.started
        self.steps = self.seen - self.warm_up
        self.profile = self.profiler()
        self.profile.__enter__()

    def _look_inside(self, after: int) -> None:
        assert self.profile is not None
        if after == _PROFILED:
            self.synchronise()
            self.profile.__exit__(None, None, None)
            self.counter.__enter__()
        elif after == _PROFILED + _COUNTED:
            self.counter.__exit__(None, None, None)
            raise _Enough
