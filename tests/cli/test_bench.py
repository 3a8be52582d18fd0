import contextlib
import json
import os
import re
import struct
import subprocess
import sys

import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.data.features import write_features
from augforge.episodes.files import write_episodes
from augforge.episodes.named_tasks import open_task
from augforge.episodes.tasks import task_episodes
from augforge.generators.noise import Noise
from augforge.parts.saving import save_part

SMALL = ("--trials", 30, "--query", 5, "--shot", "1,3", "--made", 4)


def bank(k, each, seed, prefix):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(k).repeat_interleave(each)
    x = torch.randn(k, 8, generator=rng)[y] + torch.randn(k * each, 8, generator=rng)
    return FeatureBank(x, y, tuple(f"{prefix}{i}" for i in range(k)))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "features.safetensors"
    write_features(path, {"train": bank(8, 10, 0, "b"), "val": bank(6, 12, 1, "v"), "test": bank(8, 12, 2, "n")})
    return path


def test_json_has_the_frozen_keys_and_nothing_else_is_on_stdout(augforge, task):
    found = augforge("bench", task, *SMALL, "--json").json()
    assert found["task"] == str(task)
    assert found["seed"] == 0
    assert {"versions", "machine"} <= found.keys()
    keys = {"representation", "synthesizer", "classifier", "way", "shot", "trials", "accuracy", "ci95", "gain",
            "gain_ci95", "win_rate", "f1", "top5", "shot_worth", "verdict", "digest", "episodes", "bank"}  # fmt: skip
    assert all(keys <= row.keys() for row in found["rows"])
    assert {(row["synthesizer"], row["shot"]) for row in found["rows"]} == {
        (name, shot) for name in ("nothing", "copies", "noise") for shot in (1, 3)
    }


def test_out_holds_results_table_and_plots_and_the_same_command_goes_on(augforge, task, tmp_path):
    command = ("bench", task, *SMALL, "--with", "noise", "--classifier", "logistic", "--classifier", "prototype",
               "--out", tmp_path)  # fmt: skip
    first = augforge(*command, "--json").json()
    plots = [f"{stem}.{kind}" for stem in ("gain-1-shot", "gain-3-shot", "accuracy") for kind in ("png", "svg", "pdf")]
    for name in ("bench.jsonl", "table.md", "table.csv", "table.tex", *plots):
        assert (tmp_path / name).stat().st_size
    lines = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    assert lines == first["rows"]
    classes = [json.loads(line) for line in (tmp_path / "per_class.jsonl").read_text().splitlines()]
    assert {line["digest"] for line in classes} == {row["digest"] for row in lines}
    assert {path.stem for path in (tmp_path / "confusion").iterdir()} == {row["digest"] for row in lines}
    again = augforge(*command, "--json").json()
    assert [row["seconds"] for row in again["rows"]] == [0.0] * len(first["rows"])
    assert [row | {"seconds": 0} for row in again["rows"]] == [row | {"seconds": 0} for row in first["rows"]]


def test_a_person_reads_a_table(augforge, task):
    found = augforge("bench", task, *SMALL, "--part", "val", "--normalise", "l2")
    assert found.code == 0
    assert "5-way 1-shot on validation classes, 30 episodes" in found.out
    assert "nothing (control)" in found.out
    assert found.err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal_the_verdict_comes_first_and_the_table_fits(task):
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    command = [sys.executable, "-m", "augforge.cli.main", "bench", str(task), *map(str, SMALL)]
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | {"TERM": "xterm"}
    run = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment, cwd=task.parent)
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 4096):
            text += piece
    os.close(ours)
    assert run.wait() == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", text.decode()).splitlines()
    assert lines[0].startswith("1 shot: ")
    assert max(map(len, lines)) <= 90
    assert any("copies x 4 (control)" in line and "●" in line for line in lines)


def test_a_fitted_folder_is_used_as_it_is(augforge, task, tmp_path):
    save_part(Noise(scale=0.5).fit(bank(8, 10, 0, "b"), torch.Generator()), tmp_path / "half")
    rows = augforge("bench", task, *SMALL, "--with", tmp_path / "half", "--json").json()["rows"]
    assert {row["synthesizer"] for row in rows} == {"nothing", "copies", "noise", "half"}


def test_settings_go_to_the_part_that_they_name(augforge, task):
    command = ("bench", task, *SMALL, "--shot", "1", "--with", "noise", "--json")
    rows = augforge(
        *command, "--set", "scale=0.5", "--classifier", "gaussian", "--set", "gaussian.shrinkage=0.4"
    ).json()
    names = {(row["synthesizer"], row["classifier"]) for row in rows["rows"]}
    assert ("noise(scale=0.5)", "gaussian(shrinkage=0.4)") in names
    alone = augforge("bench", task, *SMALL, "--set", "distance=cosine", "--json").json()["rows"]
    assert {row["classifier"] for row in alone} == {"prototype(distance=cosine)"}


