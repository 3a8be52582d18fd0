"""The same bytes for any number of workers, batch size, container of the source, and division into shards."""

import json
import shutil

import pytest

ORDER = ("--per-class", 70, "--seed", 3)  # 140 rows: three units of a folder


@pytest.mark.parametrize("sink", ["folder", "webdataset", "npz"])
def test_workers_and_batch_sizes_change_nothing(augforge, source, snapshot, tmp_path, sink):
    order = ("--per-class", 260, "--format", sink, "--include-real") if sink == "npz" else (*ORDER, "--format", sink)
    if sink == "webdataset":
        order = ("--per-class", 600, "--format", sink)  # two shards
    kept = None
    for i, how in enumerate([(1, 7), (2, 64), (2, 7)]):
        out = tmp_path / f"out{i}"
        result = augforge("synth", source, "--out", out, *order, "--workers", how[0], "--batch-size", how[1])
        assert result.code == 0, result.err
        found = snapshot(out)
        assert (".contact_sheet.png" if sink == "folder" else "contact_sheet.png") in found
        assert kept is None or found == kept
        kept = found


def test_a_zip_gives_what_its_folder_gives(augforge, source, zip_of, snapshot, tmp_path):
    archive = zip_of(source, tmp_path / "source.zip")
    for name, place in (("a", source), ("b", archive)):
        assert augforge("synth", place, "--out", tmp_path / name, *ORDER).code == 0
    folder, zipped = snapshot(tmp_path / "a"), snapshot(tmp_path / "b")
    for name in ("run.json", "report.html"):  # which name the source
        folder.pop(name), zipped.pop(name)
    assert folder == zipped
    runs = [json.loads((tmp_path / name / "run.json").read_text()) for name in "ab"]
    for run in runs:
        run["order"].pop("source")
        run.pop("source_stamp")  # of files, which differ
    assert runs[0] == runs[1]


@pytest.mark.parametrize("turns", [(0, 1, 2), (2, 0, 1)])
def test_shards_in_any_order_are_the_whole(augforge, source, snapshot, tmp_path, turns):
    augforge("synth", source, "--out", tmp_path / "whole", *ORDER)
    for turn in turns:
        result = augforge("synth", source, "--out", tmp_path / "out", *ORDER, "--shards", f"{turn}/3", "--json").json()
        assert result["finished"] == (turn == turns[-1])
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


@pytest.mark.parametrize("sink", ["folder", "webdataset", "npz"])
def test_shards_of_three_machines_are_copied_together(augforge, source, snapshot, tmp_path, sink):
    order = ("--per-class", 1300 if sink == "webdataset" else 300, "--format", sink, "--with", "copies")
    augforge("synth", source, "--out", tmp_path / "whole", *order)
    for i in range(3):
        assert augforge("synth", source, "--out", tmp_path / f"machine{i}", *order, "--shards", f"{i}/3").code == 0
        shutil.copytree(tmp_path / f"machine{i}", tmp_path / "out", dirs_exist_ok=True)
    assert augforge("synth", source, "--out", tmp_path / "out", *order, "--shards", "1/3", "--resume").code == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_an_npz_whose_pixels_were_not_copied_is_an_error(augforge, source, tmp_path):
    order = ("--per-class", 300, "--format", "npz")
    for i in range(2):
        augforge("synth", source, "--out", tmp_path / f"machine{i}", *order, "--shards", f"{i}/2")
    shutil.copy(tmp_path / "machine0" / "manifest-0-of-2.jsonl", tmp_path / "machine1")
    result = augforge("synth", source, "--out", tmp_path / "machine1", *order, "--shards", "1/2", "--resume")
    assert "missing" in result.error()


def test_a_shard_manifest_that_was_cut_short_is_an_error(augforge, source, tmp_path):
    for i in range(2):
        augforge("synth", source, "--out", tmp_path / f"machine{i}", *ORDER, "--shards", f"{i}/2")
    lines = (tmp_path / "machine0" / "manifest-0-of-2.jsonl").read_bytes()
    (tmp_path / "machine1" / "manifest-0-of-2.jsonl").write_bytes(lines[:-40])
    result = augforge("synth", source, "--out", tmp_path / "machine1", *ORDER, "--shards", "1/2", "--resume")
    assert "cut short" in result.error()


def test_a_finished_shard_needs_resume_and_then_does_nothing(augforge, source, tmp_path):
    arguments = ("synth", source, "--out", tmp_path / "out", *ORDER, "--shards", "0/2")
    assert augforge(*arguments).code == 0
    assert "--resume" in augforge(*arguments).error()
    assert augforge(*arguments, "--resume", "--json").json() | {"seconds": 0, "images_per_second": 0} == {
        "made": 0, "real": 0, "already": 76, "repaired": 0, "per_class": {"cat": 70, "dog": 70}, "rejected": {},
        "skipped": [], "out": str(tmp_path / "out"),
        "bytes": 0, "seconds": 0, "images_per_second": 0, "finished": False,
        "dry_run": False, "contact_sheet": None,
    }  # fmt: skip
    assert augforge(*arguments[:-1], "1/2").code == 0
    assert "--resume" in augforge(*arguments[:-1], "1/2").error()


@pytest.mark.parametrize(("first", "then"), [("0/2", "0/3"), (None, "0/2"), ("0/2", None)])
def test_shards_of_another_division_are_refused(augforge, source, tmp_path, first, then):
    def arguments(shards):
        return ("synth", source, "--out", tmp_path / "out", *ORDER, *(("--shards", shards) if shards else ()))

    augforge(*arguments(first))
    if first is None:  # begun, not finished
        (tmp_path / "out" / ".partial").mkdir()
        (tmp_path / "out" / "manifest.jsonl").rename(tmp_path / "out" / ".partial" / "manifest.jsonl")
    assert "--shards" in augforge(*arguments(then), "--resume").error()


def test_a_larger_quota_keeps_what_the_smaller_one_made(augforge, source, snapshot, tmp_path):
    for count in (7, 11):
        augforge("synth", source, "--out", tmp_path / str(count), "--per-class", count)
    few, many = snapshot(tmp_path / "7"), snapshot(tmp_path / "11")
    pictures = [name for name in few if "/" in name]
    assert len(pictures) == 14
    assert all(many[name] == few[name] for name in pictures)


def test_a_class_alone_is_made_as_among_others(augforge, source, snapshot, tmp_path):
    augforge("synth", source, "--out", tmp_path / "both", "--per-class", 9)
    augforge("synth", source, "--out", tmp_path / "one", "--per-class", 9, "--class", "dog")
    both, one = snapshot(tmp_path / "both"), snapshot(tmp_path / "one")
    assert {n: d for n, d in both.items() if n.startswith("dog/")} == {n: d for n, d in one.items() if "/" in n}


def test_another_seed_makes_other_pictures(augforge, source, snapshot, tmp_path):
    for seed in (0, 1):
        augforge("synth", source, "--out", tmp_path / str(seed), "--per-class", 5, "--seed", seed)
    zero, one = snapshot(tmp_path / "0"), snapshot(tmp_path / "1")
    assert all(zero[name] != one[name] for name in zero if "/" in name)
