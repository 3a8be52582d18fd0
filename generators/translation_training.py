"""The training of `translation`: the domains, what is held out, the game, the contest, and scores of real pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from augforge import chance
from augforge.generators.shared.gan.diff_augment import policy_of
from augforge.generators.shared.gan.objective import Rules, settings_of, to_rest_, to_train_
from augforge.generators.shared.gan.pictures import in_tiles, net_facts, score_quantiles
from augforge.generators.shared.gan.trainer import Contest
from augforge.generators.translation import Translation
from augforge.generators.translation.domains import Domains, load_domains, split_domains
from augforge.generators.translation.objective import CycleGame, PairedGame, looked, looked_pairs
from augforge.training.loop import Run
from augforge.types import Bank

_HELD_OUT = 0.1  # of the groups, where no validation bank is given
_SCORED_ROWS = 1024


def train_translation(part: Translation, base: Bank, rng: torch.Generator, val: Bank | None, run: Run | None) -> None:
    """Train the networks of a part in place; raises what `Translation.fit` says."""
    run = Run() if run is None else run
    data = load_domains(base, part, run.device)
    facts = net_facts(data.source, "translation")
    maker, judge = part._build(facts, rng)
    seed = int(chance.draw_keys(1, rng))
    if val is None:
        data, held_out = split_domains(data, _HELD_OUT, seed)
    else:
        held_out = load_domains(val, part, run.device)
    to_train_(run.device, maker, judge)
    game = _game(part, data, held_out)
    rules = Rules(part.steps, part.rate, part.judge_rate, part.average, part.r1, part.lecam, part.accumulate,
                  patience=part.patience)  # fmt: skip
    contest = Contest(game, rules, run, "translation", settings_of(part, "direction"), seed)
    contest.play()
    part.alarms = contest.alarms
    part.quantiles_ = torch.stack([score_quantiles(scores) for scores in _real_scores(game)])
    to_rest_(maker, judge)


def _game(part: Translation, data: Domains, held_out: Domains) -> PairedGame | CycleGame:
    maker, judge = part.generator_, part.judge_
    assert maker is not None
    assert judge is not None
    policy = policy_of(part.augment)
    if part.mode == "paired":
        return PairedGame(maker, judge, data, held_out, part.batch, part.distance, policy, part.noise)
    return CycleGame(maker, judge, data, held_out, part.batch, part.cycle, part.identity, policy, part.noise)


def _real_scores(game: PairedGame | CycleGame) -> list[Tensor]:
    """The discriminators' scores [n] of real pictures (or pairs) that were not trained on."""
    game.judge.eval()
    if isinstance(game, PairedGame):
        seen = [torch.cat(looked_pairs(game.held_out, _SCORED_ROWS)[:2], 1)]  # [n, 2c, side, side]
    else:
        seen = [looked(side, False, _SCORED_ROWS)[0] for side in (game.held_out.target, game.held_out.source)]
    return [in_tiles(lambda x, judge=judge: judge(x).mean((1, 2)), x)
            for judge, x in zip(game.judge, seen, strict=True)]  # fmt: skip
