import dataclasses
import json

import numpy as np
import pytest
import torch

from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.episodes.files import read_episodes, rows_digest, write_episodes
from augforge.episodes.tasks import Task, task_episodes
from augforge.types import Episode, InputError


def _bank(names=True, n=6, prefix="c"):
    y = torch.arange(n).repeat_interleave(5)
    row_names = tuple(f"{int(c)}/{i}.png" for i, c in enumerate(y)) if names else None
    return FeatureBank(torch.zeros(len(y), 2), y, tuple(f"{prefix}{i}" for i in range(n)), "bank.npz", row_names)


def _episodes(shot=2):
    task = Task("toy", _bank(prefix="b"), None, _bank())
    return task_episodes(task, way=3, shot=shot, n_query=2, trials=6)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "episodes.jsonl"
    write_episodes(path, _episodes(), _bank(), task="toy", seed=4)
    return path


@pytest.mark.parametrize("shot", [2, (1, 3, 2)])
def test_episodes_come_back_as_they_were(tmp_path, shot):
    path = tmp_path / "episodes.jsonl"
    write_episodes(path, _episodes(shot), _bank(), task="toy", seed=4)
    found = read_episodes(path, _bank())
    assert (found.task, found.way, found.n_query, found.seed) == ("toy", 3, 2, 4)
    assert found.shot == (2 if shot == 2 else 3)
    for a, b in zip(found.episodes, _episodes(shot), strict=True):
        assert torch.equal(a.classes, b.classes)
        assert torch.equal(a.support, b.support)
        assert torch.equal(a.query, b.query)
    assert list(tmp_path.iterdir()) == [path]


def test_a_single_line_of_queries_comes_back(tmp_path):
    episode = Episode(torch.tensor([1, 4]), torch.tensor([[5], [20]]), torch.tensor([[21]]))
    write_episodes(tmp_path / "e", [episode], _bank(), task="lake", seed=0)
    assert read_episodes(tmp_path / "e", _bank()).episodes[0].query.tolist() == [[21]]


def test_the_lines_can_be_read_by_anyone(written):
    header, *lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert header["format"] == "augforge-episodes"
    assert header["trials"] == len(lines) == 6
    assert lines[0]["support"] == _episodes()[0].support.tolist()


def test_features_of_other_weights_are_the_same_rows(written):
    other = dataclasses.replace(_bank(), x=torch.ones(30, 7), origin="else")
    assert rows_digest(other) == rows_digest(_bank())
    assert len(read_episodes(written, other).episodes) == 6


def test_features_have_the_rows_of_their_pictures():
    y = torch.arange(3).repeat_interleave(2)
    pictures = ArrayPictures(y, ("a", "b", "c"), np.zeros((6, 4, 4, 1), np.uint8), "pictures.npz").only("ca")
    names = tuple(pictures.name(row) for row in range(4))
    assert rows_digest(FeatureBank(torch.zeros(4, 2), pictures.y, pictures.classes, names=names)) == rows_digest(
        pictures
    )


@pytest.mark.parametrize(
    ("bank", "message"),
    [
        (_bank(prefix="d"), "of other classes than those of 'bank.npz'"),
        (_bank(n=7), "of other classes"),
        (_bank(names=False), "of other rows than those of 'bank.npz'"),
        (dataclasses.replace(_bank(), y=_bank().y.flip(0)), "of other rows"),
    ],
)
def test_other_rows_are_refused(written, bank, message):
    with pytest.raises(InputError, match=message):
        read_episodes(written, bank)


def test_every_cut_and_every_changed_byte_is_refused(written):
    data = written.read_bytes()
    for place in range(0, len(data), 7):
        written.write_bytes(data[:place])
        with pytest.raises(InputError, match=r"no file of episodes|cut short|was changed"):
            read_episodes(written, _bank())
        digit = b"1" if data[place : place + 1] != b"1" else b"2"
        written.write_bytes(data[:place] + digit + data[place + 1 :])
        with pytest.raises(InputError):
            read_episodes(written, _bank())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[: d.rindex(b"\n", 0, -1) + 1], "cut short: it has 5 of the 6 episodes"),
        (lambda d: d + d.splitlines(keepends=True)[-1], "was changed"),
        (lambda d: d.replace(b'"seed": 4', b'"seed": 5'), "was changed"),
        (lambda d: d.replace(b'"seed": 4', b'"seed": "4"'), "no usable 'seed'"),
        (lambda d: d.replace(b'"version": 1', b'"version": 2'), "of version 2; this augforge reads version 1"),
        (lambda d: b"", "no file of episodes"),
        (lambda d: b"[]\n", "no file of episodes"),
        (lambda d: b"\xff\xfe", "no file of episodes"),
    ],
)
def test_damage_is_told_in_a_sentence(written, change, message):
    written.write_bytes(change(written.read_bytes()))
    with pytest.raises(InputError, match=message):
        read_episodes(written, _bank())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_episodes(tmp_path / "nothing", _bank())


def test_what_is_no_set_of_episodes_is_not_written(tmp_path):
    mixed = [_episodes()[0], _episodes(shot=1)[0]]
    with pytest.raises(InputError, match="2 episodes of 2 forms"):
        write_episodes(tmp_path / "e", mixed, _bank(), task="toy", seed=0)
    leaking = Episode(torch.tensor([0]), torch.tensor([[1]]), torch.tensor([[1]]))
    with pytest.raises(InputError, match="query row 1 in its support"):
        write_episodes(tmp_path / "e", [leaking], _bank(), task="toy", seed=0)
    assert list(tmp_path.iterdir()) == []
