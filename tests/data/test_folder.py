"""Folders as people have them: odd names, links in circles, pipes, empty classes."""

import hashlib
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.folder import open_folder
from augforge.data.notes import Note
from augforge.types import Bank, InputError, UnreadablePicture


def put(path, level=7, size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path, "PNG")


def test_classes_are_folders_and_are_walked(tmp_path):
    put(tmp_path / "dog" / "b.PNG", 1)
    put(tmp_path / "dog" / "more" / "deep" / "a.png", 2)
    put(tmp_path / "cat" / "1.png", 3)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    put(tmp_path / ".hidden" / "1.png")
    put(tmp_path / "cat" / ".thumb.png")
    (tmp_path / "read me.md").write_text("")
    with pytest.warns(Note) as said:
        bank = open_folder(tmp_path)["all"]
    assert [str(one.message).partition(": ")[2] for one in said] == [
        "folders are left out, without pictures of a class: 'empty'", "1 file is not read (1 .txt)"
    ]  # fmt: skip
    assert isinstance(bank, Bank)
    assert bank.classes == ("cat", "dog")
    assert bank.names == ("cat/1.png", "dog/b.PNG", "dog/more/deep/a.png")
    assert bank.counts().tolist() == [1, 2]
    assert bank.origin == str(tmp_path)
    assert bank.skipped == ()
    pixels, digest = bank.load(2)
    assert (pixels == 2).all()
    assert digest == hashlib.sha256((tmp_path / "dog/more/deep/a.png").read_bytes()).hexdigest()


def test_splits(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "validation/a/1.png", "test/b/1.png"):
        put(tmp_path / name)
    banks = open_folder(str(tmp_path))
    assert list(banks) == ["train", "val", "test"]
    assert banks["val"].name(0) == "validation/a/1.png"
    assert banks["val"].load(0)[0].shape == (3, 4, 1)


def test_the_folder_around_everything_is_left_off(tmp_path):
    for name in ("animals/cat/1.png", "animals/dog/more/2.png"):
        put(tmp_path / name)
    put(tmp_path / "@eaDir" / "cat" / "thumb.png")
    with pytest.warns(Note, match="without pictures of a class: '@eaDir'"):
        bank = open_folder(tmp_path)["all"]
    assert bank.names == ("cat/1.png", "dog/more/2.png")
    assert bank.origin == str(tmp_path)
    assert bank.load(1)[0].shape == (3, 4, 1)


def test_an_unknown_suffix_is_looked_into(tmp_path):
    for name in ("cat/1", "cat/2.img", "cat/3.jpg.download"):
        put(tmp_path / name)
    Image.new("RGB", (4, 3)).save(tmp_path / "cat" / "4.jfif", "JPEG")
    (tmp_path / "cat" / "BMW").write_text("BM is how this text begins, and it is no picture for all that it may seem.")
    (tmp_path / "cat" / "P1").write_text("P1 is how this text begins")
    (tmp_path / "cat" / "empty").touch()
    put(tmp_path / "cat" / "renamed.txt")
    os.mkfifo(tmp_path / "cat" / "pipe")
    with pytest.warns(Note, match=r"4 files are not read \(3 without a suffix, 1 .txt\)"):
        bank = open_folder(tmp_path)["all"]
    assert bank.names == ("cat/1", "cat/2.img", "cat/3.jpg.download", "cat/4.jfif")
    assert len(bank.examples(torch.arange(4)).x) == 4


def test_a_relative_path_still_works_from_elsewhere(tmp_path, monkeypatch):
    put(tmp_path / "root" / "a" / "1.png")
    monkeypatch.chdir(tmp_path)
    bank = open_folder("root")["all"]
    monkeypatch.chdir("/")
    assert bank.load(0)[0].shape == (3, 4, 1)


ODD = ["a b", "it's", 'quo"te', "new\nline", "🐈", "-rf", "back\\slash", "é", "%s{}"]


