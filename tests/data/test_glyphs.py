import re
import unicodedata

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.data import glyphs
from augforge.data.glyphs import draw_classes, glyph_pairs, open_glyphs
from augforge.data.glyphs.classes import TABLE, GlyphClass, class_name, glyph_classes
from augforge.data.glyphs.drawing import draw, draw_class
from augforge.data.glyphs.faces import FACES, MARGIN, SIDE, face_characters, faces_of, letter_mask, specimen
from augforge.data.glyphs.shapes import ACROSS, WITHIN, distinct, likeness, thin
from augforge.types import Bank, InputError, LackError

CLASSES = {split: glyph_classes(split) for split in TABLE}
EVERYTHING = [c for classes in CLASSES.values() for c in classes]


@pytest.fixture
def few(monkeypatch):
    """A source of two classes to a split, so that a test draws in milliseconds."""
    monkeypatch.setattr(glyphs, "glyph_classes", lambda split: CLASSES[split][::37][:2])


@pytest.fixture(scope="module")
def all_drawn():
    """One picture of every class."""
    return draw_classes(EVERYTHING, 0, 1)


def test_hundreds_of_classes_whose_scripts_the_splits_do_not_share():
    assert len(CLASSES["train"]) >= 300
    assert len(CLASSES["val"]) >= 30
    assert len(CLASSES["test"]) >= 75
    scripts = [{unicodedata.name(chr(c.code_point)).split()[0] for c in CLASSES[s]} for s in TABLE]
    assert len(set.union(*scripts)) == sum(map(len, scripts))
    assert scripts[1] == {"CYRILLIC"}
    assert scripts[2] == {"GEORGIAN", "ARMENIAN"}


def test_class_names_are_unique_folder_names():
    names = [c.name for c in EVERYTHING]
    assert len({n.casefold() for n in names}) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)+", n) and len(n) < 60 for n in names)
    assert class_name(ord("A")) == "latin-capital-a"
    assert class_name(ord("დ")) == "georgian-don"


def test_every_letter_is_a_letter_that_some_shipped_font_has():
    for c in EVERYTHING:
        assert unicodedata.category(chr(c.code_point)) in ("Lu", "Ll", "Lo")
        assert not unicodedata.decomposition(chr(c.code_point))
        assert len(faces_of(c.code_point)) >= 2


def test_no_letter_is_drawn_as_the_box_of_a_missing_one():
    missing = letter_mask(0xFFFF, "DejaVuSans", 48)  # a code point that no font may have
    for c in EVERYTHING:
        mask = letter_mask(c.code_point, "DejaVuSans", 48)
        assert mask.shape != missing.shape or (mask != missing).mean() > 0.1


def test_no_two_classes_are_homoglyphs():
    alike = likeness([c.code_point for c in EVERYTHING])
    split = np.repeat(np.arange(len(CLASSES)), [len(v) for v in CLASSES.values()])
    pairs = np.triu(np.ones_like(alike, dtype=bool), 1)
    same = split[:, None] == split
    slack = 0.01  # another build of FreeType may move an outline by a fraction of a px
    assert alike[pairs & same].max() < WITHIN + slack
    assert alike[pairs & ~same].max() < ACROSS + slack


@pytest.mark.parametrize("pair", ["AΑ", "AА", "oO", "cс", "оo", "nռ", "Ͳͳ"])
def test_known_homoglyphs_are_recognised(pair):
    assert likeness([ord(c) for c in pair])[0, 1] > WITHIN
    assert distinct([("train", [ord(pair[0])]), ("test", [ord(pair[1])])])["test"] == []


@pytest.mark.parametrize("pair", ["AB", "ΣZ", "Жд", "კA", "CE"])
def test_other_letters_are_told_apart(pair):
    assert likeness([ord(c) for c in pair])[0, 1] < ACROSS


