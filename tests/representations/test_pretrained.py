import re

import pytest
import torch
from safetensors.torch import save_file

from augforge.networks.layers import built
from augforge.parts import catalog
from augforge.parts.saving import load_part, save_part
from augforge.representations.pretrained import Pretrained
from augforge.types import InputError, LackError

NAME = "shufflenet_v2_x0_5"  # the smallest: 5 MB


@pytest.fixture(scope="module")
def whole():
    from torchvision import models

    return built(lambda: models.get_model(NAME, weights=None), torch.Generator().manual_seed(0)).eval()


@pytest.fixture
def cache(tmp_path):
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    yield folder
    torch.hub.set_dir(before)


@pytest.fixture
def weights(whole, cache):
    from torchvision import models

    file = cache / models.get_model_weights(NAME).DEFAULT.url.rsplit("/", 1)[1]
    torch.save(whole.state_dict(), file)
    return file


def _pictures(channels=3):
    shape = (2, channels, 40, 50)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_features_are_what_goes_into_the_last_layer(weights, whole):
    from torchvision import models

    part = catalog.make(f"torchvision:{NAME}", None, "representation").fit(None, None)
    x = models.get_model_weights(NAME).DEFAULT.transforms()(_pictures())
    found = []
    handle = whole.fc.register_forward_hook(lambda module, given, out: found.append(given[0]))
    with torch.no_grad():
        whole(x)
    handle.remove()
    assert torch.allclose(part.embed(_pictures()), found[0], atol=1e-5)


def test_no_bit_of_a_picture_depends_on_the_others(weights, products):
    part = Pretrained(NAME, size=32).fit(None, None)
    x = torch.randint(0, 256, (19, 3, 40, 50), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with products():
        whole = part.embed(x)
        assert torch.equal(part.embed(x[7:9]), whole[7:9])
        assert torch.equal(part.embed(x.flip(0)), whole.flip(0))


def test_global_chance_does_not_move(weights):
    state = torch.get_rng_state()
    Pretrained(NAME).fit(None, None)
    assert torch.equal(torch.get_rng_state(), state)


def test_missing_weights_are_a_lack_with_the_command_that_gets_them(cache):
    with pytest.raises(LackError, match=f"or this command: python -c .*get_model\\('{NAME}', weights='DEFAULT'"):
        Pretrained(NAME).fit(None, None)


def test_a_local_file_and_a_saved_part(whole, tmp_path):
    state = {key: value.clone() for key, value in whole.state_dict().items() if not key.startswith("fc.")}
    save_file(state, tmp_path / "mine.safetensors")
    part = Pretrained(NAME, str(tmp_path / "mine.safetensors"), size=32).fit(None, None)
    x = part.embed(_pictures())
    assert x.shape == (2, 1024)
    assert torch.allclose(part.embed(list(_pictures())), x, atol=1e-5)
    assert torch.allclose(part.embed(_pictures() / 255), x, atol=1e-2)
    grey = _pictures(1)
    assert torch.allclose(part.embed(grey), part.embed(grey.expand(-1, 3, -1, -1)))
    assert part.short_side == round(32 * 256 / 224)
    assert Pretrained(NAME).short_side == 256
    save_part(part, tmp_path / "part", "representation")
    assert torch.equal(load_part(tmp_path / "part", "representation").embed(_pictures()), x)


def test_wrong_files_are_refused(whole, tmp_path):
    state = dict(whole.state_dict())
    path = tmp_path / "mine.pth"
    for found, said in (
        ({k: v for k, v in state.items() if k != "conv1.0.weight"}, "lacks 'conv1.0.weight'; expected the weights of"),
        ({**state, "conv1.0.weight": torch.zeros(3)}, r"holds 'conv1.0.weight' as \[3\]; expected \[24, 3, 3, 3\]"),
        ([1, 2], "is no table of tensors"),
        (re.compile("x"), "cannot be read as tensors alone"),
    ):
        torch.save(found, path)
        with pytest.raises(InputError, match=said):
            Pretrained(NAME, str(path)).fit(None, None)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read as tensors alone"):
        Pretrained(NAME, str(path)).fit(None, None)
    with pytest.raises(InputError, match="there is no such file"):
        Pretrained(NAME, str(tmp_path / "none")).fit(None, None)


def test_unknown_names_and_early_use_are_refused():
    with pytest.raises(InputError, match="no backbone 'resnet19'; the nearest is 'resnet1"):
        catalog.make("torchvision:resnet19", None, "representation")
    with pytest.raises(InputError, match="not fitted yet"):
        Pretrained(NAME).embed(_pictures())
    with pytest.raises(InputError, match="no linear layer"):
        Pretrained("squeezenet1_0").build({})


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "densenet121", "vgg11", "convnext_tiny", "swin_t"])
def test_every_family_has_a_last_layer_to_leave_out(name):
    part = Pretrained(name)
    part.build({})
    with torch.device("meta"):
        width = part.net_.to("meta")(torch.zeros(1, 3, 224, 224)).flatten(1).shape[1]
    expected = {
        "resnet18": 512,
        "vit_b_16": 768,
        "densenet121": 1024,
        "vgg11": 4096,
        "convnext_tiny": 768,
        "swin_t": 768,
    }
    assert width == expected[name]
