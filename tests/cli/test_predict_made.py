"""`predict --with NAME`: pictures that a method makes of those shown, shown beside them."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.prototype import Prototype
from augforge.data.source import open_source
from augforge.generators.calibration import Calibration
from augforge.generators.views import Views
from augforge.imagine import usual_share
from augforge.predict import add_made, load_predictor, make_predictor
from augforge.types import InputError

PART = ("--representation", "means")


class Deaf(Prototype):
    """Counts no weights."""

    counts_weights: ClassVar[bool] = False


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("blue", (30, 60, 210))):
        for i in range(2 if name == "red" else 1):
            pixels = np.clip(np.array(colour) + rng.normal(0, 30, (16 + i, 20, 3)), 0, 255).astype(np.uint8)
            path = tmp_path / "shown" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    for i in range(3):
        Image.new("RGB", (16, 16), (210, 50 + i, 30)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_made_pictures_are_shown_with_small_weights_and_are_saved(augforge, pictures, means):
    saved, new = pictures / "saved", pictures / "0.png"
    shown = ("predict", pictures / "shown", new, *PART)
    found = augforge(*shown, "--with", "views", "--made", 4, "--save", saved, "--json").json()
    assert found["rows"][0]["classes"][0]["class"] == "red"
    again = augforge("predict", saved, new, "--json").json()
    assert again["rows"] == found["rows"]
    support = load_predictor(saved).support
    assert support.y.tolist() == [0, 1, 1] + 4 * [0] + 4 * [1]
    real = torch.tensor([1.0, 2.0])
    together = usual_share("discriminative", real, pictures=True) * real
    for k in range(2):
        assert support.weight[3:][support.y[3:] == k].sum() == pytest.approx(float(together[k]), abs=1e-5)
    pool = augforge(*shown, "--with", "views", "--pool", pictures / "shown", "--json").json()
    assert pool["pool"] == 3


def test_from_python_as_from_the_command_line(augforge, pictures, means):
    saved = pictures / "saved"
    augforge("predict", pictures / "shown", *PART, "--with", "views", "--save", saved, "--seed", 5)
    bank = open_source(str(pictures / "shown"), None)["all"]
    plain = make_predictor(bank, Logistic(100.0, "l2"), means())
    more = add_made(plain, bank, Views(), seed=5)
    assert torch.equal(torch.as_tensor(load_predictor(saved).support.x), more.support.x)
    assert more.temperature == plain.temperature
    assert torch.equal(torch.as_tensor(more.support.x)[:3], plain.support.x)


def test_what_does_not_go_together_is_refused(augforge, pictures, means):
    shown, new = pictures / "shown", pictures / "0.png"
    assert "makes features" in augforge("predict", shown, new, *PART, "--with", "calibration").error()
    bank = open_source(str(shown), None)["all"]
    predictor = make_predictor(bank, Prototype(), means())
    with pytest.raises(InputError, match="a method for them"):
        add_made(predictor, bank, Calibration())
    with pytest.raises(InputError, match="counts no weights"):
        add_made(replace(predictor, classifier=Deaf()), bank, Views())
    rows = pictures / "rows.npz"
    np.savez(rows, features=np.eye(4, dtype=np.float32), labels=np.arange(4))
    assert "expected pictures" in augforge("predict", rows, rows, "--with", "views").error()
