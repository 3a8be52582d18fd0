"""`bench` on one's own pictures: a folder without splits, and a support against a test folder."""

import json

import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.data.features import write_features

MEANS = ("--representation", "means")


@pytest.fixture
def mine(folder_of, tmp_path, means):
    """Five pictures of three classes, of different sizes, and a test folder."""
    for i in range(5):
        folder_of(tmp_path / "mine", {f"{name}": 1 for name in ("cat", "dog", "emu")}, (20 + i, 24 - i), f"_{i}.jpg")
    folder_of(tmp_path / "held", {"cat": 4, "dog": 4, "emu": 3}, (31, 17), "_t.png")
    return tmp_path / "mine"


def test_a_folder_without_splits_is_measured_with_no_option_but_features(augforge, mine):
    found = augforge("bench", mine, *MEANS)
    assert found.code == 0, found.err
    assert "3-way 1-shot, 600 episodes, 3 queries" in found.out
    assert "3-way 2-shot" in found.out
    assert found.err.count("\n") == 1
    assert found.err.startswith(f"episodes within {mine}: 3 of its 3 classes, 1, 2 shots, 3 queries of each, 600 times")
    assert "its smallest class, 'cat', has 5 rows; means, views none; logistic(" in found.err
    rows = augforge("bench", mine, *MEANS, "--trials", 4, "--json").json()["rows"]
    assert {(row["synthesizer"], row["classifier"]) for row in rows} == {
        ("nothing", "logistic(C=100.0, normalise=l2)"),
        ("nothing", "prototype"),
    }
    assert all(0 <= row["ece"] <= 100 and row["base_classes"] == 0 and row["test"] is None for row in rows)


def test_photographs_need_no_option_at_all(augforge, mine, tmp_path):
    found = augforge("bench", mine, "--test", tmp_path / "held")
    assert found.code == 0, found.err
    assert "; photos, views crops-4; logistic(C=100.0, normalise=l2), prototype\n" in found.err
    assert "| photos, views crops-4 | nothing (control) | prototype |" in found.out


def test_settings_are_laid_over_those_that_suit_the_rows(augforge, mine):
    command = ("bench", mine, *MEANS, "--trials", 2, "--shot", 1, "--set", "logistic.C=7", "--json")
    rows = augforge(*command).json()["rows"]
    assert {row["classifier"] for row in rows} == {"logistic(C=7.0, normalise=l2)", "prototype"}
    named = augforge(*command, "--classifier", "logistic").json()["rows"]
    assert {row["classifier"] for row in named} == {"logistic(C=7.0)"}


def test_a_support_is_measured_on_a_test_folder(augforge, mine, tmp_path):
    command = ("bench", mine, "--test", tmp_path / "held", *MEANS, "--out", tmp_path / "out")
    found = augforge(*command)
    assert found.code == 0, found.err
    assert f"3-way 5-shot, 11 queries of {tmp_path / 'held'}" in found.out
    assert "Wilson's" in found.out
    assert found.err.startswith(f"5 rows of each of the 3 classes of {mine} against 11 of ")
    rows = augforge(*command, "--json").json()["rows"]
    assert [json.loads(line) for line in (tmp_path / "out/bench.jsonl").read_text().splitlines()] == rows
    assert {(row["test"], row["shot"], row["query"], row["trials"]) for row in rows} == {
        (str(tmp_path / "held"), 5, 11, 1)
    }
    few = augforge(*command, "--max-per-class", 2, "--json").json()["rows"]
    assert {(row["shot"], row["query"]) for row in few} == {(2, 11)}


def test_methods_are_compared_on_the_same_test_pictures(augforge, mine, tmp_path):
    command = ("bench", mine, "--test", tmp_path / "held", *MEANS, "--with", "classical", "--made", 2, "--seeds", "0,1")
    rows = augforge(*command, "--json").json()["rows"]
    assert {row["synthesizer"] for row in rows} >= {"nothing", "classical(preset=photographs)", "copies"}
    assert {row["seeds"] for row in rows} == {2}
    assert len({row["episodes"] for row in rows}) == 1


@pytest.mark.parametrize("views", ["flip", "flip-shift", "gentle"])
def test_views_of_pictures_of_several_sizes(augforge, mine, views):
    rows = augforge("bench", mine, *MEANS, "--views", views, "--trials", 3, "--shot", 1, "--json").json()["rows"]
    assert {row["views"] for row in rows} == {views}


