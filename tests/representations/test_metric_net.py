"""Networks that learn a distance: they tell classes apart that they have not seen, in all three ways to reach them."""

import json

import numpy as np
import pytest
import torch

from augforge.classifiers.knn import Neighbours
from augforge.cli.main import main
from augforge.data.banks import ArrayPictures, take_rows
from augforge.parts import catalog
from augforge.parts.saving import load_part, made_by, save_part
from augforge.representations.metric_losses import LOSSES
from augforge.representations.metric_net import MetricNet
from augforge.training.loop import Run
from augforge.types import Examples, InputError

pytest.importorskip("pytorch_metric_learning")
QUICK = {"steps": 60, "lr": 2e-3, "average": 0.9, "augment": "none"}


@pytest.fixture(scope="module")
def slopes():
    """Forty-eight classes of faint patterns, each picture behind a slope of brightness that says nothing."""
    rng = np.random.default_rng(0)
    y = np.arange(48).repeat(6)
    pattern = rng.integers(0, 2, (48, 4, 4)).repeat(2, 1).repeat(2, 2)
    across, down = np.meshgrid(np.arange(8) - 3.5, np.arange(8) - 3.5)
    slope = rng.uniform(-14, 14, (2, len(y)))[:, :, None, None]
    pixels = 120 + 20 * pattern[y] + slope[0] * across + slope[1] * down + rng.normal(0, 4, (len(y), 8, 8))
    pixels = pixels.clip(0, 255).astype(np.uint8)[..., None]
    return ArrayPictures(torch.from_numpy(y), tuple(map(str, range(48))), pixels, "slopes")


def parts(slopes):
    """Three quarters of the classes, and the others."""
    return [take_rows(slopes, ((slopes.y % 4 > 0) == first).nonzero()[:, 0]) for first in (True, False)]


def learnt(slopes, loss, **settings):
    base, _ = parts(slopes)
    return catalog.make(loss, {**QUICK, **settings}, "representation").fit(base, torch.Generator().manual_seed(0))


def right(x, y, distance):
    """The share of rows that are nearest to one of their class."""
    found = []
    for i in range(len(y)):
        others = torch.arange(len(y)) != i
        scores = Neighbours(distance=distance).scores(Examples(x[others], y[others]), x[i : i + 1])
        found.append(int(scores.argmax()) == int(y[i]))
    return np.mean(found)


@pytest.mark.parametrize("loss", LOSSES)
def test_classes_that_were_not_seen_lie_apart(slopes, loss):
    part = learnt(slopes, loss)
    _, new = parts(slopes)
    x = part.embed(new.examples(torch.arange(72)).x)
    assert x.shape == (72, 128)
    if loss != "siamese":
        assert torch.allclose(x.norm(dim=1), torch.ones(72), atol=1e-5)
    pixels = new.examples(torch.arange(72)).x.float().flatten(1)
    before = right(pixels, new.y, "euclidean")
    assert right(x, new.y, "manhattan" if loss == "siamese" else "euclidean") > before + 0.1


def test_a_fit_is_a_function_of_the_generator_goes_on_after_a_stop_and_is_saved(slopes, tmp_path):
    state = torch.get_rng_state()
    whole = learnt(slopes, "triplet", steps=6, mining="random")
    assert torch.equal(torch.get_rng_state(), state)
    base, _ = parts(slopes)

    def stop(done):
        if done == 3:
            raise KeyboardInterrupt

    part = MetricNet(**{**QUICK, "steps": 6, "mining": "random"})
    with pytest.raises(KeyboardInterrupt):
        part.fit(base, torch.Generator().manual_seed(0), None, Run(folder=tmp_path, checkpoint_every=0, each=stop))
    part.fit(base, torch.Generator().manual_seed(0), None, Run(folder=tmp_path))
    assert made_by(part) == made_by(whole)
    save_part(whole, tmp_path / "saved", "representation")
    x = base.examples(torch.arange(5)).x
    assert torch.equal(load_part(tmp_path / "saved", "representation").embed(x), whole.embed(x))


def test_validation_classes_choose_the_weights_that_are_kept(slopes, tmp_path):
    base, val = parts(slopes)
    MetricNet(steps=10, augment="none").fit(base, torch.Generator().manual_seed(0), val, Run(folder=tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "score" in line]) == 10


def test_a_head_on_photographs_takes_pictures_of_any_size():
    rng = np.random.default_rng(0)
    y = torch.arange(3).repeat_interleave(3)
    pixels = rng.integers(0, 256, (9, 40, 50, 3), dtype=np.uint8)
    part = MetricNet(arch="photos-head", steps=3, width=16).fit(
        ArrayPictures(y, ("a", "b", "c"), pixels, "noise"), torch.Generator().manual_seed(0)
    )
    found = part.embed([torch.rand(3, 30, 60), torch.rand(3, 70, 20)])
    assert found.shape == (2, 16)
    assert part.any_size


@pytest.mark.parametrize(("settings", "says"), [
    ({"rows": 1}, "rows=1 was given; expected a whole number of at least 2"),
    ({"loss": "n-pairs", "swap": True}, "swap=True was given, and n-pairs does not read it"),
    ({"arch": "photos-head", "augment": "colour"}, "photos-head learns from features"),
])  # fmt: skip
def test_wrong_settings_are_refused(settings, says):
    with pytest.raises(InputError, match=says):
        MetricNet(**settings)


def test_one_picture_of_each_class_is_too_few(slopes):
    few = take_rows(slopes, torch.arange(0, 288, 6))
    with pytest.raises(InputError, match="2 base classes with 2 pictures each"):
        MetricNet().fit(few, torch.Generator())


def test_the_command_fits_it_and_a_benchmark_takes_it(slopes, tmp_path, capsys):
    source = tmp_path / "slopes.npz"
    np.savez(source, images=slopes.pixels, labels=slopes.y.numpy(), classes=np.array(slopes.classes))
    main(["fit", "contrastive", str(source), "--out", str(tmp_path / "net"), "--set", "steps=2", "--set", "margin=0.9"])
    main(["bench", str(source), "--representation", str(tmp_path / "net"), "--with", "copies", "--way", "5", "--shot",
          "1", "--trials", "4", "--json"])  # fmt: skip
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert {row["representation"] for row in rows} == {"net"}
    assert load_part(tmp_path / "net", "representation").margin == 0.9
