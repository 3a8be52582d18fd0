"""The one loop under all trainings: clock, schedule, moving average, checkpoints, log, evaluation, stepping back.

All chance of a step is a function of (seed, step), and all that a loop carries from step to step is in its
checkpoint, so a run that was killed and goes on ends with the same weights on a CPU. What a step does is written where
the loop is gone through: forward, backward, optimiser.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augforge import chance
from augforge.training.checkpoint import (
    LOG,
    Groups,
    optimiser_state,
    restore_optimiser,
    resume_checkpoint,
    write_checkpoint,
)  # fmt: skip
from augforge.training.distributed import from_first, rank_and_world
from augforge.types import InputError

_LOG_EVERY = 50  # steps between two lines of the log
_CHECK_EVERY = 50  # steps between two checks of the losses on a device, where each check waits for it
_STORE_EVERY = 100  # steps between two states that a run may step back to


@dataclass(frozen=True)
class Run:
    """How a fit is carried out; on a CPU and without `minutes` nothing here changes what is learnt."""

    device: str = "cpu"  # where it runs
    folder: Path | None = None  # gets a log and checkpoints; a run that is found there is gone on with
    minutes: float | None = None  # ends a stage after that time; learning rates fall accordingly
    checkpoint_every: float = 60.0  # seconds between two checkpoints
    progress: Callable[[str, float, float], None] | None = None  # called with (stage, fraction done, latest loss)
    check_every: int | None = None  # steps between two checks that losses are finite (None: CPU 1, else 50)
    each: Callable[[int], None] | None = None  # called with the number of steps done, after each


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of the averaged network found."""

    score: float  # higher is better; NaN where it cannot be computed: such a one is neither the best nor a worse one
    facts: Mapping[str, float] = field(default_factory=dict)  # further numbers for the log
    alarms: Sequence[str] = ()  # what is going wrong, in words


def cosine(fraction: float, warmup: float = 0.0) -> float:
    """The learning rate's factor when `fraction` of the training is done: up in a line, then down half a cosine."""
    if fraction < warmup:
        return fraction / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - warmup) / max(1e-9, 1 - warmup))))


def one_cycle(fraction: float, rise: float = 0.3) -> float:
    """The learning rate's factor: from 1/25 up to 1 until `rise` is done, then down to 0, both by half a cosine."""
    if fraction < rise:
        return 1 - (1 - 1 / 25) * cosine(fraction / rise)
    return cosine((fraction - rise) / (1 - rise))


def restarts(fraction: float, cycles: int = 3) -> float:
    """The learning rate's factor: from 1 down half a cosine, `cycles` times, each twice as long as the last."""
    place, length = fraction * (2**cycles - 1), 1
    while place >= length and length < 2 ** (cycles - 1):
        place, length = place - length, 2 * length
    return cosine(place / length)


@dataclass
class Stage:
    """One stage of training: for how long, by which schedule, and how the averaged network is evaluated."""

    name: str  # of the checkpoint, and in the log
    steps: int  # how many there are
    settings: dict[str, Any]  # what a checkpoint must agree with
    schedule: Callable[[float], float] = cosine  # factor of the learning rates when a fraction, 0 to 1, is done
    average: float = 0.0  # decay of the moving average of weights (0: none)
    clip: float = 0.0  # largest gradient norm in `Loop.step` (0: any)
    evaluate: Callable[[nn.Module], float | Evaluation] | None = None  # higher scores are better
    evaluations: int = 10  # how many, the last one at the end
    keep_best: bool = True  # whether the weights of the best evaluation are returned, not the last ones
    patience: int = 0  # evaluations without a better score that end the stage (0: it goes on)
    retries: int = 0  # how often the stage steps back from losses that are not finite; then it raises


