"""The training of `conditional_gan`: what is held out, the contest, and the few steps that adapt it to novel classes.

Adapting trains the generator and the last layers of the discriminator alone: Mo, Cho & Shin, "Freeze the
discriminator: a simple baseline for fine-tuning GANs", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from augforge import chance
from augforge.data.banks import ArrayPictures
from augforge.generators.conditional_gan import ConditionalGan
from augforge.generators.conditional_gan.objective import PER_SUPPORT, ConditionalGame
from augforge.generators.shared.gan.batches import only_classes, split_classes
from augforge.generators.shared.gan.diff_augment import POLICIES, policy_of
from augforge.generators.shared.gan.objective import Rules, settings_of, to_rest_, to_train_
from augforge.generators.shared.gan.pictures import net_facts, score_quantiles
from augforge.generators.shared.gan.trainer import Contest
from augforge.generators.shared.support import whole_numbers
from augforge.networks.pixels import Pixels, class_table, load_pixels
from augforge.training.loop import Run
from augforge.types import Bank, InputError

_HELD_OUT = 0.1  # of the rows of each class, or of the classes
_FEWEST_ROWS = 4  # rows of a class of which none is held out
_FEWEST_LOOKED = 8  # held-out rows with which a look says little
_FEWEST_CLASSES = 5  # classes of which none is held out
_BETWEEN_LOOKS = 50  # steps at least
_MOST_LOOKS = 10
_SCORED = (200, 4)  # classes, and pictures of each, whose scores are kept
_WHO = "conditional-gan"


def train_conditional_gan(
    part: ConditionalGan, base: Bank, rng: torch.Generator, val: Bank | None, run: Run | None
) -> None:
    """Train the networks of a part in place; raises what `ConditionalGan.fit` says."""
    run = Run() if run is None else run
    data = load_pixels(base, part.size, run.device)
    if part.condition == "class":
        empty = (data.counts == 0).nonzero()[:, 0].tolist()
        if empty:
            raise InputError(f"class {base.classes[empty[0]]!r} has no picture; expected one of every class")
        part.names_ = torch.tensor([chance.name_key(name) for name in base.classes])
    else:
        if int(data.counts.max()) < 2:
            raise InputError(f"{_WHO} learns a support from classes of two pictures or more; every class here has one")
        data = only_classes(data, (data.counts > 1).nonzero()[:, 0])
    maker, judge = part._build(_facts(part, data), rng)
    seed = int(chance.draw_keys(1, rng))
    data, held_out = _split(part, data, None if val is None else load_pixels(val, part.size, run.device), seed)
    drawn, shots = part.batch, tuple[int, ...]()
    if part.condition == "support":
        drawn, shots = part.batch // PER_SUPPORT, whole_numbers(part, "shots")
    to_train_(run.device, maker, judge)
    game = ConditionalGame(maker, judge, judge, data, held_out, drawn, shots, part.symmetry, policy_of(part.augment),
                           part.noise, settles=part.condition == "support")  # fmt: skip
    game.settle_all_(maker, judge)
    looks = max(1, min(_MOST_LOOKS, part.steps // _BETWEEN_LOOKS))
    rules = Rules(part.steps, part.rate, part.judge_rate, part.average, part.r1, part.lecam, part.accumulate, looks,
                  part.patience)  # fmt: skip
    contest = Contest(game, rules, run, _WHO, settings_of(part), seed)
    game.told = lambda: min(1.0, contest.fraction / part.warmup) if part.warmup > 0 else 1.0
    contest.play()
    _keep(part, game, contest)


def _facts(part: ConditionalGan, data: Pixels) -> dict[str, int]:
    facts = net_facts(data, _WHO)
    return facts | {"classes": data.classes} if part.condition == "class" else facts


def _split(part: ConditionalGan, data: Pixels, val: Pixels | None, seed: int) -> tuple[Pixels, Pixels]:
    """What is trained on and what is looked at: all of it where nothing can be held out."""
    if part.condition == "class":
        kept, held_out = split_rows(data, _HELD_OUT, seed)
        return (kept, held_out) if len(held_out.y) >= _FEWEST_LOOKED else (data, data)
    if val is not None:
        return data, val
    return split_classes(data, _HELD_OUT, seed) if data.classes >= _FEWEST_CLASSES else (data, data)


def split_rows(data: Pixels, share: float, seed: int) -> tuple[Pixels, Pixels]:
    """The rows of `data`, and a share of each class's held out, drawn by `seed`: at least 1 where it has 4 or more."""
    y = data.y.cpu()
    draw = chance.uniform(chance.row_keys(seed, "held-out rows", torch.arange(len(y))))
    order = torch.argsort(draw, stable=True)
    order = order[torch.argsort(y[order], stable=True)]  # class by class, and by the draw within one
    counts = data.counts.cpu()
    place = torch.arange(len(y)) - (counts.cumsum(0) - counts)[y[order]]
    out = torch.where(counts >= _FEWEST_ROWS, (share * counts).round().clamp(min=1), 0)
    held = place < out[y[order]]
    return _only_rows(data, order[~held].sort().values), _only_rows(data, order[held].sort().values)