def test_seeds_are_pooled_against_the_best_plain_classifier(augforge, task, tmp_path):
    command = ("bench", task, *SMALL, "--shot", "1-3,2", "--classifier", "prototype", "--classifier", "knn",
               "--seeds", "0,1", "--against", "best", "--device", "cpu", "--out", tmp_path)  # fmt: skip
    rows = augforge(*command, "--json").json()["rows"]
    assert {(row["shot"], row["seeds"], tuple(row["fit_seed"])) for row in rows} == {("1-3", 2, (0, 1)), (2, 2, (0, 1))}
    assert {row["best_plain"] for row in rows} <= {"prototype", "knn"}
    assert all(row["gain_best_ci95"] for row in rows)
    text = augforge(*command).out
    assert "5-way 1-3-shot, 30 episodes, 5 queries, mean over 2 training seeds" in text
    assert "over best by validation | gain's sd over seeds" in text


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((), {"copies": {None}, "noise": {None}}),
        (("--share", "0.5"), {"copies": {0.5}, "noise": {0.5}}),
        (("--share", "1,.25"), {"copies": {0.25, 1}, "noise": {0.25, 1}}),
        (("--share", "noise=0.5"), {"copies": {None, 0.5}, "noise": {None, 0.5}}),
        (("--share", "noise=0", "--share", "2"), {"copies": {0, 2}, "noise": {0, 2}}),
    ],
)
def test_shares_go_to_the_methods_that_they_name(augforge, task, shares, expected):
    command = ("bench", task, *SMALL, "--with", "nothing", "--with", "noise", "--with", "copies")
    rows = augforge(*command, *shares, "--json").json()["rows"]
    found = {name: {row["share"] for row in rows if row["synthesizer"] == name} for name in ("copies", "noise")}
    assert found == expected
    assert [row["share"] for row in rows if row["synthesizer"] == "nothing"] == [None] * 2
    plain = {(row["shot"], row["accuracy"]) for row in rows if row["synthesizer"] == "nothing"}
    assert {(row["shot"], row["accuracy"]) for row in rows if row["share"] == 0} <= plain


def test_a_share_is_told_in_the_table_and_kept(augforge, task, tmp_path):
    command = ("bench", task, *SMALL, "--share", "copies=0.5", "--out", tmp_path)
    first = augforge(*command).out
    assert "| copies x 4, share 0.5 (control) |" in first
    assert augforge(*command).out == first
    lines = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    assert [line["share"] for line in lines] == [None if line["synthesizer"] == "nothing" else 0.5 for line in lines]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--with", "nois"), "there is no synthesizer 'nois'; the nearest is 'noise'"),
        (("--classifier", "protoype"), "the nearest is 'prototype'"),
        (("--shot", "0"), "--shot '0' was given"),
        (("--shot", "1,1"), "different whole numbers"),
        (("--made", "many"), "--made 'many' was given"),
        (("--shot", "3-"), "different whole numbers"),
        (("--share", "half"), "--share 'half' was given; expected different numbers from 0 with commas, as 0.25,0.5"),
        (("--share", "-1"), "--share '-1' was given; expected different numbers from 0"),
        (("--share", "0.5,nan"), "--share '0.5,nan' was given"),
        (("--share", "1,1.0"), "expected different numbers"),
        (("--share", ""), "--share '' was given"),
        (("--share", "copies="), "--share 'copies=' was given; expected different numbers"),
        (("--share", "9" * 400), "share=inf was given"),
        (("--share", "nois=1", "--with", "noise"), "no method is called 'nois'; the nearest is 'noise'"),
        (("--share", "1", "--share", "2"), "--share '2' was given after another for the same methods"),
        (("--share", "nothing=1", "--with", "nothing"), "share=1.0 was given for nothing, which makes no rows"),
        (("--seeds", "0,0"), "--seeds '0,0' was given"),
        (("--seeds", "3"), "expected two or more"),
        (("--set", "scale"), "expected name=value"),
        (("--set", "nois.scale=2", "--with", "noise"), "no part is called 'nois'; the nearest is 'noise'"),
        (("--set", "scale=2", "--with", "noise", "--with", "copies"), "expected noise.scale=2 or the like"),
        (("--way", "30"), "30-way episodes need 30 classes"),
        (("--trials", "1"), "trials=1"),
        (("--with", "classical"), "classical makes images, and these rows are features"),
        (("--normalise", "l3"), "normalise='l3'"),
        (("--representation", "conv4"), "do not say what made them"),
    ],
)
def test_errors_are_one_sentence(augforge, task, arguments, words):
    assert words in augforge("bench", task, *SMALL, *arguments).error()


