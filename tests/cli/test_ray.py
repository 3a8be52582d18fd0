"""`--engine ray`: the same bytes as one process, also where workers and drivers are killed.

One cluster serves all tests but the last.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from augforge.adapters.ray import RayRunner
from augforge.bench.place import Place
from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe
from augforge.bench.run import run
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import take_rows
from augforge.data.source import open_source
from augforge.generators.copies import Copies
from augforge.inputs import Inputs
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.synth.run_folder import RunOptions
from augforge.types import InputError, LackError, UnreadablePicture

ray = pytest.importorskip("ray", reason="--engine ray needs the package ray")
ORDER = ("--per-class", 500, "--size", 48)  # 1,000 rows in 16 units
long = pytest.mark.skipif("AUGFORGE_FUZZ" not in os.environ, reason="starts a cluster or two of its own: make fuzz")


@pytest.fixture(scope="module")
def runner():
    """A runner of two workers, which all tests share."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    usual, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with RayRunner("ray", 2) as started:
        list(started.in_order(_square, 0, range(4)))
        assert ray.cluster_resources()["CPU"] == 2
        assert ray.cluster_resources()["object_store_memory"] <= 256 << 20
        yield started
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is usual
    names = {name for name in environment | os.environ if name.startswith(("RAY_", "OMP_", "OPENBLAS_", "PYTHON"))}
    assert not [name for name in names if environment.get(name) != os.environ.get(name)]


@pytest.fixture(scope="module")
def whole(augforge, folder_of, snapshot, tmp_path_factory):
    """A source, and the digests of what one process makes of it."""
    root = tmp_path_factory.mktemp("ray")
    source = folder_of(root / "source", {"cat": 30, "dog": 30}, (64, 64), ".jpg")
    assert augforge("synth", source, "--out", root / "out", *ORDER, "--workers", 1).code == 0
    return source, snapshot(root / "out")


@pytest.fixture
def zipped(source, zip_of, tmp_path) -> Path:
    return zip_of(source, tmp_path / "source.zip")


def _square(job, item):
    return item * item, os.getpid()


