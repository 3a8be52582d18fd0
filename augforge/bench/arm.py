"""The rows of a table: what one recipe did at one number of shots, alone and beside the others.

Accuracies and gains are in percent; an interval is [low, high].
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augforge import chance, statistics
from augforge.bench.accuracy import by_class, confusion
from augforge.bench.plan import Shots, mean_shots, shots_name
from augforge.bench.predictions import Outcome
from augforge.bench.recipes import Recipe
from augforge.episodes.batch import Trials
from augforge.shot_worth import Worth, shot_worth
from augforge.statistics import Interval

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Arm:
    """A recipe at one number of shots, and what came of it with each training seed.

    `plain` is the arm with nothing made, None for itself.
    """

    recipe: Recipe
    control: bool
    shot: Shots
    trials: Trials
    outcomes: tuple[Outcome, ...]
    digest: str
    plain: Arm | None = None

    @property
    def outcome(self) -> Outcome:
        """What came of it with the first training seed."""
        return self.outcomes[0]

    @functools.cached_property
    def by_seed(self) -> tuple[NDArray[np.float64], ...]:
        """The part of right answers for each class of each episode, [n, way], with each training seed."""
        return tuple(self.trials.by_class(o.predicted == self.trials.target.numpy()) for o in self.outcomes)

    @functools.cached_property
    def correct(self) -> NDArray[np.float64]:
        """The part of right answers for each class of each episode, [n, way]: the mean over training seeds."""
        return np.mean(self.by_seed, axis=0)

    @property
    def gain(self) -> NDArray[np.float64] | None:
        """What it gains over `plain` on the same episodes, [n, way]; None for a plain arm."""
        return None if self.plain is None else self.correct - self.plain.correct


def measured(arm: Arm, seed: int) -> Row:
    """What can be said of an arm and its plain one alone; what needs the whole table is None until `complete`.

    With several training seeds every number, and so every interval, is of the episodes' means over the seeds.
    """
    correct, trials, recipe = arm.correct, arm.trials, arm.recipe
    alone, over_classes = (
        statistics.episode_interval(correct.mean(1)),
        statistics.class_interval(correct, trials.clusters),
    )
    counts, ids = confused(arm)
    top = float(np.mean([outcome.in_top5.mean() for outcome in arm.outcomes]))
    row: Row = {
        **recipe.shown(), "made": recipe.made, "weights": recipe.weights, "share": recipe.share,
        "exact": recipe.exact, "control": arm.control, "normalise": recipe.options.normalise,
        "views": recipe.options.views, "way": trials.way, "shot": shots_name(arm.shot),
        "query": trials.rows.query.shape[2], "trials": len(trials),
        "accuracy": percent(alone.value), "ci95": ends(alone), "ci95_classes": ends(over_classes),
        "top5": percent(top), "f1": percent(by_class(counts, ids).macro_f1),
        "clusters": len(np.unique(trials.clusters)),
    }  # fmt: skip
    later = ("gain_over_best", "gain_over_best_ci95", "best_plain", "gain_best", "gain_best_ci95", "shot_worth",
             "shot_worth_ci95", "shot_worth_says", "p_holm", "verdict")  # fmt: skip
    return row | _gains(arm, seed) | _spread(arm) | dict.fromkeys(later) | {"digest": arm.digest}


def _spread(arm: Arm) -> Row:
    """How many training seeds there were, and how far they are apart: standard deviations in points, or None."""
    found: Row = {"seeds": len(arm.outcomes)}
    plain = arm.plain
    gains = [0.0] * len(arm.by_seed) if plain is None else [
        float(own.mean() - other.mean()) for own, other in zip(arm.by_seed, plain.by_seed, strict=True)
    ]  # fmt: skip
    for name, values in (("accuracy", [float(correct.mean()) for correct in arm.by_seed]), ("gain", gains)):
        found[f"{name}_by_seed"] = [percent(value) for value in values]
        found[f"{name}_sd"] = percent(float(np.std(values, ddof=1))) if len(values) > 1 else None
    return found


def confused(arm: Arm) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The confusion [k, k] of an arm, true class by predicted, and the k classes; counts of all seeds together."""
    classes, target = arm.trials.rows.classes.numpy(), arm.trials.target.numpy()
    found = [confusion(classes, target, outcome.predicted) for outcome in arm.outcomes]
    return np.sum([counts for counts, _ in found], axis=0), found[0][1]


def _gains(arm: Arm, seed: int) -> Row:
    gain = arm.gain
    if gain is None:
        return {"gain": 0.0, "gain_ci95": [0.0, 0.0], "gain_ci95_episodes": [0.0, 0.0], "win_rate": None, "p": None}
    honest, mean = statistics.class_interval(gain, arm.trials.clusters), gain.mean(1)
    resampled = statistics.episode_bootstrap(mean, seed)
    return {"gain": percent(honest.value), "gain_ci95": ends(honest),
            "gain_ci95_episodes": [percent(end) for end in resampled],
            "win_rate": percent(statistics.win_rate(mean)), "p": honest.p}  # fmt: skip


