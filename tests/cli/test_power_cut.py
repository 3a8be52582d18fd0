"""A power cut loses what was not yet on the disk: names without bytes, files cut short. A run goes on from it."""

import json
import random
import shutil

import pytest

from augforge.data import durable
from augforge.synth import run, written
from augforge.synth.written import PARTIAL, is_torn, mark_synced, synced_units

ORDER = ("--per-class", 300, "--size", 24, "--workers", 1)


class PowerCut(BaseException):
    """The end of a run, at once."""


@pytest.fixture
def cut(monkeypatch):
    """Run something until the power is cut, after so many writes to its manifest; every second unit it waits for the
    disk. What is there then is what there was at the last wait, and of each file that came or changed later nothing,
    its name, a part, zeros or all, as the seed says.
    """

    def _cut(start, out, writes, seed):
        last, counted = out.with_name("on-disk"), []
        write, sync, mark = run.write_all, written.sync_files, run.mark_synced

        def synced(folder):
            sync(folder)
            shutil.rmtree(last, ignore_errors=True)
            shutil.copytree(out, last)

        def wrote(handle, data):
            write(handle, data)
            counted.append(len(data))
            if len(counted) == writes:
                raise PowerCut

        with monkeypatch.context() as patched:
            patched.setattr(written, "sync_files", synced)
            patched.setattr(run, "write_all", wrote)
            patched.setattr(run, "mark_synced", lambda path, done: None if done % 2 else mark(path, done))
            patched.setattr(run, "_SYNC_SECONDS", 0.0)
            with pytest.raises(PowerCut):
                start()
        if seed is not None:
            lose(out, last, random.Random(seed))

    return _cut


def lose(out, last, dice):
    """Put the folder `out` into a state that it may have after a power cut: `last` was on the disk, and so was what is
    waited for alone.
    """
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        if path.name == "run.json" or path.suffix == ".synced":
            continue
        old = last / path.relative_to(out)
        before, now = old.read_bytes() if old.exists() else None, path.read_bytes()
        if before == now:
            continue
        if before is not None and now.startswith(before):  # grew: as much of it as reached the disk, or zeros
            kept = dice.randrange(len(before), len(now) + 1)
            path.write_bytes(now[:kept] + bytes(dice.choice((0, len(now) - kept))))
        elif (how := dice.randrange(5)) == 0:
            path.unlink()
        else:
            part = (0, dice.randrange(len(now) + 1), 0, len(now))[how - 1]
            path.write_bytes(now[:part] + bytes(len(now) - part if how == 3 else 0))


@pytest.mark.parametrize(("sink", "seed"), [("folder", 3), ("folder", 6), ("npz", 1), ("webdataset", 0)])
def test_a_run_goes_on_after_a_power_cut(augforge, source, snapshot, tmp_path, cut, sink, seed):
    order = ("synth", source, *ORDER, "--format", sink, "--out")
    assert augforge(*order, tmp_path / "whole").code == 0
    writes = 1 + seed % {"folder": 10, "npz": 3, "webdataset": 1}[sink]
    cut(lambda: augforge(*order, tmp_path / "out"), tmp_path / "out", writes, seed)
    result = augforge(*order, tmp_path / "out", "--resume")
    assert result.code == 0, result.stderr
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_a_power_cut_costs_what_was_not_yet_on_the_disk(augforge, source, tmp_path, cut):
    order = ("synth", source, *ORDER, "--out", tmp_path / "out")
    cut(lambda: augforge(*order), tmp_path / "out", 7, 3)
    assert synced_units(tmp_path / "out" / PARTIAL / "manifest.jsonl") == 6
    assert augforge(*order, "--resume", "--json").json()["already"] == 6 * 64


def test_pictures_of_zeros_are_made_again_though_their_sizes_are_right(augforge, source, snapshot, tmp_path, cut):
    order = ("synth", source, *ORDER, "--out")
    cut(lambda: augforge(*order, tmp_path / "out"), tmp_path / "out", 5, None)
    for line in (tmp_path / "out" / PARTIAL / "manifest.jsonl").read_bytes().splitlines()[4 * 64 + 3 :]:
        row = json.loads(line)
        (tmp_path / "out" / row["file"]).write_bytes(bytes(row["bytes"]))
    assert augforge(*order, tmp_path / "out", "--resume").code == 0
    assert augforge(*order, tmp_path / "whole").code == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_a_mark_that_is_damaged_counts_as_none(tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    assert synced_units(manifest) == 0
    mark_synced(manifest, 7)
    assert synced_units(manifest) == 7
    for damaged in (b"", b"\0\0", b'"7"', b"[7]", b"\xff"):
        (tmp_path / "manifest.jsonl.synced").write_bytes(damaged)
        assert synced_units(manifest) == 0


def test_only_the_beginning_of_a_picture_is_taken_for_one_that_was_cut_off():
    assert all(is_torn(found, b"abc") for found in (b"", b"ab", b"ab\0\0\0", b"abc", b"\0\0"))
    assert not any(is_torn(found, b"abc") for found in (b"b", b"abcd", b"\0a", b"abc\0d"))


def test_a_file_has_its_name_once_its_bytes_are_on_the_disk(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(durable.os, "fsync", lambda handle: events.append("fsync"))
    replace = durable.os.replace
    monkeypatch.setattr(durable.os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    (tmp_path / "a.partial").write_bytes(b"new")
    durable.replace_file(tmp_path / "a.partial", tmp_path / "a")
    assert events == ["fsync", "replace", "fsync"]
    assert (tmp_path / "a").read_bytes() == b"new"
    durable.sync_files(tmp_path)
    with pytest.raises(FileNotFoundError):
        durable.sync_files(tmp_path / "none")
