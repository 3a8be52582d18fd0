import numpy as np
import pytest
from PIL import Image

from augforge.inputs import Inputs
from augforge.synth.contact_sheet import classes_shown
from augforge.synth.preview import preview
from augforge.types import InputError


def test_one_picture_is_drawn_and_nothing_else_written(augforge, source, tmp_path):
    found = augforge("preview", source, "--set", "rotate=5", "--out", tmp_path / "sheet.png")
    assert found.code == 0
    assert found.out.startswith(f"look at {tmp_path / 'sheet.png'}: 2 classes, ")
    assert "classical with preset=" in found.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.png", source.name]
    assert classes_shown(tmp_path / "sheet.png") == "2 classes"


def test_json_and_python_say_the_same(augforge, source, tmp_path):
    found = augforge("preview", source, "--class", "cat", "--out", tmp_path / "a.png", "--json").json()
    assert found == {"sheet": str(tmp_path / "a.png"), "classes": "1 class", "seconds": found["seconds"]}
    by_call = preview(Inputs(str(source), "classical", classes=("cat",)), tmp_path / "b.png")
    assert by_call.classes == "1 class"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_settings_change_what_is_drawn_and_the_seed_too(augforge, source, tmp_path):
    kinds = [(), ("--set", "rotate=90"), ("--seed", "3"), ("--size", "8"), ("--with", "copies")]
    pictures = []
    for i, options in enumerate(kinds):
        assert augforge("preview", source, *options, "--out", tmp_path / f"{i}.png").code == 0
        with Image.open(tmp_path / f"{i}.png") as sheet:
            pictures.append(np.asarray(sheet))
    assert all(not np.array_equal(pictures[0], other) for other in pictures[1:])


def test_a_part_that_was_fitted_is_drawn(augforge, source, tmp_path):
    assert augforge("fit", "classical", source, "--set", "rotate=3", "--out", tmp_path / "mine").code == 0
    assert augforge("preview", source, "--with", tmp_path / "mine", "--out", tmp_path / "sheet.png").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "rotat=3"), "has no setting 'rotat'; the nearest is 'rotate'"),
        (("--with", "nothing"), "nothing makes no pictures"),
        (("--class", "cow"), "'cow'"),
        (("--out", "no/folder/there.png"), "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(augforge, source, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    assert words in augforge("preview", source, *options).error()
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_features_cannot_be_looked_at(source, tmp_path):
    with pytest.raises(InputError, match="pictures"):
        preview(Inputs(str(source), "noise", representation="conv4-glyphs"), tmp_path / "sheet.png")
