import numpy as np
import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.data.features import write_features

pytestmark = pytest.mark.usefixtures("means")
PART = ("--representation", "means")


def _arrays(path, each, seed, classes=("x", "y", "z"), side=16, channels=1):
    """An .npz of pictures whose classes differ in how bright they are."""
    rng = np.random.default_rng(seed)
    labels = np.arange(len(classes)).repeat(each)
    images = rng.normal(60 + 60 * labels[:, None, None, None], 25, (len(labels), side, side, channels))
    np.savez(path, images=np.clip(images, 0, 255).astype(np.uint8), labels=labels, classes=np.array(classes))
    return path


def _features(path, each, seed, classes=("x", "y"), d=3):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(len(classes)).repeat_interleave(each)
    write_features(path, FeatureBank(torch.randn(len(y), d, generator=rng) + y[:, None], y, tuple(classes)))
    return path


@pytest.fixture
def three(tmp_path):
    return [_arrays(tmp_path / f"{name}.npz", n, seed) for seed, (name, n) in enumerate((("r", 8), ("m", 6), ("h", 7)))]


def _lines(report):
    return {line["metric"]: line for line in report["metrics"]}


def test_one_object_has_everything(augforge, three):
    real, made, held_out = three
    found = augforge("measure", real, made, "--holdout", held_out, *PART, "--json").json()
    assert found["rows"] == {"real": 24, "made": 18, "held_out": 21, "equal_count": 18}
    assert found["representation"]["name"] == "means"
    assert found["representation"]["dimensions"] == 4
    assert len(found["representation"]["made_by"]) == 16
    assert (found["real"], found["made"], found["holdout"], found["seed"]) == (*map(str, three), 0)
    assert {"frechet", "kid", "precision", "recall", "density", "coverage", "diversity"} < set(_lines(found))
    assert list(found["usefulness"]["accuracy"]) == ["real", "made", "real+made", "real+classical",
                                                     "real+classical+made"]  # fmt: skip
    assert found["usefulness"]["classical"] == "strokes"
    assert found["notes"] == []
    assert list(found["per_class"]) == ["x", "y", "z"]


def test_the_same_call_gives_the_same_object_and_writes_nothing(augforge, three, tmp_path):
    before = sorted(tmp_path.iterdir())
    first, again = (augforge("measure", *three[:2], *PART, "--json", "--seed", 3).json() for _ in range(2))
    assert first == again
    assert sorted(tmp_path.iterdir()) == before


def test_without_a_holdout_half_of_each_class_is_held_out(augforge, three):
    found = augforge("measure", *three[:2], *PART, "--json").json()
    assert found["rows"]["real"] == found["rows"]["held_out"] == 12
    assert all(c["rows"] == {"real": 4, "made": 6, "held_out": 4} for c in found["per_class"].values())
    assert "no --holdout was given, so 12 rows of REAL, half of each class, are held out" in found["notes"][0]


def test_rows_that_were_made_of_held_out_ones_are_left_out_by_their_manifest(augforge, folder_of, tmp_path):
    real = folder_of(tmp_path / "real", {"cat": 6, "dog": 6})
    assert augforge("synth", real, "--per-class", 12, "--out", tmp_path / "made", "--workers", 1).code == 0
    found = augforge("measure", real, tmp_path / "made", *PART, "--json").json()
    assert found["rows"] == {"real": 6, "made": 12, "held_out": 6, "equal_count": 6}
    said = (
        "6 rows of REAL, half of each class, are held out; 12 pictures of MADE that were made of these, by its manifest"
    )
    assert any(said in note for note in found["notes"])
    (tmp_path / "made" / "manifest.jsonl").write_text("[1]\nno line\n")
    found = augforge("measure", real, tmp_path / "made", *PART, "--json").json()
    assert found["rows"]["made"] == 24
    assert any("worth less than it seems" in note for note in found["notes"])


def test_a_person_reads_a_table(augforge, three):
    result = augforge("measure", *three[:2], *PART)
    assert result.code == 0, result.err
    assert result.out.startswith("representation: means, 4 dimensions\n")
    assert "note: no --holdout" in result.out
    assert "Fréchet distance" in result.out
    assert "real+made over real: " in result.out


def test_folders_and_classes_that_differ(augforge, folder_of, tmp_path):
    real = folder_of(tmp_path / "real", {"cat": 6, "dog": 6, "eel": 3})
    made = folder_of(tmp_path / "made", {"dog": 4, "cat": 5, "fox": 2})
    found = augforge("measure", real, made, *PART, "--json", "--judge", "none").json()
    assert list(found["per_class"]) == ["cat", "dog"]
    assert found["per_class"]["dog"]["rows"]["made"] == 4
    assert found["usefulness"] is None
    assert "classes of REAL that MADE lacks are left out: 1 of 3" in found["notes"]
    assert "classes of MADE that REAL lacks are left out: 1 of 3" in found["notes"]


