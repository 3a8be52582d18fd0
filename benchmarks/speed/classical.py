"""Classical augmentation against albumentations, torchvision v2 and kornia, in pictures a second on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/classical.py [--json] [--rounds 9]

uint8 RGB pictures of 32, 84 and 224 px; the `keras` preset plus brightness, contrast and hue, bilinear, against
albumentations' Compose(Affine, HorizontalFlip, ColorJitter) with the same ranges. Each picture is augmented once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
import torch
from paired import paired, show
from torchvision.transforms import v2

from augforge import chance
from augforge.generators.classical import Classical

COUNTS = {32: 1500, 84: 400, 224: 100}


def pictures(side: int, count: int) -> np.ndarray:
    """Smooth random pictures [count, side, side, 3] uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (side, side), interpolation=cv2.INTER_CUBIC) for c in coarse])


def ours(x: np.ndarray, engine: str) -> Callable[[], object]:
    """augforge on the whole array: parameters drawn from keys, then applied."""
    recipe = Classical(brightness=0.2, contrast=0.2, hue=0.1, engine=engine)
    batch = torch.from_numpy(x).permute(0, 3, 1, 2)
    keys = chance.row_keys(0, "benchmark", torch.arange(len(x)))
    return lambda: recipe.apply(batch, recipe.draw(keys))


def albumentations(x: np.ndarray) -> Callable[[], object]:
    """albumentations, a call for each picture."""
    compose = A.Compose([
        A.Affine(rotate=(-40, 40), translate_percent=(-0.2, 0.2), shear=(-0.2, 0.2), scale=(0.8, 1.2),
                 border_mode=cv2.BORDER_REPLICATE, p=1),
        A.HorizontalFlip(p=0.5),
        A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0, hue=0.1, p=1),
    ])  # fmt: skip
    return lambda: [compose(image=picture)["image"] for picture in x]


def torchvision(x: np.ndarray) -> Callable[[], object]:
    """torchvision v2, a call for each picture: a call for the batch would draw once for all of it."""
    transform = v2.Compose([
        v2.RandomAffine(40, (0.2, 0.2), (0.8, 1.2), 0.2, interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.2, 0.2, 0, 0.1),
    ])  # fmt: skip
    batch = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    return lambda: [transform(picture) for picture in batch]


def kornia(x: np.ndarray) -> Callable[[], object]:
    """kornia on the whole batch, as floats."""
    import kornia.augmentation as K

    transform = torch.nn.Sequential(
        K.RandomAffine(40.0, (0.2, 0.2), (0.8, 1.2), 0.2, p=1.0),
        K.RandomHorizontalFlip(0.5),
        K.ColorJitter(0.2, 0.2, 0.0, 0.1, p=1.0),
    )
    batch = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    return lambda: transform(batch.float() / 255)


def main() -> None:
    """Measure every peer at every size."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--rounds", type=int, default=9)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    peers = {"albumentations": albumentations, "torchvision v2, per picture": torchvision}
    try:
        import kornia as _  # noqa: F401

        peers["kornia, whole batch"] = kornia
    except ImportError:
        print("kornia is not installed and is left out")
    rows = []
    for side, count in COUNTS.items():
        x = pictures(side, count)
        for engine in ("auto", "tensor"):
            for name, peer in peers.items():
                measured = paired(ours(x, engine), peer(x), options.rounds)
                rows.append({"case": f"{side} px, engine {engine}", "peer": name, **measured,
                             "images_per_second": round(count / measured["seconds"]),
                             "peer_images_per_second": round(count / measured["peer_seconds"])})  # fmt: skip
    show(rows, options.json)


if __name__ == "__main__":
    main()
