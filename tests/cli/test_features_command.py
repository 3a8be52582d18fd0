"""`augforge synth` on a feature bank, and parts that `augforge fit` saved."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from augforge.data.source import open_source


@pytest.fixture
def bank(tmp_path):
    y = torch.tensor([0] * 5 + [1] * 4 + [2] * 3)
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)) + y[:, None]
    metadata = {"classes": json.dumps(["ant", "bee", "cow"])}
    save_file({"features": x, "labels": y}, tmp_path / "bank.safetensors", metadata)
    return tmp_path / "bank.safetensors"


def _opened(path):
    return open_source(path)["all"]


@pytest.mark.parametrize("method", ["noise", "copies", "nothing"])
def test_features_in_features_out(augforge, bank, manifest_of, tmp_path, method):
    how = ("--with", method, "--per-class", 8, "--include-real", "--json")
    found = augforge("synth", bank, "--out", tmp_path / "out", *how).json()
    made = 0 if method == "nothing" else 8
    assert (found["made"], found["real"], found["per_class"]) == (
        3 * made,
        12,
        dict.fromkeys(["ant", "bee", "cow"], made),
    )
    real, whole = _opened(bank), _opened(tmp_path / "out" / "features.safetensors")
    assert whole.classes == ("ant", "bee", "cow")
    assert whole.counts().tolist() == [5 + made, 4 + made, 3 + made]
    rows = manifest_of(tmp_path / "out")
    assert [row["class"] for row in rows] == [whole.classes[i] for i in whole.y]
    assert [row["member"] for row in rows] == [f"features[{i}]" for i in range(len(whole))]
    for i, row in enumerate(rows):
        parent = int(row["parent"].removeprefix("features[").removesuffix("]"))
        assert row["parent_sha256"] == hashlib.sha256(real.x[parent].numpy().tobytes()).hexdigest()
        assert real.y[parent] == whole.y[i]
        if row["method"] == "real":
            assert whole.parent[i] == -1
        else:
            assert whole.parent[i] == parent
        assert (method == "noise" and row["method"] == "noise") != torch.equal(whole.x[i], real.x[parent])


def test_parents_are_rows_of_the_file_also_for_some_classes(augforge, bank, manifest_of, tmp_path):
    augforge("synth", bank, "--out", tmp_path / "out", "--with", "copies", "--to", 7, "--class", "cow")
    whole, real = _opened(tmp_path / "out" / "features.safetensors"), _opened(bank)
    assert torch.equal(whole.x, real.x[whole.parent])
    assert [row["parent"] for row in manifest_of(tmp_path / "out")] == [f"features[{i}]" for i in whole.parent]


def test_a_class_alone_is_made_as_among_others(augforge, bank, tmp_path):
    for name, some in (("all", ()), ("one", ("--class", "bee"))):
        augforge("synth", bank, "--out", tmp_path / name, "--with", "copies", "--per-class", 9, *some)
    one, every = (_opened(tmp_path / name / "features.safetensors") for name in ("one", "all"))
    assert torch.equal(one.x, every.x[every.y == 1])


def test_a_run_is_the_same_twice_and_resumes_to_nothing(augforge, bank, snapshot, tmp_path):
    arguments = ("synth", bank, "--with", "noise", "--per-class", 8)
    for name in ("a", "b"):
        assert augforge(*arguments, "--out", tmp_path / name).code == 0
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert set(snapshot(tmp_path / "a")) == {"features.safetensors", "manifest.jsonl", "run.json"}
    assert "--resume" in augforge(*arguments, "--out", tmp_path / "a").error()
    assert augforge(*arguments, "--out", tmp_path / "a", "--resume", "--json").json()["already"] == 24
    assert augforge(*arguments, "--out", tmp_path / "a", "--overwrite", "--json").json()["made"] == 24
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (("--with", "classical"), "classical makes images, and"),
        (("--with", "noise", "--format", "webdataset"), "holds features, which go to one features.safetensors"),
        (("--with", "noise", "--size", "8"), "--format and --size are for images"),
        (("--with", "noise", "--shards", "0/2"), "features are made in one go"),
    ],
)
def test_what_is_for_pictures_is_refused(augforge, bank, tmp_path, how, said):
    assert said in augforge("synth", bank, "--out", tmp_path / "out", "--per-class", 1, *how).error()
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_features_writes_nothing(augforge, bank, snapshot, tmp_path):
    before = snapshot(tmp_path)
    arguments = ("synth", bank, "--out", tmp_path / "out", "--with", "noise", "--per-class", 50)
    found = augforge(*arguments, "--dry-run", "--json").json()
    assert (found["made"], found["dry_run"], found["bytes"]) == (150, True, 150 * 6 * 4)
    assert snapshot(tmp_path) == before


def test_fit_then_synth(augforge, bank, tmp_path):
    reply = augforge("fit", "noise", bank, "--out", tmp_path / "part", "--set", "scale=0.5", "--json").json()
    assert (reply["name"], reply["out"]) == ("noise", str(tmp_path / "part"))
    for name, how in (("saved", ("--with", tmp_path / "part")), ("named", ("--with", "noise", "--set", "scale=0.5"))):
        assert augforge("synth", bank, "--out", tmp_path / name, *how, "--per-class", 4).code == 0
    saved, named = (_opened(tmp_path / name / "features.safetensors") for name in ("saved", "named"))
    assert torch.equal(saved.x, named.x)
    assert json.loads((tmp_path / "saved" / "run.json").read_text())["method"]["digest"] == reply["digest"]


def test_fit_classical_on_glyphs_then_synth(augforge, source, tmp_path):
    assert augforge("fit", "classical", "glyphs", "--out", tmp_path / "part", "--set", "rotate=-9,9").code == 0
    for name, how in (("a", ("--with", tmp_path / "part")), ("b", ("--set", "preset=keras", "--set", "rotate=-9,9"))):
        assert augforge("synth", source, "--out", tmp_path / name, *how, "--per-class", 2).code == 0
    for path in (tmp_path / "a").glob("*/*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_fitted_part_is_not_fitted_over(augforge, bank, snapshot, tmp_path):
    arguments = ("fit", "noise", bank, "--out", tmp_path / "part")
    augforge(*arguments)
    before = snapshot(tmp_path)
    assert "--resume" in augforge(*arguments).error()
    assert augforge(*arguments, "--resume").code == 0
    assert snapshot(tmp_path) == before


def test_a_fitted_part_keeps_its_settings(augforge, bank, tmp_path):
    augforge("fit", "noise", bank, "--out", tmp_path / "part")
    arguments = ("synth", bank, "--out", tmp_path / "out", "--with", tmp_path / "part", "--per-class", 2)
    assert "settings of its own" in augforge(*arguments, "--set", "scale=2").error()


def test_a_folder_that_is_called_like_a_method_does_not_hide_it(augforge, bank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noise").mkdir()
    assert augforge("synth", bank, "--out", tmp_path / "out", "--with", "noise", "--per-class", 2).code == 0
    assert "part.json" in augforge("synth", bank, "--out", "o", "--with", "./noise", "--per-class", 2).error()


@pytest.mark.parametrize("damage", ["part.json", "fitted.safetensors"])
def test_a_damaged_part_is_refused(augforge, bank, tmp_path, damage):
    augforge("fit", "noise", bank, "--out", tmp_path / "part")
    (tmp_path / "part" / damage).write_bytes(b"[1]")
    arguments = ("synth", bank, "--out", tmp_path / "out", "--with", tmp_path / "part", "--per-class", 2)
    assert damage in augforge(*arguments).error()


def test_features_that_are_not_finite_are_refused(augforge, tmp_path):
    x = np.zeros((4, 2), np.float32)
    x[2, 1] = np.nan
    save_file({"features": torch.from_numpy(x), "labels": torch.tensor([0, 0, 1, 1])}, tmp_path / "bad.safetensors")
    arguments = ("synth", tmp_path / "bad.safetensors", "--out", tmp_path / "out", "--with", "copies")
    assert "features[2] is not finite" in augforge(*arguments, "--per-class", 1).error()


def test_weights_of_real_rows_are_kept(augforge, tmp_path):
    x, y, weight = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([1.0, 0.5, 0.25, 1.0, 0.0, 2.0])
    save_file({"features": x, "labels": y, "weight": weight}, tmp_path / "weighted.safetensors")
    how = ("--with", "copies", "--per-class", 2, "--include-real")
    assert augforge("synth", tmp_path / "weighted.safetensors", "--out", tmp_path / "out", *how).code == 0
    found = _opened(tmp_path / "out" / "features.safetensors")
    made = [0.125, 0.125]  # together a quarter of a real row, as logistic regression likes it
    assert found.weight.tolist() == pytest.approx([1.0, 0.5, 0.25, *made, 1.0, 0.0, 2.0, *made])


def test_made_rows_weigh_what_suits_the_classifier(augforge, bank, tmp_path):
    together = []
    for name, count in (("logistic", 4), ("logistic", 8), ("prototype", 4)):
        out = tmp_path / f"{name}-{count}"
        how = ("--with", "noise", "--per-class", count, "--classifier", name)
        assert augforge("synth", bank, "--out", out, *how).code == 0
        found = _opened(out / "features.safetensors")
        together.append(float(found.weight[found.y == 0].sum()))
    assert together == pytest.approx([0.25, 0.25, 0.4])
    wrong = augforge(
        "synth", bank, "--out", tmp_path / "no", "--with", "noise", "--per-class", 1, "--classifier", "logistc"
    )
    assert "there is no classifier 'logistc'; the nearest is 'logistic'" in wrong.error()


def test_rows_that_weigh_nothing_are_said_to(augforge, bank, tmp_path, monkeypatch):
    monkeypatch.setattr("augforge.imagine._USUAL", {"discriminative": 0.0})
    found = augforge("synth", bank, "--out", tmp_path / "out", "--with", "noise", "--per-class", 2)
    assert found.code == 0
    assert "have weight 0: on held-out classes noise gained nothing before logistic from" in found.err
