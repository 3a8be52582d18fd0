"""Steps of a training loop with made rows among the real ones, against the same loop with real rows, on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/online.py [--json] [--rounds 9]

A ratio of 0.9 says that the loop with `Online` takes nine steps where the plain one takes ten. Pictures: Conv4 of 64
channels at 32 px, batches of 64, and torchvision's ResNet-18 at 224 px, batches of 16, half of each batch made by
`Classical("photographs")` in the process that trains. Features: a network of one hidden layer of 1,024 on batches of
256 rows of 512 numbers, a quarter of them made of a support of 20 classes of 5 rows, by `support-gaussian`, and by
`posterior` on its base classes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torchvision
from paired import paired, show
from torch import Tensor, nn

from augforge.adapters.online import Online
from augforge.data.banks import FeatureBank
from augforge.generators.classical import Classical
from augforge.parts import catalog
from augforge.representations.backbones import Conv4
from augforge.types import Examples

CLASSES, WIDTH = 20, 512


def main() -> None:
    """Measure each case."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--rounds", type=int, default=9)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    rows = []
    for name, net, batches, online in cases(rng):
        measured = paired(loop(net, online), loop(net, batches), options.rounds)
        rows.append({"case": name, "peer": "the loop with real rows", **measured})
    show(rows, options.json)


def cases(rng: torch.Generator) -> Iterable[tuple[str, nn.Module, list[tuple[Tensor, Tensor]], Online]]:
    """The name, network, real batches and batches with made rows of each case."""
    convnet = nn.Sequential(Conv4(3), nn.Flatten(), nn.LazyLinear(CLASSES))
    resnet = torchvision.models.resnet18(num_classes=CLASSES)
    for name, net, n, size, steps in (("Conv4, 32 px", convnet, 64, 32, 8), ("ResNet-18, 224 px", resnet, 16, 224, 1)):
        x = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=rng)
        pictures = [(x, torch.randint(0, CLASSES, (n,), generator=rng))] * steps
        yield name, net, pictures, Online(pictures, Classical("photographs"), 0.5)
    centres = torch.randn(60, WIDTH, generator=rng)
    y = torch.arange(60).repeat_interleave(30)
    base = FeatureBank(
        (centres[y] + torch.randn(len(y), WIDTH, generator=rng)).relu(), y, tuple(str(k) for k in range(60))
    )
    few = torch.arange(CLASSES).repeat(5)
    support = Examples(
        (torch.randn(CLASSES, WIDTH, generator=rng)[few] + torch.randn(len(few), WIDTH, generator=rng)).relu(), few
    )
    head = nn.Sequential(nn.Linear(WIDTH, 1024), nn.ReLU(), nn.Linear(1024, CLASSES))
    features = [(torch.randn(256, WIDTH, generator=rng), torch.randint(0, CLASSES, (256,), generator=rng))] * 32
    for method, settings in (("support-gaussian", {}), ("posterior", {"transform": "sqrt", "shrinkage": 0.4})):
        part = catalog.make(method, settings).fit(base, rng)
        yield f"features, {method}", head, features, Online(features, part, 0.25, support=support)


def loop(net: nn.Module, batches: Iterable) -> Callable[[], None]:
    """An epoch of training on batches (x, y) or (x, y, weight)."""

    def epoch() -> None:
        optimiser = torch.optim.SGD(net.parameters(), 0.01)
        for x, y, *weight in batches:
            x = x if x.is_floating_point() else x.float().div_(255)
            loss = nn.functional.cross_entropy(net(x), y, reduction="none")
            optimiser.zero_grad()
            (loss * weight[0] if weight else loss).mean().backward()
            optimiser.step()

    return epoch


if __name__ == "__main__":
    main()