def _only_rows(data: Pixels, rows: Tensor) -> Pixels:
    """Some rows [m] of all classes, which keep their numbers."""
    rows = rows.to(data.x.device)
    table, counts = class_table(data.y[rows], data.classes)
    return Pixels(data.x[rows], data.y[rows], table, counts, data.groups)


def _keep(part: ConditionalGan, game: ConditionalGame, contest: Contest) -> None:
    """Leave what was learnt in the part."""
    part.alarms = contest.alarms
    game.settle_all_(game.maker, game.critic)
    with torch.no_grad():
        part.quantiles_ = score_quantiles(game.scores_of(game.looked(game.held_out, *_SCORED)))
    to_rest_(game.maker, game.critic)
    part.generator_, part.judge_ = game.maker, game.critic


def adapt_conditional_gan(
    part: ConditionalGan, novel: ArrayPictures, rng: torch.Generator, steps: int, rate: float, device: str
) -> None:
    """Train a part on to make the novel classes, with networks of its own; says what `ConditionalGan.adapt` does."""
    first = (part.generator_, part.judge_)
    data = load_pixels(novel, 0, device)
    maker, judge = part._build(_facts(part, data), rng)
    for net, old in zip((maker, judge), first, strict=True):
        assert old is not None
        # Codes of other classes are no start for new ones: those keep the start that `rng` gave them.
        kept = {key: value for key, value in old.state_dict().items() if not _of_classes(part, key)}
        net.load_state_dict(net.state_dict() | kept)
    drawn, shots = part.batch, tuple[int, ...]()
    if part.condition == "class":
        part.names_ = torch.tensor([chance.name_key(name) for name in novel.classes])
    else:
        most = int(data.counts.min())
        drawn = part.batch // PER_SUPPORT
        shots = tuple(n for n in whole_numbers(part, "shots") if n < most) or (1,)
    to_train_(device, maker, judge)
    judge.requires_grad_(False)
    last = judge.last_layers().requires_grad_(True)
    policy = policy_of(part.augment) or POLICIES
    game = ConditionalGame(maker, last, judge, data, data, drawn, shots, part.symmetry, policy, part.noise)
    rules = Rules(steps, rate, rate * part.judge_rate / part.rate, part.average, part.r1, part.lecam, part.accumulate,
                  judgements=0)  # fmt: skip
    seed = int(chance.draw_keys(1, rng))
    contest = Contest(game, rules, Run(device), f"{_WHO} adapted", {}, seed)
    contest.play()
    _keep(part, game, contest)


def _of_classes(part: ConditionalGan, name: str) -> bool:
    """Whether a number of a network belongs to single classes."""
    return part.condition == "class" and ("table." in name or "project." in name)
