"""Embedding folders of JPEG photographs with `photos`, decoding included, against a good script; and its peak memory.

    OMP_NUM_THREADS=1 python benchmarks/speed/embedding.py [--json] [--rounds 7] [--pictures 48] [--many 10000]

The pictures are crops of the `scenes` photographs: 256 to 512 px, and enlarged to 4,000 x 3,000. The peer decodes with
Pillow, resizes with torchvision and puts batches of 16 through timm's network, channels last, on the same one thread.
Pictures a second and the peak of the process's memory are printed beside the ratio. `--many` embeds so many files of
4,000 x 3,000 px (twelve pictures under as many names as it takes) and nothing else, for the memory of a large folder.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from paired import paired, show
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from augforge.data.source import open_source
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions

SIZES = {"256 to 512 px": None, "4,000 x 3,000 px": (4000, 3000)}


def main() -> None:
    """Measure each size."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--pictures", type=int, default=48)
    arguments.add_argument("--many", type=int, default=0, help="only the memory of so many large files")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    part = open_part("photos", None, "representation")
    if options.many:
        row = large_folder(part, options.many)
        print(json.dumps({"rows": [row]}) if options.json else row)
        return
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    net.load_state_dict(part.net_.state_dict())
    net = net.to(memory_format=torch.channels_last)
    rows = []
    for case, size in SIZES.items():
        count = options.pictures if size is None else options.pictures // 4
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), count, size)
            files = sorted(Path(folder).rglob("*.jpg"))

            def ours(folder: str = folder) -> Tensor:
                bank = open_source(folder, None)["all"]
                return embed_bank(part, bank, BankOptions(precision="float32")).x

            def peer(files: list[Path] = files) -> Tensor:
                return script(net, files)

            assert torch.allclose(ours(), peer(), rtol=0.05, atol=0.1)
            begun = time.perf_counter()
            ours()
            a_second = count / (time.perf_counter() - begun)
            measured = paired(ours, peer, options.rounds)
        rows.append({"case": case, "peer": f"Pillow, torchvision, timm {timm.__version__}", **measured,
                     "pictures_a_second": round(a_second, 1), "peak_gib": peak()})  # fmt: skip
    show(rows, options.json)


def large_folder(part: Any, count: int) -> dict[str, Any]:
    """How fast, and in how much memory, `count` files of 4,000 x 3,000 px are embedded."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 12, SIZES["4,000 x 3,000 px"])
        files = sorted(Path(folder).rglob("*.jpg"))
        for i in range(len(files), count):
            (files[i % 12].parent / f"again-{i:06d}.jpg").hardlink_to(files[i % 12])
        begun = time.process_time()
        found = embed_bank(part, open_source(folder, None)["all"], BankOptions(precision="float32"))
        seconds = time.process_time() - begun
    assert len(found.x) == count
    return {"case": f"{count} files of 4,000 x 3,000 px", "seconds": seconds,
            "pictures_a_second": round(count / seconds, 1), "peak_gib": peak()}  # fmt: skip


def peak() -> float:
    """The most memory that this process has had, in GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def write(folder: Path, count: int, size: tuple[int, int] | None) -> None:
    """JPEG files of crops of the scenes, in two class folders."""
    bank = open_source("scenes", None)["train"]
    rng = np.random.default_rng(0)
    for i in range(count):
        image = Image.fromarray(np.squeeze(bank.load(i * 7 % len(bank))[0]))
        image = image.resize(size or tuple(int(side) for side in rng.integers(256, 513, 2)), Image.Resampling.BICUBIC)
        path = folder / f"class-{i % 2}" / f"{i:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.save(path, quality=92)


@torch.no_grad()
def script(net: torch.nn.Module, files: list[Path]) -> Tensor:
    """The features [n, 1280] of files, as a good engineer would have them."""
    prepare = v2.Compose([v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.ToImage(),
                          v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])  # fmt: skip
    features = []
    for start in range(0, len(files), 16):
        images = [Image.open(file) for file in files[start : start + 16]]
        for image in images:
            image.draft("RGB", (512, 512))  # as ours: twice what the shorter side will be
        batch = torch.stack([prepare(image.convert("RGB")) for image in images])
        features.append(net(batch.contiguous(memory_format=torch.channels_last)))
    return torch.cat(features)


if __name__ == "__main__":
    main()
