"""The Inception network of FID: pytorch-fid's, with its weights from a file on this machine.

Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, in the form of 2015-12-05 that
Heusel et al. (NIPS 2017) computed the first FID with, ported by Seitzer ("pytorch-fid", 2020). pytorch-fid's own
`InceptionV3()` downloads its weights, so the network is put together here, from its blocks, as its `fid_inception_v3`
does it, and the weights are read from a local file whose SHA-256 is checked.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge.data.durable import read_file
from augforge.networks.layers import built
from augforge.networks.products import whole_tiles
from augforge.types import Bank, InputError, Space

FILE = "pt_inception-2015-12-05-6726825d.pth"  # the published name; it ends in the first digits of the SHA-256
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_SIDE = 299  # px
_TILE = 16  # pictures at a time on a CPU: more are no faster at this size
_DEVICE_TILE = 64  # and elsewhere, where a tile takes about 0.5 GB


@dataclass
class FidInception:
    """Pictures to the 2,048 features that FID is computed from; `open_inception` makes one.

    Pictures are brought to 299 x 299 by bilinear interpolation without antialiasing and to -1..1, as in pytorch-fid.
    """

    space: ClassVar[Space] = "image"

    sha256: str  # of the weights file
    net_: nn.Module = field(repr=False)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn nothing."""
        return self

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], uint8 or floats in [0, 1], or a list of them, to features [n, 2048] float32."""
        if not len(x):
            raise InputError("there are no pictures to embed")
        net, parts = self.net_.to(x[0].device), []
        with torch.no_grad():
            for start in range(0, len(x), _DEVICE_TILE):
                part = x[start : start + _DEVICE_TILE]
                if isinstance(part, list):  # of several sizes, so each is made large for itself
                    large = torch.cat([_prepared(picture[None]) for picture in part])
                    parts.append(whole_tiles(net, large, size=_TILE, device_size=_DEVICE_TILE))
                else:
                    parts.append(whole_tiles(lambda tile: net(_prepared(tile)), part, size=_TILE,
                                             device_size=_DEVICE_TILE))  # fmt: skip
        return torch.cat(parts).float()


def open_inception(path: Path, sha256: str = SHA256) -> FidInception:
    """The network with the weights of pytorch-fid's file, read as tensors only. Nothing is downloaded.

    `sha256` is what the file must have: 64 hexadecimal digits, by default those of the published file. Raises
    InputError for a file that is not there, has another SHA-256, is damaged or is of another network.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise InputError(f"--inception {str(path)!r} cannot be read ({error.strerror or error})") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise InputError(f"--inception {str(path)!r} has the SHA-256 {found}; expected {sha256}, that of pytorch-fid's "
                         f"{FILE}")  # fmt: skip
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes many kinds
        reason = str(error).split("\n", 1)[0][:200]
        raise InputError(f"--inception {str(path)!r} cannot be read as tensors alone ({reason})") from error
    return FidInception(found, _network(state, repr(str(path))))


def _network(state: object, file: str) -> nn.Module:
    """The network up to its last pooling, with the weights `state`: [n, 3, 299, 299] in -1..1 -> [n, 2048]."""
    net = built(_empty)
    wanted = net.state_dict()
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"--inception {file} is no table of tensors; expected pytorch-fid's weights")
    for key, value in wanted.items():
        found = state.get(key, value if key.endswith("num_batches_tracked") else None)
        if found is None or found.shape != value.shape:
            there = "lacks" if found is None else f"has {list(found.shape)} and not {list(value.shape)} as"
            raise InputError(f"--inception {file} {there} {key!r}; expected pytorch-fid's weights")
    net.load_state_dict({key: state.get(key, torch.zeros_like(value)) for key, value in wanted.items()})
    net.fc = nn.Identity()
    return net.eval().requires_grad_(False)


def _empty() -> nn.Module:
    """The network of pytorch-fid's `fid_inception_v3`, whose only other step is to download weights."""
    from pytorch_fid import inception as fid
    from torchvision import models

    net = models.inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    net.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
    net.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
    net.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
    net.Mixed_6b = fid.FIDInceptionC(768, channels_7x7=128)
    net.Mixed_6c = fid.FIDInceptionC(768, channels_7x7=160)
    net.Mixed_6d = fid.FIDInceptionC(768, channels_7x7=160)
    net.Mixed_6e = fid.FIDInceptionC(768, channels_7x7=192)
    net.Mixed_7b = fid.FIDInceptionE_1(1280)
    net.Mixed_7c = fid.FIDInceptionE_2(2048)
    return net


def _prepared(x: Tensor) -> Tensor:
    """Pictures [n, c, h, w] as [n, 3, 299, 299] in -1..1."""
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    x = F.interpolate(x.expand(-1, 3, -1, -1), (_SIDE, _SIDE), mode="bilinear", align_corners=False)
    return 2 * x - 1
