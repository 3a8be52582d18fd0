"""Classical augmentation on a device: the tensor engine against kornia and torchvision v2, taken by turns.

uint8 RGB pictures that lie on the device, the recipe of `benchmarks/speed/classical.py`. The clock is the wall's, each
turn ends when the device has done all of it. kornia and our engine draw anew for each picture; torchvision does so only
where it is called for each picture, and with one call for the batch all of it gets the same change: less work.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from paired import paired
from torch import Tensor
from torchvision.transforms import v2

from augforge import chance
from augforge.generators.classical import Classical

COUNTS = {32: 8192, 84: 2048, 224: 512}
PER_PICTURE = 64  # pictures where a peer is called for each
ROUNDS = 9


def pictures(side: int, count: int, device: str) -> Tensor:
    """Smooth random pictures [count, 3, side, side] uint8."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    fine = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    return (fine * 255).round().to(torch.uint8)


def ours(x: Tensor, synchronise: Callable[[], None]) -> Callable[[], object]:
    """augforge: parameters drawn from keys, then applied."""
    recipe = Classical(brightness=0.2, contrast=0.2, hue=0.1, engine="tensor")
    keys = chance.row_keys(0, "benchmark", torch.arange(len(x)))
    return lambda: (recipe.apply(x, recipe.draw(keys)), synchronise())


def torchvision(x: Tensor, synchronise: Callable[[], None], each: bool) -> Callable[[], object]:
    """torchvision v2, a call for each picture or one for the batch."""
    transform = v2.Compose([
        v2.RandomAffine(40, (0.2, 0.2), (0.8, 1.2), 0.2, interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.2, 0.2, 0, 0.1),
    ])  # fmt: skip
    return lambda: ([transform(picture) for picture in x] if each else transform(x), synchronise())


def kornia(x: Tensor, synchronise: Callable[[], None]) -> Callable[[], object]:
    """kornia on the whole batch, as floats."""
    import kornia.augmentation as K

    transform = torch.nn.Sequential(
        K.RandomAffine(40.0, (0.2, 0.2), (0.8, 1.2), 0.2, p=1.0),
        K.RandomHorizontalFlip(0.5),
        K.ColorJitter(0.2, 0.2, 0.0, 0.1, p=1.0),
    )
    return lambda: (transform(x.float() / 255), synchronise())


def compare(device: str, smoke: bool, synchronise: Callable[[], None], add: Callable[[dict[str, Any]], None]) -> None:
    """A row for each size and peer: the median ratio of the peer's time to ours, its range, and pictures a second."""
    for side, count in COUNTS.items():
        many = pictures(side, 8 if smoke else count, device)
        few = many[: 2 if smoke else PER_PICTURE]
        peers: list[tuple[str, Tensor, Callable[[], object]]] = []
        if importlib.util.find_spec("kornia") is not None:
            peers.append(("kornia, whole batch", many, kornia(many, synchronise)))
        peers.append(("torchvision v2, one draw for the batch", many, torchvision(many, synchronise, False)))
        peers.append(("torchvision v2, per picture", few, torchvision(few, synchronise, True)))
        for name, x, peer in peers:
            found = paired(ours(x, synchronise), peer, 7 if smoke else ROUNDS, time.perf_counter)
            add({"case": f"classical, tensor engine, {side} px, {len(x)} pictures", "peer": name, **found,
                 "images_per_second": round(len(x) / found["seconds"]),
                 "peer_images_per_second": round(len(x) / found["peer_seconds"])})  # fmt: skip
