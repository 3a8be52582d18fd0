"""How many of each class are made, and of which parents."""

import json
from collections import Counter

import pytest


@pytest.fixture
def with_junk(source):
    (source / "cat" / "torn.png").write_bytes((source / "cat" / "cat_0.png").read_bytes()[:300])
    (source / "dog" / "empty.jpg").write_bytes(b"")
    (source / "dog" / "words.png").write_text("this is no picture")
    return source


def _made(rows):
    return Counter(row["class"] for row in rows if row["method"] != "real")


def test_per_class(augforge, source, manifest_of, tmp_path):
    found = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 13, "--json").json()
    assert found["made"] == 26
    assert found["per_class"] == {"cat": 13, "dog": 13} == _made(manifest_of(tmp_path / "out"))


def test_to_counts_real_pictures_that_can_be_read(augforge, with_junk, manifest_of, tmp_path):
    found = augforge("synth", with_junk, "--out", tmp_path / "out", "--to", 10, "--json").json()
    assert found["per_class"] == {"cat": 6, "dog": 7} == _made(manifest_of(tmp_path / "out"))
    skipped = {entry["file"]: entry["reason"] for entry in found["skipped"]}
    assert skipped.keys() == {"cat/torn.png", "dog/empty.jpg", "dog/words.png"}


def test_to_below_what_is_there_makes_nothing_of_a_class(augforge, source, manifest_of, tmp_path):
    found = augforge("synth", source, "--out", tmp_path / "out", "--to", 4, "--json").json()
    assert found["per_class"] == {"cat": 0, "dog": 1}
    assert not (tmp_path / "out" / "cat").exists()  # torchvision's ImageFolder rejects a class without pictures


def test_to_without_the_real_pictures_says_what_out_lacks(augforge, source, folder_of, tmp_path):
    found = augforge("synth", source, "--out", tmp_path / "a", "--to", 4)
    said = "note: --to 4 without --include-real: OUT gets the made rows alone, from 0 of 'cat' to 1 of 'dog'"
    assert said in found.err
    assert "and 1 of 2 classes have none at all" in found.err
    assert "add --include-real, which brings each class of OUT up to that number" in found.err
    assert "note: --to 9" in augforge("synth", source, "--out", tmp_path / "x", "--to", 9, "--dry-run").err
    even = folder_of(tmp_path / "even", {"cat": 3, "dog": 3})
    for i, how in enumerate([("--to", 9, "--include-real"), ("--per-class", 4)]):
        assert "note:" not in augforge("synth", source, "--out", tmp_path / f"b{i}", *how).err
    assert "note:" not in augforge("synth", even, "--out", tmp_path / "c", "--to", 9).err


def test_counts_come_from_a_json_file(augforge, source, tmp_path, manifest_of):
    (tmp_path / "counts.json").write_text(json.dumps({"dog": 5, "cat": 0}))
    augforge("synth", source, "--out", tmp_path / "out", "--counts", tmp_path / "counts.json")
    assert _made(manifest_of(tmp_path / "out")) == {"dog": 5}


def test_class_limits_the_run(augforge, source, tmp_path, manifest_of):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 2, "--class", "dog")
    assert _made(manifest_of(tmp_path / "out")) == {"dog": 2}


@pytest.mark.parametrize("count", [1, 4, 10, 131])
def test_parents_are_used_alike(augforge, source, tmp_path, manifest_of, count):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", count, "--with", "copies")
    used = Counter(row["parent"] for row in manifest_of(tmp_path / "out") if row["class"] == "cat")
    assert sum(used.values()) == count
    assert max(used.values()) - (min(used.values()) if len(used) == 4 else 0) <= 1


def test_a_parent_that_cannot_be_read_is_stood_in_for(augforge, with_junk, tmp_path, manifest_of):
    arguments = ("--per-class", 12, "--with", "copies", "--json")
    found = augforge("synth", with_junk, "--out", tmp_path / "out", *arguments).json()
    assert found["made"] == 24
    assert {entry["file"] for entry in found["skipped"]} == {"cat/torn.png", "dog/empty.jpg", "dog/words.png"}
    rows = manifest_of(tmp_path / "out")
    assert not {"cat/torn.png", "dog/empty.jpg", "dog/words.png"} & {row["parent"] for row in rows}
    assert sorted(row["index"] for row in rows) == sorted([*range(12)] * 2)


def test_nothing_makes_nothing(augforge, source, tmp_path, manifest_of):
    arguments = ("--per-class", 12, "--with", "nothing", "--include-real", "--json")
    found = augforge("synth", source, "--out", tmp_path / "out", *arguments).json()
    assert (found["made"], found["real"]) == (0, 7)
    assert not (tmp_path / "out" / ".contact_sheet.png").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "no quota was given; expected exactly one of --per-class N, --to N, --counts FILE"),
        (("--per-class", 1, "--to", 2), "--per-class and --to was given; expected exactly one"),
        (("--per-class", -1), "'--per-class': -1 is not in the range x>=0"),
        (("--to", -1), "'--to': -1 is not in the range x>=0"),
        (("--per-class", "many"), "'many' is not a valid integer"),
        (("--per-class", 1, "--class", "dgo"), "no class 'dgo'"),
        (("--per-class", 1, "--class", "cat", "--class", "cat"), "named twice"),
    ],
)
def test_a_wrong_quota_is_an_error(augforge, source, tmp_path, given, said):
    assert said in augforge("synth", source, "--out", tmp_path / "out", *given).error()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ('{"dgo": 3}', "'dgo', which is not in the source; the nearest is 'dog'"),
        ('{"dog": -3}', "-3 was given; expected a whole number"),
        ('{"dog": 1.5}', "1.5 was given; expected a whole number"),
        ('{"dog": true}', "True was given; expected a whole number"),
        ('{"dog": "3"}', "'3' was given; expected a whole number"),
        ("[3]", "holds a list; expected a JSON object"),
        ("{dog: 3}", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
    ],
)
def test_wrong_counts_are_an_error(augforge, source, tmp_path, counts, said):
    (tmp_path / "counts.json").write_text(counts)
    result = augforge("synth", source, "--out", tmp_path / "out", "--counts", tmp_path / "counts.json")
    assert said in result.error()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quota", [("--per-class", 2), ("--to", 9)])
def test_a_class_without_pictures_is_named(augforge, source, tmp_path, quota):
    (source / "emu").mkdir()
    (source / "emu" / "junk.png").write_text("junk")
    said = augforge("synth", source, "--out", tmp_path / "out", *quota).error()
    assert said == "class 'emu' has no picture that can be read; the method needs at least 1"
    found = augforge("synth", source, "--out", tmp_path / "out", *quota, "--class", "cat", "--class", "dog")
    assert found.code == 0, found.err


def test_a_class_without_pictures_of_which_none_are_wanted_is_left_out(augforge, source, tmp_path):
    (source / "emu").mkdir()
    (tmp_path / "counts.json").write_text('{"dog": 2}')
    result = augforge("synth", source, "--out", tmp_path / "out", "--counts", tmp_path / "counts.json")
    assert result.code == 0, result.err


def test_strict_makes_an_unreadable_picture_an_error(augforge, with_junk, tmp_path):
    said = augforge("synth", with_junk, "--out", tmp_path / "out", "--per-class", 2, "--strict").error()
    assert said.startswith("'cat/torn.png' ")
    assert said.endswith("and 2 more cannot be used (--strict)")
    assert not (tmp_path / "out").exists()