def test_frames_of_a_track_are_never_support_and_query(augforge, mine):
    command = ("bench", mine, *MEANS, "--group-by", r"_([0-4])\.jpg", "--trials", 5)
    found = augforge(*command)
    assert found.code == 0, found.err
    assert "1, 2 shots, 2 queries of each" in found.err  # of five tracks of one picture, two on the smaller side
    assert "is not found in" in augforge("bench", mine, *MEANS, "--group-by", "frame").error()
    one = augforge("bench", mine, *MEANS, "--group-by", "^(.)").error()
    assert "has 0 classes with 1 support rows and 1 for a query, in different groups" in one


def test_splits_with_the_same_classes_are_support_and_queries(augforge, folder_of, tmp_path, means):
    for split, count in (("train", 4), ("test", 3)):
        folder_of(tmp_path / "both" / split, {"cat": count, "dog": count}, suffix=f"_{split}.png")
    found = augforge("bench", tmp_path / "both", *MEANS, "--trials", 5)
    assert found.code == 0, found.err
    assert "2-way 2-shot, 5 episodes, 3 queries" in found.out


def test_a_source_of_features_is_measured_too(augforge, tmp_path):
    y = torch.arange(4).repeat_interleave(6)
    x = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
    write_features(tmp_path / "x.safetensors", {"all": FeatureBank(x, y, tuple("abcd"))})
    found = augforge("bench", tmp_path / "x.safetensors", "--trials", 5)
    assert found.code == 0, found.err
    assert "4-way 5-shot, 5 episodes, 1 queries" in found.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--representation", "conv4"), "conv4 learns from base classes, and"),
        ((*MEANS, "--classifier", "gaussian"), "gaussian learns from base classes, and"),
        ((*MEANS, "--with", "hallucinator"), "hallucinator learns from base classes, and"),
        ((*MEANS, "--with", "image-gan"), "image-gan learns from base classes, and"),
        ((*MEANS, "--normalise", "centred-l2"), "takes away the mean of base classes"),
        ((*MEANS, "--protocol", "low-shot"), "has no base classes; expected a source with train and test"),
        ((*MEANS, "--protocol", "verification"), "has no validation classes"),
        ((*MEANS, "--part", "val"), "has no validation classes"),
        ((*MEANS, "--against", "best"), "has no validation classes"),
        ((*MEANS, "--shot", "5"), "has 0 classes with 5 support rows and 1 for a query"),
        ((*MEANS, "--way", "4"), "4-way episodes need 4 classes"),
        ((*MEANS, "--test", "HELD", "--way", "2"), "--way was given with --test, which has no use for it"),
        ((*MEANS, "--test", "HELD", "--protocol", "verification"), "--protocol was given with --test"),
        ((*MEANS, "--test", "MINE"), "lies in --test"),
        ((*MEANS, "--test", "nowhere"), "there is no file, folder or source 'nowhere'"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(augforge, mine, tmp_path, options, words):
    places = {"HELD": tmp_path / "held", "MINE": mine}
    assert words in augforge("bench", mine, *(places.get(o, o) for o in options)).error()


def test_classes_of_other_names_are_named(augforge, mine, folder_of, tmp_path):
    folder_of(tmp_path / "other", {"cat": 2, "fox": 2, "hen": 2}, (9, 9))
    said = augforge("bench", mine, "--test", tmp_path / "other", *MEANS).error()
    assert "has classes 'fox', 'hen', which" in said


def test_a_gaussian_of_the_support_needs_no_base_classes(augforge, mine):
    command = ("bench", mine, *MEANS, "--with", "support-gaussian", "--classifier", "logistic", "--trials", 3, "--json")
    found = augforge(*command)
    rows = [row for row in found.json()["rows"] if row["synthesizer"] == "support-gaussian"]
    assert [row["shot"] for row in rows] == [1, 2]
    assert rows[0]["gain"] == 0
    assert "weigh nothing before logistic at 1 shots: with one row of each class none can be held out" in found.err
    assert "at 2 shots" not in found.err
    assert "on held-out classes" not in found.err  # not of its control without noise either


def test_views_are_rows_of_ones_own_pictures(augforge, mine):
    command = (
        "bench",
        mine,
        *MEANS,
        "--with",
        "views",
        "--classifier",
        "logistic",
        "--trials",
        3,
        "--made",
        4,
        "--json",
    )
    rows = [row for row in augforge(*command).json()["rows"] if row["synthesizer"] == "views"]
    assert [row["made_share"] for row in rows] == [1.0, 0.5]  # one real row together
