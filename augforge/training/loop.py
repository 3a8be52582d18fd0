"""Small helpers of training loops: batches, schedules, averages, steps, logs, checkpoints. Not a trainer.

All chance of a step is a function of (seed, step), and all that a loop carries from step to step is in its
checkpoint, so a run that was killed and goes on ends with the same weights on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from augforge import chance
from augforge.training.checkpoint import Groups, read_checkpoint, write_checkpoint
from augforge.types import InputError

_CHECK_EVERY = 50  # steps between two looks at the loss on a device, where each look waits for it


@dataclass(frozen=True)
class Run:
    """How a fit is carried out; on a CPU and without `minutes` nothing here changes what is learnt.

    `device` is where it runs; `folder` gets a log and checkpoints, and a run found there is gone on with; `minutes`
    ends a stage of training after that time, with the learning rate falling accordingly; `checkpoint_every` is in
    seconds; `progress` is called with (stage, fraction done, latest loss).
    """

    device: str = "cpu"
    folder: Path | None = None
    minutes: float | None = None
    checkpoint_every: float = 60.0
    progress: Callable[[str, float, float], None] | None = None


@dataclass
class Stage:
    """One stage of training: what is trained, for how long, and how it is judged.

    `steps` is how many there are, `settings` what a checkpoint must agree with, `lr` the highest learning rate,
    `decay` that of the moving average of weights (0: none), `clip` the largest gradient norm (0: any). `judge`
    scores the averaged network `judgements` times, the last time at the end; the best one is what training returns.
    """

    name: str
    steps: int
    lr: float
    settings: dict[str, Any]
    warmup: float = 0.0
    decay: float = 0.0
    clip: float = 0.0
    judge: Callable[[nn.Module], float] | None = None
    judgements: int = 10


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


def cosine(fraction: float, warmup: float = 0.0) -> float:
    """The learning rate's factor when `fraction` of the training is done: up in a line, then down half a cosine."""
    if fraction < warmup:
        return fraction / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - warmup) / max(1e-9, 1 - warmup))))


def fast_arithmetic(device: str | torch.device) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where it is fast - CUDA, and CPUs with AMX - and float32 elsewhere."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_bfloat16_fast(device))


def is_bfloat16_fast(device: str | torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware."""
    kind = torch.device(device).type
    return kind == "cuda" or (kind == "cpu" and torch.cpu._is_amx_tile_supported())


def minimise(loss: Tensor, optimiser: torch.optim.Optimizer, clip: float = 0.0) -> None:
    """One step down the gradient of `loss`, a number; `clip` is the largest norm of all gradients (0: any)."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if clip > 0:
        torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], clip)
    optimiser.step()


class Average:
    """A moving average of a network's numbers, normalisation statistics included.

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
        """The averages by the network's names; to be copied, not kept."""
        return dict(zip(self.names, self.values, strict=True))


