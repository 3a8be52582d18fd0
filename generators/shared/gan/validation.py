"""The evaluation of a generator during training: how good its pictures are, what is going wrong, a sheet of them.

The features are pixels, averaged in cells and standardised: no network, so nothing has to be at hand. They see ink and
shapes, not meaning; `augforge measure` has the representations for that.
"""

from __future__ import annotations

import math
import statistics

import cv2
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from augforge.metrics.by_class import by_class
from augforge.metrics.diversity import diversity
from augforge.metrics.kid import kid
from augforge.metrics.memorisation import memorisation
from augforge.training.loop import Evaluation
from augforge.types import InputError

_CELLS = 8  # of a side, at most
_RESAMPLES = 200
_POOR = 0.3  # a class whose made rows lie nearer together than this share of the real ones' distance has collapsed
_MANY = 0.25  # share of collapsed classes that is an alarm
_NEAR = 0.9  # made rows nearer to training rows than this share of the held-out rows' distance are copies
_FITTED = 0.5  # share of the way from real to made that held-out real rows may lose before the discriminator overfits


def cells(x: Tensor) -> Tensor:
    """Features [n, d] of pictures [n, c, h, w]: the means of at most 8 x 8 cells of each channel."""
    height, width = (min(_CELLS, side) for side in x.shape[2:])
    return F.adaptive_avg_pool2d(x.float(), (height, width)).flatten(1)


def standardised(real: Tensor, *sets: Tensor) -> list[Tensor]:
    """The cells [n, d] of sets of pictures, by the mean and deviation of those of real ones.

    No deviation is taken to be under a tenth of the largest: at the border, where real pictures are blank, a made
    stroke would else outweigh all others.
    """
    like = cells(real)
    deviation = like.std(0) if len(like) > 1 else torch.ones_like(like[0])  # of one row there is none
    deviation = deviation.clamp(min=max(1e-3, 0.1 * float(deviation.max())))
    return [(cells(x) - like.mean(0)) / deviation for x in sets]


def evaluate_pictures(
    made: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], train: Tensor, scores: tuple[Tensor, Tensor, Tensor]
) -> Evaluation:
    """The evaluation of generated pictures: the score is minus their kernel distance to held-out ones.

    What cannot be computed of so few pictures is left out of the facts, and then the score is NaN.

    `made` and `held_out` are pictures [n, c, h, w] with class ids [n], `train` pictures that were trained on, `scores`
    the discriminator's of training, held-out and generated pictures [n] each. Alarms: classes whose generated pictures
    are all alike, generated pictures nearer to training ones than held-out ones are, a discriminator whose scores of
    held-out pictures have come more than half of the way from those of training ones to those of generated ones.
    """
    features = standardised(held_out[0], made[0], held_out[0], train)
    facts = {} if min(len(features[0]), len(features[1])) < 2 else {"kernel_distance": kid(features[1], features[0])}
    diversity_facts, alarms = collapse((features[1], held_out[1]), (features[0], made[1]))
    facts |= diversity_facts
    try:
        near = memorisation(features[2], features[0], features[1], resamples=_RESAMPLES).median
        facts["memorisation"] = near.value
        if near.high < _NEAR:
            alarms.append(f"memorisation: made pictures lie {near.value:.2f} times as far from training pictures as "
                          "held-out ones do")  # fmt: skip
    except InputError:
        pass  # too few rows, or all held-out rows among the training ones
    on_train, on_held_out, on_made = (float(score.float().mean()) for score in scores)
    if on_train > on_made:  # else it cannot even separate training pictures from generated ones
        lost = facts["discriminator_gap"] = (on_train - on_held_out) / (on_train - on_made)
        if lost > _FITTED:
            alarms.append(f"discriminator overfitting: held-out pictures lose {lost:.0%} of the way from real to made")
    return Evaluation(-facts.get("kernel_distance", math.nan), facts, alarms)


def collapse(real: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> tuple[dict[str, float], list[str]]:
    """How far apart made rows are within classes against real ones, the median, and an alarm where many are not.

    Both are features [n, d] with class ids [n]. Both results are empty where no class has two rows of each.
    """
    spread = [each.ratio for each in by_class(diversity, [real, made]).values.values()]
    if not spread:
        return {}, []
    poor = sum(ratio < _POOR for ratio in spread) / len(spread)
    alarm = f"collapse: in {poor:.0%} of the classes made pictures are within {_POOR} of real distances"
    return {"diversity": statistics.median(spread)}, [alarm] if poor > _MANY else []


def write_sheet(pictures: Tensor, path: str) -> None:
    """Write pictures [rows, columns, c, h, w] in [0, 1], of 1 or 3 channels, as one PNG."""
    whole = rearrange(F.pad(pictures, [1] * 4), "r k c h w -> (r h) (k w) c")
    levels = (whole * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    cv2.imwrite(path, levels[..., ::-1] if levels.shape[2] == 3 else levels[..., 0])
