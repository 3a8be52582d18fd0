"""Archives are read in place, alike to the folder that they were made from; traps in member names are skipped."""

import io
import multiprocessing
import os
import pickle
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.archive import open_archive
from augforge.data.folder import open_folder
from augforge.data.notes import Note
from augforge.types import InputError, UnreadablePicture

NAMES = ["cat/1.png", "cat/sub/2.png", "dog/it's 🐕.png", "dog/new\nline.png"]


def encoded(level, size=(5, 4), kind="PNG"):
    file = io.BytesIO()
    Image.new("L", size, level).save(file, kind)
    return file.getvalue()


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def write_tar(path, members, kind="w", style=tarfile.PAX_FORMAT):
    with tarfile.open(path, kind, format=style) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write(path, members):
    return write_zip(path, members) if path.suffix == ".zip" else write_tar(path, members)


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_an_archive_equals_the_folder(tmp_path, kind):
    members = [(name, encoded(i)) for i, name in enumerate(NAMES)]
    for name, data in members:
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(data)
    ours = open_archive(write(tmp_path / kind, members[::-1]))["all"]
    folder = open_folder(tmp_path / "root")["all"]
    assert (ours.names, ours.classes, ours.y.tolist()) == (folder.names, folder.classes, folder.y.tolist())
    for row in range(len(NAMES)):
        assert ours.load(row)[1] == folder.load(row)[1]
        assert np.array_equal(ours.load(row)[0], folder.load(row)[0])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "pets/", "./", "./pets/"])
def test_the_folder_around_everything_is_left_off(tmp_path, method, top):
    members = [(top + name, encoded(1)) for name in ("train/cat/1.png", "val/cat/1.png", "test/dog/1.png")]
    for banks in (
        open_archive(write_zip(tmp_path / "a.zip", members, method)),
        open_archive(write_tar(tmp_path / "a.tar", members)),
    ):
        assert {split: bank.names for split, bank in banks.items()} == {
            "train": ("train/cat/1.png",),
            "val": ("val/cat/1.png",),
            "test": ("test/dog/1.png",),
        }
        assert (banks["test"].load(0)[0] == 1).all()


def test_one_class_alone_is_a_class(tmp_path):
    bank = open_archive(write_zip(tmp_path / "a.zip", [("cat/1.png", encoded(1))]))["all"]
    assert bank.classes == ("cat",)


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_in_every_style_of_tar(tmp_path, style):
    name = "cat/" + "x" * 60 + "/" + "y" * 80 + ".png"
    members = [("cat/1.png", encoded(1)), (name, encoded(9))]
    bank = open_archive(write_tar(tmp_path / "a.tar", members, style=style))["all"]
    assert bank.names == ("cat/1.png", name)
    assert (bank.load(1)[0] == 9).all()


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_names_that_lead_out_and_hidden_ones(tmp_path, kind):
    members = [
        (name, encoded(1)) for name in ("cat/1.png", "../evil.png", "cat/../../evil.png", "/etc/evil.png", "/evil.png")
    ]
    members += [("__MACOSX/cat/._1.png", b"x"), ("cat/.2.png", b"x"), ("cat/readme.txt", b"x"), ("cat/.DS_Store", b"")]
    with pytest.warns(Note) as said:
        bank = open_archive(write(tmp_path / kind, members))["all"]
    assert [str(one.message).partition(": ")[2] for one in said] == [
        "folders are left out, without pictures of a class: '__MACOSX'", "1 file is not read (1 .txt)"
    ]  # fmt: skip
    assert bank.names == ("cat/1.png",)
    assert {name for name, _ in bank.skipped} == {"../evil.png", "cat/../../evil.png", "/etc/evil.png", "/evil.png"}
    assert {reason for _, reason in bank.skipped} == {"has a name that leads out of the archive"}


