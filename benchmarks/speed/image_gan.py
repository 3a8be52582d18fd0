"""Steps of training the image-conditional GAN, against the same steps in plain float32, on one thread.

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
from augforge.generators.image_gan.objective import PairObjective
from augforge.generators.shared.gan.discriminators import PairDiscriminator
from augforge.generators.shared.gan.networks import PictureGenerator
from augforge.generators.shared.gan.objective import GanSettings
from augforge.generators.shared.gan.trainer import train_gan
from augforge.networks.layers import built
from augforge.networks.pixels import load_pixels
from augforge.training import loop as training
from augforge.training.loop import Run

_STEPS = 20


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
    """A function that takes 20 steps of training on the built-in letters."""
    banks = open_glyphs()
    part = ImageGan(batch=batch)
    rng = torch.Generator().manual_seed(0)
    generator = built(lambda: PictureGenerator(1, 28, part.width, part.noise, part.code, part.reach), rng)
    discriminator = built(lambda: PairDiscriminator(1, 28, part.judge_width), rng)
    assert isinstance(generator, PictureGenerator)
    assert isinstance(discriminator, PairDiscriminator)
    for net in (generator, discriminator):
        net.to(memory_format=layout).requires_grad_(True).train()
    data, held_out = load_pixels(banks["train"], 0, "cpu"), load_pixels(banks["val"], 0, "cpu")
    policy = tuple(part.augment.split(","))
    objective = PairObjective(generator, discriminator, data, held_out, batch // 2, (1,), False, "turns", policy,
                              part.noise, part.mismatched)  # fmt: skip
    settings = GanSettings(_STEPS, part.rate, part.judge_rate, part.average, evaluations=0)
    return lambda: train_gan(objective, settings, Run(), "speed", {}, 0)


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
        rows.append({"case": f"training steps, batch {batch}", "peer": peer_name, **paired(ours, peer, options.rounds)})
    show(rows, options.json)


if __name__ == "__main__":
    main()
