"""Conv4: a step of training by episodes and embedding pictures, against the plain way, on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/training.py [--json] [--rounds 9] [--accuracy 200]

A step is an episode of 28 px letters, 20-way, 5 support and 5 query rows. The peer is what a script on easyfsl does:
its Conv4 (convolution with bias, normalisation, ReLU, pooling), float32, support and query embedded in two calls, a
class mean in a loop over the classes, torch.cdist, Adam. `--accuracy N` trains both for N steps on `glyphs` with the
same episodes and prints their accuracy on the validation letters.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from einops import rearrange
from paired import paired, show
from torch import Tensor, nn

from augforge.data.glyphs import open_glyphs
from augforge.networks.layers import built, folded
from augforge.networks.pixels import load_pixels
from augforge.representations.backbones import Conv4, embedded
from augforge.representations.episodic import draw_episodes, nearest_mean_score, prototypical_loss
from augforge.training.loop import fast_arithmetic, minimise

WAY, SHOT, QUERY, RATE = 20, 5, 5, 1e-3


class PlainConv4(nn.Module):
    """Conv4 in the usual order, with biases."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(
                nn.Conv2d(1 if i == 0 else 64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)
            )
            for i in range(4)
        ]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 28, 28] to [n, 64]."""
        return self.blocks(x).flatten(1)


def our_step(net: nn.Module, optimiser: torch.optim.Optimizer) -> Callable[[Tensor], None]:
    """A step on pictures [way, shot + query, 1, 28, 28] uint8, as augforge takes it."""

    def step(x: Tensor) -> None:
        flat = rearrange(x, "way s c h w -> (way s) c h w").float().div(255)
        with fast_arithmetic("cpu"):
            features = net(flat.contiguous(memory_format=torch.channels_last))
        features = rearrange(features.float(), "(e way s) d -> e way s d", e=1, way=WAY)
        minimise(prototypical_loss(features[:, :, :SHOT], features[:, :, SHOT:]), optimiser)

    return step


def plain_step(net: nn.Module, optimiser: torch.optim.Optimizer) -> Callable[[Tensor], None]:
    """The same in the plain way."""

    def step(x: Tensor) -> None:
        x = x.float() / 255
        labels = torch.arange(WAY).repeat_interleave(SHOT)
        target = torch.arange(WAY).repeat_interleave(QUERY)
        optimiser.zero_grad()
        support = net(x[:, :SHOT].flatten(0, 1))
        means = torch.cat([support[torch.nonzero(labels == c)].mean(0) for c in range(WAY)])
        query = net(x[:, SHOT:].flatten(0, 1))
        F.cross_entropy(-torch.cdist(query, means).square(), target).backward()
        optimiser.step()

    return step


def both() -> tuple[tuple[nn.Module, Callable[[Tensor], None]], tuple[nn.Module, Callable[[Tensor], None]]]:
    """(network, step) of ours and of the plain way, started from the same seed."""
    ours = built(lambda: Conv4(1), torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last).train()
    plain = built(PlainConv4, torch.Generator().manual_seed(0)).train()
    return (
        (ours, our_step(ours, torch.optim.Adam(ours.parameters(), RATE))),
        (plain, plain_step(plain, torch.optim.Adam(plain.parameters(), RATE))),
    )


def accuracies(steps: int) -> None:
    """Train both with the same episodes, and print their validation accuracies to stderr."""
    banks = open_glyphs()
    train, val = load_pixels(banks["train"], 0, "cpu"), load_pixels(banks["val"], 0, "cpu")
    for name, (net, step) in zip(("augforge", "plain"), both(), strict=True):
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            rows = draw_episodes(train, (1, WAY, SHOT + QUERY), False, generator)[0]
            step(rearrange(train.x[rows], "way s h w c -> way s c h w"))
        one, five = nearest_mean_score(embedded(net.eval(), rearrange(val.x, "n h w c -> n c h w")), val)
        print(f"{name}: {one:.1f} % with 1 shot, {five:.1f} % with 5, after {steps} steps", file=sys.stderr)


def main() -> None:
    """Measure both cases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--accuracy", type=int, default=0, metavar="STEPS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    episode = torch.randint(0, 256, (WAY, SHOT + QUERY, 1, 28, 28), generator=generator, dtype=torch.uint8)
    (ours, step), (plain, peer) = both()
    rows = [{"case": "training step, 20-way 5-shot 5-query", "peer": "plain float32 (as easyfsl)",
             **paired(lambda: step(episode), lambda: peer(episode), options.rounds)}]  # fmt: skip
    pictures = torch.randint(0, 256, (2048, 1, 28, 28), generator=generator, dtype=torch.uint8)
    ours.eval(), plain.eval()

    def embed() -> None:
        with fast_arithmetic("cpu"):
            embedded(folded(ours).to(memory_format=torch.channels_last), pictures)

    def embed_plainly() -> None:
        with torch.no_grad():
            torch.cat([plain(part.float() / 255) for part in pictures.split(512)])

    rows.append({"case": "embedding 2,048 pictures", "peer": "plain float32",
                 **paired(embed, embed_plainly, options.rounds)})  # fmt: skip
    show(rows, options.json)
    if options.accuracy:
        accuracies(options.accuracy)


if __name__ == "__main__":
    main()
