"""`augforge fit` for representations and classifiers."""

import json

import numpy as np
import pytest

QUICK = ("--set", "epochs=2", "--set", "batch_size=8", "--set", "augment=none")


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = (rng.integers(0, 60, (24, 16, 16, 1)) + 80 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "letters.npz", images=images, labels=labels, classes=np.array(["a", "b", "c"]))
    return tmp_path / "letters.npz"


def test_a_representation_is_fitted_and_kept(augforge, arrays, tmp_path):
    found = augforge("fit", "conv4", arrays, "--out", tmp_path / "net", *QUICK, "--device", "cpu", "--json").json()
    assert (found["name"], found["kind"]) == ("conv4", "representation")
    assert json.loads((tmp_path / "net" / "part.json").read_text())["facts"] == {
        "channels": 1,
        "height": 16,
        "width": 16,
    }
    kept = {"log.jsonl", "curves.png", "curves.svg", "curves.pdf"}
    assert {path.name for path in (tmp_path / "net" / "training").iterdir()} == kept
    again = augforge("fit", "conv4", arrays, "--out", tmp_path / "other", *QUICK, "--device", "cpu", "--json").json()
    assert again["digest"] == found["digest"]
    assert "holds a fitted method" in augforge("fit", "conv4", arrays, "--out", tmp_path / "net").error()
    kept = augforge("fit", "conv4", arrays, "--out", tmp_path / "net", "--resume", "--json").json()
    assert kept["digest"] == found["digest"]


def test_what_a_kill_left_after_a_fit_was_saved_is_tidied(augforge, arrays, snapshot, tmp_path):
    order = ("fit", "conv4", arrays, "--out", tmp_path / "net", *QUICK, "--device", "cpu")
    assert augforge(*order).code == 0
    whole = snapshot(tmp_path / "net")
    (tmp_path / "net" / "training" / "conv4.safetensors").write_bytes(b"a checkpoint")
    (tmp_path / "net" / "training" / "curves.pdf").unlink()
    assert augforge(*order, "--resume").code == 0
    assert snapshot(tmp_path / "net") == whole


def test_a_stopped_fit_is_not_gone_on_with_unasked(augforge, arrays, tmp_path):
    (tmp_path / "net" / "training").mkdir(parents=True)
    assert "a fit that was stopped" in augforge("fit", "conv4", arrays, "--out", tmp_path / "net", *QUICK).error()
    assert augforge("fit", "conv4", arrays, "--out", tmp_path / "net", *QUICK, "--resume", "--json").json()["digest"]


def test_missing_weights_are_exit_code_4(augforge, arrays, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    error = augforge("fit", "torchvision:resnet18", arrays, "--out", tmp_path / "net").error(4)
    assert "--download gets them, or this command" in error
    assert not (tmp_path / "net" / "part.json").exists()
