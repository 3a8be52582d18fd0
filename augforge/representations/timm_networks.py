"""Any of timm's thousand backbones (DINOv2, SigLIP, ConvNeXt, ...) with weights that lie on this machine.

Wightman, "PyTorch image models", 2019.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from augforge.networks.photographs import Interpolation, embedded_each, resized_middle
from augforge.representations.state_files import given_file, read_state
from augforge.types import Bank, InputError, LackError, Space


@dataclass
class TimmNetwork:
    """A backbone that timm knows, with pretrained weights; nothing is learnt from base classes.

    Size, cut, mean and spread of the pictures are those of timm's configuration of the weights. Nothing is downloaded.
    Differs from timm's own preprocessing: a picture is always scaled by its shorter side and cut in the middle.
    """

    space: ClassVar[Space] = "image"
    any_size: ClassVar[bool] = True
    pretrained: ClassVar[bool] = True

    name: str = "convnext_atto.d2_in1k"  # timm's name, with the tag of the weights or without
    weights: str = ""  # a .safetensors or .pth file; "": what lies in timm's cache, of Hugging Face or of torch.hub
    size: int = 0  # side in px of the pictures that go in; 0: as the weights want it
    net_: nn.Module | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for a name that timm lacks, or a negative size."""
        if self.size < 0:
            raise InputError(f"size={self.size} was given; expected at least 0")
        configuration(self.name)

    @property
    def short_side(self) -> int:
        """Px of the shorter side before the middle is cut out."""
        return int(self._side() / configuration(self.name)["crop_pct"])

    def fit(self, base: Bank | None, rng: torch.Generator | None) -> Self:
        """Read the weights; nothing that is given is looked at.

        Raises LackError where they are not on this machine, InputError for a file that is damaged or of another
        network.
        """
        import timm

        path = self._file()
        state = read_state(path)
        overlay = {"state_dict": state, "file": None, "url": None, "hf_hub_id": None}
        self.build({"side": self._side()})
        empty = self._ready()
        try:
            # timm fits weights to the network, as those of another size; it begins with a random start. Only with its
            # last layer, which goes then, does it ask for every tensor.
            with torch.random.fork_rng(devices=[]):
                net: Any = timm.create_model(self.name, pretrained=True, pretrained_cfg_overlay=overlay,
                                             **self._shape())  # fmt: skip
            net.reset_classifier(0)
        except Exception as error:  # of many kinds, one for each family of networks
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{str(path)!r} holds other weights than those of timm:{self.name} ({reason})") from error
        empty.load_state_dict(net.state_dict())
        return self

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty network for pictures of facts["side"] px."""
        import timm

        self.facts_ = dict(facts)
        # In full, with its random start: some networks compute tables that no file of weights holds.
        with torch.random.fork_rng(devices=[]):
            net = timm.create_model(self.name, pretrained=False, num_classes=0, **self._shape())
        self.net_ = net.eval().requires_grad_(False)

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], uint8 or floats in [0, 1], or a list of [c, h, w], to features [n, d] float32.

        On the device of `x`, in bfloat16 under autocast. No bit of a picture's features depends on the other pictures.
        Grey pictures become colour. Raises InputError before `fit`.
        """
        device = x[0].device if len(x) else torch.device("cpu")
        net = self._ready().to(device).to(memory_format=torch.channels_last)
        config, side = configuration(self.name), self._side()
        mean, spread = (torch.tensor(config[key], device=device)[:, None, None] for key in ("mean", "std"))
        interpolation: Interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
        prepare = partial(resized_middle, short_side=self.short_side, side=side, interpolation=interpolation)
        return embedded_each(lambda tile: net((tile - mean) / spread), x, prepare)

    def _ready(self) -> nn.Module:
        if self.net_ is None:
            raise InputError(f"timm:{self.name} is not fitted yet; expected fit(base, rng) or a folder from `fit`")
        return self.net_

    def _side(self) -> int:
        return self.size or int(configuration(self.name)["input_size"][-1])

    def _shape(self) -> dict[str, Any]:
        """What a network with positions must know; the others take any size."""
        return {"img_size": self.size} if self.size and configuration(self.name).get("fixed_input_size") else {}

    def _file(self) -> Path:
        """The file of the weights; LackError where it is neither given nor in a cache."""
        given = given_file(self.weights)
        if given is not None:
            return given
        found = _cached(configuration(self.name))
        if found is None:
            raise LackError(
                f"the weights of timm:{self.name} are not on this machine; --download gets them, or this command: "
                f"python -c \"import timm; timm.create_model('{self.name}', pretrained=True)\""
            )
        return found


def configuration(name: str) -> dict[str, Any]:
    """timm's configuration of a network's default weights, or of those of its tag; InputError for an unknown name."""
    import timm

    if not timm.is_model(name):
        known = timm.list_models()
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InputError(f"timm has no network {name!r}; the nearest is {near!r}")
    found = timm.models.get_pretrained_cfg(name)
    if found is None:
        raise InputError(f"timm has no pretrained weights of {name!r}; expected another tag, or none")
    return found.to_dict()


def _cached(config: dict[str, Any]) -> Path | None:
    """The file of pretrained weights in the cache of Hugging Face or of torch.hub."""
    from huggingface_hub import try_to_load_from_cache

    if config.get("hf_hub_id"):
        for file in (config.get("hf_hub_filename"), "model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(config["hf_hub_id"], file) if file else None
            if isinstance(found, str):
                return Path(found)
    if config.get("url"):
        path = Path(torch.hub.get_dir()) / "checkpoints" / config["url"].rsplit("/", 1)[1]
        return path if path.is_file() else None
    return None
