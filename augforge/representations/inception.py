"""The Inception network of FID, as pytorch-fid has it, from a weights file that lies on this machine.

Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, in the form of 2015-12-05 that
Heusel et al. (NIPS 2017) computed the first FID with, ported by Seitzer ("pytorch-fid", 2020). It differs from
torchvision's in three ways: average pooling leaves out the padding, the pooling of the last block takes the maximum,
and there are 1,008 classes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge.networks.layers import built
from augforge.types import Bank, InputError

_SIDE = 299
_ROWS_AT_ONCE = 32
_CLASSES = 1008
_AVERAGED = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b")
_LARGEST = "Mixed_7c"


@dataclass
class FidInception:
    """Pictures to the 2,048 features that FID is computed from; `open_inception` makes one.

    Pictures are brought to 299 x 299 by bilinear interpolation without antialiasing and to -1..1, as pytorch-fid
    does it. `sha256` is that of the weights file.
    """

    space: ClassVar[str] = "image"

    sha256: str
    net_: nn.Module = field(repr=False)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn nothing."""
        return self

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], uint8 or floats in [0, 1], or a list of them, to features [n, 2048] float32."""
        parts = x.split(_ROWS_AT_ONCE) if isinstance(x, Tensor) else [picture[None] for picture in x]
        with torch.no_grad():
            return torch.cat([self.net_.to(part.device)(_prepared(part)).float() for part in parts])


def open_inception(path: Path) -> FidInception:
    """The network with the weights of pytorch-fid's file, pt_inception-2015-12-05-6726825d.pth, read as tensors only.

    Nothing is downloaded. Raises InputError for a file that is not there, is damaged or is of another network.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"--inception {str(path)!r} cannot be read ({error.strerror or error})") from error
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes many kinds
        reason = str(error).split("\n", 1)[0][:200]
        raise InputError(f"--inception {str(path)!r} cannot be read as tensors alone ({reason})") from error
    return FidInception(hashlib.sha256(data).hexdigest(), _network(state, repr(str(path))))


def _network(state: Any, file: str) -> nn.Module:
    """The network in the form of FID, with its last layer left out: [n, 3, 299, 299] in -1..1 -> [n, 2048]."""
    from torchvision import models

    net = built(lambda: models.inception_v3(weights=None, num_classes=_CLASSES, aux_logits=False, init_weights=False))
    wanted = net.state_dict()
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"--inception {file} is no table of tensors; expected pytorch-fid's weights")
    for key, value in wanted.items():
        found = state.get(key, value if key.endswith("num_batches_tracked") else None)
        if found is None or found.shape != value.shape:
            there = "lacks" if found is None else f"has {list(found.shape)} and not {list(value.shape)} as"
            raise InputError(f"--inception {file} {there} {key!r}; expected pytorch-fid's weights")
    net.load_state_dict({key: state.get(key, torch.zeros_like(value)) for key, value in wanted.items()})
    for name in _AVERAGED:
        setattr(net, name, _Repooled(getattr(net, name), _mean_without_padding))
    setattr(net, _LARGEST, _Repooled(getattr(net, _LARGEST), _largest))
    net.fc = nn.Identity()
    return net.eval().requires_grad_(False)


class _Repooled(nn.Module):
    """A block of torchvision's with its last branch, which pools, computed from another pooling."""

    def __init__(self, block: nn.Module, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.block, self.pool = block, pool

    def forward(self, x: Tensor) -> Tensor:
        """The block's channels, the last of them replaced."""
        branch = self.block.get_submodule("branch_pool")(self.pool(x))
        return torch.cat([self.block(x)[:, : -branch.shape[1]], branch], 1)


def _mean_without_padding(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _largest(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _prepared(x: Tensor) -> Tensor:
    """Pictures [n, c, h, w] as [n, 3, 299, 299] in -1..1."""
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    x = F.interpolate(x.expand(-1, 3, -1, -1), (_SIDE, _SIDE), mode="bilinear", align_corners=False)
    return 2 * x - 1
