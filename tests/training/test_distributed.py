"""Several processes train one network, as torchrun starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from augforge.fit import FitOptions, fit_part
from augforge.inputs import Inputs
from augforge.training import distributed as processes
from augforge.types import InputError

AUGFORGE = Path(sys.executable).with_name("augforge")
SMALL = ("steps=1", "batch=8", "width=8", "judge_width=8", "noise=4", "code=4", "size=16")


def test_one_process_is_the_first_and_waits_for_none(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert processes.process_count() == 1
    assert processes.is_first()
    assert processes.device_of_process("cuda") == "cuda"
    with processes.process_group("cpu") as first:
        assert first
        processes.wait()


def test_what_trains_in_one_process_refuses_several(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for asked in ("cuda", "cuda:0", "cuda:5"):
        assert processes.device_of_process(asked) == "cuda:1"
    assert processes.device_of_process("cpu") == "cpu"
    assert not processes.is_first()
    with pytest.raises(InputError, match="2 processes were started, and conv4 is fitted in one"):
        fit_part(Inputs("glyphs", "conv4"), tmp_path / "out", FitOptions())


def test_torchrun_fits_one_part(tmp_path):
    settings = [word for setting in SMALL for word in ("--set", setting)]
    command = [str(AUGFORGE), "fit", "image-gan", "glyphs", "--json", "--out"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    both = subprocess.run([*launcher, *command, str(tmp_path / "two"), *settings], capture_output=True, text=True)
    assert both.returncode == 0, both.stderr
    assert json.loads(both.stdout)["name"] == "image-gan"  # the first process alone reports
    alone = subprocess.run([*command, str(tmp_path / "one"), *settings], capture_output=True, text=True, check=True)
    assert json.loads(alone.stdout)["kind"] == "synthesizer"
    first = [
        json.loads((tmp_path / name / "training/log.jsonl").read_text().splitlines()[0]) for name in ("one", "two")
    ]
    assert first[1]["judge_loss"] == pytest.approx(first[0]["judge_loss"], rel=0.02)  # in bfloat16 where it is fast
    assert (tmp_path / "two/fitted.safetensors").exists()
