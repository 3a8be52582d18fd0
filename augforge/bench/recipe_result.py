"""One recipe at one number of shots: what was predicted, and the row of the table that follows from it alone.

Accuracies and gains are in percent; an interval is [low, high].
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from augforge import chance, statistics
from augforge.bench.accuracy import Outcome, by_class, confusion
from augforge.bench.files import TableRow
from augforge.bench.plan import Shots, shots_name
from augforge.bench.recipes import Recipe
from augforge.episodes.batch import Trials
from augforge.metrics.calibration import expected_calibration_error
from augforge.statistics import Interval


@dataclass(frozen=True, eq=False)
class RecipeResult:
    """A recipe at one number of shots, and its outcome with each training seed."""

    recipe: Recipe
    control: bool  # whether it is one of the controls that every table has
    shot: Shots
    trials: Trials
    outcomes: tuple[Outcome, ...]  # one for each training seed
    digest: str  # of all that the outcome depends on
    plain: RecipeResult | None = None  # the result with nothing made; None for that one itself

    @property
    def outcome(self) -> Outcome:
        """The outcome with the first training seed."""
        return self.outcomes[0]

    @functools.cached_property
    def by_seed(self) -> tuple[NDArray[np.float64], ...]:
        """The part of right answers for each class of each episode, [n, way], with each training seed."""
        return tuple(self.trials.by_class(o.predicted == self.trials.target.numpy()) for o in self.outcomes)

    @functools.cached_property
    def correct(self) -> NDArray[np.float64]:
        """The part of right answers for each class of each episode, [n, way]: the mean over training seeds."""
        return np.mean(self.by_seed, axis=0)

    @functools.cached_property
    def right(self) -> NDArray[np.float64]:
        """Whether each query of each episode was named right, [n, m]: the mean over training seeds."""
        return np.mean([o.predicted == self.trials.target.numpy() for o in self.outcomes], axis=0)

    def over(self, other: RecipeResult) -> Interval:
        """What it gains over another on the same episodes, with its interval: over classes drawn anew, or, where the
        classes are one's own and stay, over pictures drawn anew.
        """
        if self.trials.own:
            return statistics.cluster_interval(self.right - other.right, self.trials.pictures())
        return statistics.class_interval(self.correct - other.correct, self.trials.clusters)


def table_row(result: RecipeResult, seed: int) -> TableRow:
    """What a result and its plain one say alone; what needs the whole table is None until `complete`.

    With several training seeds every number, and so every interval, is one of the episodes' means over the seeds.
    """
    correct, trials, recipe = result.correct, result.trials, result.recipe
    over_pictures = _over_pictures(result)
    over_episodes = over_pictures if trials.tested else statistics.episode_interval(correct.mean(1))
    over_classes = statistics.class_interval(correct, trials.clusters)
    counts, ids = confused(result)
    top = float(np.mean([outcome.in_top5.mean() for outcome in result.outcomes]))
    row: TableRow = {
        **recipe.shown(), "made": recipe.made, "weights": recipe.weights, "share": recipe.share,
        "exact": recipe.exact, "control": result.control, "normalise": recipe.options.normalise,
        "views": recipe.options.views, "way": trials.way, "shot": shots_name(result.shot),
        "query": trials.rows.query.shape[2], "trials": len(trials),
        "accuracy": percent(over_episodes.value), "ci95": ends(over_episodes), "ci95_classes": ends(over_classes),
        "ci95_pictures": ends(over_pictures), "ece": percent(_calibration_error(result)),
        "top5": percent(top), "f1": percent(by_class(counts, ids).macro_f1),
        "clusters": len(np.unique(trials.clusters)),
    }  # fmt: skip
    later = ("gain_over_best", "gain_over_best_ci95", "best_plain", "gain_best", "gain_best_ci95", "shot_worth",
             "shot_worth_ci95", "shot_worth_says", "p_holm", "verdict")  # fmt: skip
    return row | _gains(result, seed) | _spread(result) | dict.fromkeys(later) | {"digest": result.digest}


def _over_pictures(result: RecipeResult) -> Interval:
    """The accuracy with its interval where the pictures asked about, in groups of near-copies, are drawn anew.

    Wilson's for a tested support whose pictures are not in groups and whose answers are of one seed.
    """
    if result.trials.tested and result.trials.near is None and len(result.outcomes) == 1:
        return statistics.wilson_interval(result.right.reshape(-1))
    return statistics.cluster_interval(result.right, result.trials.pictures())


def _calibration_error(result: RecipeResult) -> float:
    """The expected calibration error of all queries of all seeds together."""
    target = result.trials.target.numpy()
    sure = np.concatenate([outcome.confidence.reshape(-1) for outcome in result.outcomes])
    right = np.concatenate([(outcome.predicted == target).reshape(-1) for outcome in result.outcomes])
    return expected_calibration_error(sure, right)


def _spread(result: RecipeResult) -> TableRow:
    """How many training seeds there were, and how far they are apart: standard deviations in points, or None."""
    found: TableRow = {"seeds": len(result.outcomes)}
    plain = result.plain
    gains = [0.0] * len(result.by_seed) if plain is None else [
        float(own.mean() - other.mean()) for own, other in zip(result.by_seed, plain.by_seed, strict=True)
    ]  # fmt: skip
    for name, values in (("accuracy", [float(correct.mean()) for correct in result.by_seed]), ("gain", gains)):
        found[f"{name}_by_seed"] = [percent(value) for value in values]
        found[f"{name}_sd"] = percent(float(np.std(values, ddof=1))) if len(values) > 1 else None
    return found


def confused(result: RecipeResult) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The confusion [k, k] of a result, true class by predicted, and the k classes; counts of all seeds together."""
    classes, target = result.trials.rows.classes.numpy(), result.trials.target.numpy()
    found = [confusion(classes, target, outcome.predicted) for outcome in result.outcomes]
    return np.sum([counts for counts, _ in found], axis=0), found[0][1]


def _gains(result: RecipeResult, seed: int) -> TableRow:
    plain = result.plain
    if plain is None:
        return {"gain": 0.0, "gain_ci95": [0.0, 0.0], "gain_ci95_episodes": [0.0, 0.0], "win_rate": None, "p": None}
    over, mean = result.over(plain), (result.correct - plain.correct).mean(1)
    resampled = statistics.episode_bootstrap(mean, seed)
    return {"gain": percent(over.value), "gain_ci95": ends(over),
            "gain_ci95_episodes": [percent(end) for end in resampled],
            "win_rate": percent(statistics.win_rate(mean)), "p": over.p}  # fmt: skip


def percent(value: float) -> float:
    """A part as percent, to four digits after the point."""
    return round(100 * value, 4)


def ends(interval: Interval) -> list[float | None]:
    """The two ends of an interval in percent; None for one without end, which JSON cannot say."""
    return [percent(end) if np.isfinite(end) else None for end in (interval.low, interval.high)]


def bootstrap_key(seed: int) -> int:
    """The key of a table's resamples: a function of its seed, apart from those of its episodes."""
    return chance.name_key(f"bootstrap {seed}")
