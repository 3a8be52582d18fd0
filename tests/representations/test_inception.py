import hashlib

import pytest
import torch
import torch.nn.functional as F
from torchvision import models
from torchvision.models import inception as published

from augforge.networks.layers import built
from augforge.representations.inception import open_inception
from augforge.types import InputError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A weights file in the published layout, with numbers that leave every branch alive."""
    net = built(lambda: models.inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False),
                torch.Generator().manual_seed(0))  # fmt: skip
    path = tmp_path_factory.mktemp("fid") / "weights.pth"
    torch.save(net.state_dict(), path)
    return path, net


class _TensorflowPools:
    """`torch.nn.functional` as the port of the original sees it: pools that leave padding out, a maximum at the end."""

    def __init__(self):
        self.pools = 0

    def __getattr__(self, name):
        return getattr(F, name)

    def avg_pool2d(self, x, **how):
        self.pools += 1
        if self.pools == 9:  # the last of the nine blocks that pool
            return F.max_pool2d(x, **how)
        return F.avg_pool2d(x, **how, count_include_pad=False)


def test_it_is_torchvisions_network_with_the_three_differences(file, monkeypatch):
    path, net = file
    x = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(1))
    found = open_inception(path).embed(x)
    patched = _TensorflowPools()
    monkeypatch.setattr(published, "F", patched)
    net.eval().fc = torch.nn.Identity()
    with torch.no_grad():
        large = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
        wanted = net(2 * large - 1)
        patched.pools = -100
        plain = net(2 * large - 1)
    assert found.shape == (1, 2048)
    assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    assert not torch.allclose(found, plain, rtol=1e-2, atol=1e-2 * float(plain.abs().max()))


def test_agrees_with_pytorch_fid(file, monkeypatch):
    theirs = pytest.importorskip("pytorch_fid.inception")
    path, net = file
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: net.state_dict())
    x = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = theirs.InceptionV3().eval()(x)[0].flatten(1)
    assert torch.allclose(open_inception(path).embed(x), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_it_tells_the_digest_of_its_file(file):
    assert open_inception(file[0]).sha256 == hashlib.sha256(file[0].read_bytes()).hexdigest()


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        open_inception(tmp_path / "absent.pth")
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read as tensors alone"):
        open_inception(tmp_path / "damaged.pth")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"lacks 'Conv2d_1a_3x3[.]conv[.]weight'; expected pytorch-fid's weights"):
        open_inception(tmp_path / "other.pth")
