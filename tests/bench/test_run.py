import json
import os
import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from augforge.bench.files import append_row, read_results
from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe, part_name, with_controls
from augforge.bench.run import run
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.prototype import Prototype
from augforge.episodes import draw_episodes
from augforge.episodes.batch import as_trials, cluster_of_classes
from augforge.episodes.tasks import Task
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.generators.nothing import Nothing
from augforge.parts.saving import made_by
from augforge.types import InputError

PLAN = BenchPlan(way=5, shots=(1, 3), query=5, trials=40)


def test_constant_weights_leave_classifiers_that_read_weights_as_they_were(toys):
    task = toys.feature_task()
    for weights, same in (("constant", True), ("each", False)):
        arms = run(task, [Recipe(None, Copies(), Logistic(), 12, weights, share=12.0)], PLAN).by_recipe
        changed = [np.mean(a.outcome.predicted != a.plain.outcome.predicted) for a in arms if a.plain]
        assert (changed[0] < 0.002) == same


# The controls


def test_every_table_has_its_controls_with_nothing_first(toys):
    part = toys.Shifter()
    arms = with_controls(
        [Recipe(None, part, Prototype(), 4), Recipe(None, part, Logistic(), 4)], toys.feature_task().novel
    )
    shown = [(recipe.shown()["synthesizer"], recipe.shown()["classifier"], control) for recipe, control in arms]
    for judge in ("prototype", "logistic"):
        arms_of = {(s, control) for s, j, control in shown if j == judge}
        assert arms_of == {(s, True) for s in ("nothing", "copies", "noise", "Shifter, no noise")} | {
            ("Shifter", False)
        }
    assert [s for s, _, _ in shown[:2]] == ["nothing", "nothing"]
    quiet = next(r.synthesizer for r, _ in arms if r.shown()["synthesizer"] == "Shifter, no noise")
    assert (quiet.noise_scale, part.noise_scale) == (0.0, 1.0)


def test_pictures_have_classical_augmentation_as_a_control(toys):
    bank = toys.pictures(4, 4, 0, "n")
    names = [
        r.shown()["synthesizer"] for r, _ in with_controls([Recipe(toys.Pixels(), Copies(), Prototype(), 2)], bank)
    ]
    assert "classical(preset=handwriting" in "".join(names)
    for preset, controls in (("handwriting", 0), ("keras", 1)):
        asked = with_controls([Recipe(toys.Pixels(), Classical(preset=preset), Prototype(), 2)], bank)
        assert sum(control for r, control in asked if isinstance(r.synthesizer, Classical)) == controls


def test_names_tell_the_settings_that_are_not_usual():
    assert part_name(Prototype(), "classifier") == "prototype"
    assert part_name(Prototype(distance="cosine"), "classifier") == "prototype(distance=cosine)"
    assert part_name(None, "representation") == "features"


# The run


def test_a_run_on_features_end_to_end(toys, tmp_path):
    recipes = [Recipe(None, toys.Shifter(), judge, 4) for judge in (Prototype(), Logistic())]
    seen = []
    results = run(toys.feature_task(), recipes, PLAN, tmp_path, lambda *reply: seen.append(reply))
    assert len(results.rows) == 2 * 5 * 2 == seen[-1][0] == seen[-1][1]
    json.dumps(results.as_json(), allow_nan=False)
    for row in results.rows:
        assert 0 <= row["accuracy"] <= 100
        assert row["ci95"][0] <= row["accuracy"] <= row["ci95"][1]
        assert (row["verdict"] is None) == (row["synthesizer"] == "nothing")
        assert row["gain"] == pytest.approx(row["accuracy"] - _plain(results.rows, row)["accuracy"], abs=1e-3)
    copies = [row for row in results.rows if row["synthesizer"] == "copies" and row["classifier"] == "prototype"]
    assert {row["verdict"] for row in copies} == {"no evidence"}
    best = max((r for r in results.rows if r["made"] == 0 and r["shot"] == 3), key=lambda r: r["accuracy"])
    assert best["gain_over_best"] == 0
    assert best["shot_worth_says"] == "3.0"
    assert read_results(tmp_path / "bench.jsonl") == results.rows


def _plain(rows, row):
    same = ("classifier", "shot")
    return next(r for r in rows if r["made"] == 0 and all(r[k] == row[k] for k in same))


