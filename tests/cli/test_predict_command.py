import pytest

pytestmark = pytest.mark.usefixtures("means")
PART = ("--representation", "means")


def test_pictures_are_named(augforge, source):
    shown = [source / "cat" / "cat_1.png", source / "dog" / "dog_2.png"]
    found = augforge("predict", source, *shown, *PART, "--classifier", "knn", "--json").json()
    assert found["classes"] == 2
    assert [row["picture"] for row in found["rows"]] == [str(path) for path in shown]
    assert [row["classes"][0]["class"] for row in found["rows"]] == ["cat", "dog"]
    assert sum(pair["probability"] for pair in found["rows"][0]["classes"]) == pytest.approx(1)


def test_a_person_reads_one_line_for_each(augforge, source):
    picture = source / "cat" / "cat_0.png"
    result = augforge(
        "predict", source, picture, *PART, "--top", "1", "--classifier", "prototype", "--set", "distance=cosine"
    )
    assert result.code == 0, result.err
    assert result.out.startswith(f"{picture}: cat ")
    assert result.out.count("\n") == 1


def test_a_saved_support_answers_the_same(augforge, source, tmp_path):
    picture, saved = source / "dog" / "dog_0.png", tmp_path / "saved"
    arguments = (*PART, "--classifier", "simpleshot", "--base", source, "--json")
    first = augforge("predict", source, picture, *arguments, "--save", saved).json()
    assert first["out"] == str(saved)
    again = augforge("predict", saved, picture, "--json").json()
    assert again["rows"] == first["rows"]
    assert "was saved with its own" in augforge("predict", saved, picture, "--classifier", "knn").error()


def test_saving_alone_will_do(augforge, source, tmp_path):
    result = augforge("predict", source, *PART, "--save", tmp_path / "saved")
    assert result.code == 0
    assert "2 classes" in result.out
    assert (tmp_path / "saved" / "predictor.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "there is no PICTURE"),
        (("nowhere.png",), "'nowhere.png' cannot be read"),
        (("nowhere.png", "--top", "0"), "'--top': 0 is not in the range x>=1"),
        (("nowhere.png", "--split", "val"), "--split 'val'"),
        (("nowhere.png", "--classifier", "simpelshot"), "nearest is 'simpleshot'"),
        (("nowhere.png", "--classifier", "prototype", "--set", "temperature=big"), "expected a number"),
        (("nowhere.png", "--shortlist", "1"), "no column 'superclass'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(augforge, source, arguments, message):
    assert message in augforge("predict", source, *arguments, *PART).error()


def test_a_classifier_that_was_not_fitted_is_refused(augforge, source):
    found = augforge("predict", source, source / "cat" / "cat_0.png", *PART, "--classifier", "gaussian")
    assert "gaussian is not fitted" in found.error()


def test_a_picture_that_is_none_is_refused(augforge, source, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png' " in augforge("predict", source, tmp_path / "text.png", *PART).error()
