import json
import sys

import numpy as np
import pytest
import torch

from augforge.bench.protocols import LowShotPair, LowShotPlan, run_low_shot
from augforge.bench.recipes import Recipe
from augforge.classifiers.prototype import Prototype
from augforge.generators.noise import Noise
from augforge.protocols.low_shot import evaluate
from augforge.protocols.low_shot_files import is_low_shot_folder, open_low_shot, open_low_shot_folder, read_feature_file
from augforge.types import InputError, LackError

CLASSES, EACH = 8, 25
META = {
    "label_names": [f"n{i:08d}" for i in range(CLASSES)],
    "base_classes": [0, 1, 4, 5],
    "base_classes_1": [0, 4],
    "novel_classes_1": [2, 7],
    "base_classes_2": [1, 5],
    "novel_classes_2": [6, 3],
}


def _write_features(path, each, rows_too_many=0, **changes):
    """As their script does: room for whole batches, of which `count` rows are filled."""
    h5py = pytest.importorskip("h5py")
    labels = np.repeat(np.arange(CLASSES), each).astype("i")
    feats = np.zeros((len(labels), 4), "f")
    feats[np.arange(len(labels)), labels % 4] = 1 + labels // 4
    table = {
        "all_feats": np.concatenate([feats, np.zeros((rows_too_many, 4), "f")]),
        "all_labels": np.concatenate([labels, np.zeros(rows_too_many, "i")]),
        "count": np.array([len(labels)], "i"),
    } | changes
    with h5py.File(path, "w") as file:
        for name, array in table.items():
            if array is not None:
                file.create_dataset(name, data=array)
    return path


@pytest.fixture
def files(tmp_path):
    _write_features(tmp_path / "train.hdf5", EACH, 7)
    _write_features(tmp_path / "val.hdf5", 5, 3)
    (tmp_path / "label_idx.json").write_text(json.dumps(META))
    rng = np.random.default_rng(0)
    for i in range(1, 6):
        table = [(EACH * c + rng.permutation(EACH)[:20]).tolist() for c in range(CLASSES)]
        (tmp_path / f"splitfile_{i}.json").write_text(json.dumps(table))
    return tmp_path


def _open(files, setup="test"):
    draws = [files / f"splitfile_{i}.json" for i in range(1, 6)]
    return open_low_shot(files / "train.hdf5", files / "val.hdf5", files / "label_idx.json", draws, setup)


def test_only_the_filled_rows_are_read(files):
    bank = read_feature_file(files / "train.hdf5")
    assert bank.x.shape == (200, 4)
    assert bank.x.dtype == torch.float32
    assert bank.counts().tolist() == [EACH] * CLASSES
    assert bank.classes == tuple("01234567")


@pytest.mark.parametrize(("setup", "number"), [("validation", 1), ("test", 2)])
def test_the_setups_are_theirs(files, setup, number):
    task = _open(files, setup)
    assert task.base.tolist() == META[f"base_classes_{number}"]
    assert task.novel.tolist() == META[f"novel_classes_{number}"]
    assert task.train.classes == tuple(META["label_names"])
    assert task.draws.shape == (5, 2, 20)
    table = json.loads((files / "splitfile_3.json").read_text())
    assert task.draws[2].tolist() == [table[c] for c in task.novel.tolist()]


def test_the_whole_protocol_runs_on_their_files(files):
    def prototypes(support, query):
        means = torch.stack([support.x[support.y == c].mean(0) for c in range(4)])
        return -torch.cdist(query, means)

    results = evaluate(_open(files), prototypes)
    assert len(results) == 25
    assert all(r.top1.all == r.top5.all == r.top1.all_prior == 1 for r in results)


def test_names_are_not_needed(files):
    meta = {key: value for key, value in META.items() if key != "label_names"}
    (files / "label_idx.json").write_text(json.dumps(meta))
    assert _open(files).train.classes == tuple("01234567")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": None}, "has no dataset 'count'"),
        ({"count": np.array([500], "i")}, "count 500; expected count rows"),
        ({"count": np.array([0], "i")}, "count 0; expected"),
        ({"all_labels": np.full(200, -1, "i")}, "labels from 0"),
        ({"all_labels": np.full(200, 0.5)}, "all_labels float64"),
        ({"all_feats": np.full((200, 4), np.nan, "f")}, r"features\[0\] is not finite"),
        ({"all_feats": np.zeros(200, "f")}, "expected count rows"),
    ],
)
def test_damaged_features_are_refused(tmp_path, changes, message):
    path = _write_features(tmp_path / "bad.hdf5", EACH, **changes)
    with pytest.raises(InputError, match=message):
        read_feature_file(path)


def test_what_is_no_hdf5_is_refused(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "bad.hdf5").write_bytes(b"no")
    for path in (tmp_path / "bad.hdf5", tmp_path / "nothing.hdf5"):
        with pytest.raises(InputError, match="cannot be read as HDF5"):
            read_feature_file(path)


def test_without_h5py_it_says_what_to_install(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(LackError, match=r"pip install augforge\[hdf5\]"):
        read_feature_file(files / "train.hdf5")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("label_idx.json", {"base_classes_2": [1]}, "no list of class ids 'novel_classes_2'"),
        ("label_idx.json", META | {"base_classes_2": [1, 6]}, "class 'n00000006' is both base and novel"),
        ("label_idx.json", META | {"base_classes_2": ["a"]}, "no list of class ids 'base_classes_2'"),
        ("label_idx.json", META | {"label_names": ["a"]}, "names 1 classes, but there are 8"),
        ("label_idx.json", [], "no list of class ids"),
        ("splitfile_2.json", {"6": [1]}, "holds a dict"),
        ("splitfile_2.json", [[1]], "holds 1 entries"),
        ("splitfile_2.json", [list(range(EACH * c, EACH * c + 1 + c)) for c in range(8)], "as many rows"),
        ("splitfile_2.json", [list(range(EACH * c, EACH * c + 3)) for c in range(8)], "2 different numbers of rows"),
        ("splitfile_2.json", [list(range(20)) for _ in range(8)], "draw 2 names row 0 for the class 'n00000006'"),
    ],
)
def test_files_that_do_not_fit_are_refused(files, file, content, message):
    (files / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        _open(files)


def test_other_setups_are_refused(files):
    with pytest.raises(InputError, match="expected 'validation' or 'test'"):
        _open(files, "train")


@pytest.mark.parametrize("setup", ["validation", "test"])
def test_a_folder_of_their_files_is_opened_with_all_its_draws(files, setup):
    assert is_low_shot_folder(files)
    found, expected = open_low_shot_folder(files, setup), _open(files, setup)
    assert torch.equal(found.draws, expected.draws)
    assert torch.equal(found.novel, expected.novel)
    assert torch.equal(found.train.x, expected.train.x)


def test_recipes_run_on_a_folder_of_their_files(files):
    test, tuning = (open_low_shot_folder(files, setup) for setup in ("test", "validation"))
    recipes, plan = [Recipe(None, Noise(), Prototype(), 2)], LowShotPlan(shots=(1, 5))
    rows = run_low_shot(LowShotPair(str(files), test, tuning), recipes, plan)
    assert {(row["synthesizer"], row["draws"]) for row in rows} == {("nothing", 5), ("copies", 5), ("noise", 5)}


def test_a_folder_without_draws_is_refused(files, tmp_path):
    assert not is_low_shot_folder(tmp_path / "elsewhere")
    for path in files.glob("splitfile_*.json"):
        path.unlink()
    with pytest.raises(InputError, match=r"has no splitfile_1\.json"):
        open_low_shot_folder(files)