def test_a_picture_that_cannot_be_read_is_left_out_and_said(augforge, folder_of, tmp_path):
    real = folder_of(tmp_path / "real", {"cat": 6, "dog": 6})
    made = folder_of(tmp_path / "made", {"cat": 4, "dog": 4})
    (made / "cat" / "cat_1.png").write_bytes((made / "cat" / "cat_1.png").read_bytes()[:60])
    found = augforge("measure", real, made, *PART, "--json").json()
    assert found["rows"]["made"] == 7
    assert any("cannot be read are left out: 1, as" in note and "cat_1.png" in note for note in found["notes"])
    assert len(found["usefulness"]["accuracy"]) == 5


def test_pictures_of_several_sizes_have_no_classical_training_set(augforge, folder_of, tmp_path):
    real = folder_of(tmp_path / "real", {"cat": 6}, size=(30, 31))
    folder_of(real, {"dog": 6})
    made = folder_of(tmp_path / "made", {"cat": 4, "dog": 4})
    found = augforge("measure", real, made, *PART, "--json").json()
    assert list(found["usefulness"]["accuracy"]) == ["real", "made", "real+made"]
    assert any("no training sets with classical augmentation" in note for note in found["notes"])
    assert "one size" in augforge("measure", real, made, *PART, "--judge", "cnn").error()


def test_rows_that_are_no_held_out_ones_are_refused(augforge, three):
    real, made, _ = three
    assert "held-out rows is a training row too" in augforge("measure", real, made, "--holdout", real, *PART).error()


def test_feature_banks_need_no_representation(augforge, tmp_path):
    real, made = _features(tmp_path / "r.safetensors", 12, 0), _features(tmp_path / "m.safetensors", 9, 1)
    found = augforge("measure", real, made, "--json").json()
    assert found["representation"] == {"name": "features as given", "made_by": None, "dimensions": 3}
    assert list(found["usefulness"]["accuracy"]) == ["real", "made", "real+made"]
    assert "holds features already" in augforge("measure", real, made, *PART).error()
    assert "expected pictures" in augforge("measure", real, made, "--judge", "cnn").error()
    wide = _features(tmp_path / "w.safetensors", 9, 1, d=5)
    assert "made rows are 5 numbers wide and the real rows 3" in augforge("measure", real, wide).error()


def test_the_network_judges_pictures(augforge, three):
    found = augforge("measure", *three[:2], *PART, "--judge", "cnn", "--steps", 2, "--repeats", 2, "--json").json()
    assert found["usefulness"]["judge"] == "cnn (conv4 from scratch, 2 steps)"
    assert found["usefulness"]["repeats"] == 2
    assert len(found["usefulness"]["gains"]) == 5


def test_the_default_representation_where_it_fits(augforge, tmp_path):
    real, made = (_arrays(tmp_path / f"{seed}.npz", 4, seed, side=28) for seed in range(2))
    found = augforge("measure", real, made, "--json", "--judge", "none").json()
    assert found["representation"]["name"] == "conv4-glyphs"
    assert "too few rows: 6 for 64 dimensions" in _lines(found)["frechet"]["note"]


def test_a_folder_of_jpegs_of_several_sizes_needs_no_option(augforge, folder_of, tmp_path):
    real, made = tmp_path / "real", tmp_path / "made"
    for i in range(4):
        folder_of(real, {"cat": 1, "dog": 1}, (30 + i, 41 - i), f"_{i}.jpg")
        folder_of(made, {"cat": 1, "dog": 1}, (50 + 2 * i, 32 + i), f"_m{i}.jpg")
    found = augforge("measure", real, made)
    assert found.code == 0, found.err
    assert found.err == "measure: photos\n"
    assert "representation: photos" in found.out
    assert "1280 dimensions" in found.out
    assert augforge("measure", real, made, "--json", "--judge", "none").json()["representation"]["name"] == "photos"


def test_errors_are_one_sentence(augforge, three, tmp_path):
    real, made, _ = three
    other = _arrays(tmp_path / "other.npz", 4, 1, classes=("p", "q"))
    assert "none of the classes of REAL" in augforge("measure", real, other, *PART).error()
    assert "none of the classes" in augforge("measure", real, made, "--holdout", other, *PART).error()
    features = _features(tmp_path / "f.safetensors", 4, 0)
    assert "pictures and features" in augforge("measure", real, features, *PART).error()
    assert "there is no file" in augforge("measure", real, tmp_path / "absent", *PART).error()
    absent = augforge("measure", real, made, "--inception", tmp_path / "absent.pth")
    assert "--inception" in absent.error()
    assert "expected one of them" in augforge("measure", real, made, *PART, "--inception", real).error()
    single = _arrays(tmp_path / "single.npz", 1, 1)
    assert "1 row of each class" in augforge("measure", single, made, *PART).error()
    assert (
        "'--steps': 0 is not in the range x>=1"
        in augforge("measure", real, made, *PART, "--judge", "cnn", "--steps", 0).error()
    )