@dataclass
class Loop:
    """Goes through the steps of a stage and keeps all that a checkpoint needs.

    Iterating gives the number of each step; the body computes a loss and hands it to `step`. `result` leaves the
    best or the averaged weights in the network. Everything lies on `run.device`.
    """

    net: nn.Module
    optimiser: torch.optim.Optimizer
    stage: Stage
    run: Run
    done: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    average: Average | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Go on from the checkpoint of the run's folder, if there is one; InputError where it belongs elsewhere."""
        self.rates = [group["lr"] / self.stage.lr for group in self.optimiser.param_groups]
        self.average = Average(self.net, self.stage.decay) if self.stage.decay > 0 else None
        self.judged = 0
        self.started = self.saved = time.monotonic()
        self.file = None if self.run.folder is None else self.run.folder / f"{self.stage.name}.safetensors"
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if self.file.exists():
                self._restore(*read_checkpoint(self.file, self.stage.settings))
        self.before = self.seconds

    def __iter__(self) -> Iterator[int]:
        """The steps that are left; logs, judges and saves between them."""
        while self.fraction < 1:
            rate = self.stage.lr * cosine(self.fraction, self.stage.warmup)
            for group, relative in zip(self.optimiser.param_groups, self.rates, strict=True):
                group["lr"] = rate * relative
            yield self.done
            self.done += 1
            self.seconds = self.before + time.monotonic() - self.started
            self._judge()
            if self.file is not None and time.monotonic() - self.saved > self.run.checkpoint_every:
                self.save()
        if self.file is not None:
            self.save()

    @property
    def fraction(self) -> float:
        """How much of the stage is done, 0 to 1, by steps or by time, whichever is further."""
        by_time = 0.0 if self.run.minutes is None else self.seconds / (60 * self.run.minutes)
        return min(1.0, max(self.done / self.stage.steps, by_time))

    def step(self, loss: Tensor) -> None:
        """One optimiser step on a loss; raises InputError where the loss is not finite.

        On a device the loss is looked at every 50 steps only.
        """
        minimise(loss, self.optimiser, self.stage.clip)
        if self.average is not None:
            self.average.update()
        if self.done % _CHECK_EVERY == 0 or loss.device.type == "cpu":
            self._look(float(loss.detach()))

    def _look(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise InputError(f"the loss became {loss} at step {self.done} of {self.stage.name}; expected a smaller lr")
        if self.done % _CHECK_EVERY == 0:
            self.log({"step": self.done, "loss": loss, "lr": self.optimiser.param_groups[0]["lr"]})
            if self.run.progress is not None:
                self.run.progress(self.stage.name, self.fraction, loss)

    def _judge(self) -> None:
        """Score the averaged network when its time has come, and keep the best."""
        due = math.floor(self.fraction * self.stage.judgements + 1e-9)
        if self.stage.judge is None or due <= self.judged:
            return
        self.judged = due
        kept = {key: value.clone() for key, value in self.net.state_dict().items()}
        self._load(self._current())
        self.net.eval()
        score = self.stage.judge(self.net)
        if score > self.best_score:
            self.best_score = score
            self.best = {key: value.clone() for key, value in self._current().items()}
        self._load(kept)
        self.net.train()
        self.log({"step": self.done, "score": score, "seconds": round(self.seconds, 1)})

    def result(self) -> nn.Module:
        """The network in eval mode with the best weights if it was judged, else the averaged or the last ones."""
        self._load(self.best or self._current())
        return self.net.eval()

    def _current(self) -> dict[str, Tensor]:
        state = self.net.state_dict()
        return state if self.average is None else state | self.average.state()

    def _load(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for key, value in self.net.state_dict().items():
                value.copy_(state[key])

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to the run's log.jsonl, if it has a folder."""
        if self.run.folder is not None:
            with open(self.run.folder / "log.jsonl", "a", encoding="utf-8") as file:
                write_line(file, {"stage": self.stage.name, **record})

    def save(self) -> None:
        """Write the checkpoint."""
        assert self.file is not None
        groups = {"net": self.net.state_dict(), "best": self.best, "optimiser": optimiser_state(self.optimiser)}
        groups["average"] = {} if self.average is None else self.average.state()
        facts = {
            "settings": self.stage.settings,
            "done": self.done,
            "seconds": self.seconds,
            "judged": self.judged,
            "best_score": self.best_score if self.best else None,
            "average_steps": 0 if self.average is None else self.average.steps,
        }
        write_checkpoint(self.file, facts, groups)
        self.saved = time.monotonic()

    def _restore(self, facts: dict[str, Any], groups: Groups) -> None:
        """Go to where a checkpoint was written."""
        self.net.load_state_dict(groups["net"])
        restore_optimiser(self.optimiser, groups.get("optimiser", {}))
        self.done, self.seconds = facts["done"], facts["seconds"]
        # A run that goes on for longer than it was begun for has looks before it that its first end had taken.
        self.judged = min(facts["judged"], math.floor(self.fraction * self.stage.judgements + 1e-9))
        self.best = {key: value.to(self.run.device) for key, value in groups.get("best", {}).items()}
        self.best_score = facts["best_score"] if self.best else -math.inf
        if self.average is not None:
            self.average.steps = facts["average_steps"]
            for name, value in self.average.state().items():
                value.copy_(groups["average"][name])


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that an optimiser remembers, as tensors by "NUMBER.name" of its parameters; to be copied, not kept."""
    return {f"{i}.{key}": torch.as_tensor(value) for i, state in optimiser.state_dict()["state"].items()
            for key, value in state.items() if value is not None}  # fmt: skip


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser back what `optimiser_state` told.

    What belongs to a parameter is laid out in memory as it is: fused optimisers walk both in the order of memory, and
    a file keeps rows first where a network has its channels last.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        like = parameters[int(number)]
        laid = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value.clone()
        states.setdefault(int(number), {})[key] = laid
    optimiser.load_state_dict(optimiser.state_dict() | {"state": states})


def write_line(file: TextIO, record: dict[str, Any]) -> None:
    """Append one JSON line to an open text file, and let it be seen at once."""
    file.write(json.dumps(record) + "\n")
    file.flush()