def complete(rows: Sequence[Row], arms: Sequence[Arm], seed: int) -> None:
    """Fill in, in place, what needs the whole table: the best plain recipe, shot-worth, and the verdicts.

    `rows` are those of `arms`, in the same order. The best plain recipe of a representation is that with the highest
    accuracy at each shot, taken on these very episodes, which flatters it: the gains over it are the harder test.
    """
    tested = [i for i, arm in enumerate(arms) if arm.plain is not None]
    intervals = [statistics.class_interval(_gain(arms[i]), arms[i].trials.clusters) for i in tested]
    if intervals:
        adjusted, words = statistics.adjusted(intervals), statistics.verdicts(intervals)
        for i, p, word in zip(tested, adjusted, words, strict=True):
            rows[i].update(p_holm=float(p), verdict=word)
    for members in by_features(arms):
        _beside_best([rows[i] for i in members], [arms[i] for i in members], seed)


def by_features(arms: Sequence[Arm]) -> list[list[int]]:
    """The places of the arms, those on the same features together."""
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, arm in enumerate(arms):
        groups[id(arm.recipe.representation), arm.recipe.options].append(i)
    return list(groups.values())


def _gain(arm: Arm) -> NDArray[np.float64]:
    gain = arm.gain
    assert gain is not None
    return gain


def _beside_best(rows: Sequence[Row], arms: Sequence[Arm], seed: int) -> None:
    """The gain over the best plain recipe at the same shots, and shot-worth, for arms of one representation."""
    best = best_plain(arms)
    single = [shot for shot in best if isinstance(shot, int)]  # a range is no point of a curve
    shots: list[Shots] = sorted(single or best, key=mean_shots)
    draws, places = _draws(arms, seed), [mean_shots(shot) for shot in shots]
    curve = [float(best[shot].correct.mean()) for shot in shots]
    place = {id(arm): i for i, arm in enumerate(arms)}
    curve_draws = np.stack([draws[place[id(best[shot])]] for shot in shots], 1)  # [b, shots]
    for i, (row, arm) in enumerate(zip(rows, arms, strict=True)):
        over = statistics.class_interval(arm.correct - best[arm.shot].correct, arm.trials.clusters)
        worth = shot_worth(float(arm.correct.mean()), draws[i], places, curve, curve_draws)
        row.update(gain_over_best=percent(over.value), gain_over_best_ci95=ends(over), **_worth(worth))


def best_plain(arms: Sequence[Arm]) -> dict[Shots, Arm]:
    """Of the arms with nothing made, that with the highest accuracy at each of the shots; the first of equal ones."""
    best: dict[Shots, Arm] = {}
    for arm in arms:
        if arm.plain is None and (arm.shot not in best or arm.correct.mean() > best[arm.shot].correct.mean()):
            best[arm.shot] = arm
    return best


def _draws(arms: Sequence[Arm], seed: int) -> dict[int, NDArray[np.float64]]:
    """Bootstrap accuracies [b] of every arm, by its place; arms of the same shots see the same resamples."""
    found: dict[int, NDArray[np.float64]] = {}
    for shot in dict.fromkeys(arm.shot for arm in arms):
        members = [i for i, arm in enumerate(arms) if arm.shot == shot]
        values = np.stack([arms[i].correct for i in members], 2)  # [n, way, k]
        drawn = statistics.class_draws(values, arms[members[0]].trials.clusters, seed)
        found |= {i: drawn[:, k] for k, i in enumerate(members)}
    return found


def _worth(worth: Worth) -> Row:
    numbers = [None if n in (0.0, float("inf")) else round(n, 3) for n in (worth.value, worth.low, worth.high)]
    return {"shot_worth": numbers[0], "shot_worth_ci95": numbers[1:], "shot_worth_says": worth.words()}


def per_class(arm: Arm, names: Sequence[str]) -> Mapping[str, Any]:
    """Queries, precision, recall and F1 (in percent) of every class of an arm, as lists, and its confusion [k, k]."""
    counts, ids = confused(arm)
    found = by_class(counts, ids)
    listed = {key: [percent(v) for v in getattr(found, key).tolist()] for key in ("precision", "recall", "f1")}
    return {"classes": [names[i] for i in found.classes.tolist()], "queries": found.queries.tolist(), **listed,
            "confusion": counts.tolist()}  # fmt: skip


def percent(value: float) -> float:
    """A part as percent, to four digits after the point."""
    return round(100 * value, 4)


def ends(interval: Interval) -> list[float | None]:
    """The two ends of an interval in percent; None for one without end, which JSON cannot say."""
    return [percent(end) if np.isfinite(end) else None for end in (interval.low, interval.high)]


def bootstrap_key(seed: int) -> int:
    """The key of a table's resamples: a function of its seed, apart from those of its episodes."""
    return chance.name_key(f"bootstrap {seed}")
