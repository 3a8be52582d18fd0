"""`auto` on letters, with the shipped embedding and the shipped hallucinator."""

import pytest

from augforge.auto.candidates import Candidate
from augforge.auto.recipe_file import RecipeFile


@pytest.fixture
def letters(augforge, tmp_path):
    """Three letters, one drawing of each to learn from, and others to test on."""
    classes = ("--class", "georgian-an", "--class", "georgian-capital-ban", "--class", "armenian-small-piwr")
    real = ("--with", "nothing", "--include-real", "--per-class", "0")
    for split, most in (("train", 2), ("test", 6)):
        made = augforge("synth", "glyphs", "--split", "test", *classes, *real, "--max-per-class", most, "--seed", most,
                        "--out", tmp_path / split)  # fmt: skip
        assert made.code == 0, made.err
    return tmp_path


MADE = "conv4-glyphs, logistic (C=5, normalise=spread), beside rows of classical"


def named(answer) -> list[str]:
    return [row["classes"][0]["class"] for row in answer["rows"]]


def test_letters_are_named_beside_rows_that_are_made_of_them(augforge, letters):
    shown, asked = letters / "train", sorted((letters / "test").glob("*/*.png"))
    auto = augforge("auto", shown, "--max-per-class", "1", "--out", letters / "recipe.json", "--json").json()
    assert auto["chosen"] == MADE
    saved = letters / "saved"
    command = ("predict", shown, *asked, "--max-per-class", "1", "--json")
    found = augforge(*command, "--with", "auto", "--save", saved).json()
    assert sum(name in path.parent.name for name, path in zip(named(found), asked, strict=True)) > 0.7 * len(asked)
    assert augforge("predict", saved, *asked, "--json").json()["rows"] == found["rows"]
    assert augforge(*command, "--with", letters / "recipe.json").json()["rows"] == found["rows"]
    pooled = augforge(*command, "--with", "auto", "--pool", letters / "test").json()
    assert pooled["pool"] == len(asked)


def test_a_predictor_of_the_hallucinator_is_saved_and_read_back(augforge, letters):
    shown, asked = letters / "train", sorted((letters / "test").glob("*/*.png"))
    recipe, saved = letters / "recipe.json", letters / "saved"
    RecipeFile(Candidate("hallucinator", ("conv4-glyphs",), "hallucinator-glyphs"), "none").write(recipe)
    found = augforge("predict", shown, *asked, "--with", recipe, "--save", saved, "--json").json()
    assert sum(name in path.parent.name for name, path in zip(named(found), asked, strict=True)) > 0.7 * len(asked)
    assert augforge("predict", saved, *asked, "--json").json()["rows"] == found["rows"]


def test_bench_on_letters(augforge, letters):
    rows = augforge(
        "bench", letters / "test", "--with", "auto", "--shot", "1,3", "--query", "2", "--trials", "4", "--json"
    )
    found = [row for row in rows.json()["rows"] if row["synthesizer"] == "auto"]
    assert [row["shot"] for row in found] == [1, 3]
    assert set(found[0]["chosen"]) == {MADE}
