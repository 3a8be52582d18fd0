"""What a benchmark learns from validation classes, exact scores, several training seeds, ranges of shots."""

import json
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from augforge import statistics
from augforge.bench.files import read_results, write_per_class
from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe, with_controls
from augforge.bench.run import plan_trials, run, run_seeds
from augforge.bench.table import pool
from augforge.classifiers.gaussian import Gaussian
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.prototype import Prototype
from augforge.data.features import write_features
from augforge.episodes.tasks import Task
from augforge.fit import FitOptions, fit_part
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.generators.nothing import Nothing
from augforge.inputs import Inputs
from augforge.types import Examples, InputError

PLAN = BenchPlan(way=5, shots=(1, 3), query=5, trials=40)
MADE = []  # how many rows `Exact` was asked for, call by call
SEEN = []  # what each part was shown: the classes of its validation bank, or None


@dataclass
class Chooser:
    """A generator that takes the validation classes, and adds a number that it learnt from them and its rng."""

    space: ClassVar[str] = "feature"
    one_parent: ClassVar[bool] = False
    support_needed: ClassVar[int] = 1
    one_class: ClassVar[bool] = True
    chooses: ClassVar[bool] = True
    noise_scale: float = 1.0
    shift_: torch.Tensor | None = field(default=None, init=False, repr=False)

    def fit(self, base, rng, val=None):
        SEEN.append(None if val is None else val.classes)
        self.shift_ = torch.randn(base.x.shape[1], generator=rng) + (0 if val is None else val.x.mean(0))
        return self

    def synthesize(self, support, want, keys):
        first = support.x[torch.searchsorted(support.y, want)]
        return Examples(first + self.noise_scale * self.shift_, want)


@dataclass
class Judge(Prototype):
    """A prototype classifier that takes the validation classes."""

    chooses: ClassVar[bool] = True

    def fit(self, base, rng, val=None):
        SEEN.append(None if val is None else val.classes)
        return super().fit(base, rng)


@dataclass
class Exact(Chooser):
    """A generator with scores of its own: those of the nearest mean, with a bias to the first class."""

    chooses: ClassVar[bool] = False
    bias: float = 2.0

    def synthesize(self, support, want, keys):
        MADE.append(len(want))
        return super().synthesize(support, want, keys)

    def scores(self, support, query):
        scores = Prototype().scores(support, query)
        return scores + self.bias * (torch.arange(scores.shape[-1]) == 0)


@pytest.fixture(autouse=True)
def _forget():
    SEEN.clear()


# Validation classes


def test_parts_that_choose_are_shown_the_validation_classes_once(toys, tmp_path):
    task = toys.feature_task()
    recipe = Recipe(None, Chooser(), Judge(), 2)
    run(task, [recipe], PLAN, tmp_path)
    assert set(SEEN) == {task.val.classes}
    assert len(SEEN) == 3  # the generator, the same without noise, and the classifier


def test_no_part_chooses_by_the_classes_it_is_judged_on(toys, tmp_path):
    task = toys.feature_task()
    run(task, [Recipe(None, Chooser(), Judge(), 2)], replace(PLAN, part="val"), tmp_path)
    assert set(SEEN) == {None}
    run(replace(task, val=None), [Recipe(None, Chooser(), Prototype(), 2)], PLAN, tmp_path)
    assert set(SEEN) == {None}


def test_what_was_chosen_by_other_classes_is_another_outcome(toys):
    task = toys.feature_task()
    other = replace(task, val=toys.features(6, 24, 16, 77, "v"))
    digests = [{row["synthesizer"]: row["digest"] for row in run(t, [Recipe(None, Chooser(), Prototype(), 2)],
               replace(PLAN, shots=(1,))).rows} for t in (task, other)]  # fmt: skip
    same = {name for name in digests[0] if digests[0][name] == digests[1][name]}
    assert same == {"nothing", "copies", "noise"}


def test_pictures_of_validation_classes_are_embedded_alike(toys, tmp_path):
    task = Task("toy", toys.pictures(8, 8, 0, "b"), toys.pictures(6, 14, 1, "v"), toys.pictures(6, 14, 2, "n"))
    run(task, [Recipe(toys.Pixels(), Chooser(), Prototype(), 2)], replace(PLAN, shots=(1,)), tmp_path)
    assert set(SEEN) == {task.val.classes}
    assert len(list((tmp_path / "features").iterdir())) == 3


