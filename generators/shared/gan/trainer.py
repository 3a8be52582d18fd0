"""Training of GANs: one step of the discriminator and one of the generator by turns.

A step's batch is a function of (seed, step). It may be cut into parts that are worked off one by one (`accumulate`) or
by several processes of torch.distributed: the losses are means over equal parts, so nothing but rounding changes.
Clock, checkpoints, evaluations and stepping back from losses that are not finite are those of `training.loop`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augforge.generators.shared.gan.discriminators import advance
from augforge.generators.shared.gan.objective import Batch, GanSettings, Generated, Objective, hinge, lecam
from augforge.generators.shared.gan.validation import write_sheet
from augforge.training.distributed import average_, average_gradients_, rank_and_world
from augforge.training.loop import Evaluation, Loop, Run, Stage, fast_arithmetic, step_generator
from augforge.types import InputError

_REPORTED = ("judge_loss", "maker_loss", "real_score", "made_score")  # names in the log, where they stay
_MOST_RETRIES = 5
_LAZY = 4  # the gradient penalty is worked out in every fourth step, and counts four times then
_LECAM_DECAY = 0.99


def train_gan(
    objective: Objective, settings: GanSettings, run: Run, name: str, checked: dict[str, Any], seed: int
) -> list[str]:
    """Train both networks of an objective in place; the alarms that were raised.

    The generator is left in eval mode, with its averaged weights: the last ones, or with `patience` those of the best
    evaluation - pixels are too coarse to choose by unless a run is to be ended by them. `name` is that of the
    checkpoint, which must agree with the settings `checked`. Raises InputError for losses that stay not finite, for a
    checkpoint of other settings, and for a batch that cannot be cut evenly.
    """
    generator, discriminator = objective.generator.train(), objective.discriminator.train()
    rates = ((generator, settings.generator_rate), (discriminator, settings.discriminator_rate))
    for_generator, for_discriminator = (
        torch.optim.Adam(net.parameters(), rate, (0.0, 0.9), fused=True) for net, rate in rates
    )
    levels = torch.zeros(2, device=run.device)  # moving means of D(real) and D(generated)
    stage = Stage(
        name, settings.steps, checked, linear, settings.average, evaluate=lambda _: _evaluated(objective, loop),
        evaluations=settings.evaluations, keep_best=settings.patience > 0, patience=settings.patience,
        retries=_MOST_RETRIES,
    )  # fmt: skip
    loop = Loop({"maker": generator, "judge": discriminator},
                {"makers": for_generator, "judges": for_discriminator}, stage, run, {"levels": levels})  # fmt: skip
    rng = torch.Generator(run.device)
    for step in loop:
        # Batch
        step_generator(rng, seed + loop.retries, step)
        parts = _parts_of_process(objective.draw(rng, loop.fraction), settings.accumulate)
        losses = torch.zeros(4, device=run.device)  # of D and of G, and the mean scores of real and generated pictures

        # Discriminator
        advance(discriminator)
        for_discriminator.zero_grad(set_to_none=True)
        for part in parts:
            generated = _generated(objective, part, run)
            loss, scores = _discriminator_loss(objective, part, generated, levels, settings, step)
            (loss / len(parts)).backward()
            losses += torch.stack([loss.detach(), torch.zeros_like(loss), *scores]) / len(parts)
        average_gradients_(discriminator)
        for_discriminator.step()

        # Generator: of one part what it made is still there with its graph; of many that would fill the memory
        discriminator.requires_grad_(False)
        for_generator.zero_grad(set_to_none=True)
        for part in parts:
            generated = generated if len(parts) == 1 else _generated(objective, part, run)
            with fast_arithmetic(run.device):
                loss = objective.generator_loss(part, generated)
            (loss / len(parts)).backward()
            losses[1] += loss.detach() / len(parts)
        discriminator.requires_grad_(True)
        average_gradients_(generator)
        for_generator.step()

        # Report
        average_(losses)
        levels.lerp_(losses[2:], 1 - min(_LECAM_DECAY, (step + 1) / (step + 10)))
        loop.report(losses, _REPORTED)
    loop.result()
    return loop.alarms


def linear(fraction: float) -> float:
    """The learning rates' factor when `fraction` of the training is done: 1 for the first half, then down to 0.1."""
    return max(0.1, min(1.0, 2 - 2 * fraction))


def _generated(objective: Objective, part: Batch, run: Run) -> Generated:
    with fast_arithmetic(run.device):
        return objective.generate(part)


def _discriminator_loss(
    objective: Objective, part: Batch, generated: Generated, levels: Tensor, settings: GanSettings, step: int
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Hinge loss and regularisers, and the mean scores of real and generated pictures."""
    with fast_arithmetic(levels.device):
        real, fake = objective.scores(part, tuple(x.detach() for x in generated))
    real, fake = real.float(), fake.float()
    loss = hinge(real, fake)
    if settings.lecam > 0:
        loss = loss + settings.lecam * lecam(real, fake, levels)
    if settings.r1 > 0 and step % _LAZY == 0:
        loss = loss + _LAZY * settings.r1 / 2 * objective.gradient_penalty(part)
    return loss, (real.detach().mean(), fake.detach().mean())


def _parts_of_process(batch: Batch, accumulate: int) -> list[Batch]:
    """This process's share of a batch, cut into parts; InputError where it cannot be cut evenly."""
    rank, world = rank_and_world()
    rows, pieces = len(next(iter(batch.values()))), world * accumulate
    if rows % pieces:
        raise InputError(f"a batch of {rows} was to be cut into {pieces} parts; expected a multiple of that")
    size, first = rows // pieces, rank * accumulate
    return [
        {key: value[i * size : (i + 1) * size] for key, value in batch.items()}
        for i in range(first, first + accumulate)
    ]


@torch.no_grad()
def _evaluated(objective: Objective, loop: Loop) -> Evaluation:
    """The objective's evaluation of its averaged generator, of which a sheet of pictures is drawn."""
    found = objective.evaluate()
    if loop.run.folder is not None and loop.is_first:
        write_sheet(objective.sheet(), str(loop.run.folder / f"step-{loop.done:06d}.png"))
    return found
