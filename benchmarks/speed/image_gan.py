"""A step of training the image-conditional GAN, against the same step in plain float32, on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/image_gan.py [--json] [--rounds 9]

A step makes 64 pictures of 28 px letters, scores them and 64 real ones, and moves both networks. Ours runs in bfloat16
where that is fast, with channels last in memory; the other way is the same networks and batches in float32 with
channels first.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from paired import paired, show

from augforge.data.glyphs import open_glyphs
from augforge.generators.image_gan import ImageGan
from augforge.generators.image_gan.objective import PairGame
from augforge.generators.shared.gan.objective import Rules
from augforge.generators.shared.gan.trainer import Contest
from augforge.networks.pixels import load_pixels
from augforge.training import loop as training
from augforge.training.loop import Run


@contextmanager
def plainly() -> Iterator[None]:
    """Float32, and channels first wherever the networks ask for them last."""
    fast, contiguous = training.is_bfloat16_fast, torch.Tensor.contiguous
    training.is_bfloat16_fast = lambda device: False
    torch.Tensor.contiguous = lambda x, memory_format=None: contiguous(x)
    try:
        yield
    finally:
        training.is_bfloat16_fast, torch.Tensor.contiguous = fast, contiguous


def stepper(layout: torch.memory_format, batch: int) -> Callable[[], object]:
    """A function that takes a step of training on the built-in letters."""
    banks = open_glyphs()
    part = ImageGan(batch=batch)
    maker, judge = part._build({"channels": 1, "side": 28}, torch.Generator().manual_seed(0))
    for net in (maker, judge):
        net.to(memory_format=layout).requires_grad_(True).train()
    data, held_out = load_pixels(banks["train"], 0, "cpu"), load_pixels(banks["val"], 0, "cpu")
    policy = tuple(part.augment.split(","))
    game = PairGame(maker, judge, data, held_out, batch // 2, (1,), False, "turns", policy, part.noise, part.mismatched)
    contest = Contest(game, Rules(1000, part.rate, part.judge_rate, part.average), Run(), "speed", {}, 0)
    return contest._step


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for batch in (64, 128):
        ours, plain = stepper(torch.channels_last, batch), stepper(torch.contiguous_format, batch)

        def peer(step: Callable[[], object] = plain) -> None:
            with plainly():
                step()

        peer_name = "plain float32, channels first"
        rows.append({"case": f"training step, batch {batch}", "peer": peer_name, **paired(ours, peer, options.rounds)})
    show(rows, options.json)


if __name__ == "__main__":
    main()
