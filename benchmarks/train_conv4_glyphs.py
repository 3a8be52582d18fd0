"""Make the shipped weights `conv4-glyphs`: Conv4 trained by episodes on the built-in letters, with no data at all.

    python benchmarks/train_conv4_glyphs.py [--device cuda] [--steps 6000] [--out augforge/weights/conv4-glyphs]

Base classes are the letters of "train"; of ten looks at the Cyrillic letters of "val" the best is kept; the novel
scripts of "test" are not looked at. part.json tells the command, the seed and the validation accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from einops import rearrange

from augforge.data.glyphs import open_glyphs
from augforge.machine import machine, versions
from augforge.networks.pixels import load_pixels
from augforge.parts.saving import save_part
from augforge.representations.backbones import embedded
from augforge.representations.convnet import ConvNet
from augforge.representations.episodic import nearest_mean_score
from augforge.training.loop import Run

WEIGHTS = Path(__file__).parent.parent / "augforge" / "weights" / "conv4-glyphs"


def main() -> None:
    """Train, save, and write down how it was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--log", type=Path, help="a folder for the log and checkpoints")
    options = parser.parse_args()
    banks = open_glyphs()
    part = ConvNet(arch="conv4", method="episodic", augment="strokes", steps=options.steps, way=60, shot=5, query=5,
                   episodic_lr=2e-3)  # fmt: skip
    run = Run(options.device, options.log)
    part.fit(banks["train"], torch.Generator().manual_seed(options.seed), banks["val"], run)
    val = load_pixels(banks["val"], 0, "cpu")
    assert part.net_ is not None
    one, five = nearest_mean_score(embedded(part.net_, rearrange(val.x, "n h w c -> n c h w")), val)
    save_part(part, options.out, "representation")
    record = json.loads((options.out / "part.json").read_text())
    score = f"nearest mean on val, 20-way, 200 episodes: {one:.1f} % with 1 shot, {five:.1f} % with 5"
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    record["made_by"] = {"command": " ".join(["python", *sys.argv]), "seed": options.seed, "score": score,
                         "device": device, "machine": machine(), "versions": versions()}  # fmt: skip
    (options.out / "part.json").write_text(json.dumps(record, indent=2) + "\n")
    print(score)


if __name__ == "__main__":
    main()
