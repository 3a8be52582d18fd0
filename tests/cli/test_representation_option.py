"""`--representation` of `synth` and `fit`: pictures in, features out, and back in as a source."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.source import open_source
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions

BY = ("--representation", "conv4-glyphs")


def _pictures(seed, classes=("a", "b", "c"), each=4):
    """Soft strokes [n, 28, 28, 1] uint8, darker from class to class, and their labels [n]."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(classes)), each)
    images = rng.integers(0, 80, (len(labels), 28, 28, 1)) + 50 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


@pytest.fixture
def arrays(tmp_path):
    """Classes a, b, c to learn from, d, e, f to validate on and g, h, i to expand: a file with splits."""
    parts = [_pictures(seed) for seed in range(3)]
    path = tmp_path / "letters.npz"
    np.savez(
        path,
        images=np.concatenate([images for images, _ in parts]),
        labels=np.concatenate([labels + 3 * number for number, (_, labels) in enumerate(parts)]),
        classes=np.array(list("abcdefghi")),
        split=np.repeat(["train", "val", "test"], 12),
    )
    return path


def _embedded(path, split):
    representation = open_part("conv4-glyphs", None, "representation")
    return embed_bank(representation, open_source(path)[split], BankOptions(precision="float32"))


def _features(folder):
    return open_source(folder / "features.safetensors")["all"]


@pytest.mark.parametrize("views", ["handwriting", "flip-shift-wide"])
def test_bench_averages_views_and_says_so(augforge, arrays, views):
    how = ("--way", 3, "--shot", 1, "--query", 2, "--trials", 10, "--made", 2, "--json")
    found = augforge("bench", arrays, *BY, *how, "--views", views).json()
    assert {row["views"] for row in found["rows"]} == {views}
    reply = augforge("bench", arrays, *BY, *how, "--views", "handwritten")
    assert reply.code == 2
    assert "views='handwritten' is unknown; expected none, flip, flip-shift, flip-shift-wide, crops-4" in reply.err


def test_pictures_are_embedded_and_features_written(augforge, arrays, manifest_of, tmp_path):
    how = ("--with", "copies", "--per-class", 6, "--split", "test", "--class", "h", "--class", "i", "--include-real")
    reply = augforge("synth", arrays, "--out", tmp_path / "out", *BY, *how, "--json").json()
    assert (reply["made"], reply["real"], reply["skipped"]) == (12, 8, [])
    found, real = _features(tmp_path / "out"), _embedded(arrays, "test")
    assert found.classes == ("h", "i")
    rows = manifest_of(tmp_path / "out")
    places = [24 + i for i in range(12)]  # of the test pictures in the file
    for i, row in enumerate(rows):
        place = int(row["parent"].removeprefix("images[").removesuffix("]"))
        assert found.classes[found.y[i]] == row["class"]
        assert int(found.parent[i]) == (-1 if row["method"] == "real" else place)
        torch.testing.assert_close(found.x[i], real.x[places.index(place)])
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["order"]["representation"] == "conv4-glyphs"
    assert record["representation"] == real.groups["made_by"][0]


def test_made_features_are_a_source_like_any_other(augforge, arrays, tmp_path):
    augforge("synth", arrays, "--out", tmp_path / "one", *BY, "--with", "noise", "--per-class", 6)
    made = tmp_path / "one" / "features.safetensors"
    reply = augforge("synth", made, "--out", tmp_path / "two", "--with", "noise", "--to", 9, "--json").json()
    assert reply["per_class"] == {"a": 3, "b": 3, "c": 3}
    assert augforge("fit", "gaussian", made, "--out", tmp_path / "part").code == 0
    assert "holds features already" in augforge("synth", made, "--out", tmp_path / "x", *BY, "--to", 9).error()


def test_fit_on_base_pictures_then_synth_from_novel_ones(augforge, arrays, tmp_path):
    assert augforge("fit", "noise", arrays, "--out", tmp_path / "part", *BY).code == 0
    expected = open_part("noise").fit(_embedded(arrays, "train"), torch.Generator())
    torch.testing.assert_close(open_part(str(tmp_path / "part")).factor_, expected.factor_)
    how = ("--with", tmp_path / "part", "--split", "test", "--per-class", 3)
    assert augforge("synth", arrays, "--out", tmp_path / "out", *BY, *how).code == 0
    assert _features(tmp_path / "out").classes == ("g", "h", "i")


def test_what_chooses_sees_the_embedded_validation_classes(augforge, arrays, tmp_path, monkeypatch):
    from augforge.generators.noise import Noise

    seen = []

    def fit(self, base, rng, val=None):
        seen.append((base, val))
        return self

    monkeypatch.setattr(Noise, "chooses", True, raising=False)
    monkeypatch.setattr(Noise, "fit", fit)
    augforge("fit", "noise", arrays, "--out", tmp_path / "part", *BY)
    torch.testing.assert_close(seen[0][0].x, _embedded(arrays, "train").x)
    torch.testing.assert_close(seen[0][1].x, _embedded(arrays, "val").x)