@dataclass
class Counting(Prototype):
    """A classifier that counts its calls, one for each batch of episodes."""

    calls: ClassVar[list] = []

    def scores(self, support, query):
        self.calls.append(len(query))
        return super().scores(support, query)


def test_what_was_computed_is_not_computed_again(toys, tmp_path):
    task, first = toys.feature_task(), Recipe(None, Copies(), Counting(), 4)
    Counting.calls.clear()
    rows = run(task, [first], PLAN, tmp_path).rows
    assert len(Counting.calls) == len(rows) == 3 * 2  # nothing, copies and noise at two numbers of shots
    again = run(task, [first], PLAN, tmp_path).rows
    assert len(Counting.calls) == 6
    assert [without(row) for row in again] == [without(row) for row in rows]
    more = run(task, [first, replace(first, made=6)], PLAN, tmp_path).rows
    assert len(Counting.calls) == 6 + 2 * 2  # copies and noise
    assert len(more) == len(rows) + 4
    run(task, [first], replace(PLAN, seed=1), tmp_path)
    assert len(Counting.calls) == 6 + 4 + 6
    assert len(read_results(tmp_path / "bench.jsonl")) == len(more) + len(rows)


def without(row):
    return {key: value for key, value in row.items() if key != "seconds"}


def test_a_killed_run_leaves_lines_that_can_be_read(tmp_path):
    path = tmp_path / "bench.jsonl"
    append_row(path, {"digest": "a"})
    with path.open("a") as file:
        file.write('{"digest": "b')
    assert read_results(path) == [{"digest": "a"}]
    path.write_text("nonsense\n")
    with pytest.raises(InputError, match="line 1 of"):
        read_results(path)


@pytest.mark.parametrize("cut", [1, 2, 40, 10_000])
def test_a_folder_with_a_cut_line_goes_on(toys, tmp_path, cut):
    task, path = toys.feature_task(), tmp_path / "bench.jsonl"
    recipes = [Recipe(None, Copies(), Prototype(), 4)]
    whole = run(task, recipes, PLAN, tmp_path).rows
    os.truncate(path, max(0, path.stat().st_size - cut))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(run(task, recipes, PLAN, tmp_path).rows) == len(whole)
    assert any("its last line was cut off" in str(one.message) for one in said) == (cut in (2, 40))
    assert [without(row) for row in read_results(path)] == [without(row) for row in json.loads(json.dumps(whole))]


@pytest.mark.parametrize("name", ["bench.jsonl", "per_class.jsonl", "low_shot.jsonl"])
@pytest.mark.parametrize("line", [b"\xff\xfe{}", b"[" * 100_000, b"[]", b'{"digest": "a{"digest": "b"}', b""])
def test_a_damaged_line_is_one_sentence_before_anything_runs(toys, tmp_path, name, line):
    data = b'{"digest": "a"}\n' + line + b"\n"
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=r"line 2 of .*; remove the line, or move the file elsewhere"):
        run(toys.feature_task(), [Recipe(None, Copies(), Prototype(), 4)], PLAN, tmp_path)
    assert (tmp_path / name).read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_damaged_outcome_is_measured_again(toys, tmp_path):
    recipe = [Recipe(None, Copies(), Prototype(), 4)]
    rows = run(toys.feature_task(), recipe, PLAN, tmp_path).rows
    for file in (tmp_path / "outcomes").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    again = run(toys.feature_task(), recipe, PLAN, tmp_path).rows
    assert [without(row) for row in again] == [without(row) for row in rows]


def test_a_run_on_pictures_embeds_once_and_judges_on_validation_too(toys, tmp_path):
    task = Task("toy", toys.pictures(8, 8, 0, "b"), toys.pictures(6, 14, 1, "v"), toys.pictures(6, 14, 2, "n"))
    recipes = [Recipe(toys.Pixels(), Classical(preset="handwriting"), Prototype(), 3)]
    novel = run(task, recipes, PLAN, tmp_path)
    assert {row["synthesizer"].partition("(")[0] for row in novel.rows} == {"nothing", "copies", "noise", "classical"}
    assert len(list((tmp_path / "features").iterdir())) == 2  # base and novel
    val = run(task, recipes, replace(PLAN, part="val"), tmp_path)
    assert {row["part"] for row in val.rows} == {"val"}
    assert not {row["digest"] for row in val.rows} & {row["digest"] for row in novel.rows}
    counts, ids = novel.confusions()[0]
    assert counts.sum() == 40 * 5 * 5
    assert counts.shape == (len(ids), len(ids)) == (6, 6)


