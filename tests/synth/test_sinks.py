import io
import json
import os
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augforge.synth.generate import MadePicture, stem
from augforge.synth.sinks import PARTIAL, Sink, check_folder_names, folder_name, pack_npz, write_all
from augforge.types import InputError

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_NASTY = st.sampled_from(["", ".", "..", "%", "%2E", "%20", "/", "\x00", "a/b", "a%2Fb", "run.json", "%72un.json", " "])


@given(st.lists(_TEXT | _NASTY, unique=True, min_size=2, max_size=8))
def test_class_names_become_folder_names_each_another(names):
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert folder not in ("", ".", "..")
        assert not {"/", "\x00", "\\"} & set(folder)
        assert not folder.startswith(".")


@given(_TEXT | _NASTY)
def test_stems_are_one_part_of_a_path_and_short(name):
    assert not {"/", "\x00", "\\"} & set(stem(name))
    assert len(os.fsencode(stem(name))) <= 180


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cat/a.png", "a"), ("a.b.png", "a.b"), ("images[3]", "images[3]"), ("x/.hidden.png", "hidden"), ("", "")],
)
def test_stems(name, expected):
    assert stem(name) == expected


def test_classes_that_differ_by_case_alone_are_refused():
    check_folder_names(["cat", "dog", "Dogs"])
    with pytest.raises(InputError, match="the classes 'cat' and 'Cat' differ by case alone"):
        check_folder_names(["cat", "dog", "Cat"])
    with pytest.raises(InputError, match="differ by their Unicode form"):
        check_folder_names(["caf\u00e9", "cafe\u0301"])


def _made(number: int, shape=(4, 5, 3), cls="cat", label=0) -> MadePicture:
    picture = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    row = {"method": "m", "settings": "s", "parent": "p", "parent_sha256": "h", "seed": 0, "index": number}
    return MadePicture(picture, cls, label, number, "p-m", row)


def test_a_folder_is_written_whole(tmp_path):
    sink = Sink(tmp_path)
    sink.prepare(["cat", "a/b"])
    rows, size = sink.write(0, [_made(0), _made(1, cls="a/b")])
    assert [row.file for row in rows] == ["cat/p-m00000.png", "a%2Fb/p-m00001.png"]
    assert size == sum((tmp_path / row.file).stat().st_size for row in rows)
    assert [path.name for path in (tmp_path / PARTIAL).iterdir()] == ["unit-000000.names"]


def test_a_folder_that_went_away_is_an_error(tmp_path):
    sink = Sink(tmp_path)
    sink.prepare([])
    with pytest.raises(InputError, match="cannot be written"):
        sink.write(0, [_made(0)])


def test_tar_members_are_fixed_and_read_by_tarfile(tmp_path):
    sink = Sink(tmp_path, "webdataset", "jpeg")
    sink.prepare(["cat", "dog"])
    assert not (tmp_path / "cat").exists()
    rows, size = sink.write(3, [_made(3000), _made(3001, label=1)])
    assert [(row.file, row.member) for row in rows] == [
        ("shard-000003.tar", "000003000.jpg"),
        ("shard-000003.tar", "000003001.jpg"),
    ]
    data = (tmp_path / "shard-000003.tar").read_bytes()
    assert len(data) == size
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        stems = [m.name.partition(".")[0] for m in members]
        assert sorted(stems[::3]) == ["000003000", "000003001"]
        assert stems == [stem for stem in stems[::3] for _ in range(3)]  # the members of a sample lie together
        assert [m.name[9:] for m in members] == [".jpg", ".cls", ".json"] * 2
        assert {(m.mode, m.uid, m.gid, m.mtime, m.type) for m in members} == {(0o644, 0, 0, 0, tarfile.REGTYPE)}
        for name, label, facts in zip(*(members[i::3] for i in range(3)), strict=True):
            number = int(name.name[:9])
            assert tar.extractfile(label).read() == str(number - 3000).encode()
            expected = {"class": "cat", "method": "m", "parent": "p", "index": number, "seed": 0}
            assert json.loads(tar.extractfile(facts).read()) == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=5))
def test_tar_members_of_any_length_stay_apart(tmp_path_factory, lengths):
    from augforge.synth.sinks import _add_member

    file = io.BytesIO()
    for i, length in enumerate(lengths):
        _add_member(file, f"{i}.x", bytes([i]) * length)
    file.write(bytes(1024))
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        assert [tar.extractfile(m).read() for m in tar] == [bytes([i]) * n for i, n in enumerate(lengths)]


def test_npz_units_may_come_in_any_order(tmp_path):
    sink = Sink(tmp_path, "npz", shape=(4, 5, 3), total=6)
    sink.prepare([])
    made = [_made(i, (4, 5, 1 if i == 4 else 3)) for i in range(6)]
    for unit in (1, 0, 2):
        rows, size = sink.write(unit, made[2 * unit : 2 * unit + 2])
        assert size == 2 * 60
        assert [row.member for row in rows] == [f"images[{2 * unit}]", f"images[{2 * unit + 1}]"]
    pack_npz(sink, 3, np.array([0, 0, 0, 0, 1, 1]), ["cat", "dog"])
    with np.load(tmp_path / "data.npz", allow_pickle=False) as held:
        for i in range(6):
            np.testing.assert_array_equal(held["images"][i], np.broadcast_to(made[i].picture, (4, 5, 3)))
        assert held["labels"].tolist() == [0, 0, 0, 0, 1, 1]
        assert held["labels"].dtype == np.int64


def test_an_npz_with_a_unit_missing_is_not_packed(tmp_path):
    sink = Sink(tmp_path, "npz", shape=(4, 5, 3), total=4)
    sink.prepare([])
    sink.write(1, [_made(2), _made(3)])
    with pytest.raises(InputError, match="pixels-000000' is missing"):
        pack_npz(sink, 2, np.zeros(4), ["cat"])
    assert not (tmp_path / "data.npz").exists()


def test_a_picture_that_does_not_fit_an_npz_is_an_error(tmp_path):
    sink = Sink(tmp_path, "npz", shape=(4, 5, 3), total=1)
    sink.prepare([])
    with pytest.raises(InputError, match=r"a picture of 6x4 with 3 channels does not fit an \.npz of 5x4 with 3"):
        sink.write(0, [_made(0, (4, 6, 3))])


def test_write_all_goes_on_after_a_part(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr("os.write", lambda handle, data: write(handle, data[:3]))
    handle = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    write_all(handle, b"0123456789")
    os.close(handle)
    assert (tmp_path / "file").read_bytes() == b"0123456789"