def test_a_dry_run_and_a_run_that_was_made_before(augforge, arrays, snapshot, tmp_path):
    arguments = ("synth", arrays, "--out", tmp_path / "out", *BY, "--with", "noise", "--per-class", 5)
    reply = augforge(*arguments, "--dry-run", "--json").json()
    assert (reply["made"], reply["dry_run"], reply["bytes"]) == (15, True, 15 * 64 * 4)
    assert not (tmp_path / "out").exists()
    assert augforge(*arguments).code == 0
    before = snapshot(tmp_path / "out")
    assert augforge(*arguments, "--resume", "--json").json()["already"] == 15
    assert augforge(*arguments, "--overwrite").code == 0
    assert snapshot(tmp_path / "out") == before
    without = (*arguments[:4], *arguments[6:])
    assert 'its representation is "conv4-glyphs", and null was' in augforge(*without, "--resume").error()
    assert "made features" in augforge("regen", tmp_path / "out" / "manifest.jsonl", 1, "--out", "x").error()


def test_the_same_representation_in_a_folder_that_changed_is_another_run(augforge, arrays, tmp_path):
    for seed in (0, 1):
        how = ("--set", "epochs=1", "--set", "batch_size=8", "--set", "augment=none", "--device", "cpu")
        augforge("fit", "conv4", arrays, "--out", tmp_path / f"net{seed}", "--seed", seed, *how)
    folder = tmp_path / "net"
    (tmp_path / "net0").rename(folder)
    arguments = ("synth", arrays, "--out", tmp_path / "out", "--representation", folder, "--per-class", 2)
    assert augforge(*arguments, "--with", "copies").code == 0
    folder.rename(tmp_path / "old")
    (tmp_path / "net1").rename(folder)
    assert "its representation is" in augforge(*arguments, "--with", "copies", "--resume").error()


def test_pictures_that_cannot_be_read_are_reported(augforge, tmp_path):
    for name, seed in (("cat", 0), ("dog", 1)):
        (tmp_path / "letters" / name).mkdir(parents=True)
        for i, picture in enumerate(_pictures(seed, ("one",))[0]):
            Image.fromarray(picture[:, :, 0]).save(tmp_path / "letters" / name / f"{i}.png")
    (tmp_path / "letters" / "dog" / "1.png").write_bytes(b"no picture")
    arguments = ("synth", tmp_path / "letters", *BY, "--with", "copies", "--to", 6)
    reply = augforge(*arguments, "--out", tmp_path / "out", "--json").json()
    assert reply["per_class"] == {"cat": 2, "dog": 3}
    assert [found["file"] for found in reply["skipped"]] == ["dog/1.png"]
    assert "(--strict)" in augforge(*arguments, "--out", tmp_path / "other", "--strict").error()
    for path in (tmp_path / "letters" / "dog").iterdir():
        path.write_bytes(b"no picture")
    assert "class 'dog' has no picture" in augforge(*arguments, "--out", tmp_path / "other").error()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ((*BY, "--with", "classical"), "--representation makes features, and classical makes images"),
        ((*BY, "--with", "noise", "--format", "npz"), "--representation makes features, which go to one"),
        ((*BY, "--with", "noise", "--size", 28), "--format and --size are for images"),
        ((*BY, "--with", "noise", "--shards", "0/2"), "features are made in one go"),
        (("--representation", "conv4", "--with", "noise"), "conv4 is not fitted yet"),
        (("--representation", "noise", "--with", "noise"), "there is no representation 'noise'"),
        (("--representation", "/nowhere", "--with", "noise"), "there is no representation '/nowhere'"),
    ],
)
def test_bad_combinations_of_synth(augforge, arrays, tmp_path, how, said):
    assert said in augforge("synth", arrays, "--out", tmp_path / "out", "--per-class", 1, *how).error()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [("conv4", "--representation was given; conv4 is one itself"), ("classical", "and classical makes images")],
)
def test_bad_combinations_of_fit(augforge, arrays, tmp_path, name, said):
    assert said in augforge("fit", name, arrays, "--out", tmp_path / "part", *BY).error()
    assert not (tmp_path / "part").exists()


def test_pictures_of_another_size_than_the_representation_takes(augforge, source, tmp_path):
    arguments = ("synth", source, "--out", tmp_path / "out", "--with", "noise", "--per-class", 1)
    assert "was trained on pictures [1, 28, 28]" in augforge(*arguments, *BY).error()


def test_a_method_of_features_says_what_pictures_need(augforge, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("augforge.generators.noise.Noise.space", "feature")
    error = augforge("synth", arrays, "--out", tmp_path / "out", "--with", "noise", "--per-class", 1).error()
    assert "noise makes features, and" in error
    assert error.endswith("holds images; --representation makes features of them")
