import pytest
import timm
import torch
from safetensors.torch import save_file

from augforge.parts import catalog
from augforge.parts.saving import load_part, open_part, save_part
from augforge.types import InputError, LackError

NAMES = ("vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050")


def _pictures():
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8) for shape in ((3, 90, 70), (1, 240, 300))]


@pytest.fixture(scope="module", params=NAMES)
def network(request, tmp_path_factory):
    """A name, the network with random weights, and the file of these."""
    with torch.random.fork_rng():
        net = timm.create_model(request.param, pretrained=False).eval()
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors"
    save_file(net.state_dict(), path)
    return request.param, net, path


def test_features_are_timms_own(network):
    name, net, path = network
    part = open_part(f"timm:{name}", {"weights": str(path)}, "representation")
    found = part.embed(_pictures())
    config = timm.data.resolve_data_config({}, model=net)
    transform = timm.data.create_transform(**config, is_training=False)
    from torchvision.transforms.functional import to_pil_image

    x = torch.stack([transform(to_pil_image(p.expand(3, -1, -1))) for p in _pictures()])
    net.reset_classifier(0)
    with torch.no_grad():
        expected = net(x)
    assert found.shape == expected.shape
    assert float(torch.cosine_similarity(found, expected).min()) > 0.999


def test_no_bit_depends_on_the_others_and_a_saved_one_goes_on(network, tmp_path, products):
    name, _, path = network
    part = open_part(f"timm:{name}", {"weights": str(path)}, "representation")
    with products():
        whole = part.embed(_pictures())
        assert torch.equal(part.embed(_pictures()[1:]), whole[1:])
    save_part(part, tmp_path / "part", "representation")
    assert torch.equal(load_part(tmp_path / "part", "representation").embed(_pictures()), part.embed(_pictures()))


def test_weights_that_are_missing_wrong_or_no_tensors_are_refused(tmp_path):
    for variable in ("convnext_atto", "vit_small_patch14_dinov2.lvd142m"):
        with pytest.raises(LackError, match=f"timm:{variable} are not on this machine; --download gets them"):
            open_part(f"timm:{variable}", None, "representation")
    (tmp_path / "a.pth").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"a.pth' cannot be read as tensors alone"):
        open_part("timm:convnext_atto", {"weights": str(tmp_path / "a.pth")}, "representation")
    save_file({"x": torch.zeros(3)}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"holds other weights than those of timm:convnext_atto"):
        open_part("timm:convnext_atto", {"weights": str(tmp_path / "b.safetensors")}, "representation")
    with pytest.raises(InputError, match="there is no such file"):
        open_part("timm:convnext_atto", {"weights": str(tmp_path / "none")}, "representation")
    with pytest.raises(InputError, match="timm has no network 'convnext_att'; the nearest is 'convnext_atto'"):
        catalog.make("timm:convnext_att", None, "representation")
    with pytest.raises(InputError, match="not fitted yet"):
        catalog.make("timm:convnext_atto", None, "representation").embed(_pictures())


def test_global_chance_does_not_move(network):
    state = torch.get_rng_state()
    open_part(f"timm:{network[0]}", {"weights": str(network[2])}, "representation")
    assert torch.equal(torch.get_rng_state(), state)
