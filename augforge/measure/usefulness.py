"""What made rows are worth: the accuracy on held-out real rows of classifiers trained with and without them.

Five arms: real rows only, made rows only, real and made, real and classically augmented, and all three. A gain is the
difference of two arms on the same held-out rows. FID does not predict it (Ravuri and Vinyals, "Classification accuracy
score for conditional generative models", NeurIPS 2019), so it is always measured for itself.

In every arm the rows of a class weigh as much together as its real rows do: otherwise what is measured is the
balance of the classes, which costs nothing to change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augforge.classifiers.logistic import Logistic
from augforge.measure.plain_cnn import CnnOptions, train_cnn
from augforge.metrics.rows import TooFewRows
from augforge.representations.pictures import Augment
from augforge.statistics import Interval, class_interval
from augforge.types import Examples, InputError

REAL, MADE, REAL_MADE = "real", "made", "real+made"
REAL_CLASSICAL, ALL = "real+classical", "real+classical+made"
ARMS = (REAL, MADE, REAL_MADE, REAL_CLASSICAL, ALL)
GAINS = ((MADE, REAL), (REAL_MADE, REAL), (REAL_CLASSICAL, REAL), (REAL_MADE, REAL_CLASSICAL), (ALL, REAL_CLASSICAL))


@dataclass(frozen=True)
class Arm:
    """What a classifier is trained on: weighted `rows`, and the augmentation that it draws on the fly."""

    rows: Examples
    augment: Augment = "none"


Judge = Callable[[Arm, Tensor, int], Tensor]


@dataclass(frozen=True)
class Gain:
    """The accuracy of the arm `of` minus that of `over`, in percentage points, with its 95 % interval over classes."""

    of: str
    over: str
    interval: Interval


@dataclass(frozen=True)
class Usefulness:
    """`accuracy` of each arm in percent on `held_out` rows of `classes` classes, and the paired `gains`."""

    accuracy: dict[str, float]
    gains: tuple[Gain, ...]
    held_out: int
    classes: int
    repeats: int


def feature_arms(real: Examples, made: Examples, classical: Examples | None = None) -> dict[str, Arm]:
    """The arms of features [n, d]; without `classical` rows, of which there are as many as made ones, three of five."""
    arms = {REAL: Arm(real), MADE: Arm(balanced(made, real)), REAL_MADE: Arm(balanced(_plain(real) + made, real))}
    if classical is not None:
        both = _plain(real) + classical
        arms |= {REAL_CLASSICAL: Arm(balanced(both, real)), ALL: Arm(balanced(both + made, real))}
    return arms


def picture_arms(real: Examples, made: Examples, augment: Augment) -> dict[str, Arm]:
    """The arms of pictures [n, c, h, w], where classical augmentation is `augment`, drawn on the fly for every row."""
    both = balanced(_plain(real) + made, real)
    return {REAL: Arm(real), MADE: Arm(balanced(made, real)), REAL_MADE: Arm(both),
            REAL_CLASSICAL: Arm(real, augment), ALL: Arm(both, augment)}  # fmt: skip


def balanced(rows: Examples, real: Examples) -> Examples:
    """`rows` with weights such that each class weighs as much together as it has rows in `real`."""
    classes = int(max(rows.y.max(), real.y.max())) + 1 if len(rows) and len(real) else 0
    wanted, there = (torch.bincount(side.y, minlength=classes).float() for side in (real, rows))
    return replace(rows, weight=(wanted / there.clamp(min=1))[rows.y])


def _plain(rows: Examples) -> Examples:
    return Examples(rows.x, rows.y)


def logistic_judge(arm: Arm, query: Tensor, seed: int) -> Tensor:
    """Scores [q, way] of `query` [q, d] by logistic regression on an arm's features; nothing is drawn."""
    return Logistic(C=5.0, normalise="spread").scores(arm.rows, query)


def cnn_judge(options: CnnOptions | None = None) -> Judge:
    """A judge of pictures: a plain network trained from scratch, for as many steps in every arm."""
    chosen = CnnOptions() if options is None else options

    def judge(arm: Arm, query: Tensor, seed: int) -> Tensor:
        x, classes = arm.rows.x, int(arm.rows.y.max()) + 1
        assert isinstance(x, Tensor)
        rng = torch.Generator().manual_seed(seed)
        scores = train_cnn(x, arm.rows.y, classes, rng, replace(chosen, augment=arm.augment), arm.rows.weight)
        return scores(query)

    return judge


def usefulness(
    arms: Mapping[str, Arm], held_out: Examples, judge: Judge, repeats: int = 1, seed: int = 0
) -> Usefulness:
    """The accuracy of each arm on `held_out` real rows, and the gains between them.

    Labels are 0..way-1. `judge(arm, query, seed)` gives scores [q, way]; it is called `repeats` times for each arm with
    the same seeds in all, and the share of right answers of each row is averaged. The intervals are those of
    `class_interval`: paired over held-out rows that are drawn anew, in clusters of their classes. They say nothing of
    other training seeds, for which there are `repeats`. Raises TooFewRows where a class has no row in some arm, or
    there are fewer than 2 classes.
    """
    way = int(held_out.y.max()) + 1 if len(held_out) else 0
    if way < 2 or not isinstance(held_out.x, Tensor):
        raise TooFewRows(
            f"there are held-out rows of {way} classes, as one tensor; usefulness needs at least 2 classes"
        )
    if repeats < 1:
        raise InputError(f"repeats={repeats} was given; expected at least 1")
    for name, arm in arms.items():
        absent = (torch.bincount(arm.rows.y, minlength=way) == 0).nonzero()
        if len(absent):
            raise TooFewRows(f"class {int(absent[0])} has no rows in the arm {name!r}; usefulness needs at least 1")
    right = {name: _right(arm, held_out, judge, repeats, seed) for name, arm in arms.items()}
    clusters = held_out.y[:, None].numpy()  # [q, 1]
    gains = tuple(Gain(of, over, class_interval((right[of] - right[over])[:, None].numpy(), clusters))
                  for of, over in GAINS if of in arms and over in arms)  # fmt: skip
    accuracy = {name: float(hits.mean()) for name, hits in right.items()}
    return Usefulness(accuracy, gains, len(held_out), len(held_out.y.unique()), repeats)


def _right(arm: Arm, held_out: Examples, judge: Judge, repeats: int, seed: int) -> Tensor:
    """100 times the share of repeats in which each held-out row [q] was named right."""
    assert isinstance(held_out.x, Tensor)
    hits = [judge(arm, held_out.x, seed + i).argmax(1).cpu() == held_out.y for i in range(repeats)]
    return 100 * torch.stack(hits).to(torch.float64).mean(0)  # [repeats, q] -> [q]
