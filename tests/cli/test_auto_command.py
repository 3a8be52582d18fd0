"""`auto`, and `predict`, `bench` and `synth` --with auto or a recipe of it."""

import json

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("means")
PART = ("--representation", "means")
COLOURS = {"blue": (30, 60, 210), "green": (40, 190, 60), "red": (200, 40, 40)}


@pytest.fixture
def pictures(tmp_path):
    """Class folders "shown" of tiny JPEG files, unequal in size and number, a flat folder "pool", and new ones."""
    rng = np.random.default_rng(0)
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(9):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (16 + i, 20, 3)), 0, 255).astype(np.uint8)
            folder = tmp_path / "shown" / name if i < 2 + number else tmp_path / "pool"
            folder = tmp_path / "new" if i == 8 else folder
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{name}-{i}.jpg")
    return tmp_path


def test_auto_writes_a_recipe_that_predict_bench_and_synth_take(augforge, pictures):
    shown, recipe, new = pictures / "shown", pictures / "recipe.json", sorted((pictures / "new").iterdir())
    result = augforge("auto", shown, *PART, "--out", recipe)
    assert result.code == 0, result.err
    assert result.out.startswith("auto: nothing beside the plain classifier (means, logistic (C=100, normalise=l2))")
    assert result.out.endswith(f"the recipe is in {recipe}\n")
    assert json.loads(recipe.read_text())["views"] == "none"
    found = augforge("predict", shown, *new, "--with", recipe, "--json").json()
    assert [row["classes"][0]["class"] for row in found["rows"]] == list(COLOURS)
    chosen = augforge("predict", shown, *new, "--with", "auto", *PART, "--json").json()
    assert chosen["rows"] == found["rows"]
    assert chosen["auto"] + "\n" == result.out.partition("the recipe")[0].replace("\n", "") + "\n"
    rows = augforge("bench", shown, *PART, "--with", recipe, "--shot", "1", "--query", "1", "--trials", "5", "--json")
    assert [row["synthesizer"] for row in rows.json()["rows"]] == ["nothing", "nothing", "recipe"]
    made = augforge("synth", shown, "--with", recipe, "--per-class", "2", "--out", pictures / "made", "--json")
    assert made.json()["made"] == 6
    assert made.err.startswith("auto: classical, since ")
    pooled = augforge(
        "synth",
        shown,
        *PART,
        "--with",
        "auto",
        "--per-class",
        "1",
        "--pool",
        pictures / "pool",
        "--out",
        pictures / "pooled",
    )
    assert pooled.err.startswith("auto: pool, since ")


def test_a_pool_is_chosen_by_what_it_gains_and_saved(augforge, pictures):
    shown, saved, new = pictures / "shown", pictures / "saved", sorted((pictures / "new").iterdir())
    pool = ("--pool", pictures / "pool")
    answer = augforge("auto", shown, *PART, *pool, "--max-per-class", "1", "--json").json()
    assert answer["chosen"].endswith("with the pool")
    assert answer["held_out"] == 0
    assert len(answer["rows"]) == 1
    assert 0 < answer["pool_trust"] <= 1
    assert answer["shot_worth"] > 1
    result = augforge("predict", shown, *new, *PART, *pool, "--max-per-class", "1", "--with", "auto", "--save", saved)
    assert result.code == 0, result.err
    assert result.err.startswith("auto: means, logistic (C=100, normalise=l2), with the pool. Expected gain over ")
    again = augforge("predict", saved, *new, "--json").json()
    assert [row["classes"][0]["class"] for row in again["rows"]] == list(COLOURS)
    assert again["pool"] > 0
    other = augforge("predict", shown, *new, "--with", saved / "recipe.json", *pool, "--max-per-class", "1", "--json")
    assert other.json()["rows"] == again["rows"]


def test_bench_chooses_in_every_episode_beside_nothing(augforge, pictures):
    out = pictures / "out"
    command = ("bench", pictures / "shown", *PART, "--with", "auto", "--shot", "1", "--query", "1", "--trials", "6")
    found = augforge(*command, "--out", out, "--json").json()["rows"]
    assert [(row["synthesizer"], row["classifier"][:8]) for row in found] == [
        ("nothing", "logistic"), ("nothing", "prototyp"), ("auto", "means, l"),
    ]  # fmt: skip
    auto = found[-1]
    assert sum(auto["chosen"].values()) == 6
    assert auto["gain"] == pytest.approx(auto["accuracy"] - found[0]["accuracy"], abs=1e-3)
    assert auto["gain_ci95"][0] <= auto["gain"] <= auto["gain_ci95"][1]
    kept = [json.loads(line) for line in (out / "bench.jsonl").read_text().splitlines()]
    assert [row["synthesizer"] for row in kept] == ["nothing", "nothing", "auto"]
    assert "| auto |" in augforge(*command).out
    assert "--seeds was given with --with auto" in augforge(*command, "--seeds", "0,1").error()


def test_bench_has_a_pool_without_queries(augforge, pictures):
    shown = pictures / "shown"
    command = ("bench", shown, *PART, "--with", "auto", "--shot", "1", "--query", "1", "--trials", "3", "--json")
    rows = augforge(*command, "--pool", pictures / "pool").json()["rows"]
    auto = next(row for row in rows if row["synthesizer"] == "auto")
    assert sum(count for words, count in auto["chosen"].items() if words.endswith("with the pool")) > 0
    assert "may be queries" in augforge(*command, "--pool", shown).error()
    assert "--transductive was given with" in augforge(*command, "--pool", shown, "--transductive").error()


def test_embeddings_have_no_network(augforge, tmp_path):
    rng = np.random.default_rng(0)
    rows = np.repeat(np.eye(4)[:2], 5, 0) + rng.normal(0, 0.1, (10, 4))
    np.save(tmp_path / "shown.npy", rows)
    np.save(tmp_path / "shown_labels.npy", np.array(["a", "b"]).repeat(5))
    assert augforge("auto", tmp_path / "shown.npy", "--out", tmp_path / "r.json").code == 0
    found = augforge("predict", tmp_path / "shown.npy", tmp_path / "shown.npy", "--with", tmp_path / "r.json", "--json")
    assert [row["classes"][0]["class"] for row in found.json()["rows"]] == ["a"] * 5 + ["b"] * 5
    assert "holds features already" in augforge("auto", tmp_path / "shown.npy", *PART).error()


def test_what_cannot_be_chosen_is_one_sentence(augforge, pictures):
    shown, new, recipe = pictures / "shown", pictures / "new" / "red-8.jpg", pictures / "r.json"
    auto = ("predict", shown, new, "--with", "auto")
    assert "--classifier was given with --with auto" in augforge(*auto, *PART, "--classifier", "knn").error()
    assert "--views 'flip' was given" in augforge(*auto, *PART, "--views", "flip").error()
    assert "cannot be read" in augforge("predict", shown, new, "--with", recipe).error()
    assert "ends in .json" in augforge("auto", shown, *PART, "--out", pictures / "r").error()
    augforge("auto", shown, *PART, "--out", recipe)
    assert "--representation was given with" in augforge("predict", shown, new, "--with", recipe, *PART).error()
    (pictures / "one" / "red").mkdir(parents=True)
    new.rename(pictures / "one" / "red" / "1.jpg")
    assert "expected two classes or more" in augforge("auto", pictures / "one", *PART).error()
    assert "no synthesizer 'atuo'" in augforge("predict", shown, new, *PART, "--with", "atuo").error()
