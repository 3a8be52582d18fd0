"""The training of `image_gan`: what is held out, the game, the contest, and the scores of real pictures afterwards."""

from __future__ import annotations

import torch
from torch import Tensor

from augforge import chance
from augforge.generators.image_gan import ImageGan
from augforge.generators.image_gan.objective import PER_PARENT, PairGame
from augforge.generators.shared.gan.batches import only_classes, pictures, split_classes
from augforge.generators.shared.gan.diff_augment import policy_of
from augforge.generators.shared.gan.objective import Rules, settings_of, to_rest_, to_train_
from augforge.generators.shared.gan.pictures import net_facts, score_quantiles
from augforge.generators.shared.gan.trainer import Contest
from augforge.generators.shared.support import whole_numbers
from augforge.networks.pixels import load_pixels
from augforge.training.loop import Run
from augforge.types import Bank, InputError

_HELD_OUT = 0.1  # of the base classes, where no validation classes are given
_FEWEST = 5  # classes of which none is held out
_SCORED_CLASSES = 200


def train_image_gan(part: ImageGan, base: Bank, rng: torch.Generator, val: Bank | None, run: Run | None) -> None:
    """Train the networks of a part in place; raises what `ImageGan.fit` says."""
    run = Run() if run is None else run
    data = load_pixels(base, part.size, run.device)
    if int(data.counts.max()) < 2:
        raise InputError("image-gan learns from classes of two pictures or more, and every class here has one")
    data = only_classes(data, (data.counts > 1).nonzero()[:, 0])
    maker, judge = part._build(net_facts(data, "image-gan"), rng)
    seed = int(chance.draw_keys(1, rng))
    held_out = data if val is None else load_pixels(val, part.size, run.device)
    if val is None and data.classes >= _FEWEST:
        data, held_out = split_classes(data, _HELD_OUT, seed)
    shots = (1,) if part.one_parent else whole_numbers(part, "shots")
    to_train_(run.device, maker, judge)
    game = PairGame(
        maker, judge, data, held_out, part.batch // PER_PARENT, shots, part.pool == "attention", part.symmetry,
        policy_of(part.augment), part.noise, part.mismatched,
    )  # fmt: skip
    rules = Rules(part.steps, part.rate, part.judge_rate, part.average, part.r1, part.lecam, part.accumulate,
                  patience=part.patience)  # fmt: skip
    contest = Contest(game, rules, run, "image-gan", settings_of(part), seed)
    contest.play()
    part.alarms = contest.alarms
    part.quantiles_ = score_quantiles(_real_scores(game))
    to_rest_(maker, judge)


def _real_scores(game: PairGame) -> Tensor:
    """The discriminator's scores of real pictures beside another one of their held-out class."""
    data = game.held_out
    classes = (data.counts > 1).nonzero()[:, 0][:_SCORED_CLASSES]
    most = min(4, int(data.counts[classes].min()))
    x = pictures(data, data.table[classes][:, :most])
    with torch.no_grad():
        game.judge.eval()
        return torch.cat([game.judge.alone(x[:, 0], x[:, 1:]).flatten(), game.judge.alone(x[:, 1], x[:, :1]).flatten()])