def test_links_and_devices_are_skipped(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("cat/1.png")
        info.size = len(encoded(1))
        archive.addfile(info, io.BytesIO(encoded(1)))
        for name, kind in (
            ("cat/2.png", tarfile.SYMTYPE),
            ("cat/3.png", tarfile.LNKTYPE),
            ("cat/4.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "cat/1.png"
            archive.addfile(info)
    bank = open_archive(tmp_path / "a.tar")["all"]
    assert bank.names == ("cat/1.png",)
    assert bank.skipped == (
        ("cat/2.png", "is a link"),
        ("cat/3.png", "is a link"),
        ("cat/4.png", "is not a regular file"),
    )
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/1.png", encoded(1))
        info = zipfile.ZipInfo("cat/2.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "1.png")
    assert open_archive(tmp_path / "a.zip")["all"].skipped == (("cat/2.png", "is a link"),)


def test_other_compression_in_a_zip_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/1.png", encoded(1))
        archive.writestr("cat/2.png", encoded(1), zipfile.ZIP_LZMA)
    assert "method 14" in open_archive(tmp_path / "a.zip")["all"].skipped[0][1]


def test_empty_folders_in_an_archive_are_left_out(tmp_path):
    with pytest.warns(Note, match="without pictures of a class: 'empty'"):
        bank = open_archive(write_zip(tmp_path / "a.zip", [("cat/1.png", encoded(1)), ("empty/", b"")]))["all"]
    assert bank.classes == ("cat",)


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_unknown_suffixes_and_odd_folders_are_as_in_the_folder(tmp_path, kind, method):
    members = [(f"animals/{name}", encoded(i, (40, 30))) for i, name in enumerate(("cat/1", "cat/2.img", "dog/3.PNG"))]
    members += [("animals/cat/words", b"no picture"), ("animals/dog/notes.txt", b"x"), ("animals/empty/x.xml", b"<>"),
                ("labels/a.xml", b"<>"), ("readme", b"x")]  # fmt: skip
    for name, data in members:
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(data)
    write = write_tar if kind == "a.tar" else lambda path, rows: write_zip(path, rows, method)
    write(tmp_path / kind, members)
    found = []
    for opened in (lambda: open_archive(tmp_path / kind), lambda: open_folder(tmp_path / "root")):
        with pytest.warns(Note) as said:
            bank = opened()["all"]
        found.append(([str(one.message).partition(": ")[2] for one in said], bank.names, bank.classes))
        assert [level_of(bank, row) for row in range(3)] == [0, 1, 2]
    assert found[0] == found[1]
    assert found[0][1:] == (("cat/1", "cat/2.img", "dog/3.PNG"), ("cat", "dog"))


def test_of_two_members_with_one_name_the_last_counts(tmp_path):
    bank = open_archive(write_tar(tmp_path / "a.tar", [("cat/1.png", encoded(1)), ("cat/1.png", encoded(2))]))["all"]
    assert len(bank) == 1
    assert (bank.load(0)[0] == 2).all()


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_a_compressed_tar_is_refused_with_advice(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"decompress it to a \.tar first"):
        open_archive(path)


def test_a_gzipped_tar_under_another_name_is_refused(tmp_path):
    with pytest.raises(InputError, match="damaged or of another format"):
        open_archive(write_tar(tmp_path / "a.tar", [("cat/1.png", encoded(1))], "w:gz"))


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_a_damaged_archive_is_refused(tmp_path, kind):
    path = write(tmp_path / kind, [(f"cat/{i}.png", os.urandom(3000)) for i in range(5)])
    data = path.read_bytes()
    for cut in (0, 10, 600, 4096, 3584, len(data) // 2, 3 * 3584):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError):
            open_archive(path)
    path.write_bytes(b"no archive at all" * 100)
    with pytest.raises(InputError):
        open_archive(path)
    with pytest.raises(InputError, match="cannot be opened"):
        open_archive(tmp_path / f"missing-{kind}")


@pytest.mark.parametrize("size", [10**12, 2**62, 2**33, 10**9])
def test_a_tar_whose_name_is_longer_than_the_memory_is_refused(tmp_path, size):
    members = [("cat/1.png", encoded(1)), ("cat/" + "x" * 200 + ".png", encoded(9))]
    data = bytearray(write_tar(tmp_path / "a.tar", members, style=tarfile.GNU_FORMAT).read_bytes())
    at = data.index(b"././@LongLink")
    data[at + 124 : at + 136] = b"\x80" + size.to_bytes(11, "big")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    (tmp_path / "b.tar").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        open_archive(tmp_path / "b.tar")


@pytest.mark.parametrize(("size", "said"), [(2**64 - 1, "that no file has"), (2**63, "that no file has"), (2**40, "")])
def test_a_zip_member_of_an_absurd_size_is_skipped(tmp_path, size, said):
    """By the 64-bit field of its entry in the archive's index."""
    data = write_zip(tmp_path / "a.zip", [("cat/1.png", encoded(1)), ("cat/2.png", encoded(2))]).read_bytes()
    at, field = data.index(b"PK\x01\x02"), struct.pack("<HHQQ", 1, 16, size, size)
    name, extra = struct.unpack("<HH", data[at + 28 : at + 32])
    entry = data[at : at + 20] + b"\xff" * 8 + data[at + 28 : at + 30] + struct.pack("<H", len(field))
    entry += data[at + 32 : at + 46 + name] + field
    data = bytearray(data[:at] + entry + data[at + 46 + name + extra :])
    end = data.index(b"PK\x05\x06") + 12
    data[end : end + 4] = struct.pack("<I", struct.unpack("<I", data[end : end + 4])[0] + len(field) - extra)
    (tmp_path / "b.zip").write_bytes(data)
    bank = open_archive(tmp_path / "b.zip")["all"]
    assert (bank.load(len(bank) - 1)[0] == 2).all()
    if said:
        assert said in dict(bank.skipped)["cat/1.png"]
    else:
        with pytest.raises(UnreadablePicture, match="1,099,511,627,776 bytes, more than"):
            bank.load(0)


def test_a_damaged_member_is_an_unreadable_picture(tmp_path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = write_zip(tmp_path / "a.zip", [("cat/1.png", encoded(1, (64, 64)))], method)
        data = bytearray(path.read_bytes())
        data[30 + len("cat/1.png") + 20] ^= 0xFF
        path.write_bytes(data)
        bank = open_archive(path)["all"]
        with pytest.raises(UnreadablePicture, match=r"'cat/1.png' cannot be read \(the archive is damaged"):
            bank.load(0)


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_an_archive_that_changed_is_not_read_as_if_it_had_not(tmp_path, kind):
    bank = open_archive(write(tmp_path / kind, [("cat/1.png", encoded(1))]))["all"]
    write(tmp_path / kind, [("cat/1.png", encoded(1)), ("cat/2.png", encoded(2))])
    os.utime(tmp_path / kind, ns=(1, 1))
    with pytest.raises(UnreadablePicture, match="has changed since it was indexed"):
        bank.load(0)
    (tmp_path / kind).unlink()
    with pytest.raises(UnreadablePicture, match="No such file"):
        bank.load(0)


def level_of(bank, row):
    return int(bank.load(row)[0][0, 0, 0])


def _levels(bank, answers):
    answers.put([level_of(bank, row) for row in range(len(bank))])


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_pickling_threads_and_fork(tmp_path, kind):
    members = [(f"c{i % 4}/{i:03d}.png", encoded(i)) for i in range(100)]
    bank = open_archive(write(tmp_path / kind, members))["all"]
    expected = [int(name[-7:-4]) for name in bank.names]
    again = pickle.loads(pickle.dumps(bank))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: level_of(again, row), list(range(100)) * 3)) == expected * 3
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=_levels, args=(bank, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [level_of(bank, row) for row in range(100)] == expected
    assert [answers.get(timeout=20) for _ in workers] == [expected] * 2
    for worker in workers:
        worker.join()
    assert bank.examples(torch.arange(100)).x[:, 0, 0, 0].tolist() == expected
