"""Make the shipped part `image-gan-glyphs`: a GAN that turns one picture of a letter into others of that letter.

    python benchmarks/train_image_gan_glyphs.py --minutes 60 --run /tmp/run [--out augforge/weights/image-gan-glyphs]

It learns from the scripts of "train", turned and mirrored into eight classes each, and is looked at on the Cyrillic
letters of "val"; the novel scripts of "test" are not looked at. The same command goes on where it stopped. part.json
tells the command, the seed and what was measured on val, beside classical augmentation.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from image_gan import by_quality

from augforge.episodes.named_tasks import open_task
from augforge.generators.image_gan import ImageGan
from augforge.machine import machine, versions
from augforge.parts.saving import open_part, save_part
from augforge.training.loop import Run

WEIGHTS = Path(__file__).parent.parent / "augforge" / "weights" / "image-gan-glyphs"
_TOLD = ("frechet", "kid", "coverage", "diversity_within_class", "memorisation")


def main() -> None:
    """Train, save, and write down how it was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = open_task("glyphs")
    run = Run(options.device, options.run, options.minutes)
    part = ImageGan(symmetry="turns", steps=options.steps)
    part.fit(task.base, torch.Generator().manual_seed(options.seed), task.val, run)
    save_part(part, options.out)
    representation = open_part("conv4-glyphs", None, "representation")
    made, classical, _ = by_quality(part, task, task.val, representation)
    record = json.loads((options.out / "part.json").read_text())
    record["made_by"] = {"command": " ".join(["python", *sys.argv]), "seed": options.seed,
                         "score": {"on": "val, in conv4-glyphs", **{name: made[name] for name in _TOLD},
                                   "classical": {name: classical[name] for name in _TOLD}},
                         "machine": machine(), "versions": versions()}  # fmt: skip
    (options.out / "part.json").write_text(json.dumps(record, indent=2) + "\n")
    print(record["made_by"]["score"])


if __name__ == "__main__":
    main()
