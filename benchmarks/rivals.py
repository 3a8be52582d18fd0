"""Published methods against ours on equal budgets: chosen on validation classes, scored once on others.

    python benchmarks/rivals.py --data-root DIR --kept build/rivals [--set glyphs --set fresh-letters ...]

This makes the whole table of docs/imagine_results.md again. Every arm of ARMS has the same trials: two settings, each
with made rows that weigh together as much as one of WEIGHTS real rows, as many as one of COUNTS. The setting, and for
each number of shots weight and count, are those that were best on episodes of the classes to choose by, with the first
training seed; parts are fitted on the classes to train on alone. The choice is then fitted with every seed and scored
on the classes to report on. `hallucinator` and `posterior` have no trials here: while they are fitted they choose what
their rows weigh, and all else, on the same classes to choose by. `wang-hallucinator` has its own classifier too, the
embedding that was trained with it. Rows of results/rivals.jsonl have gains over nearest means and over the plain
classifier that was best on the classes to choose by, on the same episodes, in points, with intervals over classes;
"still" is the same with the method's noise at zero.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import CLASSES, RESULTS, append, open_embedded
from numpy.typing import NDArray
from rival_arms import ARMS, COUNTS, PLAIN, WEIGHTS, Arm
from torch import Tensor

from augforge import statistics
from augforge.bench.made_rows import from_features
from augforge.bench.plan import BenchPlan
from augforge.bench.predictions import Scorer
from augforge.bench.recipes import without_noise
from augforge.bench.run import plan_trials
from augforge.data.banks import FeatureBank
from augforge.episodes.batch import MadeRows, Trials
from augforge.episodes.tasks import Task
from augforge.generators.calibration import signed_power
from augforge.imagine import share_of
from augforge.parts import catalog
from augforge.parts.learning import fitted
from augforge.parts.saving import digest, made_by
from augforge.types import Examples, Weighing, capabilities

SETS = {"glyphs": 20, "fresh-letters": 20, "caltech": 10, "signs": 5, "fc100": 5}  # and the classes of an episode
_LETTERS = ("glyphs", "fresh-letters")
_AT_ONCE = 20  # episodes
Correct = NDArray[np.float64]  # the part of right answers for each class of each episode, [n, way]


@dataclass
class DataSet:
    """A set with its episodes, and what was fitted on it."""

    task: Task
    given: argparse.Namespace
    powered: bool = False  # features are raised to the power of 1/2
    episodes: dict[tuple[str, int], Trials] = field(default_factory=dict)

    def bank(self, part: str) -> FeatureBank:
        """The features of "base", "val" or "novel"."""
        bank = getattr(self.task, part)
        return replace(bank, x=signed_power(bank.x, 0.5)) if self.powered else bank

    def trials(self, part: str, shot: int) -> Trials:
        """The episodes of a part; the same for all arms."""
        count = self.given.choosing if part == "val" else self.given.trials
        way = min(SETS[self.task.name], len(self.bank(part).classes))
        plan = BenchPlan(way, (shot,), self.given.query, count, part=part)  # type: ignore[arg-type]
        if (part, shot) not in self.episodes:
            self.episodes[part, shot] = plan_trials(self.task, self.bank(part), plan, shot)
        return self.episodes[part, shot]

    def classifier(self, name: str) -> Any:
        """One of PLAIN, fitted on the classes to train on."""
        return catalog.make(*PLAIN[name], "classifier").fit(self.bank("base"), torch.Generator().manual_seed(0))

    def fitted(self, arm: Arm, setting: dict[str, Any], seed: int) -> tuple[Any, float]:
        """The part of an arm, kept under what it depends on, and the seconds of CPU that fitting took."""
        part, base = catalog.make(arm.method, setting), self.bank("base")
        val = self.bank("val") if arm.ours else None
        of = [made_by(part), seed, hashlib.sha256(base.x.numpy().tobytes()).hexdigest(), arm.ours]
        path = self.given.kept / "fits" / digest(of)
        begun = time.process_time()
        part = fitted(part, "synthesizer", base, seed, path, val)
        seconds, note = time.process_time() - begun, path.with_suffix(".json")
        if note.exists():
            return part, json.loads(note.read_text())
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(round(seconds, 2)))
        return part, round(seconds, 2)


def main() -> None:
    """Choose, measure, print and append, one set after the other."""
    given = _options()
    known: dict[tuple[str, str], Any] = {}  # choices; letters and fresh ones share theirs
    for name in given.sets or SETS:
        data = DataSet(open_embedded(name, given.data_root, given.kept / "features"), given)
        plain = _plain(data)
        for arm in ARMS:
            if (given.arms and arm.name not in given.arms.split(";")) or (arm.long and name not in _LETTERS):
                continue
            inside = replace(data, powered=arm.powered)
            place = (arm.name, "letters" if name in _LETTERS else name)
            if place not in known:
                known[place] = _chosen(inside, arm)
            rows = _rows(inside, arm, plain, *known[place])
            append(RESULTS / "rivals.jsonl", rows, {"set": name, "fresh": CLASSES[name].fresh})
            for row in rows:
                print(f"{time.strftime('%H:%M:%S')} {name:13} {arm.name:36} {row['shot']:2} {row['accuracy']:6.2f} "
                      f"{row['gain_means']:+6.2f} {row['gain_means_ci95']} {row['gain_best']:+6.2f} "
                      f"{row['gain_best_ci95']} val {row['val_gain']} {row['weight']} {row['count']} {row['setting']} "
                      f"{row['fit_seconds']}", flush=True)  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--kept", type=Path, required=True, help="keeps features and fitted parts")
    parser.add_argument("--set", dest="sets", action="append", choices=tuple(SETS))
    parser.add_argument("--arms", help="names of ARMS with semicolons [default: all]")
    parser.add_argument("--shots", default="1,5")
    parser.add_argument("--query", type=int, default=10)
    parser.add_argument("--choosing", type=int, default=120, help="episodes of the classes to choose by")
    parser.add_argument("--trials", type=int, default=300, help="episodes of the classes to report on")
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    given.shots, given.seeds = ([int(v) for v in text.split(",")] for text in (given.shots, given.seeds))
    return given


def _plain(data: DataSet) -> Plain:
    """For each shot: the plain classifier that is best on validation classes, its outcome on novel ones, and that of
    nearest means.
    """
    found = {}
    for shot in data.given.shots:
        parts = {name: data.classifier(name) for name in PLAIN}
        on = {name: _accuracy(data, part, "val", shot).mean() for name, part in parts.items()}
        best = max(on, key=lambda name: on[name])
        novel = {name: _accuracy(data, parts[name], "novel", shot) for name in {best, "prototype"}}
        found[shot] = (best, novel[best], novel["prototype"])
        print(data.task.name, shot, {k: round(100 * float(v), 2) for k, v in on.items()}, "novel",
              {k: round(100 * float(v.mean()), 2) for k, v in novel.items()}, flush=True)  # fmt: skip
    return found


Choice = tuple[float | None, int, float | None]  # weight, count, and the gain on validation classes over nothing made
Plain = dict[int, tuple[str, Correct, Correct]]


def _rows(
    data: DataSet, arm: Arm, plain: Plain, setting: dict[str, Any], chosen: dict[int, Choice]
) -> list[dict[str, Any]]:
    """The rows of an arm, one for each number of shots."""
    rows = []
    for shot in data.given.shots:
        weight, count, val_gain = chosen[shot]
        outcomes, still, seconds = [], list[Correct](), 0.0
        seeds = data.given.seeds if arm.learns and not arm.long else data.given.seeds[:1]
        for seed in seeds:
            part, cost = data.fitted(arm, setting, seed)
            seconds += cost
            outcomes.append(_outcome(data, arm, part, "novel", shot, seed, [(weight, count)])[0])
            quiet = None if arm.classifier == "own" else without_noise(part)
            if quiet is not None:
                still += _outcome(data, arm, quiet, "novel", shot, seed, [(weight, count)])
        correct = np.mean(outcomes, 0)
        clusters = data.trials("novel", shot).clusters
        best, of_best, of_means = plain[shot]
        row: dict[str, Any] = {"arm": arm.name, "method": arm.method, "classifier": arm.classifier, "shot": shot,
                               "way": correct.shape[1], "trials": len(correct), "seeds": seeds,
                               "setting": setting, "weight": weight, "count": count, "val_gain": val_gain,
                               "tried": arm.trials, "fit_seconds": round(seconds / len(outcomes), 1),
                               "accuracy": round(100 * float(correct.mean()), 4),
                               "by_seed": [round(100 * float(one.mean()), 4) for one in outcomes],
                               "best_plain": best}  # fmt: skip
        for name, other in (("means", of_means), ("best", of_best)):
            over = statistics.class_interval(correct - other, clusters)
            row |= {name: round(100 * float(other.mean()), 4), f"gain_{name}": round(100 * over.value, 4),
                    f"gain_{name}_ci95": [round(100 * over.low, 4), round(100 * over.high, 4)]}  # fmt: skip
            if still:  # what the noise is worth: the same rows made without it
                alone = statistics.class_interval(np.mean(still, 0) - other, clusters)
                row |= {f"gain_{name}_still": round(100 * alone.value, 4),
                        f"gain_{name}_still_ci95": [round(100 * alone.low, 4), round(100 * alone.high, 4)]}  # fmt: skip
        rows.append(row)
    return rows


def _chosen(data: DataSet, arm: Arm) -> tuple[dict[str, Any], dict[int, Choice]]:
    """The setting, and for each shot weight and count, that are best on the classes to choose by."""
    if arm.ours:
        return arm.settings[0], dict.fromkeys(data.given.shots, (None, COUNTS[0], None))
    trials: list[tuple[float | None, int]] = [(weight, count) for weight in WEIGHTS for count in COUNTS]
    trials = [(None, COUNTS[0])] if arm.classifier == "own" else trials
    means = []  # [settings, shots, trials]
    for setting in arm.settings:
        part, _ = data.fitted(arm, setting, 0)
        of_shots = [_outcome(data, arm, part, "val", shot, 0, trials) for shot in data.given.shots]
        means.append([[float(one.mean()) for one in found] for found in of_shots])
    best = int(np.max(means, 2).mean(1).argmax())
    chosen: dict[int, Choice] = {}
    for at, shot in enumerate(data.given.shots):
        place = int(np.argmax(means[best][at]))
        nothing = _accuracy(data, _classifier(data, arm, None), "val", shot).mean()
        chosen[shot] = (*trials[place], round(100 * (means[best][at][place] - float(nothing)), 4))
    return arm.settings[best], chosen


def _classifier(data: DataSet, arm: Arm, part: Any) -> Scorer:
    """Who reads the rows of an arm; nearest means where it is the part itself, and there is none."""
    if arm.classifier == "own":
        return data.classifier("prototype") if part is None else part
    return data.classifier(arm.classifier)


def _outcome(
    data: DataSet, arm: Arm, part: Any, role: str, shot: int, seed: int, trials: list[tuple[float | None, int]]
) -> list[Correct]:
    """The outcome with each weight and count of made rows, which are made once."""
    scorer, episodes, x = _classifier(data, arm, part), data.trials(role, shot), data.bank(role).x
    if arm.classifier == "own" or arm.method == "nothing":
        return [_accuracy(data, scorer, role, shot)]
    most = max(count for _, count in trials)
    made, found = from_features(part, x, most, seed), [list[Correct]() for _ in trials]
    with torch.no_grad():
        for start, few in _batches(episodes):
            rows = made(start, few)
            for trial, (weight, count) in enumerate(trials):
                support = _support(x, few, _weighed(rows, count, weight, part, arm, few))
                found[trial].append(_right(scorer, support, x, few))
    return [np.concatenate(one) for one in found]


def _weighed(
    rows: MadeRows, count: int, weight: float | None, part: Any, arm: Arm, episodes: Trials
) -> tuple[Tensor, Tensor]:
    """The first `count` rows of each class, which weigh `weight` real rows together; None: as the part has found."""
    x, given, real = rows[0][:, :, :count], rows[1], episodes.counts().float()
    each = torch.ones(x.shape[:3]) if given is None else given[:, :, :count]
    if weight is None:
        assert isinstance(part, Weighing)
        family = capabilities(catalog.make(*PLAIN[arm.classifier], "classifier")).family
        each = (share_of(part, family, real) * real / count)[:, :, None].expand(each.shape)
    else:
        each = weight * each / each.sum(2, keepdim=True).clamp(min=1e-12)
    if arm.classifier != "prototype":
        return x, each
    total = each.sum(2, keepdim=True)  # a mean needs but the mean of the made rows, with their weight
    return (each[..., None] * x).sum(2, keepdim=True) / total.clamp(min=1e-12)[..., None], total


def _accuracy(data: DataSet, scorer: Scorer, role: str, shot: int) -> Correct:
    """The outcome of a classifier with nothing made, or of a part's own scores."""
    episodes, x = data.trials(role, shot), data.bank(role).x
    with torch.no_grad():
        return np.concatenate([_right(scorer, _support(x, few, None), x, few) for _, few in _batches(episodes)])


def _batches(episodes: Trials) -> Iterator[tuple[int, Trials]]:
    for start in range(0, len(episodes), _AT_ONCE):
        yield start, episodes.part(start, start + _AT_ONCE)


def _support(x: Tensor, episodes: Trials, made: tuple[Tensor, Tensor] | None) -> Examples:
    """Real rows and made ones of b episodes; a class weighs as much as its real rows, so that no class gains by it."""
    rows = episodes.rows.support  # [b, way, shot]
    support, weight = x[rows], torch.ones(rows.shape)
    if made is not None:
        support, weight = torch.cat([support, made[0]], 2), torch.cat([weight, made[1]], 2)
        weight = weight * rows.shape[2] / weight.sum(2, keepdim=True)
    labels = torch.arange(rows.shape[1]).repeat_interleave(support.shape[2]).expand(len(rows), -1)
    return Examples(support.flatten(1, 2), labels, weight=None if made is None else weight.flatten(1))


def _right(scorer: Scorer, support: Examples, x: Tensor, episodes: Trials) -> Correct:
    found = scorer.scores(support, x[episodes.rows.query.flatten(1)]).argmax(-1)
    return episodes.by_class((found == episodes.target).numpy())


if __name__ == "__main__":
    main()
