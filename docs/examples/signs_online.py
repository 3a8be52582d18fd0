"""Train a small network on ten photographs of each traffic sign, with made ones in the loop, and test it on new tracks.

    python docs/examples/signs_online.py FOLDER

FOLDER has a folder of pictures for each sign, whose names begin with the number of their track (GTSRB's; README.md of
the data set). Twenty signs, ten pictures each to learn from and up to twenty of other tracks to be tested on. Prints
the accuracy with real pictures alone and with half of every batch made by classical augmentation, and the steps a
second of both. One seed: an example and not a result.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from augforge.adapters.online import Batch, Online, ramp
from augforge.data.selection import Selection
from augforge.data.source import open_source
from augforge.generators.classical import Classical
from augforge.networks.pixels import load_pixels

CLASSES, SHOTS, TESTED, EPOCHS, SIZE = 20, 10, 20, 60, 32


def pictures(folder: str) -> tuple[TensorDataset, TensorDataset]:
    """Pictures [n, 3, 32, 32] uint8 and labels [n] to learn from, and those to be tested on: no track is in both."""
    bank = next(iter(open_source(folder, None, Selection(group_by=r"(\d+)_")).values()))
    bank = bank.only(bank.classes[:CLASSES])
    pixels, tracks = load_pixels(bank, SIZE, "cpu").x.permute(0, 3, 1, 2), bank.groups["group"]
    sides: tuple[list[int], list[int]] = [], []
    for label in range(CLASSES):
        rows = bank.rows_of(label).tolist()
        names = sorted({tracks[row] for row in rows})
        learnt = set(names[: (len(names) + 1) // 2])
        sides[0].extend([row for row in rows if tracks[row] in learnt][:: max(1, len(rows) // 2 // SHOTS)][:SHOTS])
        sides[1].extend([row for row in rows if tracks[row] not in learnt][:TESTED])
    train, test = (TensorDataset(pixels[rows], bank.y[rows]) for rows in map(torch.tensor, sides))
    return train, test


def network(rng: torch.Generator) -> nn.Module:
    """Three convolutions and a linear layer for pictures [n, 3, 32, 32]; weights drawn from `rng`."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, CLASSES))
    for weights in net.parameters():
        if weights.ndim > 1:
            nn.init.kaiming_normal_(weights, generator=rng)
    return net


def scaled(x: Tensor) -> Tensor:
    """Pictures [n, c, h, w] uint8 for the network: each of mean 0 and deviation 1, so that dark ones are no darker."""
    x = x.float()
    return (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1)


def train(batches: Iterable[Batch | list[Tensor]]) -> tuple[nn.Module, float]:
    """A network trained for `EPOCHS` over the batches, and its steps a second."""
    net = network(torch.Generator().manual_seed(0)).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    began, steps = time.perf_counter(), 0
    for _ in range(EPOCHS):
        for x, y, *weight in batches:
            loss = nn.functional.cross_entropy(net(scaled(x)), y, reduction="none")
            optimiser.zero_grad()
            (loss * weight[0] if weight else loss).mean().backward()
            optimiser.step()
            steps += 1
    return net.eval(), steps / (time.perf_counter() - began)


def main(folder: str) -> tuple[float, float]:
    """The accuracies with real pictures alone and with made ones among them, printed."""
    learnt, tested = pictures(folder)
    x, y = tested.tensors
    found = []
    for made in (False, True):
        loader = DataLoader(learnt, batch_size=50, shuffle=True, generator=torch.Generator().manual_seed(0))
        share = ramp(1.0, 0.5, EPOCHS * len(loader))  # all pictures are made at first, half of them at the end
        net, speed = train(Online(loader, Classical("photographs", flip_x=0.0), share) if made else loader)
        with torch.no_grad():
            found.append(float((net(scaled(x)).argmax(1) == y).float().mean()))
        print(f"{CLASSES} signs, {SHOTS} pictures each, {'made ones among them' if made else 'real ones alone'}: "
              f"{found[-1]:.1%} right, {speed:.0f} steps a second")  # fmt: skip
    return found[0], found[1]


if __name__ == "__main__":
    main(sys.argv[1])
