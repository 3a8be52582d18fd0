"""`--engine` where no cluster is needed: what is refused, what is missing, and what a worker wrote elsewhere."""

import contextlib
import sys

import pytest

from augforge.adapters.ray import check_engine
from augforge.inputs import Inputs
from augforge.synth import run as synth_run
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.synth.run_folder import RunOptions
from augforge.types import InputError


@pytest.mark.parametrize("engine", ["Ray", "ray:", "ray://", "ray:host", "ray:http://a:1", "spark", "processes:2", ""])
def test_another_engine_is_refused(augforge, source, tmp_path, engine):
    said = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 1, "--engine", engine).error()
    assert "expected processes, ray, ray:auto, ray:HOST:PORT or ray://HOST:PORT" in said
    assert not (tmp_path / "out").exists()


def test_ray_that_is_missing_is_told_of_with_what_installs_it(augforge, source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ("synth", source, "--out", tmp_path / "out", "--per-class", 1, "--engine", "ray")
    assert augforge(*arguments).error(4) == "--engine ray needs the package ray: pip install 'augforge[ray]'"
    assert not (tmp_path / "out").exists()
    check_engine("processes")


@pytest.mark.parametrize("engine", ["ray:127.0.0.1:1", "ray://127.0.0.1:1", "ray:127.0.0.1:99999"])
def test_an_address_where_nothing_answers_is_told_of_at_once(augforge, source, tmp_path, engine):
    arguments = ("synth", source, "--out", tmp_path / "out", "--per-class", 1, "--engine", engine)
    assert augforge(*arguments).error(4).startswith(f"--engine {engine}: nothing answers there (")
    assert augforge(*arguments[:-2], "--resume").code == 0


def test_files_that_a_worker_wrote_elsewhere_are_told_of(augforge, source, tmp_path, monkeypatch):
    (tmp_path / "elsewhere" / ".partial").mkdir(parents=True)

    @contextlib.contextmanager
    def another_machine(engine, workers):
        def run_items(function, job, items, workers):
            making, sink = job
            sink.prepare([])
            for item in items:
                moved = synth_run.replace(sink, out=tmp_path / "elsewhere", format="npz", shape=(20, 24, 3))
                yield function((making, moved), item)

        yield run_items

    monkeypatch.setattr(synth_run, "run_items_by", another_machine)
    said = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 3).error(4)
    assert said.endswith("expected all machines to see --out at the same path")


def test_workers_have_no_device(source, tmp_path, monkeypatch):
    monkeypatch.setattr(synth_run, "device_of", lambda name, best: "cuda:0")
    request = Request(Inputs(str(source), device="cuda"), per_class=1)
    with pytest.raises(InputError, match="--engine ray and --device cuda:0 were given; expected --device cpu"):
        synth(request, tmp_path / "out", RunOptions(engine="ray"))
