"""Train a small network on a few glyphs a class, augmented in the loader, and test it on real ones.

    python docs/examples/training_loop.py

Ten classes of Georgian and Armenian letters, five pictures each to learn from and fifteen to be tested on. Prints the
accuracy without and with augmentation: one seed and few pictures, an example and not a result.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from augforge.adapters.loader import Augmented
from augforge.data.glyphs import open_glyphs
from augforge.generators.classical import Classical

CLASSES, SHOTS, EPOCHS = 10, 5, 60


def network(rng: torch.Generator) -> nn.Module:
    """Two convolutions and a linear layer for pictures [n, 1, 28, 28]; weights drawn from `rng`."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, CLASSES),
    )  # fmt: skip
    for weights in net.parameters():
        if weights.ndim > 1:
            nn.init.kaiming_normal_(weights, generator=rng)
    return net


def accuracy(data: Dataset, test: tuple[Tensor, Tensor]) -> float:
    """Train on `data` with a plain loader and loop; the share of the test pictures that is classified correctly."""
    rng = torch.Generator().manual_seed(0)
    net = network(rng)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    loader = DataLoader(data, batch_size=25, shuffle=True, generator=rng)
    for _ in range(EPOCHS):
        for pictures, labels in loader:
            loss = nn.functional.cross_entropy(net(pictures.float() / 255), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        return float((net(test[0].float() / 255).argmax(1) == test[1]).float().mean())


def main() -> tuple[float, float]:
    """The accuracies without and with augmentation, printed."""
    bank = open_glyphs()["test"]
    rows = torch.stack([bank.rows_of(label) for label in range(CLASSES)])  # [classes, 20]
    support = bank.examples(rows[:, :SHOTS].flatten())
    query = bank.examples(rows[:, SHOTS:].flatten())
    real = TensorDataset(support.x, support.y)
    plain = accuracy(real, (query.x, query.y))
    augmented = accuracy(Augmented(real, Classical("handwriting"), seed=0), (query.x, query.y))
    print(f"{CLASSES} classes, {SHOTS} real pictures each: {plain:.1%} without, {augmented:.1%} with augmentation")
    return plain, augmented


if __name__ == "__main__":
    main()
