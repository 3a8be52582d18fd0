"""Names that differ by case or by Unicode form are one class to people, and an error wherever classes come from."""

import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

from augforge.data.class_names import taken_for_one
from augforge.data.source import open_source
from augforge.types import InputError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
PAIRS = [(COMPOSED, DECOMPOSED, "their Unicode form"), ("cat", "CAT", "case"), (COMPOSED, DECOMPOSED.upper(), "case")]


def _folder(root, names):
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / name / "1.png")
    return root


@pytest.mark.parametrize(("one", "other", "by"), PAIRS)
@pytest.mark.parametrize("split", ["", "train"])
def test_folders_and_archives(tmp_path, one, other, by, split):
    root = _folder(tmp_path / "source", [f"{split}/{name}" if split else name for name in (one, other, "dog")])
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        for path in root.rglob("*.png"):
            archive.write(path, path.relative_to(root))
    for source in (root, tmp_path / "source.zip"):
        with pytest.raises(InputError, match=rf"whose names differ by {by}"):
            open_source(source)


@pytest.mark.parametrize(("one", "other", "by"), PAIRS)
def test_arrays_and_tables(tmp_path, one, other, by):
    labels = np.array([one, other, "dog"])
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 4, 4), np.uint8), labels=labels)
    np.savez(tmp_path / "b.npz", images=np.zeros((3, 4, 4), np.uint8), labels=np.arange(3), classes=labels)
    (tmp_path / "c.csv").write_text("label,f0,f1\n" + "".join(f"{name},1,2\n" for name in labels), encoding="utf-8")
    for name in "abc":
        with pytest.raises(InputError, match=rf"differ by {by}"):
            open_source(next(tmp_path.glob(f"{name}.*")))


def test_a_class_is_found_in_either_form(tmp_path):
    bank = open_source(_folder(tmp_path / "source", [DECOMPOSED, "dog"]))["all"]
    assert bank.only([COMPOSED]).classes == (DECOMPOSED,)
    with pytest.raises(InputError, match="there is no class"):
        bank.only(["CAFÉ"])


def test_other_names_stay_apart():
    assert taken_for_one(["ß", "s", "é", "e", "ﬁ", "猫"]) is None
