import json
from dataclasses import replace

import pytest

from augforge.parts.saving import canonical, digest, write_json
from augforge.synth.manifest import ManifestRow, as_dict, from_line, read_rows, rejected_tries
from augforge.types import InputError

ROW = ManifestRow("a/0.png", "", "a", "classical", "0123456789abcdef", "train/a/x.jpg", "ff" * 32, 7, 3, "0.1.0")
NAMES = ["x", "two\nlines\r", "tab\t", '"quoted" \\', "naïve-猫-🐈", "undecodable-\udcff", "\u2028", "\x00", ""]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_survives_on_one_line(name, tmp_path):
    row = replace(ROW, file=name, parent=name, cls=name)
    line = row.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert from_line(line, tmp_path, 1) == row
    assert json.loads(line) == as_dict(row)


def test_the_class_is_called_class(tmp_path):
    record = json.loads(ROW.to_line())
    assert record["class"] == "a"
    assert "cls" not in record
    assert (record["seed"], record["index"]) == (7, 3)


def test_a_manifest_is_read_row_by_row(tmp_path):
    path = tmp_path / "manifest.jsonl"
    rows = [replace(ROW, file=name, index=i) for i, name in enumerate(NAMES)]
    path.write_bytes(b"".join(row.to_line() for row in rows))
    assert list(read_rows(path)) == rows
    path.write_bytes(rows[0].to_line() + b"{}\n")
    with pytest.raises(InputError, match=r"line 2 of '.*manifest\.jsonl' is not a manifest row"):
        list(read_rows(path))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_rows(tmp_path / "none"))


def test_values_of_another_kind_and_deep_lists_are_refused(tmp_path):
    for line in (ROW.to_line().replace(b": 7,", b": true,"), b"[" * 100_000, ROW.to_line().replace(b'"a"', b"3")):
        with pytest.raises(InputError, match="line 4 of"):
            from_line(line, tmp_path, 4)


@pytest.mark.parametrize(
    ("key", "number"), [("index", 2**70), ("index", -1), ("seed", 2**64), ("bytes", 2**63), ("bytes", -2)]
)
def test_numbers_that_no_run_writes_are_refused(key, number, tmp_path):
    line = json.dumps({**as_dict(ROW), key: number}).encode()
    with pytest.raises(InputError, match=rf"line 4 of .*no run writes .*{key} {number}"):
        from_line(line, tmp_path, 4)


@pytest.mark.parametrize("line", [b"", b"\n", b"[]", b"3", b"{", b"\xff", b'{"file": "x"}', ROW.to_line()[:-3]])
def test_damaged_lines_are_refused(line, tmp_path):
    with pytest.raises(InputError, match="line 4 of"):
        from_line(line, tmp_path, 4)
    extra = json.dumps({**as_dict(ROW), "colour": "red"}).encode()
    with pytest.raises(InputError, match="line 4 of"):
        from_line(extra, tmp_path, 4)


def test_rejected_tries_are_counted_over_the_rows(tmp_path):
    path = tmp_path / "manifest.jsonl"
    rows = [replace(ROW, rejected={"blank": 2}), ROW, replace(ROW, file='"rejected": '),
            replace(ROW, rejected={"blank": 1, "copy of a real row": 4})]  # fmt: skip
    path.write_bytes(b"".join(row.to_line() for row in rows))
    assert list(read_rows(path)) == rows
    assert b"rejected" not in ROW.to_line()
    assert rejected_tries(path) == {"blank": 3, "copy of a real row": 4}
    for wrong in (["blank"], {"blank": "two"}, {"blank": 0}, {"blank": True}, 3):
        line = json.dumps({**as_dict(ROW), "rejected": wrong}).encode()
        with pytest.raises(InputError, match="line 4 of"):
            from_line(line, tmp_path, 4)


def test_digests_know_values_and_not_their_order():
    a, b = {"x": 1, "y": [1, 2], "z": {"p": None}}, {"z": {"p": None}, "y": [1, 2], "x": 1}
    assert digest(a) == digest(b)
    assert digest(a) != digest({**a, "y": [2, 1]})
    assert canonical(a) == '{"x":1,"y":[1,2],"z":{"p":null}}'
    assert digest({"a": 1}) == "015abd7f5cc57a2d"  # frozen: manifests refer to it


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": [2]})
    assert json.loads(path.read_text()) == {"a": [2]}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