@pytest.mark.parametrize(("part", "name"), [(Noise, "noise"), (Gaussian, "gaussian")])
def test_fit_shows_the_validation_classes_of_its_source(toys, tmp_path, monkeypatch, part, name):
    task, real = toys.feature_task(), part.fit
    write_features(tmp_path / "task.safetensors", {"train": task.base, "val": task.val, "test": task.novel})
    write_features(tmp_path / "whole.safetensors", {"val": task.base})
    monkeypatch.setattr(part, "chooses", True, raising=False)
    monkeypatch.setattr(part, "fit", lambda self, base, rng, val=None: SEEN.append(val) or real(self, base, rng))
    for i, (source, split) in enumerate([("task", None), ("task", "train"), ("whole", None)]):
        inputs = Inputs(str(tmp_path / f"{source}.safetensors"), name, split=split, device="cpu")
        fit_part(inputs, tmp_path / str(i), FitOptions())
    assert SEEN[0].classes == task.val.classes
    assert torch.equal(SEEN[0].x, task.val.x)
    assert SEEN[1:] == [None, None]


# The best plain classifier


def test_the_best_plain_classifier_is_chosen_on_validation_classes(toys, tmp_path):
    task, judges = toys.feature_task(), (Prototype(), Prototype(distance="cosine"), Logistic())
    recipes = [Recipe(None, Copies(), judge, 4) for judge in judges]
    plan = replace(PLAN, against="best")
    results = run(task, recipes, plan, tmp_path)
    val = run(task, [Recipe(None, Nothing(), judge) for judge in judges], replace(PLAN, part="val"))
    for shot in PLAN.shots:
        best = max((row for row in val.rows if row["shot"] == shot), key=lambda row: row["accuracy"])["classifier"]
        at_shot = [i for i, row in enumerate(results.rows) if row["shot"] == shot]
        chosen = next(results.by_recipe[i] for i in at_shot
                      if results.rows[i]["classifier"] == best and results.rows[i]["made"] == 0)  # fmt: skip
        for i in at_shot:
            row, arm = results.rows[i], results.by_recipe[i]
            over = statistics.class_interval(arm.correct - chosen.correct, arm.trials.clusters)
            assert row["best_plain"] == best
            assert row["gain_best"] == pytest.approx(100 * over.value, abs=1e-3)
            assert row["gain_best_ci95"] == pytest.approx([100 * over.low, 100 * over.high], abs=1e-3)
    assert {row["part"] for row in read_results(tmp_path / "bench.jsonl")} == {"novel", "val"}
    assert all(row["gain_best"] is None for row in run(task, recipes, PLAN, tmp_path).rows)


def test_a_choice_needs_validation_classes(toys):
    task = replace(toys.feature_task(), val=None)
    with pytest.raises(InputError, match="no validation classes to choose the best plain classifier by"):
        run(task, [Recipe(None, Copies(), Prototype(), 2)], replace(PLAN, against="best"))


# Exact scores


def test_exact_scores_stand_for_made_rows_under_the_gaussian_classifier(toys):
    part = Exact()
    recipes = [Recipe(None, part, judge, made) for judge in (Gaussian(), Prototype()) for made in (3, 6)]
    MADE.clear()
    results = run(toys.feature_task(), recipes, PLAN)
    found = {(row["synthesizer"], row["classifier"], row["made"], row["exact"]) for row in results.rows}
    assert {key for key in found if key[0].startswith("Exact") and key[1] == "gaussian"} == {
        ("Exact", "gaussian", 3, True)
    }
    assert {key for key in found if key[0].startswith("Exact") and key[1] == "prototype"} == {
        (name, "prototype", count, False) for name in ("Exact", "Exact, no noise") for count in (3, 6)
    }
    assert set(MADE) == {PLAN.way * 40 * 3, PLAN.way * 40 * 6, PLAN.way * 3, PLAN.way * 6}
    MADE.clear()
    run(toys.feature_task(), [recipes[0]], PLAN)
    assert not MADE  # under the Gaussian classifier alone nothing is made
    exact = next(arm for arm in results.by_recipe if arm.recipe.exact)
    support = torch.where(exact.trials.rows.support[3, :, 0] >= 0)[0]
    bank = toys.feature_task().novel
    scores = part.scores(Examples(bank.x[exact.trials.rows.support[3].flatten()], support),
                         bank.x[exact.trials.rows.query[3].flatten()])  # fmt: skip
    assert np.array_equal(exact.outcome.predicted[3], scores.argmax(1).numpy())


def test_exact_recipes_have_no_control_without_noise(toys):
    arms = with_controls([Recipe(None, Exact(), Gaussian(), 3)], toys.feature_task().novel)
    assert [recipe.shown()["synthesizer"] for recipe, _ in arms] == ["nothing", "Exact", "copies", "noise"]


# Shots


