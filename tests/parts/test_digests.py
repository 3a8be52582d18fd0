"""The digests of parts: what was kept under those of older versions is still known."""

import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.parts import catalog
from augforge.parts.saving import made_by
from augforge.representations.bank import MADE_BY, check_made_by
from augforge.representations.convnet import ConvNet
from augforge.types import InputError

# As the version before these classes moved computed them, of parts with default settings. Some have a setting more
# since, and with it another digest: posterior, hallucinator and gaussian `within_rows`, wang-hallucinator `embedding`.
OLD = {
    ("synthesizer", "nothing"): "f7a6cd0713597d86",
    ("synthesizer", "copies"): "7f08383c5a6d12e4",
    ("synthesizer", "noise"): "b17801f0e06ac9a9",
    ("synthesizer", "mixing"): "464660714d32bd8e",
    ("synthesizer", "calibration"): "d3b24cd6b853159c",
    ("synthesizer", "analogies"): "60336851ff268d80",
    ("synthesizer", "classical"): "546b7512546a2c9d",
    ("synthesizer", "posterior"): "c0a09736fb0908a5",
    ("synthesizer", "hallucinator"): "9dff5c792e14e769",
    ("synthesizer", "wang-hallucinator"): "d9641bd91bc48182",
    ("synthesizer", "delta-encoder"): "0122c5de9fc51628",
    ("synthesizer", "feature-gan"): "b8b90dabcef2b1fc",
    ("synthesizer", "feature-vae"): "247c3e05b8322cf5",
    ("synthesizer", "conditional-gan"): "7a4404cea2c2b94c",
    ("synthesizer", "image-gan"): "f3a465442f546bbf",
    ("synthesizer", "translation"): "d6489e40649843d7",
    ("classifier", "prototype"): "02581b7412540b6e",
    ("classifier", "simpleshot"): "986ceeb86d11a2a7",
    ("classifier", "matching"): "11e86f32dde52644",
    ("classifier", "pmn"): "b05f488bf261a6d1",
    ("classifier", "gaussian"): "5e1b791949edb3ab",
    ("classifier", "knn"): "af8028dc913c96b8",
    ("classifier", "logistic"): "2ae67c880f8f97cc",
    ("classifier", "cosine"): "a02c93b91e1624e3",
    ("classifier", "mlp"): "7adc37db60ca3952",
    ("representation", "conv4"): "6656ff59f481b479",
    ("representation", "resnet10"): "f6b91f06433ee0bc",
    ("representation", "resnet12"): "35cd877b7a3cec00",
    ("representation", "resnet18"): "8635f2bc47f0d255",
    ("representation", "torchvision:resnet18"): "47a42137cfef7f28",
}


@pytest.mark.parametrize(("kind", "name"), OLD)
def test_digests_are_those_of_the_version_before_the_classes_moved(kind, name):
    assert made_by(catalog.make(name, {}, kind)) == OLD[kind, name]


def test_a_digest_follows_name_settings_and_what_was_learnt():
    noise = catalog.make("noise")
    assert made_by(noise) != made_by(catalog.make("noise", {"scale": 2}))
    noise.factor_ = torch.eye(3)
    assert made_by(noise) == "9a4e6850f875f03f"  # as before the classes moved


def test_a_class_may_move(monkeypatch):
    before = made_by(ConvNet())
    monkeypatch.setattr(ConvNet, "__module__", "somewhere.else")
    for name in ("conv4", "resnet10", "resnet12", "resnet18"):
        monkeypatch.setitem(catalog.REPRESENTATIONS, name, "somewhere.else:ConvNet")
    assert made_by(ConvNet()) == before


def test_features_of_the_version_before_are_accepted_and_others_are_not():
    def bank(digest):
        return FeatureBank(torch.zeros(2, 4), torch.arange(2), ("a", "b"), "saved", groups={MADE_BY: (digest,) * 2})

    check_made_by(bank(OLD["representation", "conv4"]), ConvNet())
    with pytest.raises(InputError, match="were made with the weights 6656ff59f481b479"):
        check_made_by(bank(OLD["representation", "conv4"]), ConvNet(arch="resnet10"))
