import hashlib

import pytest
import torch
from pytorch_fid import inception as theirs
from torchvision import models

from augforge.networks.layers import built
from augforge.representations.inception import FILE, SHA256, open_inception
from augforge.types import InputError


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A weights file in the published layout, with numbers that leave every branch alive."""
    net = built(lambda: models.inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False),
                torch.Generator().manual_seed(0))  # fmt: skip
    path = tmp_path_factory.mktemp("fid") / "weights.pth"
    torch.save(net.state_dict(), path)
    return path


def test_agrees_with_pytorch_fid(file, monkeypatch):
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: torch.load(file, weights_only=True))
    colour = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(1))
    grey = torch.randint(0, 256, (1, 1, 20, 20), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        net = theirs.InceptionV3().eval()
        wanted = torch.cat([net(x)[0].flatten(1) for x in (colour, grey.expand(-1, 3, -1, -1) / 255)])
    found = open_inception(file, _digest(file)).embed([colour[0], grey[0]])
    assert found.shape == (2, 2048)
    assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_nothing_but_the_published_file_is_taken(file):
    assert open_inception(file, _digest(file)).sha256 == _digest(file)
    with pytest.raises(InputError, match="no pictures"):
        open_inception(file, _digest(file)).embed(torch.zeros(0, 3, 8, 8))
    assert SHA256[:8] in FILE
    assert FILE in theirs.FID_WEIGHTS_URL
    with pytest.raises(InputError, match=f"has the SHA-256 {_digest(file)}; expected {SHA256}"):
        open_inception(file)


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        open_inception(tmp_path / "absent.pth")
    damaged, other = tmp_path / "damaged.pth", tmp_path / "other.pth"
    damaged.write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read as tensors alone"):
        open_inception(damaged, _digest(damaged))
    torch.save({"fc.weight": torch.zeros(3)}, other)
    with pytest.raises(InputError, match=r"lacks 'Conv2d_1a_3x3[.]conv[.]weight'; expected pytorch-fid's weights"):
        open_inception(other, _digest(other))
