"""Every command on files of embeddings, as their users give them."""

import json

import numpy as np
import pytest

CENTRES = {
    "ant": (3, 0, 0),
    "bee": (0, 3, 0),
    "cow": (0, 0, 3),
    "doe": (-3, 0, 0),
    "elk": (0, -3, 0),
    "fox": (0, 0, -3),
}


def rows(names, each, seed):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(CENTRES[name], 0.3, (each, 3)) for name in names]).astype(np.float32)
    return x, np.repeat(names, each)


@pytest.fixture
def support(tmp_path):
    x, labels = rows(["ant", "bee", "cow"], 8, 0)
    np.save(tmp_path / "support.npy", x)
    np.save(tmp_path / "support_labels.npy", labels)
    return tmp_path / "support.npy"


@pytest.mark.parametrize("kind", [".npy", ".npz", ".csv"])
def test_predict_names_rows(augforge, support, tmp_path, kind):
    x, labels = rows(["ant", "bee", "cow"], 4, 1)
    names = [f"rows{kind}[{i}]" if kind == ".npy" else f"photo {i}" for i in range(12)]
    if kind == ".npy":
        np.save(tmp_path / "rows.npy", x)
    elif kind == ".npz":
        np.savez(tmp_path / "rows.npz", embeddings=x, names=np.array(names))
    else:
        pytest.importorskip("pyarrow")
        lines = ["name,e0,e1,e2", *(f"{name},{a},{b},{c}" for name, (a, b, c) in zip(names, x, strict=True))]
        (tmp_path / "rows.csv").write_text("\n".join(lines))
    found = augforge("predict", support, tmp_path / f"rows{kind}", "--top", 1, "--json").json()
    assert [row["picture"] for row in found["rows"]] == names
    assert [row["classes"][0]["class"] for row in found["rows"]] == labels.tolist()
    assert augforge("predict", support, tmp_path / f"rows{kind}").err == "predict: features, logistic\n"
    assert augforge("predict", support, "--save", tmp_path / "kept").code == 0
    again = augforge("predict", tmp_path / "kept", tmp_path / f"rows{kind}", "--top", 1, "--json").json()
    assert again["rows"] == found["rows"]


def test_what_predict_refuses(augforge, support, source, tmp_path):
    np.save(tmp_path / "short.npy", np.zeros((2, 2)))
    assert augforge("predict", support, tmp_path / "short.npy").error() == (
        f"{str(tmp_path / 'short.npy')!r} has rows of 2 numbers, and the support has 3; expected embeddings that the "
        "same network made"
    )
    picture = next(source.glob("cat/*.png"))
    assert augforge("predict", support, picture).error() == (
        f"{str(picture)!r} was given, and the support holds embeddings; expected a file of the same network's "
        "embeddings (.npy, .npz, .safetensors, .csv, .parquet)"
    )
    said = augforge("predict", support, tmp_path / "short.npy", "--representation", "conv4-glyphs").error()
    assert said == f"--representation was given, and {str(support)!r} holds features already"


def test_synth_measure_and_fit(augforge, support, tmp_path):
    arguments = (
        "synth",
        support,
        "--with",
        "noise",
        "--per-class",
        10,
        "--max-per-class",
        4,
        "--out",
        tmp_path / "out",
    )
    assert augforge(*arguments, "--json").json()["per_class"] == {"ant": 10, "bee": 10, "cow": 10}
    made = tmp_path / "out" / "features.safetensors"
    found = augforge("measure", support, made, "--judge", "none", "--json").json()
    assert found["representation"]["dimensions"] == 3
    assert augforge("fit", "mixing", support, "--out", tmp_path / "fitted").code == 0


def test_bench_on_splits_in_one_table(augforge, tmp_path):
    pytest.importorskip("pyarrow")
    lines = ["split,label,e0,e1,e2"]
    for split, names in (("train", ["ant", "bee", "cow"]), ("test", ["doe", "elk", "fox"])):
        x, labels = rows(names, 12, 2)
        lines += [f"{split},{label},{a},{b},{c}" for label, (a, b, c) in zip(labels, x, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    arguments = ("--way", 3, "--shot", 1, "--query", 4, "--trials", 10)
    found = augforge("bench", tmp_path / "table.csv", *arguments, "--json").json()
    assert all(row["accuracy"] > 90 for row in found["rows"] if row["synthesizer"] == "nothing")


def test_groups_come_from_names(augforge, tmp_path):
    x, labels = rows(["ant", "bee"], 8, 3)
    names = [f"{label}/day{i % 4}_{i}" for i, label in enumerate(labels)]
    np.savez(tmp_path / "a.npz", embeddings=x, labels=labels, names=np.array(names))
    arguments = ("measure", tmp_path / "a.npz", tmp_path / "a.npz", "--judge", "none", "--json")
    said = json.loads(augforge(*arguments, "--group-by", r"(day\d)").out)
    assert "8 rows of REAL" in said["notes"][0]
