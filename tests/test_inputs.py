"""What commands are given, opened: devices by name, banks to learn from on a device."""

import numpy as np
import pytest
import torch

from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.data.source import open_source
from augforge.fit import FitOptions, fit_part
from augforge.generators.noise import Noise
from augforge.inputs import Inputs, default_representation, device_of, kind_of_pictures, on_device
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
    monkeypatch.setattr(
        "augforge.inputs.embed_bank", lambda part, bank, options, device, run_items: _features(bank, device)
    )
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
        with pytest.raises(InputError, match="expected a whole number of 64 bits"):
            Inputs("glyphs", seed=seed)


def _pictures(*shapes):
    return ArrayPictures(torch.zeros(len(shapes)).long(), ("a",), lambda row: _picture(shapes[row]), "here")


def _picture(shape):
    if shape is None:
        raise OSError("damaged")
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        ([(28, 28, 1)] * 3, "letters"),
        ([(32, 20, 1)], "letters"),
        ([(33, 20, 1)], "photographs"),
        ([(28, 28, 3)], "photographs"),
        ([(28, 28, 1)] * 20 + [(240, 320, 1)], "photographs"),  # the last row is among those looked at
        ([None, (28, 28, 1)], "letters"),
        ([None], "photographs"),
        ([], "photographs"),
    ],
)
def test_letters_are_small_and_grey_and_all_else_is_photographs(shapes, kind):
    assert kind_of_pictures(_pictures(*shapes)) == kind


def test_a_few_pictures_tell_what_a_source_holds():
    looked_at = []

    def picture(row):
        looked_at.append(row)
        return np.zeros((28, 28, 1), np.uint8)

    bank = ArrayPictures(torch.zeros(10_000).long(), ("a",), picture, "here")
    assert kind_of_pictures(bank) == "letters"
    assert (len(looked_at), looked_at[0], looked_at[-1]) == (8, 0, 9_999)


def test_glyphs_are_letters():
    assert kind_of_pictures(open_source("glyphs")["test"]) == "letters"


def test_letters_that_its_representation_takes_and_photos_for_all_else():
    letters, small, photographs = (_pictures(*[shape] * 3) for shape in ((28, 28, 1), (16, 16, 1), (90, 60, 3)))
    assert default_representation(letters) == "conv4-glyphs"
    assert default_representation(letters, letters) == "conv4-glyphs"
    assert default_representation(small) == "photos"  # which takes any size
    assert default_representation(letters, photographs) == "photos"
    assert default_representation(_pictures((28, 28, 1), (28, 27, 1))) == "photos"