def test_thinning_leaves_lines_one_pixel_wide():
    bar = np.zeros((2, 20, 20), bool)
    bar[0, 4:16, 7:12] = True
    bar[1, 9, 3:17] = True
    lines = thin(bar)
    assert lines[0].sum(1).max() == 1
    assert lines[0].any(1).sum() >= 7
    assert (lines[1] == bar[1]).all()
    assert not (lines & ~bar).any()


def test_a_specimen_is_a_distance_field():
    letter = specimen(ord("H"), "DejaVuSans")
    assert letter.field.shape == (SIDE, SIDE)
    assert (letter.field[MARGIN:-MARGIN] > 0).any()
    assert (letter.field[0] < -MARGIN / 2).all()
    steps = np.abs(np.diff(letter.field, axis=1))
    assert steps.max() < 2.1  # two half-fields meet at the outline
    assert 2 < letter.pen < 5


def test_small_letters_are_not_drawn_in_italics():
    assert not any("Italic" in f for f in faces_of(ord("т")))
    assert any("Italic" in f for f in faces_of(ord("Т")))
    assert all(ord("A") in face_characters(f) for f in FACES)


def test_pictures_are_white_paper_with_ink_inside(all_drawn):
    pictures, _ = all_drawn
    assert pictures.shape == (len(EVERYTHING), 28, 28, 1)
    assert pictures.dtype == np.uint8
    ink = (255 - pictures[..., 0].astype(float)) / 255
    assert ink.sum((1, 2)).min() > 8
    assert ink.sum((1, 2)).max() < 0.45 * 28 * 28
    assert (ink.max((1, 2)) > 0.5).all()
    border = np.concatenate([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], 1)
    assert border.sum(1).max() < 2
    assert (pictures.max((1, 2, 3)) == 255).all()


def test_pictures_of_a_class_vary(all_drawn):
    pictures, _ = all_drawn
    assert len({p.tobytes() for p in pictures}) == len(pictures)
    drawn, faces = draw_class(ord("A"), "latin-capital-a", 0, 40)
    assert len(set(faces.tolist())) > 8
    ink = (255.0 - drawn).sum((1, 2, 3))
    assert ink.max() > 1.8 * ink.min()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    some = EVERYTHING[::60]
    first, faces = draw_classes(some, 5, 3)
    again, faces_again = draw_classes(some, 5, 3)
    assert (first == again).all()
    assert (faces == faces_again).all()
    other, _ = draw_classes(some, 6, 3)
    assert (first != other).any((1, 2, 3)).all()


def test_a_picture_depends_on_seed_class_and_index_alone():
    c = GlyphClass("georgian-don", "georgian", ord("დ"))
    many, faces = draw_class(c.code_point, c.name, 1, 150)
    few, few_faces = draw_class(c.code_point, c.name, 1, 7)
    assert (many[:7] == few).all()
    assert (faces[:7] == few_faces).all()
    keys = chance.row_keys(1, c.name, torch.tensor([149, 3]))
    backwards, _ = draw(c.code_point, keys)
    assert (backwards == many[[149, 3]]).all()
    assert (draw_class(c.code_point, "another name", 1, 7)[0] != few).any()


def test_no_global_random_state_moves():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    draw_classes(EVERYTHING[:1], 0, 2)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_the_banks(few, tmp_path):
    banks = open_glyphs(seed=3, per_class=4, cache=tmp_path)
    assert list(banks) == ["train", "val", "test"]
    bank = banks["train"]
    assert isinstance(bank, Bank)
    assert bank.classes[0] == "latin-capital-a"
    assert bank.y.tolist() == [0] * 4 + [1] * 4
    assert bank.name(3) == "latin-capital-a/03"
    assert bank.examples(torch.tensor([5, 0])).x.shape == (2, 1, 28, 28)
    assert (bank.load(5)[0] == draw_classes(CLASSES["train"][37:38], 3, 4)[0][1]).all()
    assert set(bank.groups["face"]) <= set(FACES)
    assert bank.groups["script"][0] == "latin"