def test_ways_above_five_have_a_top5_of_their_own(toys):
    rows = run(toys.feature_task(), [Recipe(None, Nothing(), Prototype())], replace(PLAN, way=8)).rows
    assert all(row["accuracy"] < row["top5"] < 100 for row in rows)


# Leakage


def test_a_class_in_base_and_novel_is_refused(toys):
    with pytest.raises(InputError, match="among its base classes and its novel"):
        Task("toy", toys.features(4, 4, 3, 0, "x"), None, toys.features(4, 4, 3, 1, "x"))


def test_features_of_other_weights_are_refused(toys):
    base, novel = toys.features(8, 8, 4, 0, "b"), toys.features(8, 8, 4, 1, "n")
    with pytest.raises(InputError, match="do not say what made them"):
        run(Task("toy", base, None, novel), [Recipe(toys.Pixels(), Copies(), Prototype(), 2)], PLAN)
    marked = [replace(bank, groups={"made_by": (made_by(toys.Pixels(2.0)),) * len(bank)}) for bank in (base, novel)]
    with pytest.raises(InputError, match="were made with the weights"):
        run(Task("toy", marked[0], None, marked[1]), [Recipe(toys.Pixels(), Copies(), Prototype(), 2)], PLAN)
    rows = run(Task("toy", marked[0], None, marked[1]), [Recipe(toys.Pixels(2.0), Copies(), Prototype(), 2)],
               replace(PLAN, shots=(1,))).rows  # fmt: skip
    assert rows[0]["maker"] == made_by(toys.Pixels(2.0))


def test_a_query_in_its_support_is_refused(toys):
    bank = toys.features(6, 10, 4, 0, "n")
    good = draw_episodes(bank.y, way=5, shot=1, n_query=3, trials=4)
    query = good[2].query.clone()
    query[1, 0] = good[2].support[1, 0]
    with pytest.raises(InputError, match="in its support"):
        as_trials([*good[:2], replace(good[2], query=query), good[3]], bank)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"way": 1}, "way=1"),
        ({"shots": ()}, "shots"),
        ({"shots": (1, 1)}, "each number once"),
        ({"trials": 1}, "trials=1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        replace(PLAN, **given)


def test_pictures_cannot_be_made_from_features(toys):
    with pytest.raises(InputError, match="classical makes images, and these rows are features"):
        run(toys.feature_task(), [Recipe(None, Classical(), Prototype(), 2)], PLAN)


# Chance


def test_rotations_and_groups_are_clusters(toys):
    bank = replace(toys.features(6, 2, 3, 0, "n"), classes=("a", "b", "c", "a/rot090", "b/rot090", "c/rot090"))
    rotated = replace(bank, groups={"rotation": torch.zeros(12, dtype=torch.int64)})
    assert cluster_of_classes(rotated, None).tolist() == [0, 1, 2, 0, 1, 2]
    grouped = replace(bank, groups={"alphabet": ("p", "p", "q", "q", "r", "r", "s", "s", "t", "t", "t", "t")})
    assert cluster_of_classes(grouped, "alphabet").tolist() == [0, 1, 2, 3, 4, 4]
    assert cluster_of_classes(bank, None).tolist() == list(range(6))


def test_no_global_random_state_moves(toys):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run(toys.feature_task(), [Recipe(None, toys.Shifter(), Logistic(), 4)], PLAN)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_false_alarms_on_shuffled_labels_stay_under_five_percent(toys):
    """The whole engine, 200 times, on features whose labels mean nothing: no arm can help."""
    alarms = []
    plan = BenchPlan(way=5, shots=(5,), query=8, trials=50)
    base = toys.features(6, 10, 12, 99, "b")
    for seed in range(200):
        rng = torch.Generator().manual_seed(seed)
        bank = toys.features(16, 20, 12, seed, "n")
        task = Task("shuffled", base, None, replace(bank, y=bank.y[torch.randperm(len(bank), generator=rng)]))
        recipes = [Recipe(None, Copies(), Prototype(), 7), Recipe(None, Noise(scale=0.0), Prototype(), 7)]
        recipes.append(Recipe(None, toys.Shifter(noise_scale=0.0), Prototype(), 7))
        rows = run(task, recipes, replace(plan, seed=seed)).rows
        alarms.append(any(row["verdict"] == "helps" for row in rows))
    assert np.mean(alarms) <= 0.05
