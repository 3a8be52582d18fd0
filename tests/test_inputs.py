"""What commands are given, opened: devices by name, banks to learn from on a device."""

import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.fit import FitOptions, fit_part
from augforge.generators.noise import Noise
from augforge.inputs import Inputs, device_of, on_device
from augforge.types import InputError, LackError


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


def test_devices_that_are_there(two_gpus):
    assert [device_of(name) for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1")] == [
        "cuda", "cpu", "cuda", "cuda:0", "cuda:1",
    ]  # fmt: skip
    assert device_of("auto", best="cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda:2", "cuda:7"])
def test_a_number_past_the_last_device_is_refused(two_gpus, name):
    with pytest.raises(LackError, match=f"--device {name}: this machine has cuda:0 to cuda:1"):
        device_of(name)


@pytest.mark.parametrize("name", ["cuda:-3", "cudafoo", "cuda:", "cuda:01", "cpu:1", "CUDA:x", ""])
def test_what_is_no_device_is_refused(two_gpus, name):
    with pytest.raises((InputError, LackError), match="expected auto"):
        device_of(name)


def test_features_are_learnt_from_on_the_device(two_gpus, monkeypatch, tmp_path):
    """Both what `fit` learns from and its validation classes lie where `--device` says: on "meta" here, for want of
    another."""
    seen = []
    monkeypatch.setattr("augforge.fit.device_of", lambda name: "meta")
    monkeypatch.setattr(Noise, "chooses", True, raising=False)
    monkeypatch.setattr(Noise, "fit", lambda self, base, rng, val=None: seen.extend([base, val]) or self)
    inputs = Inputs("glyphs", "noise", representation="conv4-glyphs", device="cuda")
    monkeypatch.setattr("augforge.inputs.embed_bank", lambda part, bank, options, device: _features(bank, device))
    fit_part(inputs, tmp_path / "out", FitOptions())
    assert [bank.x.device.type for bank in seen] == ["meta", "meta"]
    assert [bank.y.device.type for bank in seen] == ["meta", "meta"]


def _features(bank, device):
    assert device == "meta"  # embedded there, and handed back on the CPU
    return FeatureBank(torch.zeros(len(bank), 2), bank.y, tuple(bank.classes))


def test_pictures_and_what_is_on_the_cpu_stay(tmp_path):
    bank = FeatureBank(torch.zeros(3, 2), torch.tensor([0, 0, 1]), ("a", "b"))
    assert on_device(bank, "cpu") is bank
    assert on_device(bank, "meta").x.device.type == "meta"


def test_a_seed_has_64_bits():
    for seed in (2**64, -(2**63) - 1):
        with pytest.raises(InputError, match="expected a number of 64 bits"):
            Inputs("glyphs", seed=seed)
