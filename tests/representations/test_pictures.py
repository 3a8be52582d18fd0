import numpy as np
import pytest
import torch
from PIL import Image

from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.inputs import Inputs, open_bank
from augforge.networks.pixels import load_pixels, prepared
from augforge.representations.pictures import batch, statistics
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.synth.run_folder import RunOptions
from augforge.types import InputError


def _bank(n=12, classes=3, side=16, channels=3):
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, side, side, channels), generator=g, dtype=torch.uint8)
    groups = {"script": tuple("ab"[i % classes % 2] for i in range(n)), "turn": torch.zeros(n, dtype=torch.int64)}
    return ArrayPictures(torch.arange(n) % classes, tuple("xyz"[:classes]), pixels.numpy(), "here", groups=groups)


def test_the_table_holds_the_rows_of_each_class():
    bank = _bank(11)
    data = load_pixels(bank, 0, "cpu", "script+turn")
    assert data.counts.tolist() == [4, 4, 3]
    for c in range(3):
        assert data.table[c, : data.counts[c]].tolist() == bank.rows_of(c).tolist()
    assert data.groups.tolist() == [0, 1, 0]
    assert torch.equal(data.x, torch.from_numpy(bank.pixels))


def test_wrong_banks_are_refused():
    with pytest.raises(InputError, match=r"within='alphabet' was given; the columns are \['script', 'turn'\]"):
        load_pixels(_bank(), 0, "cpu", "alphabet")
    with pytest.raises(InputError, match="holds features"):
        load_pixels(FeatureBank(torch.rand(4, 2), torch.arange(4) % 2, ("a", "b")), 0, "cpu")
    with pytest.raises(InputError, match="the setting size=PX"):
        prepared([torch.zeros(3, 4, 5), torch.zeros(3, 5, 5)], 0)


def test_pictures_are_made_square():
    x = torch.arange(20, dtype=torch.uint8).repeat(1, 3, 10, 1)  # [1, 3, 10, 20], a ramp to the right
    small = prepared(x, 5)
    assert small.shape == (1, 3, 5, 5)
    assert small.dtype == torch.uint8
    assert (small[0, 0, 0] - torch.tensor([5, 7, 9, 11, 13])).abs().max() <= 1  # the middle of the ramp
    assert prepared([x[0], x[0, :, :, :12]], 8).shape == (2, 3, 8, 8)
    floats = prepared(x / 255, 5)
    assert floats.is_floating_point()
    assert torch.allclose(floats * 255, small.float(), atol=0.51)


@pytest.mark.parametrize("side", [5, 11, 16, 23, 40])
def test_a_size_means_the_same_to_synth_and_to_parts_that_learn(side, tmp_path):
    """A folder made square by `synth --with copies --size` and then read = the folder read with the setting `size`."""
    rng = np.random.default_rng(side)
    for i, (height, width) in enumerate([(16, 16), (16, 31), (40, 17), (23, 24), (9, 60), (11, 11)]):
        (tmp_path / "source" / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "source" / "abc"[i % 3] / f"{i}.png")
    inputs = Inputs(str(tmp_path / "source"), "copies")
    synth(Request(inputs, per_class=2, size=side), tmp_path / "square", RunOptions(workers=1))
    learnt, read = (load_pixels(open_bank(Inputs(str(tmp_path / source))), size, "cpu")
                    for source, size in (("source", side), ("square", 0)))  # fmt: skip
    assert learnt.x.shape == (6, side, side, 3)
    assert torch.equal(learnt.x, read.x)


@pytest.mark.parametrize("shape", [(16, 16), (9, 30), (40, 17)])
@pytest.mark.parametrize("side", [5, 12, 28])
def test_floats_are_resized_as_bytes_are(shape, side):
    x = torch.from_numpy(np.random.default_rng(side).integers(0, 256, (2, 3, *shape), dtype=np.uint8))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        floats = prepared((x / 255).to(dtype), side)
        assert floats.dtype == (dtype if shape == (side, side) else torch.float32)
        assert 0 <= float(floats.min()) <= float(floats.max()) <= 1
        coarse = 1.3 if dtype == torch.bfloat16 else 0  # what bfloat16 loses of a grey level
        assert (floats * 255 - prepared(x, side).float()).abs().max() <= 0.75 + coarse
    assert torch.equal(prepared(x[1:], side), prepared(x, side)[1:])


@pytest.mark.parametrize("augment", ["none", "crop", "colour", "strokes"])
def test_batches_are_a_function_of_the_generator(augment):
    data = load_pixels(_bank(), 0, "cpu")
    rows = torch.tensor([3, 3, 0, 11])
    a, b = (batch(data, rows, augment, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (4, 3, 16, 16)
    assert a.dtype == torch.float32
    assert 0 <= float(a.min()) <= float(a.max()) <= 1
    assert torch.equal(a[0], a[1]) == (augment == "none")


def test_crops_are_shifts_over_a_mirrored_border():
    data = load_pixels(_bank(), 0, "cpu")
    whole = data.x.permute(0, 3, 1, 2).float()
    padded = torch.nn.functional.pad(whole, [2, 2, 2, 2], "reflect") / 255
    rows = torch.arange(12).repeat(20)
    made = batch(data, rows, "crop", torch.Generator().manual_seed(1))
    seen = set()
    for row, picture in zip(rows.tolist(), made, strict=True):
        found = [
            (down, right, flip)
            for down in range(5)
            for right in range(5)
            for flip in (False, True)
            if torch.equal(picture.flip(2) if flip else picture, padded[row, :, down : down + 16, right : right + 16])
        ]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) == 50


def test_no_jitter_leaves_grey_grey():
    data = load_pixels(_bank(channels=1), 0, "cpu")
    assert batch(data, torch.arange(12), "colour", torch.Generator().manual_seed(0)).shape == (12, 1, 16, 16)


def test_statistics():
    data = load_pixels(_bank(), 0, "cpu")
    mean, deviation = statistics(data)
    x = data.x.double() / 255
    assert torch.allclose(mean.double(), x.mean((0, 1, 2)), atol=1e-6)
    assert torch.allclose(deviation.double(), x.std((0, 1, 2), correction=0), atol=1e-6)
