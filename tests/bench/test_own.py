"""The engine without base classes: episodes within one's own classes, and one support against a test set."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from augforge import statistics
from augforge.bench.plan import BenchPlan, Capacity, in_words, own_capacities, plan_of
from augforge.bench.recipes import Recipe
from augforge.bench.report import markdown
from augforge.bench.run import run
from augforge.classifiers.gaussian import Gaussian
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.prototype import Prototype
from augforge.episodes.own import SIDE, fixed_support_task, own_task
from augforge.episodes.tasks import Task
from augforge.generators.copies import Copies
from augforge.generators.mixing import Mixing
from augforge.generators.noise import Noise
from augforge.generators.nothing import Nothing
from augforge.metrics.calibration import expected_calibration_error
from augforge.parts import catalog
from augforge.representations.convnet import ConvNet
from augforge.representations.options import BankOptions
from augforge.types import Examples, InputError


def _own(toys, counts=(9, 9, 9, 9), d=6):
    bank = toys.features(len(counts), max(counts), d, 0, "c")
    rows = torch.cat([bank.rows_of(k)[:count] for k, count in enumerate(counts)])
    return own_task("mine", {"all": replace(bank, x=bank.x[rows], y=bank.y[rows])})


def _split(toys, shots=(3, 2, 3), each=8, d=6):
    """A support with these numbers of rows, and a test set."""
    bank = toys.features(len(shots), max(shots) + each, d, 3, "c")
    first = torch.cat([bank.rows_of(k)[:count] for k, count in enumerate(shots)])
    last = torch.cat([bank.rows_of(k)[-each:] for k in range(len(shots))])
    return replace(bank, x=bank.x[first], y=bank.y[first]), replace(bank, x=bank.x[last], y=bank.y[last])


PLAIN = [Recipe(None, Nothing(), Logistic()), Recipe(None, Nothing(), Prototype())]


def test_all_classes_and_what_the_smallest_allows(toys):
    task = _own(toys, (13, 30, 40, 1))
    plan = plan_of(task, {"seed": 3})
    assert (plan.way, plan.shots, plan.query, plan.trials, plan.seed) == (3, (1, 2, 5, 10), 3, 600, 3)
    assert "3 of its 4 classes, 1, 2, 5, 10 shots, 3 queries of each, 600 times" in in_words(task, plan)
    assert plan_of(task, {"shots": (20,)}).query == 10  # of the two classes that have 21 rows
    assert plan_of(task, {"shots": (20,)}).way == 2
    assert plan_of(task, {"query": 9}).shots == (1, 2)
    assert plan_of(_own(toys, (2,) * 20), {}).trials == 150


def test_classes_too_small_for_episodes_are_an_error(toys):
    with pytest.raises(InputError, match="'mine' has 1 classes with 1 support rows and 1 for a query; episodes need 2"):
        plan_of(_own(toys, (5, 1, 1)), {})
    with pytest.raises(InputError, match="'mine' has 0 classes with 9 support rows"):
        plan_of(_own(toys), {"shots": (9,)})


def test_groups_and_sides_leave_less_room(toys):
    task = _own(toys, (9, 9))
    grouped = replace(task, novel=replace(task.novel, groups={"group": tuple("aaaabbbcc" * 2)}))
    assert own_capacities(grouped) == [Capacity(4, 4)] * 2
    assert plan_of(grouped, {}).shots == (1, 2)
    sides = replace(task, novel=replace(task.novel, groups={SIDE: (torch.arange(18) % 9 > 2).long()}), sides=SIDE)
    assert own_capacities(sides) == [Capacity(3, 6)] * 2
    assert (plan_of(sides, {}).shots, plan_of(sides, {}).query) == ((1, 2), 6)


def test_a_run_needs_no_base_classes(toys, tmp_path):
    task = _own(toys)
    plan = replace(plan_of(task, {}), trials=40, shots=(1, 2))
    recipes = [*PLAIN, Recipe(None, Mixing(how="smote"), Logistic(), 3)]
    results = run(task, recipes, plan, tmp_path)
    assert {row["base_classes"] for row in results.rows} == {0}
    assert "noise" not in {row["synthesizer"] for row in results.rows}  # a control that learns from base classes
    assert {"copies", "nothing"} < {row["synthesizer"] for row in results.rows}
    again = run(task, recipes, plan, tmp_path)
    assert [row["accuracy"] for row in again.rows] == [row["accuracy"] for row in results.rows]
    text = markdown(results.rows)
    assert "## mine: 4-way 1-shot, 40 episodes, " in text
    assert "the classes are yours and stay" in text


@pytest.mark.parametrize(
    ("synthesizer", "classifier", "words"),
    [
        (Copies(), Gaussian(), "gaussian learns from base classes, and 'mine' has none"),
        (Copies(), Prototype("mahalanobis"), r"prototype\(distance=mahalanobis\) learns from base classes"),
        (Noise(), Prototype(), "noise learns from base classes"),
        *((catalog.make(name), Prototype(), f"{name} learns from base classes") for name in
          ("analogies", "calibration", "posterior", "hallucinator", "wang-hallucinator", "delta-encoder", "feature-gan",
           "feature-vae", "mixing")),
    ],
)  # fmt: skip
def test_parts_that_learn_from_base_classes_say_so(toys, synthesizer, classifier, words):
    task = _own(toys)
    with pytest.raises(InputError, match=words):
        run(task, [Recipe(None, synthesizer, classifier, 2)], replace(plan_of(task, {}), trials=2))


def test_a_part_that_learnt_elsewhere_needs_none(toys):
    task, elsewhere = _own(toys), toys.features(8, 9, 6, 5, "b")
    gaussian, noise = (part.fit(elsewhere, torch.Generator()) for part in (Gaussian(), Noise()))
    rows = run(task, [Recipe(None, noise, gaussian, 2)], replace(plan_of(task, {}), trials=4, shots=(1,))).rows
    assert {row["synthesizer"] for row in rows} >= {"noise", "nothing"}


def test_a_representation_that_learns_needs_base_classes_too(toys):
    task = own_task("mine", {"all": toys.pictures(4, 5, 0, "c")})
    plan = replace(plan_of(task, {}), trials=4, shots=(1,))
    assert run(task, [Recipe(toys.Pixels(), Nothing(), Prototype())], plan).rows[0]["accuracy"] > 25
    with pytest.raises(InputError, match="conv4 learns from base classes, and 'mine' has none"):
        run(task, [Recipe(ConvNet(), Nothing(), Prototype())], plan)
    with pytest.raises(InputError, match="image-gan learns from base classes"):
        run(task, [Recipe(toys.Pixels(), catalog.make("image-gan"), Prototype(), 2)], plan)
    with pytest.raises(InputError, match="centred-l2 takes away the mean of base classes"):
        run(task, [Recipe(toys.Pixels(), Nothing(), Prototype(), options=BankOptions("centred-l2"))], plan)


def test_copies_of_the_same_episodes_make_the_interval_over_pictures_no_smaller(toys):
    task = _own(toys, (12,) * 6)
    widths = []
    for trials in (100, 400):
        (row, *_) = run(task, PLAIN[:1], replace(plan_of(task, {}), trials=trials, shots=(1,))).rows
        low, high = row["ci95_pictures"]
        widths.append((high - low, row["ci95"][1] - row["ci95"][0]))
    assert widths[1][0] > 0.85 * widths[0][0]
    assert widths[1][1] < 0.6 * widths[0][1]


def test_one_support_against_a_test_set(toys):
    support, test = _split(toys)
    task = fixed_support_task("mine", support, "held", test)
    plan = plan_of(task, {})
    assert (plan.way, plan.shots, plan.query, plan.trials, plan.tested) == (3, ((2, 3),), 24, 1, True)
    results = run(task, [*PLAIN, Recipe(None, Mixing(how="smote"), Logistic(), 4)], plan)
    scores = Logistic().scores(Examples(support.x, support.y), test.x)
    right = (scores.argmax(1) == test.y).numpy()
    row = results.rows[0]
    assert (row["shot"], row["trials"], row["query"], row["test"]) == ("2-3", 1, 24, "held")
    assert row["accuracy"] == pytest.approx(100 * right.mean(), abs=1e-3)
    wilson = statistics.wilson_interval(right)
    assert row["ci95"] == pytest.approx([100 * wilson.low, 100 * wilson.high], abs=1e-3)
    sure = torch.softmax(scores.double(), 1).amax(1)
    assert row["ece"] == pytest.approx(100 * expected_calibration_error(sure, right), abs=1e-3)


def test_gains_on_a_test_set_are_paired_by_picture(toys):
    support, test = _split(toys, shots=(2,) * 5, each=12)
    results = run(fixed_support_task("mine", support, "held", test),
                  [*PLAIN, Recipe(None, Mixing(how="smote"), Logistic(), 4)],
                  BenchPlan(way=5, shots=(2,), query=60, trials=1, tested=True))  # fmt: skip
    plain, other = results.by_recipe[0], results.by_recipe[1]
    right = [(one.outcome.predicted == one.trials.target.numpy())[0] for one in (plain, other)]
    best = max(right, key=lambda hits: hits.mean())
    over = statistics.episode_interval(right[1].astype(float) - best)  # each test picture is asked about once
    assert results.rows[1]["gain_over_best"] == pytest.approx(100 * over.value, abs=1e-3)
    assert results.rows[1]["gain_over_best_ci95"] == pytest.approx([100 * over.low, 100 * over.high], abs=1e-3)
    assert {row["verdict"] for row in results.rows if row["p"] is not None} <= {"helps", "hurts", "no evidence"}
    assert "5-way 2-shot, 60 queries of held" in markdown(results.rows)


def test_test_pictures_in_groups_widen_the_interval(toys):
    support, test = _split(toys, shots=(2, 2, 2), each=20)
    support = replace(support, groups={"group": tuple(f"s{i}" for i in range(len(support)))})
    wide = replace(test, groups={"group": tuple(f"t{i // 10}" for i in range(len(test)))})
    plan = BenchPlan(way=3, shots=(2,), query=60, trials=1, tested=True)
    tasks = [fixed_support_task("mine", support, "held", bank) for bank in (test, wide)]
    rows = [run(task, PLAIN[:1], plan).rows[0] for task in tasks]
    assert rows[0]["accuracy"] == rows[1]["accuracy"]
    assert np.diff(rows[1]["ci95"]) > np.diff(rows[0]["ci95"])


def test_drawn_episodes_still_need_two_trials():
    with pytest.raises(InputError, match="2 trials"):
        BenchPlan(trials=1)


def test_a_task_with_base_classes_has_the_plan_that_it_had(toys):
    plan = plan_of(toys.feature_task(), {"way": None, "seed": 0})
    assert plan == BenchPlan()
    assert isinstance(toys.feature_task(), Task)
