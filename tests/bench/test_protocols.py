"""Low-shot recognition and verification on the features of a task, from Python."""

from dataclasses import replace
from statistics import mean

import pytest
import torch

from augforge.bench.protocols import LowShotPair, LowShotPlan, low_shot_features, run_low_shot, run_verification
from augforge.bench.recipes import Recipe
from augforge.bench.report import low_shot_markdown, verification_markdown
from augforge.classifiers.gaussian import Gaussian
from augforge.classifiers.prototype import Prototype
from augforge.episodes.tasks import Task
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.generators.nothing import Nothing
from augforge.protocols.low_shot import concatenate_banks, draw_low_shot, evaluate, held_out, mean_priors
from augforge.protocols.verification import verify
from augforge.types import InputError

PLAN = LowShotPlan(shots=(1, 3), query=5, draws=2)


def low_shot(task, recipes, plan=PLAN):
    return run_low_shot(low_shot_features(task, recipes[0], plan, "cpu", None), recipes, plan)


def test_plain_rows_are_those_of_the_protocol_with_priors_from_validation(toys):
    task = toys.feature_task()
    rows = low_shot(task, [Recipe(None, Nothing(), Prototype())])
    tasks = []
    for novel in (task.val, task.novel):
        train, test = held_out(concatenate_banks(task.base, novel), PLAN.query)
        tasks.append(draw_low_shot(train, test, novel.classes, draws=2, most=3))
    priors = mean_priors(evaluate(tasks[0], Prototype().scores, PLAN.shots))
    found = evaluate(tasks[1], Prototype().scores, PLAN.shots, priors)
    for row in rows:
        of_shot = [result for result in found if result.shot == row["shot"]]
        assert row["top1_novel"] == pytest.approx(100 * mean(r.top1.novel for r in of_shot), abs=1e-3)
        assert row["top5_all_prior"] == pytest.approx(100 * mean(r.top5.all_prior for r in of_shot), abs=1e-3)
        assert row["top1_prior"] == pytest.approx(priors[row["shot"], 1], abs=1e-3)
        assert (row["gain_top1"], row["draws"], row["base_classes"], row["novel_classes"]) == (0, 2, 12, 10)


def test_a_table_has_its_controls_and_paired_gains(toys):
    rows = low_shot(toys.feature_task(), [Recipe(None, toys.Shifter(), part, 4) for part in (Prototype(), Gaussian())])
    names = {"nothing", "copies", "noise", "Shifter", "Shifter, no noise"}
    assert {(row["synthesizer"], row["classifier"], row["shot"]) for row in rows} == {
        (name, judge, shot) for name in names for judge in ("prototype", "gaussian") for shot in PLAN.shots
    }
    for row in rows:
        plain = next(other for other in rows if other["synthesizer"] == "nothing"
                     and all(other[key] == row[key] for key in ("classifier", "shot")))  # fmt: skip
        assert row["gain_top5"] == pytest.approx(row["top5_all_prior"] - plain["top5_all_prior"], abs=1e-3)
    assert len({row["digest"] for row in rows}) == len(rows)
    one = [row for row in rows if row["synthesizer"] == "copies" and row["shot"] == 1]
    assert {row["gain_top1"] for row in one} == {0}  # copies of one row leave its class where and as heavy as it was
    text = low_shot_markdown(rows)
    assert "3 shots, 10 novel and 12 base classes, 2 draws" in text
    assert "| features | noise x 4 (control) | gaussian |" in text


def test_parts_are_fitted_on_base_rows_that_are_no_queries(toys):
    seen = []

    class Spy(Prototype):
        def fit(self, base, rng):
            seen.append((len(base), len(base.classes)))
            return self

    low_shot(toys.feature_task(), [Recipe(None, Nothing(), Spy())])
    assert seen == [(12 * (12 - PLAN.query), 12)]


def test_validation_classes_stand_for_the_novel_ones(toys):
    task = toys.feature_task()
    rows = low_shot(task, [Recipe(None, Nothing(), Prototype())], replace(PLAN, val=True))
    assert {row["novel_classes"] for row in rows} == {6}
    with pytest.raises(InputError, match="no validation classes to run on"):
        low_shot(replace(task, val=None), [Recipe(None, Nothing(), Prototype())], replace(PLAN, val=True))


def test_pictures_are_embedded_first(toys):
    task = Task("toy", toys.pictures(8, 9, 0, "b"), toys.pictures(6, 9, 1, "v"), toys.pictures(6, 9, 2, "n"))
    rows = low_shot(task, [Recipe(toys.Pixels(), Noise(), Prototype(), 2)])
    assert {row["synthesizer"] for row in rows} == {"nothing", "noise", "copies"}
    assert {row["representation"] for row in rows} == {"Pixels"}
    with pytest.raises(InputError, match="classical makes pictures, and the low-shot protocol adds rows to features"):
        low_shot(task, [Recipe(toys.Pixels(), Classical(), Prototype(), 2)])


def test_what_does_not_fit_is_refused(toys):
    with pytest.raises(InputError, match="too few rows for 3 shots and 12 queries"):
        low_shot(toys.feature_task(), [Recipe(None, Copies(), Prototype(), 2)], replace(PLAN, query=12))
    for changes in ({"shots": ()}, {"shots": (0, 1)}, {"query": 0}, {"draws": 1}):
        with pytest.raises(InputError, match="was given for low-shot recognition"):
            replace(PLAN, **changes)


def test_without_validation_classes_priors_are_tuned_on_halves(toys):
    task = replace(toys.feature_task(), val=None)
    pair = low_shot_features(task, Recipe(None, Nothing(), Prototype()), PLAN, "cpu", None)
    assert pair.tuning is None
    found = evaluate(pair.test, Prototype().scores, (1,))
    rows = run_low_shot(LowShotPair("toy", pair.test, None), [Recipe(None, Nothing(), Prototype())], PLAN)
    assert rows[0]["top1_all_prior"] == pytest.approx(100 * mean(r.top1.all_prior for r in found), abs=1e-3)


def test_verification_is_that_of_the_protocol(toys):
    task = toys.feature_task()
    rows = run_verification(task, Recipe(None, Nothing(), Prototype()), 3, "cpu", None)
    assert [row["similarity"] for row in rows] == ["cosine", "euclidean"]
    for row in rows:
        found = verify(task.novel, task.val, similarity=row["similarity"], seed=3)
        assert row["auc"] == pytest.approx(100 * found.auc, abs=1e-3)
        assert row["accuracy_ci95"] == pytest.approx([100 * end for end in found.accuracy_ci95], abs=1e-3)
        assert (row["people"], row["pairs"], row["threshold"]) == (10, found.pairs, found.threshold)
    assert "verification of 10 people" in verification_markdown(rows)
    with pytest.raises(InputError, match="no validation classes to find the threshold on"):
        run_verification(replace(task, val=None), Recipe(None, Nothing(), Prototype()), 0, "cpu", None)


def test_no_global_random_state_moves(toys):
    state = torch.get_rng_state()
    low_shot(toys.feature_task(), [Recipe(None, Noise(), Prototype(), 2)])
    assert torch.equal(state, torch.get_rng_state())