def test_a_device_that_is_not_there_is_exit_code_4(augforge, task):
    assert "this machine has none" in augforge("bench", task, *SMALL, "--device", "tpu").error(4)


def test_an_out_that_is_a_file_is_refused(augforge, task, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be made" in augforge("bench", task, *SMALL, "--out", tmp_path / "file").error()


# Files of episodes, and other protocols


def test_the_episodes_of_a_file_are_run_as_they_are(augforge, task, tmp_path):
    opened = open_task(task)
    drawn = task_episodes(opened, way=4, shot=2, n_query=3, trials=12, seed=5)
    write_episodes(tmp_path / "e.jsonl", drawn, opened.novel, task="features", seed=5)
    form = ("--way", 4, "--shot", 2, "--query", 3, "--trials", 12)
    from_file = augforge("bench", task, "--episodes", tmp_path / "e.jsonl", "--made", 4, "--seed", 5, "--json").json()
    from_seed = augforge("bench", task, *form, "--made", 4, "--seed", 5, "--json").json()
    assert {row["episodes"] for row in from_file["rows"]} == {row["episodes"] for row in from_seed["rows"]}
    assert [row["accuracy"] for row in from_file["rows"]] == [row["accuracy"] for row in from_seed["rows"]]
    assert {(row["way"], row["shot"], row["query"], row["trials"]) for row in from_file["rows"]} == {(4, 2, 3, 12)}
    found = augforge("bench", task, "--episodes", tmp_path / "e.jsonl")
    assert "4-way 2-shot, 12 episodes, 3 queries" in found.out


def test_low_shot_prints_a_table_and_json_and_keeps_them(augforge, task, tmp_path):
    command = ("bench", task, "--protocol", "low-shot", "--with", "noise", "--classifier", "prototype", "--shot", "1,2",
               "--query", 4, "--trials", 2, "--made", 3)  # fmt: skip
    found = augforge(*command, "--out", tmp_path, "--json").json()
    assert (found["task"], found["protocol"], found["part"]) == (str(task), "low-shot", "novel")
    names = ("nothing", "noise", "copies")
    assert {(r["synthesizer"], r["shot"]) for r in found["rows"]} == {(n, s) for n in names for s in (1, 2)}
    assert [json.loads(line) for line in (tmp_path / "low_shot.jsonl").read_text().splitlines()] == found["rows"]
    text = augforge(*command).out
    assert "2 shots, 8 novel and 8 base classes, 2 draws" in text
    assert (tmp_path / "table.md").read_text().strip() == text.strip()


def test_verification_prints_a_table_and_json_and_keeps_them(augforge, task, tmp_path):
    command = ("bench", task, "--protocol", "verification", "--normalise", "l2")
    found = augforge(*command, "--out", tmp_path, "--json").json()
    assert found["protocol"] == "verification"
    assert [(row["similarity"], row["people"]) for row in found["rows"]] == [("cosine", 8), ("euclidean", 8)]
    assert [json.loads(line) for line in (tmp_path / "verification.jsonl").read_text().splitlines()] == found["rows"]
    assert "verification of 8 people" in augforge(*command).out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--protocol", "low-shot", "--way", 5), "--way was given with --protocol low-shot, which has no use for it"),
        (("--protocol", "low-shot", "--seeds", "0,1"), "--seeds was given with --protocol low-shot"),
        (("--protocol", "low-shot", "--shot", "1-3"), "--shot '1-3' was given"),
        (("--protocol", "low-shot", "--trials", 1), "draws=1 was given for low-shot recognition"),
        (("--protocol", "low-shot", "--episodes", "e"), "--episodes was given with --protocol low-shot"),
        (("--protocol", "low-shot"), "too few rows for 20 shots and 15 queries"),
        (("--protocol", "verification", "--with", "noise"), "--with was given with --protocol verification"),
        (("--protocol", "verification", "--shot", 1), "--shot was given with --protocol verification"),
        (("--protocol", "verification", "--part", "val"), "--part was given with --protocol verification"),
        (("--episodes", "e", "--trials", 7), "--trials was given with --episodes, which has no use for it"),
        (("--episodes", "e", "--part", "val"), "--part was given with --episodes"),
        (("--episodes", "nowhere"), "the episodes 'nowhere' cannot be read"),
        (("--protocol", "other"), "'other' is not one of"),
    ],
)
def test_options_that_do_not_go_together_are_refused(augforge, task, arguments, words):
    assert words in augforge("bench", task, *arguments).error()