def test_a_cached_source_equals_a_fresh_one(few, tmp_path, monkeypatch):
    fresh = open_glyphs(per_class=3, cache=tmp_path / "new" / "folder")
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1
    monkeypatch.setattr(glyphs, "draw_classes", None)
    cached = open_glyphs(per_class=3, cache=tmp_path / "new" / "folder")
    for split, bank in fresh.items():
        assert (cached[split].pixels == bank.pixels).all()
        assert cached[split].groups == bank.groups
        assert torch.equal(cached[split].y, bank.y)


def test_seed_and_number_have_caches_of_their_own(few, tmp_path):
    for seed, per_class in ((0, 2), (1, 2), (0, 3)):
        open_glyphs(seed, per_class, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "other"])
def test_a_damaged_cache_is_made_again(few, tmp_path, damage):
    fresh = open_glyphs(per_class=3, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes({"flipped": bytes(data), "cut": bytes(data[:-100]), "empty": b"", "other": b"PK" * 99}[damage])
    again = open_glyphs(per_class=3, cache=tmp_path)
    assert (again["test"].pixels == fresh["test"].pixels).all()
    assert (again["train"].pixels == fresh["train"].pixels).all()
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_size == len(data)


def test_a_cache_of_other_pictures_is_made_again(few, tmp_path):
    fresh = open_glyphs(per_class=3, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    open_glyphs(per_class=2, cache=tmp_path)
    (other,) = set(tmp_path.iterdir()) - {path}
    other.replace(path)
    assert (open_glyphs(per_class=3, cache=tmp_path)["val"].pixels == fresh["val"].pixels).all()


def test_an_unwritable_cache_folder_is_no_error(few, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert len(open_glyphs(per_class=2, cache=blocked)["train"]) == 4
    assert len(open_glyphs(per_class=2, cache=blocked / "below")["train"]) == 4


def test_the_default_cache_is_the_users(few, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    open_glyphs(per_class=1)
    assert len(list((tmp_path / "augforge").glob("glyphs-*.safetensors"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    open_glyphs(per_class=1)
    assert len(list((tmp_path / "home" / ".cache" / "augforge").iterdir())) == 1


def test_errors_say_what_was_found(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="0 pictures"):
        open_glyphs(per_class=0, cache=tmp_path)
    with pytest.raises(ValueError, match=r"draws nothing for U\+0020"):
        letter_mask(ord(" "), "DejaVuSans", 48)
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    from augforge.data.glyphs.faces import face_path

    with pytest.raises(LackError, match="is missing"):
        face_path("DejaVuSans")


def test_pairs_are_the_same_hand_in_two_faces(few):
    faces = ("DejaVuSans", "DejaVuSans-Bold")
    bank = glyph_pairs("test", faces, hands=3, seed=5)
    assert isinstance(bank, Bank)
    assert len(bank) == 2 * 2 * 3
    assert len(set(bank.names)) == len(bank)
    for row, name in enumerate(bank.names):
        letter, face, hand = name.split("/")
        assert bank.classes[bank.y[row]] == letter
        assert bank.groups["face"][row] == face
        assert int(bank.groups["hand"][row]) == int(hand)
        drawn = glyphs.glyph_classes("test")[bank.y[row]]
        keys = chance.row_keys(5, letter, torch.arange(3))
        alone, number = draw(drawn.code_point, keys[int(hand) : int(hand) + 1], face)
        assert np.array_equal(bank.pixels[row], alone[0])
        assert FACES[number[0]] == face
    pixels = bank.pixels.reshape(2, 2, 3, -1).astype(float)  # [class, face, hand, px]
    same = np.abs(pixels[:, 0] - pixels[:, 1]).mean()
    assert same < 0.6 * np.abs(pixels[:, 0] - np.roll(pixels[:, 1], 1, 1)).mean()


@pytest.mark.parametrize("faces", [("DejaVuSans", "DejaVuSans"), ("DejaVuSans", "Times")])
def test_pairs_of_no_two_faces_are_refused(faces):
    with pytest.raises(InputError, match="expected two of DejaVuSans, "):
        glyph_pairs("test", faces)
