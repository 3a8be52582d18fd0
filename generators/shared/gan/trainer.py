"""The contest of two networks: a discriminator and a generator by turns, with all that a long run needs.

That is the moving average of the generator, gradients over parts of a batch and over processes, checkpoints, looks at
held-out classes, alarms, and a way back from losses that are not finite. A step's batch is a function of (seed, step).
It may be cut into parts that are worked off one by one (`accumulate`) or by several processes of torch.distributed: the
losses are means over equal parts, so nothing but rounding changes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from augforge.generators.shared.gan.discriminators import advance
from augforge.generators.shared.gan.objective import Game, Made, Part, Rules, hinge, lecam
from augforge.generators.shared.gan.validation import write_sheet
from augforge.training.checkpoint import Groups, optimiser_state, read_checkpoint, restore_optimiser, write_checkpoint
from augforge.training.loop import (
    Average,
    Run,
    fast_arithmetic,
    step_generator,
)
from augforge.types import InputError

_KEEP_EVERY = 100  # steps between two states that a run may step back to
_MOST_RETRIES = 5
_LOOK_EVERY = 50  # steps between two looks at the losses on a device, where each look waits for it
_LAZY = 4  # the gradient penalty is worked out in every fourth step, and counts four times then
_LECAM_DECAY = 0.99


@dataclass
class Contest:
    """Plays a game by rules, and keeps all that a checkpoint needs."""

    game: Game
    rules: Rules
    run: Run
    name: str
    settings: dict[str, Any]
    seed: int
    done: int = 0
    seconds: float = 0.0
    judged: int = 0
    worse: int = 0
    retries: int = 0
    best_score: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Go on from the checkpoint of the run's folder, if there is one; InputError where it belongs elsewhere."""
        rates = ((self.game.maker, self.rules.lr), (self.game.judge, self.rules.judge_lr))
        self.makers, self.judges = (torch.optim.Adam(net.parameters(), lr, (0.0, 0.9), fused=True) for net, lr in rates)
        self.average = Average(self.game.maker, self.rules.average)
        self.levels = torch.zeros(2, device=self.run.device)  # moving averages of D(real) and D(fake)
        self.generator = torch.Generator(self.run.device)
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.started = self.saved = time.monotonic()
        self.file = None if self.run.folder is None else self.run.folder / f"{self.name}.safetensors"
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if self.file.exists():
                self._restore(*read_checkpoint(self.file, self.settings))
        self.before = self.seconds
        self.good = self._state()

    @property
    def fraction(self) -> float:
        """How much is done, 0 to 1, by steps or by time, whichever is further."""
        by_time = 0.0 if self.run.minutes is None else self.seconds / (60 * self.run.minutes)
        return min(1.0, max(self.done / self.rules.steps, by_time))

    def play(self) -> nn.Module:
        """Go through the steps that are left; the generator in eval mode, with its averaged weights.

        These are the last ones, or with `patience` the best look's: looks at pixels are too coarse to choose by unless
        a run is to be ended by them.
        """
        self.game.maker.train()
        self.game.judge.train()
        while self.fraction < 1 and not self._given_up:
            losses = self._step()
            if self.run.device == "cpu" or self.done % _LOOK_EVERY == 0:
                found = losses.tolist()
                if not all(map(math.isfinite, found)):
                    self._step_back(found)
                    continue
                if self.done % _LOOK_EVERY == 0:
                    self._tell(found)
            self.done += 1
            self.seconds = self._agreed(self.before + time.monotonic() - self.started)
            if self.done % _KEEP_EVERY == 0:
                self.good = self._state()
            self._judge()
            if time.monotonic() - self.saved > self.run.checkpoint_every:
                self.save()
        self.save()
        self._load(self.best if self.rules.patience and self.best else self.average.state())
        return self.game.maker.eval()

    @property
    def _given_up(self) -> bool:
        return 0 < self.rules.patience <= self.worse

    def _step(self) -> Tensor:
        """One step of both; the losses [discriminator's, generator's, mean score of real, of made] over all parts."""
        step_generator(self.generator, self.seed + self.retries, self.done)
        parts = self._parts(self.game.draw(self.generator))
        for optimiser, rate in ((self.makers, self.rules.lr), (self.judges, self.rules.judge_lr)):
            for group in optimiser.param_groups:
                group["lr"] = rate * max(0.1, min(1.0, 2 - 2 * self.fraction))
        advance(self.game.judge)
        kept: list[Made] = []
        facts = torch.zeros(4, device=self.run.device)
        self.judges.zero_grad(set_to_none=True)
        for part in parts:
            with fast_arithmetic(self.run.device):
                made = self.game.make(self.game.maker, part)
            kept += [made] if len(parts) == 1 else []  # one graph may stay; many would fill the memory
            loss, levels = self._judge_loss(part, tuple(x.detach() for x in made))
            (loss / len(parts)).backward()
            facts += torch.stack([loss.detach(), torch.zeros_like(loss), *levels]) / len(parts)
        self._share(self.game.judge)
        self.judges.step()
        self.game.judge.requires_grad_(False)
        self.makers.zero_grad(set_to_none=True)
        for part in parts:
            with fast_arithmetic(self.run.device):
                made = kept.pop() if kept else self.game.make(self.game.maker, part)
                loss = self.game.fool(part, made)
            (loss / len(parts)).backward()
            facts[1] += loss.detach() / len(parts)
        self.game.judge.requires_grad_(True)
        self._share(self.game.maker)
        self.makers.step()
        self.average.update()
        if self.world > 1:
            dist.all_reduce(facts)
            facts /= self.world
        self.levels.lerp_(facts[2:], 1 - min(_LECAM_DECAY, (self.done + 1) / (self.done + 10)))
        return facts

    def _judge_loss(self, part: Part, made: Made) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        with fast_arithmetic(self.run.device):
            real, fake = self.game.scores(part, made)
        real, fake = real.float(), fake.float()
        loss = hinge(real, fake)
        if self.rules.lecam > 0:
            loss = loss + self.rules.lecam * lecam(real, fake, self.levels)
        if self.rules.r1 > 0 and self.done % _LAZY == 0:
            loss = loss + _LAZY * self.rules.r1 / 2 * self.game.steepness(part)
        return loss, (real.detach().mean(), fake.detach().mean())

    def _parts(self, drawn: Part) -> list[Part]:
        """This process's share of a batch, cut into parts; InputError where it cannot be cut evenly."""
        pieces = self.world * self.rules.accumulate
        rows = len(next(iter(drawn.values())))
        if rows % pieces:
            raise InputError(f"a batch of {rows} was to be cut into {pieces} parts; expected a multiple of that")
        size = rows // pieces
        first = self.rank * self.rules.accumulate
        return [
            {key: value[i * size : (i + 1) * size] for key, value in drawn.items()}
            for i in range(first, first + self.rules.accumulate)
        ]

    def _share(self, net: nn.Module) -> None:
        """The mean of all processes' gradients."""
        if self.world == 1:
            return
        slopes = [p.grad for p in net.parameters() if p.grad is not None]
        flat = torch.cat([slope.flatten() for slope in slopes])
        dist.all_reduce(flat)
        flat /= self.world
        for slope, mean in zip(slopes, flat.split([slope.numel() for slope in slopes]), strict=True):
            slope.copy_(mean.view_as(slope))

    def _agreed(self, seconds: float) -> float:
        """The first process's clock, so that all end at the same step."""
        if self.world == 1 or self.run.minutes is None:
            return seconds
        shared = torch.tensor([seconds], dtype=torch.float64, device=self.run.device)
        dist.broadcast(shared, 0)
        return float(shared)

    def _tell(self, losses: list[float]) -> None:
        names = ("judge_loss", "maker_loss", "real_score", "made_score")
        self.log({"step": self.done, **dict(zip(names, losses, strict=True)), "seconds": round(self.seconds, 1)})
        if self.run.progress is not None and self.rank == 0:
            self.run.progress(self.name, self.fraction, losses[0])

    def _step_back(self, losses: list[float]) -> None:
        """Return to the last good state and go on with other batches; InputError after five times."""
        self.retries += 1
        alarm = f"losses {losses[:2]} at step {self.done}: went back to step {self.good[0]['done']}"
        self._sound([alarm])
        if self.retries > _MOST_RETRIES:
            raise InputError(
                f"the losses of {self.name} became {losses[:2]} {self.retries} times; expected a smaller lr"
            )
        retries, alarms = self.retries, self.alarms
        self._restore(*self.good)
        self.retries, self.alarms = retries, alarms

    def _sound(self, alarms: Iterable[str]) -> None:
        for alarm in alarms:
            self.alarms.append(alarm)
            self.log({"step": self.done, "alarm": alarm})

    def _judge(self) -> None:
        """Look at the averaged generator when its time has come, keep the best, and draw a sheet."""
        due = math.floor(self.fraction * self.rules.judgements + 1e-9)
        if due <= self.judged:
            return
        self.judged = due
        kept = {key: value.clone() for key, value in self.game.maker.state_dict().items()}
        self._load(self.average.state())
        self.game.maker.eval()
        with torch.no_grad():
            found = self.game.examine(self.game.maker)
            if found.score > self.best_score:
                self.best_score, self.worse = found.score, 0
                self.best = {key: value.clone() for key, value in self.average.state().items()}
            else:
                self.worse += 1
            if self.run.folder is not None and self.rank == 0:
                write_sheet(self.game.sheet(self.game.maker), str(self.run.folder / f"step-{self.done:06d}.png"))
        self._load(kept)
        self.game.maker.train()
        self.log({"step": self.done, "score": found.score, **found.facts, "seconds": round(self.seconds, 1)})
        self._sound(found.alarms)

    def _load(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for key, value in self.game.maker.state_dict().items():
                value.copy_(state[key])

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to the run's log.jsonl, if it has a folder."""
        if self.run.folder is not None and self.rank == 0:
            with open(self.run.folder / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": self.name, **record}) + "\n")

    def save(self) -> None:
        """Write the checkpoint, if the run has a folder."""
        if self.file is not None and self.rank == 0:
            write_checkpoint(self.file, *self._state())
        self.saved = time.monotonic()

    def _state(self) -> tuple[dict[str, Any], Groups]:
        """All that a run is made of, copied: facts for JSON and groups of tensors."""
        groups = {"maker": self.game.maker.state_dict(), "judge": self.game.judge.state_dict(), "best": self.best}
        groups["average"] = self.average.state()
        groups["levels"] = {"levels": self.levels}
        groups |= {"makers": optimiser_state(self.makers), "judges": optimiser_state(self.judges)}
        groups = {
            group: {key: value.detach().clone() for key, value in named.items()} for group, named in groups.items()
        }
        facts = {
            "settings": self.settings, "done": self.done, "seconds": self.seconds, "judged": self.judged,
            "worse": self.worse, "retries": self.retries, "best_score": self.best_score if self.best else None,
            "alarms": list(self.alarms), "average_steps": self.average.steps,
        }  # fmt: skip
        return facts, groups

    def _restore(self, facts: dict[str, Any], groups: Groups) -> None:
        """Go to where a state was taken."""
        self.game.maker.load_state_dict(groups["maker"])
        self.game.judge.load_state_dict(groups["judge"])
        for name, optimiser in (("makers", self.makers), ("judges", self.judges)):
            restore_optimiser(optimiser, groups.get(name, {}))
        for key in ("done", "seconds", "worse", "retries"):
            setattr(self, key, facts[key])
        self.alarms = list(facts["alarms"])
        # A run that goes on for longer than it was begun for has looks before it that its first end had taken.
        self.judged = min(facts["judged"], math.floor(self.fraction * self.rules.judgements + 1e-9))
        self.best = {key: value.to(self.run.device) for key, value in groups.get("best", {}).items()}
        self.best_score = facts["best_score"] if self.best else -math.inf
        self.levels.copy_(groups["levels"]["levels"])
        self.average.steps = facts["average_steps"]
        for key, value in self.average.state().items():
            value.copy_(groups["average"][key])