def test_in_a_range_every_class_draws_its_own_number_of_shots(toys):
    task = toys.feature_task()
    plan = BenchPlan(way=5, shots=((1, 4), 2), query=5, trials=200)
    ranged, fixed = (plan_trials(task, task.novel, plan, shots) for shots in ((1, 4), 1))
    counts = ranged.counts()
    assert torch.bincount(counts.flatten(), minlength=5)[1:].min() > 200
    assert (counts.float().var(1) > 0).float().mean() > 0.9
    assert torch.equal(ranged.rows.support[:, :, :1], fixed.rows.support)
    plan = replace(plan, trials=30)
    rows = run(task, [Recipe(None, Noise(), judge, 3) for judge in (Prototype(), Logistic())], plan).rows
    assert {row["shot"] for row in rows} == {"1-4", 2}
    alone = run(task, [Recipe(None, Noise(), Prototype(), 3)], replace(plan, shots=((1, 4),))).rows
    assert alone[0]["shot_worth_says"] == "2.5"
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize("shots", [((3, 1),), ((0, 2),), ((1, 2, 3),), ((1, 2), (1, 2))])
def test_ranges_that_make_no_sense_are_refused(shots):
    with pytest.raises(InputError, match="shots="):
        replace(PLAN, shots=shots)


# Training seeds


def test_training_seeds_are_pooled_on_the_same_episodes(toys, tmp_path):
    task, recipes = toys.feature_task(), [Recipe(None, Chooser(), judge, 4) for judge in (Prototype(), Logistic())]
    plan = replace(PLAN, against="best", shots=(1,))
    pooled = run_seeds(task, recipes, plan, (0, 1, 2), tmp_path)
    each = [run(task, recipes, replace(plan, fit_seed=seed), tmp_path) for seed in (0, 1, 2)]
    assert all(row["seconds"] == 0 for result in each for row in result.rows)
    assert len({result.rows[0]["episodes"] for result in each}) == 1
    assert [row | {"seconds": 0} for row in pool(each).rows] == [row | {"seconds": 0} for row in pooled.rows]
    for i, row in enumerate(pooled.rows):
        rows = [result.rows[i] for result in each]
        assert (row["seeds"], row["fit_seed"], row["seed"]) == (3, [0, 1, 2], 0)
        assert row["synthesizer"] == rows[0]["synthesizer"]
        for name in ("accuracy", "gain"):
            values = [one[name] for one in rows]
            assert row[f"{name}_by_seed"] == pytest.approx(values)
            assert row[name] == pytest.approx(np.mean(values), abs=1e-3)
            assert row[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-3)
        gain = np.mean(
            [
                result.by_recipe[i].correct - (result.by_recipe[i].plain or result.by_recipe[i]).correct
                for result in each
            ],
            0,
        )
        over = statistics.class_interval(gain, pooled.by_recipe[i].trials.clusters)
        assert row["gain_ci95"] == pytest.approx([100 * over.low, 100 * over.high], abs=1e-3)
        assert row["gain_best"] is not None
    learnt = next(row for row in pooled.rows if row["synthesizer"] == "Chooser")
    assert learnt["accuracy_sd"] > 0
    assert {row["seeds"] for row in read_results(tmp_path / "bench.jsonl")} == {1, 3}
    json.dumps(pooled.as_json(), allow_nan=False)


def test_tables_that_do_not_belong_together_are_not_pooled(toys):
    task, recipe = toys.feature_task(), [Recipe(None, Noise(), Prototype(), 2)]
    plan = replace(PLAN, shots=(1,))
    first = run(task, recipe, plan)
    with pytest.raises(InputError, match="each once"):
        pool([first, first])
    with pytest.raises(InputError, match="other recipes or episodes"):
        pool([first, run(task, recipe, replace(plan, seed=1))])


# Classes


def test_classes_and_confusion_are_written_beside_the_table(toys, tmp_path):
    recipes = [Recipe(None, Noise(), Prototype(), 2)]
    results = run(toys.feature_task(), recipes, PLAN)
    write_per_class(results.rows, results.confusions(), results.classes, tmp_path)
    lines = read_results(tmp_path / "per_class.jsonl")
    assert len(lines) == len(results.rows) * len(results.classes)
    for row in results.rows:
        mine = [line for line in lines if line["digest"] == row["digest"]]
        assert np.mean([line["f1"] for line in mine]) == pytest.approx(row["f1"], abs=1e-3)
        with np.load(tmp_path / "confusion" / f"{row['digest']}.npz", allow_pickle=False) as found:
            counts, classes = found["counts"], found["classes"]
        assert classes.tolist() == [line["class"] for line in mine]
        assert counts.sum(1).tolist() == [line["queries"] for line in mine]
        assert 100 * np.trace(counts) / counts.sum() == pytest.approx(row["accuracy"], abs=1e-3)
    more = run(toys.feature_task(), recipes, replace(PLAN, seed=1))
    write_per_class(more.rows, more.confusions(), more.classes, tmp_path)
    assert len(read_results(tmp_path / "per_class.jsonl")) == 2 * len(lines)
