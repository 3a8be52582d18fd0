"""--max-per-class and --group-by of every command that takes a source."""

import json

import pytest
from PIL import Image

from augforge.inputs import Inputs, open_split
from augforge.measure.sets import MeasureRequest, open_sets


@pytest.fixture
def tracks(tmp_path, picture_of):
    """Two classes of 12 grey pictures: four tracks of three frames."""
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "tracks" / name).mkdir(parents=True)
        for i in range(12):
            picture = Image.fromarray(picture_of(100 * k + i, (28, 28), 1)[:, :, 0])
            picture.save(tmp_path / "tracks" / name / f"t{i // 3}_{i % 3}.png")
    return tmp_path / "tracks"


def test_synth_and_regen_use_the_chosen_rows(augforge, tracks, tmp_path, manifest_of):
    out = tmp_path / "out"
    augforge("synth", tracks, "--per-class", 20, "--max-per-class", 2, "--seed", 5, "--out", out)
    chosen = open_split(Inputs(str(tracks), seed=5, max_per_class=2)).names
    rows = manifest_of(out)
    assert {row["parent"] for row in rows} == set(chosen)
    assert json.loads((out / "run.json").read_text())["order"]["max_per_class"] == 2
    again = tmp_path / "again.png"
    assert augforge("regen", out / "manifest.jsonl", 7, "--out", again).code == 0
    assert again.read_bytes() == (out / rows[6]["file"]).read_bytes()


def test_the_record_of_a_run_without_it_is_as_before(augforge, tracks, tmp_path):
    assert augforge("synth", tracks, "--per-class", 1, "--out", tmp_path / "out").code == 0
    order = json.loads((tmp_path / "out" / "run.json").read_text())["order"]
    assert not {"max_per_class", "group_by"} & order.keys()


def _track(name):
    return name.rsplit("_", 1)[0]


def test_measure_holds_whole_groups_out(tracks):
    real, made = str(tracks), str(tracks)
    for seed in range(5):
        asked = MeasureRequest(real, made, seed=seed, group_by=r"^(.*)_\d\.png$")
        kept, _, held_out = open_sets(asked).banks
        assert held_out.counts().tolist() == [6, 6]
        assert not {_track(name) for name in kept.names} & {_track(name) for name in held_out.names}
    kept, _, held_out = open_sets(MeasureRequest(real, made)).banks
    assert {_track(name) for name in kept.names} & {_track(name) for name in held_out.names}


def test_groups_that_are_in_several_classes_are_held_out_whole(tracks):
    kept, _, held_out = open_sets(MeasureRequest(str(tracks), str(tracks), group_by=r"/(t\d)")).banks
    assert not {name[4:6] for name in kept.names} & {name[4:6] for name in held_out.names}
    assert held_out.counts().tolist() == [6, 6]


def test_measure_cannot_hold_out_a_single_group(augforge, tracks):
    said = augforge("measure", tracks, tracks, "--group-by", "^...").error()
    assert said == f"{str(tracks)!r} has 1 group of each class; expected 2, or --holdout with other rows"
    said = augforge("measure", tracks, tracks, "--group-by", "^...", "--holdout", tracks).error()
    assert said.startswith("--group-by says which rows of REAL are held out together, and --holdout")


def test_predict_and_fit_use_the_chosen_rows(augforge, tracks, tmp_path):
    picture = next(tracks.glob("cat/*.png"))
    said = augforge("predict", tracks, picture, "--max-per-class", 1, "--save", tmp_path / "kept", "--json").json()
    assert said["rows"][0]["picture"] == str(picture)
    said = augforge("predict", tmp_path / "kept", picture, "--max-per-class", 1).error()
    assert said.startswith("--max-per-class was given for")
    assert augforge("fit", "classical", tracks, "--max-per-class", 2, "--out", tmp_path / "fitted").code == 0


@pytest.mark.parametrize("command", ["synth", "fit", "predict", "measure", "bench"])
def test_a_number_below_one_is_refused(augforge, tracks, command):
    said = augforge(command, "glyphs", tracks, "--max-per-class", 0)
    assert said.code == 2
    assert "--max-per-class" in said.err


def test_a_task_is_selected_from(augforge, tmp_path, folder_of):
    for split, names in (("train", "abcde"), ("test", "vwxyz")):
        folder_of(tmp_path / "task" / split, dict.fromkeys(names, 4), (28, 28))
    short = ("--shot", 1, "--trials", 2, "--representation", "conv4-glyphs")
    said = augforge("bench", tmp_path / "task", "--max-per-class", 2, "--query", 2, *short).error()
    assert said == "5-way episodes need 5 classes with at least 3 rows each; there are 0"
    said = augforge("bench", tmp_path / "task", "--max-per-class", 2, "--query", 1, "--group-by", "^n", *short).error()
    assert said.startswith("--group-by '^n' is not found in ")