def _workers() -> list[int]:
    """The processes of Ray's workers that run something for the cluster that this process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            above = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1]
            if int(above) == os.getpid() and b"ray::augforge" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def _wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def _address() -> str:
    return "ray:" + ray.get_runtime_context().gcs_address


# Items


def test_results_come_in_order_from_several_processes(runner):
    found = list(runner.in_order(_later_is_faster, 20, range(20)))
    assert [value for value, _ in found] == [i * i for i in range(20)]
    assert os.getpid() not in {pid for _, pid in found}
    assert len({pid for _, pid in found}) == 2
    assert list(runner.in_order(_square, 0, [])) == []


def _later_is_faster(job, item):
    time.sleep((job - item) * 0.02)
    return item * item, os.getpid()


def test_a_worker_has_one_thread(runner):
    assert list(runner.in_order(_threads, "job", range(2))) == [(1, 1, "1", "job")] * 2


def _threads(job, item):
    import cv2
    import torch

    return torch.get_num_threads(), cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"], job


def test_an_exception_is_raised_at_its_item_and_the_rest_is_not_begun(runner, tmp_path):
    results = runner.in_order(_fail_at, (4, tmp_path), range(100))
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(UnreadablePicture, match=r"the picture '4.png' is torn") as caught:
        next(results)
    assert (caught.value.name, caught.value.exit_code) == ("4.png", InputError.exit_code)
    assert len(list(tmp_path.iterdir())) <= 4 + 2 * 3 * 2


def _fail_at(job, item):
    bad, folder = job
    (folder / str(item)).touch()
    if item == bad:
        raise UnreadablePicture(f"{item}.png", "is torn")
    return item


def test_only_a_few_items_are_begun_ahead(runner):
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    results = runner.in_order(_square, 0, items())
    for _ in range(3):
        next(results)
    assert len(taken) <= 3 + 2 * 3 * 2 + 1
    results.close()


def test_a_machine_with_other_packages_is_told_of(runner, monkeypatch):
    monkeypatch.setattr("augforge.adapters.ray.versions", lambda: {"numpy": "1.0"})
    with pytest.raises(LackError, match=r"has numpy \d\S+, and this machine 1.0; expected the same on all machines"):
        list(runner.in_order(_square, 0, range(3)))


def test_a_killed_worker_costs_its_item(runner, tmp_path):
    assert list(runner.in_order(_die_once_at, (5, tmp_path), range(12))) == list(range(12))
    assert len((tmp_path / "5").read_text()) == 2
    assert sum(len((tmp_path / str(i)).read_text()) for i in range(12)) == 13


def _die_once_at(job, item):
    last, folder = job
    with open(folder / str(item), "a") as tries:
        tries.write("x")
    if item == last and (folder / str(item)).stat().st_size == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_an_item_that_kills_every_worker_is_told_of(runner, monkeypatch):
    monkeypatch.setattr("augforge.adapters.ray._RETRIES", 0)
    with pytest.raises(LackError, match="killed 1 times at one item; is there enough memory"):
        list(runner.in_order(_die, 0, range(1)))


def _die(job, item):
    os.kill(os.getpid(), signal.SIGKILL)


# Runs


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_on_ray_is_that_of_one_process(augforge, runner, whole, snapshot, tmp_path, workers):
    arguments = ("synth", whole[0], "--out", tmp_path / "out", *ORDER, "--engine", "ray", "--workers", workers)
    assert augforge(*arguments, "--json").json()["made"] == 1000
    assert snapshot(tmp_path / "out") == whole[1]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["order"].keys().isdisjoint({"engine", "workers"})


@pytest.mark.parametrize("sink", ["webdataset", "npz"])
def test_every_format_is_that_of_one_process(augforge, runner, zipped, snapshot, tmp_path, monkeypatch, sink):
    order = ("--per-class", 600, "--include-real", "--format", sink, "--size", 16)
    for name, how in (("one", ("--workers", 1)), ("ray", ("--engine", "ray"))):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)  # which the workers have not done
        assert augforge("synth", f"../{zipped.name}", "--out", "out", *order, *how).code == 0
    assert snapshot(tmp_path / "ray" / "out") == snapshot(tmp_path / "one" / "out")


def test_a_network_and_what_rejects_its_pictures_go_to_the_workers(augforge, runner, snapshot, tmp_path):
    classes = [argument for name in open_source("glyphs", None)["train"].classes[:2] for argument in ("--class", name)]
    order = ("--with", "image-gan-glyphs", "--per-class", 10, *classes, "--max-per-class", 3)
    order = (*order, "--reject", "conv4-glyphs", "--tries", 100, "--device", "cpu")
    for name, engine in (("one", "processes"), ("ray", "ray")):
        result = augforge("synth", "glyphs", "--out", tmp_path / name, *order, "--workers", 1, "--engine", engine)
        assert result.code == 0, result.err
    assert snapshot(tmp_path / "ray") == snapshot(tmp_path / "one")


def test_a_run_whose_worker_is_killed_is_that_of_one_process(
    augforge, runner, whole, snapshot, tmp_path, monkeypatch
):  # fmt: skip
    killed = []

    def kill_one(self, done, total, what=""):
        if not killed:
            killed.append(_wait_for(_workers)[0])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr("augforge.cli.options.Progress.update", kill_one)
    result = augforge("synth", whole[0], "--out", tmp_path / "out", *ORDER, "--engine", "ray", "--json").json()
    assert (result["made"], result["finished"], len(killed)) == (1000, True, 1)
    assert snapshot(tmp_path / "out") == whole[1]


def test_from_python(runner, source, tmp_path):
    request = Request(Inputs(str(source)), per_class=3)
    for name, options in (("one", RunOptions(workers=1)), ("ray", RunOptions(engine="ray", workers=2))):
        assert synth(request, tmp_path / name, options).made == 6
    for path in (tmp_path / "one").glob("*/*.png"):
        assert (tmp_path / "ray" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match="--engine 'sparc' was given"):
        RunOptions(engine="sparc")


@long
def test_a_run_whose_driver_is_killed_goes_on_with_either_engine(augforge, runner, whole, snapshot, tmp_path):
    arguments = ("synth", whole[0], "--out", tmp_path / "out", *ORDER, "--engine", _address(), "--workers", 1)
    growing = tmp_path / "out" / ".partial" / "manifest.jsonl"
    driver = subprocess.Popen([sys.executable, "-m", "augforge.cli.main", *map(str, arguments)], cwd=tmp_path)
    try:
        _wait_for(lambda: driver.poll() is not None or (growing.exists() and growing.stat().st_size))
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == -signal.SIGKILL
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    for out, how in (("out", ("--engine", "ray")), ("other", ("--workers", 1))):
        again = augforge("synth", whole[0], "--out", tmp_path / out, *ORDER, "--resume", *how, "--json").json()
        assert again["already"] >= 64
        assert again["already"] + again["made"] == 1000
        assert snapshot(tmp_path / out) == whole[1]


def test_features_are_embedded_by_workers_and_made_in_one_go(augforge, runner, picture_of, snapshot, tmp_path):
    source = tmp_path / "source"
    for i in range(70):
        (source / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture_of(i, (28, 28), 1)[..., 0]).save(source / "ab"[i % 2] / f"{i}.png")
    (source / "a" / "torn.png").write_bytes(b"no picture")
    order = ("--representation", "conv4-glyphs", "--with", "copies", "--per-class", 5, "--device", "cpu")
    for name, engine in (("one", "processes"), ("ray", "ray")):
        result = augforge("synth", source, "--out", tmp_path / name, *order, "--engine", engine)
        assert result.code == 0, result.err
        assert "torn.png" in result.err
    assert snapshot(tmp_path / "ray") == snapshot(tmp_path / "one")
    features = tmp_path / "one" / "features.safetensors"
    arguments = ("synth", features, "--out", tmp_path / "more", "--per-class", 1, "--with", "copies")
    again = augforge(*arguments, "--engine", "ray")
    assert again.error() == "--engine ray was given; expected none: features are made in one go"


def test_a_bank_embedded_by_workers_is_that_of_one_process(runner):
    bank = take_rows(open_source("glyphs", None)["train"], torch.arange(150))
    part = open_part("conv4-glyphs", None, "representation")
    for options in (BankOptions(), BankOptions(views="flip-shift")):
        alone = embed_bank(part, bank, options)
        shared = embed_bank(part, bank, options, run_items=runner.in_order)
        assert torch.equal(alone.x, shared.x)
        assert alone.names == shared.names


# Benchmarks


def _rows_of(out: Path) -> list[dict]:
    """The lines of a bench.jsonl, without how long each took."""
    rows = [json.loads(line) for line in (out / "bench.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_benchmark_of_pictures_is_that_of_one_process(augforge, runner, letters, snapshot, tmp_path, monkeypatch):
    monkeypatch.setattr("augforge.bench.predictions._NUMBERS_AT_ONCE", 4_000)  # several batches of episodes
    monkeypatch.setattr("augforge.bench.made_rows.PICTURES_AT_ONCE", 8)
    order = ("bench", letters, "--with", "classical", "--shot", "2", "--trials", 5, "--made", 2)
    for name, how in (("one", ()), ("ray", ("--engine", "ray", "--workers", 2))):
        assert augforge(*order, "--out", tmp_path / name, *how).code == 0
    assert _rows_of(tmp_path / "ray") == _rows_of(tmp_path / "one")
    assert snapshot(tmp_path / "ray" / "outcomes") == snapshot(tmp_path / "one" / "outcomes")


@dataclass
class DiesOnce(Prototype):
    """Class means, whose process is killed at the first batch that it sees."""

    mark: str = ""

    def scores(self, support, query):
        with contextlib.suppress(FileExistsError):
            Path(self.mark).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scores(support, query)


def test_a_benchmark_whose_worker_is_killed_is_that_of_one_process(runner, toys, snapshot, tmp_path, monkeypatch):
    monkeypatch.setattr("augforge.bench.predictions._NUMBERS_AT_ONCE", 2_000)
    mark, plan = tmp_path / "killed", BenchPlan(way=3, shots=(1,), query=5, trials=30)
    recipes = [Recipe(None, Copies(), DiesOnce(mark=str(mark)), made=2)]
    mark.touch()
    run(toys.feature_task(), recipes, plan, tmp_path / "one")
    mark.unlink()
    run(toys.feature_task(), recipes, plan, tmp_path / "ray", place=Place("cpu", runner.in_order))
    assert mark.exists()
    assert _rows_of(tmp_path / "ray") == _rows_of(tmp_path / "one")
    assert snapshot(tmp_path / "ray" / "outcomes") == snapshot(tmp_path / "one" / "outcomes")


def _of(folder: str) -> list[int]:
    """The processes that have a file of a folder in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if folder.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _folder_of(pid: int) -> str:
    """The folder of the cluster that a process has started, by the commands of its children."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            child = path.read_text().rpartition(")")[2].split()[1] == str(pid)
            if child and (found := re.search(rb"/tmp/augforge-[^/]+", (path.parent / "cmdline").read_bytes())):
                return found[0].decode()
    raise AssertionError("the process has no cluster")


@long
def test_ctrl_c_leaves_nothing_behind_and_the_run_goes_on(augforge, whole, snapshot, tmp_path):
    """A cluster of its own, in a process of its own."""
    arguments = ("synth", whole[0], "--out", tmp_path / "out", *ORDER, "--engine", "ray", "--workers", 1)
    growing = tmp_path / "out" / ".partial" / "manifest.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "augforge.cli.main", *map(str, arguments), "--batch-size", "1"],
        stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        _wait_for(lambda: process.poll() is not None or (growing.exists() and growing.stat().st_size))
        folder = _folder_of(process.pid)
        assert len(_of(folder)) >= 4
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert said.split("\n")[-2] == "augforge: interrupted; the same command with --resume goes on"
    assert "Traceback" not in said
    assert not _of(folder)
    assert not Path(folder).exists()
    assert augforge("synth", whole[0], "--out", tmp_path / "out", *ORDER, "--resume").code == 0
    assert snapshot(tmp_path / "out") == whole[1]