def epoch_batches(n: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The batches of an epoch: a shuffle of 0..n-1 cut into rows [batch_size] int64; what is left over is left out.

    A pure function of its arguments. One batch of all rows where there are fewer than `batch_size`.
    """
    keys = chance.row_keys(seed, f"epoch {epoch}", torch.arange(n))
    order = torch.argsort(chance.uniform(keys), stable=True)
    return [rows for rows in order.split(batch_size) if len(rows) == min(batch_size, n)]


def step_generator(generator: torch.Generator, seed: int, step: int) -> torch.Generator:
    """The generator, set to the state that belongs to (seed, step)."""
    key = chance.row_keys(seed, "step", torch.tensor([step]))
    return generator.manual_seed(int(key) & 0x7FFFFFFFFFFFFFFF)


def fast_arithmetic(device: str | torch.device) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where that is fast, and float32 elsewhere."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_bfloat16_fast(device))


def is_bfloat16_fast(device: str | torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware: CUDA from Ampere on (capability 8.0), and CPUs with AMX."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def minimise(loss: Tensor, optimiser: torch.optim.Optimizer, clip: float = 0.0) -> None:
    """One step down the gradient of `loss`, a number; `clip` is the largest norm of all gradients (0: any)."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if clip > 0:
        torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], clip)
    optimiser.step()


class Average:
    """A moving average of a network's weights, normalisation statistics included.

    The decay grows from 0.1 to `decay` over the first steps, so that the start is soon forgotten.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.source = [v for v in net.state_dict().values() if v.is_floating_point()]
        self.names = [k for k, v in net.state_dict().items() if v.is_floating_point()]
        self.values = [v.clone() for v in self.source]

    def update(self) -> None:
        """Move towards the network as it is now."""
        self.steps += 1
        weight = 1 - min(self.decay, self.steps / (self.steps + 9))
        torch._foreach_lerp_(self.values, self.source, weight)

    def state(self) -> dict[str, Tensor]:
        """The averages by the names in the network's state; to be copied, not kept."""
        return dict(zip(self.names, self.values, strict=True))