def test_odd_names(tmp_path):
    for name in ODD:
        put(tmp_path / name / f"{name}.png")
    undecodable = os.path.join(os.fsencode(tmp_path), b"bad\xff", b"\x80\xfe.png")
    os.mkdir(os.path.dirname(undecodable))
    with open(undecodable, "wb") as file:
        file.write((tmp_path / "it's" / "it's.png").read_bytes())
    bank = open_folder(tmp_path)["all"]
    assert set(bank.classes) == {*ODD, "bad\udcff"}
    assert len(bank.examples(torch.arange(len(bank)))) == len(ODD) + 1
    assert pickle.loads(pickle.dumps(bank)).names == bank.names


def test_links_that_double_the_paths_at_each_level_are_refused(tmp_path):
    put(tmp_path / "in" / "cat" / "1.png")
    put(tmp_path / "levels" / "22" / "2.png")
    for level in range(22):
        (tmp_path / "levels" / str(level)).mkdir()
        for side in "ab":
            (tmp_path / "levels" / str(level) / side).symlink_to(tmp_path / "levels" / str(level + 1))
    (tmp_path / "in" / "dog").symlink_to(tmp_path / "levels" / "0")
    with pytest.raises(InputError, match=r"levels/\d+' is reached by more than 100 paths, by way of links; expected"):
        open_folder(tmp_path / "in")


def test_links_are_followed_and_loops_reported(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    put(root / "cat" / "1.png")
    put(other / "2.png")
    (root / "cat" / "linked.png").symlink_to(other / "2.png")
    (root / "dog").symlink_to(other)
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "here").symlink_to(root / "cat")
    (root / "cat" / "self").symlink_to(root / "cat" / "self")
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nothing")
    bank = open_folder(root)["all"]
    assert bank.names == ("cat/1.png", "cat/linked.png", "dog/2.png")
    loop = "is a link to a folder that it lies in"
    reply = dict(bank.skipped)
    assert reply.pop("cat/self", "cannot be opened").startswith("cannot be opened")
    assert reply == {"cat/gone.png": "is a link to nothing", "cat/here": loop, "cat/up": loop}


def test_a_pipe_is_skipped_and_not_waited_for(tmp_path):
    put(tmp_path / "cat" / "1.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    bank = open_folder(tmp_path)["all"]
    assert bank.names == ("cat/1.png",)
    assert bank.skipped == (("cat/pipe.png", "is not a regular file"),)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_folder_that_cannot_be_opened_is_told(tmp_path):
    put(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "shut").mkdir(mode=0)
    assert open_folder(tmp_path)["all"].skipped == (("cat/shut", "cannot be opened (Permission denied)"),)


def test_a_file_that_vanishes_or_is_damaged_is_an_unreadable_picture(tmp_path):
    put(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "2.png").write_bytes(b"")
    bank = open_folder(tmp_path)["all"]
    with pytest.raises(UnreadablePicture, match=r"'cat/2.png' is empty"):
        bank.load(1)
    (tmp_path / "cat" / "1.png").unlink()
    with pytest.raises(UnreadablePicture, match=r"'cat/1.png' cannot be read \(No such file"):
        bank.load(0)
    with pytest.raises(UnreadablePicture):
        bank.examples(torch.tensor([0]))


def test_what_is_not_a_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        open_folder(tmp_path / "missing")
    with pytest.raises(InputError, match="has no class folders"):
        open_folder(tmp_path)
    put(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"has pictures such as '1.png' but no class folders"):
        open_folder(tmp_path)


def test_the_order_does_not_come_from_the_file_system(tmp_path, monkeypatch):
    for i in np.random.default_rng(0).permutation(30):
        put(tmp_path / f"class{i % 3}" / f"{i}.png")
    bank = open_folder(tmp_path)["all"]
    assert list(bank.names) == sorted(bank.names)
