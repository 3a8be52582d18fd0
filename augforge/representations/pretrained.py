"""Any torchvision backbone with weights that lie on this machine: the features before the last linear layer."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from augforge.networks.layers import built
from augforge.networks.products import whole_tiles
from augforge.representations.state_files import given_file, read_state
from augforge.types import Bank, InputError, LackError, Space

_TILE = 16  # pictures at a time on a CPU
_DEVICE_TILE = 128  # and elsewhere: maps of 112 x 112 px fill the memory of a small device with more
# DenseNet's published weights have older names than its modules: denselayer1.norm.1.weight is norm1.weight now.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


@dataclass
class Pretrained:
    """A backbone that torchvision knows, with pretrained weights; nothing is learnt from base classes.

    Nothing is downloaded. Resizing, cutting and standardisation are those that torchvision documents for its default
    weights.
    """

    space: ClassVar[Space] = "image"
    any_size: ClassVar[bool] = True
    pretrained: ClassVar[bool] = True

    name: str = "resnet18"  # torchvision's name, as vit_b_16
    weights: str = ""  # a .safetensors or .pth file; "": torchvision's own in its cache, torch.hub.get_dir()
    size: int = 0  # side in px of the pictures that go in; 0: as the weights want it
    net_: nn.Module | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for a name that torchvision lacks, or a negative size."""
        if self.size < 0:
            raise InputError(f"size={self.size} was given; expected at least 0")
        _default_weights(self.name)

    @property
    def short_side(self) -> int:
        """Px of the shorter side before the middle is cut out."""
        usual: Any = _default_weights(self.name).transforms()
        return round(_side(self.name, self.size) * usual.resize_size[0] / usual.crop_size[0])

    def fit(self, base: Bank | None, rng: torch.Generator | None) -> Self:
        """Read the weights; nothing else that is given is used.

        Raises LackError where torchvision's cache lacks them, InputError for a file that is damaged or of another
        network.
        """
        state = read_state(self._file())
        self.build({"side": _side(self.name, self.size)})
        net = self._ready()
        state = {_OLD_DENSENET.sub(r"\1\2.", key): value for key, value in state.items()}
        wanted = net.state_dict()
        missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
        if missing:
            raise InputError(f"{str(self._file())!r} lacks {missing[0]!r}; expected the weights of {self.name}")
        wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
        if wrong:
            raise InputError(
                f"{str(self._file())!r} holds {wrong[0]!r} as {list(state[wrong[0]].shape)}; expected "
                f"{list(wanted[wrong[0]].shape)}, as in {self.name}"
            )
        net.load_state_dict({key: state.get(key, torch.zeros_like(value)) for key, value in wanted.items()})
        return self

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty network; `facts` has the side of its pictures for the record."""
        self.facts_ = dict(facts)
        self.net_ = built(lambda: _without_head(self.name)).eval().requires_grad_(False)

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], uint8 or floats in [0, 1], or a list of them, to features [n, d] float32.

        On the device of `x`, in bfloat16 under autocast. No bit of a picture's features depends on the other pictures.
        Grey pictures become colour. Raises InputError before `fit` and for no pictures.
        """
        net = self._ready()
        if not len(x):
            raise InputError("there are no pictures to embed")
        net = net.to(x[0].device).to(memory_format=torch.channels_last)
        prepare = _preprocessing(self.name, self.size)

        def forward(part: Tensor) -> Tensor:
            part = prepare(part.expand(-1, 3, -1, -1)) if isinstance(x, Tensor) else part
            return net(part.contiguous(memory_format=torch.channels_last)).flatten(1).float()

        features = []
        with torch.no_grad():
            for start in range(0, len(x), _DEVICE_TILE):
                part = x[start : start + _DEVICE_TILE]
                if isinstance(part, list):  # of several sizes, so each is prepared for itself
                    part = torch.cat([prepare(picture[None].expand(-1, 3, -1, -1)) for picture in part])
                features.append(whole_tiles(forward, part, size=_TILE, device_size=_DEVICE_TILE))
        return torch.cat(features)

    def _ready(self) -> nn.Module:
        if self.net_ is None:
            raise InputError(f"torchvision:{self.name} is not fitted yet; expected fit(base, rng) or a folder")
        return self.net_

    def _file(self) -> Path:
        """The file of the weights; LackError where it is neither given nor in the cache."""
        given = given_file(self.weights)
        if given is not None:
            return given
        path = Path(torch.hub.get_dir()) / "checkpoints" / _default_weights(self.name).url.rsplit("/", 1)[1]
        if not path.is_file():
            raise LackError(
                f"the weights of torchvision:{self.name} are not in {str(path.parent)!r}; --download gets them, or "
                f'this command: python -c "import torchvision; '
                f"torchvision.models.get_model('{self.name}', weights='DEFAULT')\""
            )
        return path


def _default_weights(name: str) -> Any:
    """Torchvision's default weights of a backbone, an entry of its enumeration; InputError for an unknown name."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InputError(f"torchvision has no backbone {name!r}; the nearest is {near!r}")
    return models.get_model_weights(name).DEFAULT


def _without_head(name: str) -> nn.Module:
    """The network with its last linear layer left out; InputError where it has none."""
    from torchvision import models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a start that will be overwritten
        net = models.get_model(name, weights=None)
    linear = [key for key, module in net.named_modules() if isinstance(module, nn.Linear) and "aux" not in key.lower()]
    if not linear:
        raise InputError(f"torchvision:{name} has no linear layer before which its features could be taken")
    parent, _, last = linear[-1].rpartition(".")
    setattr(net.get_submodule(parent), last, nn.Identity())
    return net


def _preprocessing(name: str, size: int) -> Callable[[Tensor], Tensor]:
    """Torchvision's preprocessing for its default weights, for another size in the same proportion."""
    weights = _default_weights(name)
    usual = weights.transforms()
    if not size:
        return usual
    return weights.transforms(crop_size=size, resize_size=round(size * usual.resize_size[0] / usual.crop_size[0]))


def _side(name: str, size: int) -> int:
    """The side in px of the pictures that a backbone takes."""
    return size or int(_default_weights(name).transforms().crop_size[0])
