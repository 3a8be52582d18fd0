"""What made rows are worth: the accuracy on held-out real rows of classifiers trained with and without them.

Five training sets: real rows, made rows, real and made, real and classically augmented, and all three. A gain is the
difference of two of them on the same held-out rows. FID does not predict it (Ravuri and Vinyals, "Classification
accuracy score for conditional generative models", NeurIPS 2019), so it is always measured for itself.

In every training set the rows of a class weigh as much together as its real rows do: otherwise what is measured is the
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
NAMES = (REAL, MADE, REAL_MADE, REAL_CLASSICAL, ALL)
GAINS = ((MADE, REAL), (REAL_MADE, REAL), (REAL_CLASSICAL, REAL), (REAL_MADE, REAL_CLASSICAL), (ALL, REAL_CLASSICAL))


@dataclass(frozen=True)
class TrainingSet:
    """What a classifier is trained on."""

    rows: Examples  # with weights
    augment: Augment = "none"  # drawn anew for every row of every step


TrainAndScore = Callable[[TrainingSet, Tensor, int], Tensor]  # (training set, query [q, ...], seed) -> scores [q, way]


@dataclass(frozen=True)
class Gain:
    """The accuracy with one training set minus that with another, in percentage points."""

    of: str
    over: str
    interval: Interval  # 95 %, over classes


@dataclass(frozen=True)
class Usefulness:
    """What classifiers are worth that were trained on each of the training sets."""

    accuracy: dict[str, float]  # percent, by training set
    gains: tuple[Gain, ...]
    held_out: int  # rows
    classes: int
    repeats: int  # training seeds


def feature_sets(real: Examples, made: Examples, classical: Examples | None = None) -> dict[str, TrainingSet]:
    """The training sets of features [n, d]: five, or three without `classical`, as many rows as made ones."""
    rows = {REAL: real, MADE: balanced(made, real), REAL_MADE: balanced(_plain(real) + made, real)}
    if classical is not None:
        both = _plain(real) + classical
        rows |= {REAL_CLASSICAL: balanced(both, real), ALL: balanced(both + made, real)}
    return {name: TrainingSet(some) for name, some in rows.items()}


def picture_sets(real: Examples, made: Examples, augment: Augment) -> dict[str, TrainingSet]:
    """The training sets of pictures [n, c, h, w]; classical augmentation is `augment`, drawn on the fly."""
    both = balanced(_plain(real) + made, real)
    return {REAL: TrainingSet(real), MADE: TrainingSet(balanced(made, real)), REAL_MADE: TrainingSet(both),
            REAL_CLASSICAL: TrainingSet(real, augment), ALL: TrainingSet(both, augment)}  # fmt: skip


def one_tensor(rows: Examples) -> Tensor:
    """The rows [n, ...] of examples that are no list; raises InputError for pictures of several sizes."""
    if not isinstance(rows.x, Tensor):
        raise InputError("there are pictures of several sizes; expected one tensor [n, ...]")
    return rows.x


def balanced(rows: Examples, real: Examples) -> Examples:
    """`rows` with weights such that each class weighs as much together as its rows in `real` do.

    Weights that rows have keep their proportions; a class all of whose rows weigh nothing has them weigh alike.
    """
    classes = int(max(rows.y.max(), real.y.max())) + 1 if len(rows) and len(real) else 0
    given = [torch.ones(len(side)) if side.weight is None else side.weight.float() for side in (real, rows)]
    pairs = zip((real, rows), given, strict=True)
    wanted, there = (torch.zeros(classes).index_add(0, side.y, weight) for side, weight in pairs)
    counts = torch.bincount(rows.y, minlength=classes)
    weight = torch.where(there[rows.y] > 0, given[1], 1.0)
    return replace(rows, weight=weight * (wanted / torch.where(there > 0, there, counts.clamp(min=1)))[rows.y])


def _plain(rows: Examples) -> Examples:
    return Examples(rows.x, rows.y, weight=rows.weight)


def train_logistic(given: TrainingSet, query: Tensor, seed: int) -> Tensor:
    """Scores [q, way] of `query` [q, d] by logistic regression on features; nothing is drawn."""
    return Logistic(C=5.0, normalise="spread").scores(given.rows, query)


def train_network(options: CnnOptions | None = None) -> TrainAndScore:
    """A plain network of pictures, trained from scratch, for as many steps with every training set."""
    chosen = CnnOptions() if options is None else options

    def train_and_score(given: TrainingSet, query: Tensor, seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        rows, classes = given.rows, int(given.rows.y.max()) + 1
        scores = train_cnn(one_tensor(rows), rows.y, classes, rng, replace(chosen, augment=given.augment), rows.weight)
        return scores(query)

    return train_and_score


def usefulness(
    sets: Mapping[str, TrainingSet], held_out: Examples, train: TrainAndScore, repeats: int = 1, seed: int = 0
) -> Usefulness:
    """The accuracy on `held_out` real rows with each training set, and the gains between them.

    Labels are 0..way-1. `train(set, query, seed)` gives scores [q, way]; it is called `repeats` times for each set with
    the same seeds in all, and the share of right answers of each row is averaged. The intervals are those of
    `class_interval`: paired over held-out rows that are drawn anew, in clusters of their classes. They say nothing of
    other training seeds, for which there are `repeats`. Raises TooFewRows where a class has no row in some training
    set, or there are fewer than 2 classes.
    """
    way = int(held_out.y.max()) + 1 if len(held_out) else 0
    if way < 2:
        raise TooFewRows(f"there are held-out rows of {way} classes; usefulness needs at least 2 classes")
    if repeats < 1:
        raise InputError(f"repeats={repeats} was given; expected at least 1")
    for name, given in sets.items():
        absent = (torch.bincount(given.rows.y, minlength=way) == 0).nonzero()
        if len(absent):
            raise TooFewRows(f"class {int(absent[0])} has no rows in the training set {name!r}; usefulness needs at "
                             "least 1")  # fmt: skip
    right = {name: _right(given, held_out, train, repeats, seed) for name, given in sets.items()}
    clusters = held_out.y[:, None].numpy()  # [q, 1]
    gains = tuple(Gain(of, over, class_interval((right[of] - right[over])[:, None].numpy(), clusters))
                  for of, over in GAINS if of in sets and over in sets)  # fmt: skip
    accuracy = {name: float(hits.mean()) for name, hits in right.items()}
    return Usefulness(accuracy, gains, len(held_out), len(held_out.y.unique()), repeats)


def _right(given: TrainingSet, held_out: Examples, train: TrainAndScore, repeats: int, seed: int) -> Tensor:
    """100 times the share of repeats in which each held-out row [q] was classified right."""
    query = one_tensor(held_out)
    hits = [train(given, query, seed + i).argmax(1).cpu() == held_out.y for i in range(repeats)]
    return 100 * torch.stack(hits).to(torch.float64).mean(0)  # [repeats, q] -> [q]