class Loop:
    """Goes through the steps of a stage and keeps all that a checkpoint needs.

    Iterating gives the number of each step. The body takes the step and hands its losses to `report`, or one loss to
    `step`, which does both. `result` leaves the best, the averaged or the last weights in the network. Networks and
    optimisers are one, or several by the names that they have in checkpoints; the first network is averaged, evaluated
    and returned. `tensors` are others that a step changes in place. All lie on `run.device`.
    """

    def __init__(
        self,
        nets: nn.Module | dict[str, nn.Module],
        optimisers: torch.optim.Optimizer | dict[str, torch.optim.Optimizer],
        stage: Stage,
        run: Run,
        tensors: dict[str, Tensor] | None = None,
    ) -> None:
        """Go on from the checkpoint of the run's folder, if there is one; InputError where it belongs elsewhere."""
        self.nets = nets if isinstance(nets, dict) else {"net": nets}
        self.optimisers = optimisers if isinstance(optimisers, dict) else {"optimiser": optimisers}
        self.net, self.tensors = next(iter(self.nets.values())), tensors or {}
        self.stage, self.run = stage, run
        self.is_first = rank_and_world()[0] == 0
        self.check_every = run.check_every or (1 if torch.device(run.device).type == "cpu" else _CHECK_EVERY)
        self.rates = [group["lr"] for group in self._groups()]
        self.average = Average(self.net, stage.average) if stage.average > 0 else None

        self.done, self.evaluated, self.worse, self.retries = 0, 0, 0, 0  # steps, evaluations, ... without a better one
        self.seconds = 0.0
        self.best_score, self.best = -math.inf, dict[str, Tensor]()
        self.alarms: list[str] = []
        self.losses = torch.zeros(1, device=run.device)
        self.names: tuple[str, ...] = ("loss",)
        self.finite = torch.ones((), dtype=torch.bool, device=run.device)  # read seldom: reading waits for the device

        self.file = None if run.folder is None else run.folder / f"{stage.name}.safetensors"
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            facts, groups = resume_checkpoint(self.file, stage.settings, stage.name if self.is_first else None)
            if facts:
                self._restore(facts, groups)
                self.retries, self.alarms = facts.get("retries", 0), list(facts.get("alarms", ()))
        self.before = self.seconds
        self.started = self.saved = time.monotonic()
        self.stored = self._state() if stage.retries > 0 else None

    def __iter__(self) -> Iterator[int]:
        """The steps that are left, some of them once more after stepping back."""
        if self._is_due and self.done:  # the evaluation that a killed run was at
            self._evaluate()
        while self.fraction < 1 and not 0 < self.stage.patience <= self.worse:
            fraction = self.fraction
            factor = self.stage.schedule(fraction)
            for group, rate in zip(self._groups(), self.rates, strict=True):
                group["lr"] = rate * factor

            # The step; all processes take the first one's time where they check
            yield self.done
            step, self.done = self.done, self.done + 1
            if self.run.each is not None:
                self.run.each(self.done)
            checks = step % self.check_every == 0
            if checks or rank_and_world()[1] == 1:
                self.seconds = self._clock()

            # Losses that were not finite are found before anything is logged, stored, evaluated, written or returned
            logs = step % _LOG_EVERY == 0
            stores = self.stored is not None and self.done % _STORE_EVERY == 0
            if (checks or logs or stores or self._is_due or self.fraction == 1) and not bool(self.finite):
                self._step_back(step)
                continue
            if logs:
                self._log_losses(step, fraction)
            if stores:
                self.stored = self._state()
            if self._is_due:
                self._evaluate()
            if self._is_to_be_saved and bool(self.finite):
                self.save()
        self.save()

    @property
    def fraction(self) -> float:
        """How much of the stage is done, 0 to 1, by steps or by time, whichever is further."""
        by_time = 0.0 if self.run.minutes is None else self.seconds / (60 * self.run.minutes)
        return min(1.0, max(self.done / self.stage.steps, by_time))

    def step(self, loss: Tensor) -> None:
        """One step of the only optimiser down the gradient of a loss, a number, which is reported."""
        (optimiser,) = self.optimisers.values()
        minimise(loss, optimiser, self.stage.clip)
        self.report(loss.reshape(1))

    def report(self, losses: Tensor, names: Sequence[str] = ("loss",)) -> None:
        """Say that a step was taken, with these losses [k]; the moving average follows the network.

        Where one is not finite the next turn of the loop steps back or raises InputError: at once on a CPU, elsewhere
        within 50 steps, and in any case before weights are stored, evaluated, written or returned.
        """
        if self.average is not None:
            self.average.update()
        self.losses, self.names = losses.detach(), tuple(names)
        self.finite = self.finite & torch.isfinite(self.losses).all()

    def result(self) -> nn.Module:
        """The network in eval mode with the best weights if those are kept, else the averaged or the last ones."""
        self._load(self.best if self.best and self.stage.keep_best else self._current())
        return self.net.eval()

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to the run's log.jsonl, if it has a folder."""
        if self.run.folder is not None and self.is_first:
            with open(self.run.folder / LOG, "a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": self.stage.name, **record}) + "\n")

    def save(self) -> None:
        """Write the checkpoint, if the run has a folder."""
        if self.file is not None and self.is_first:
            write_checkpoint(self.file, *self._state())
        self.saved = time.monotonic()

    @property
    def _due(self) -> int:
        """How many evaluations should have been by now."""
        return math.floor(self.fraction * self.stage.evaluations + 1e-9)

    @property
    def _is_due(self) -> bool:
        return self.stage.evaluate is not None and self._due > self.evaluated

    @property
    def _is_to_be_saved(self) -> bool:
        return self.file is not None and time.monotonic() - self.saved > self.run.checkpoint_every

    def _clock(self) -> float:
        """Seconds of training so far; the first process's, so that all end at the same step."""
        seconds = self.before + time.monotonic() - self.started
        return seconds if self.run.minutes is None else from_first(seconds, self.run.device)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers.values() for group in optimiser.param_groups]

    def _log_losses(self, step: int, fraction: float) -> None:
        losses = self.losses.tolist()
        rate = self._groups()[0]["lr"]
        self.log({"step": step, **dict(zip(self.names, losses, strict=True)), "lr": rate,
                  "seconds": round(self.seconds, 1)})  # fmt: skip
        if self.run.progress is not None and self.is_first:
            self.run.progress(self.stage.name, fraction, losses[0])

    def _step_back(self, step: int) -> None:
        """Return to the last stored state; InputError where there is none, or too often."""
        if self.stored is None:
            found = next((x for x in self.losses.tolist() if not math.isfinite(x)), "infinite")
            raise InputError(f"the loss became {found} at step {step} of {self.stage.name}; expected a smaller lr")
        self._alarm(f"losses were not finite at step {step}: went back to step {self.stored[0]['done']}")
        if self.retries == self.stage.retries:
            raise InputError(f"the losses of {self.stage.name} were not finite {self.retries + 1} times; expected a "
                             "smaller lr")  # fmt: skip
        self.retries += 1
        self._restore(*self.stored)
        self.finite = torch.ones_like(self.finite)

    def _alarm(self, text: str) -> None:
        self.alarms.append(text)
        self.log({"step": self.done, "alarm": text})

    def _evaluate(self) -> None:
        """Evaluate the averaged network and keep the best; what was trained is written first, whatever comes of it.

        An evaluation that cannot be computed, of too few rows, is an alarm and ends nothing.
        """
        assert self.stage.evaluate is not None
        self.save()  # not yet evaluated: a run that is killed meanwhile takes the evaluation anew
        self.evaluated = self._due
        kept = {key: value.clone() for key, value in self.net.state_dict().items()}
        self._load(self._current())
        self.net.eval()
        try:
            value = self.stage.evaluate(self.net)
        except InputError as error:
            value = Evaluation(math.nan, {}, [f"the evaluation is left out: {error}"])
        found = value if isinstance(value, Evaluation) else Evaluation(value)
        score = from_first(found.score, self.run.device)  # all processes must agree on when to end
        if score > self.best_score:
            self.best_score, self.worse = score, 0
            self.best = {key: value.clone() for key, value in self._current().items()}
        elif not math.isnan(score):
            self.worse += 1
        self._load(kept)
        self.net.train()
        scored = {} if math.isnan(score) else {"score": score}
        self.log({"step": self.done, **scored, **found.facts, "seconds": round(self.seconds, 1)})
        for alarm in found.alarms:
            self._alarm(alarm)

    def _current(self) -> dict[str, Tensor]:
        state = self.net.state_dict()
        return state if self.average is None else state | self.average.state()

    def _load(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for key, value in self.net.state_dict().items():
                value.copy_(state[key])

    def _state(self) -> tuple[dict[str, Any], Groups]:
        """All that a run is made of, copied: facts for JSON, and groups of tensors."""
        groups: Groups = {name: net.state_dict() for name, net in self.nets.items()}
        groups |= {name: optimiser_state(optimiser) for name, optimiser in self.optimisers.items()}
        groups |= {name: {name: value} for name, value in self.tensors.items()}
        groups |= {"best": self.best, "average": {} if self.average is None else self.average.state()}
        facts = {
            "settings": self.stage.settings, "done": self.done, "seconds": self.seconds, "judged": self.evaluated,
            "worse": self.worse, "retries": self.retries, "best_score": self.best_score if self.best else None,
            "alarms": list(self.alarms), "average_steps": 0 if self.average is None else self.average.steps,
        }  # fmt: skip
        copied = {
            group: {key: value.detach().clone() for key, value in named.items()} for group, named in groups.items()
        }
        return facts, copied

    def _restore(self, facts: dict[str, Any], groups: Groups) -> None:
        """Go to where a state was taken; retries, alarms and the clock of this run go on."""
        for name, net in self.nets.items():
            net.load_state_dict(groups[name])
        for name, optimiser in self.optimisers.items():
            restore_optimiser(optimiser, groups.get(name, {}))
        for name, value in self.tensors.items():
            value.copy_(groups[name][name])
        self.done, self.worse = facts["done"], facts.get("worse", 0)
        self.seconds = max(self.seconds, facts["seconds"])
        # A run that goes on for longer than it was begun for has evaluations before it that its first end had taken.
        self.evaluated = min(facts["judged"], self._due)
        self.best = {key: value.to(self.run.device) for key, value in groups.get("best", {}).items()}
        self.best_score = facts["best_score"] if self.best else -math.inf
        if self.average is not None:
            self.average.steps = facts["average_steps"]
            for key, value in self.average.state().items():
                value.copy_(groups["average"][key])
