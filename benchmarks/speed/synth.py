"""`augforge synth` against the obvious script: albumentations and Pillow's save in a DataLoader with two workers.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/synth.py [--opencv [--side PX]] [--rounds 7]

2,000 pictures of CIFAR-FS at 32 px (20 classes, 100 each) and 60 photographs of 224 px, 10 made of each, the `keras`
preset plus brightness, contrast and hue. Both sides read a class folder and use two processes. Wall clock of the
whole work, imports aside: ours includes planning, forking, manifest and contact sheet. Then JPEG and WebDataset
shards, and how near the PNG run is to only creating files with the same bytes.

With `--opencv` the best script instead: OpenCV reads each file once and writes what albumentations makes of it, in one
process and in two, as `synth` does; 400 photographs of 64 px and 114 of 224, 10 made of each, PNG and JPEG.

Every round writes into a folder of its own and nothing is deleted before the end: ext4 is slow to create files where
others were deleted in the last seconds, which would be measured instead.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
import torch
from paired import paired, show
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from augforge.data.source import open_source
from augforge.inputs import Inputs
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.synth.run_folder import RunOptions

DATA = Path(os.environ.get("AUGFORGE_DATA", "../shared/data"))
COPIES, WORKERS = 10, 2
COLOUR = {"brightness": 0.2, "contrast": 0.2, "hue": 0.1}


def write_cifar(root: Path) -> None:
    """20 classes of 100 pictures of CIFAR-FS, as the archive holds them."""
    bank = open_source("cifar-fs", DATA)["train"]
    for label, name in enumerate(bank.classes[:20]):
        (root / name).mkdir(parents=True)
        for row in bank.rows_of(label)[:100].tolist():
            (root / name / Path(bank.name(row)).name).write_bytes(bank.read(row))


def write_photographs(root: Path, count: int = 60, side: int = 224) -> None:
    """Photographs of cats and dogs, middle cut out at `side` px, as JPEG of quality 95."""
    with tarfile.open(DATA / "dogs_vs_cats_small_s160.tar") as tar:
        members = [m for m in tar.getmembers() if m.isfile() and m.name.endswith(".jpg")]
        for member in members[:: len(members) // count][:count]:
            name = Path(member.name).parent.name
            (root / name).mkdir(parents=True, exist_ok=True)
            picture = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")
            edge = min(picture.size)
            left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
            square = picture.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.BICUBIC)
            square.save(root / name / f"{Path(member.name).stem}.jpg", quality=95)


class Script(Dataset):
    """What people write: open, augment, save."""

    def __init__(self, source: Path, out: Path) -> None:
        self.files, self.out = sorted(source.glob("*/*")), out
        self.compose = A.Compose([
            A.Affine(rotate=(-40, 40), translate_percent=(-0.2, 0.2), shear=(-0.2, 0.2), scale=(0.8, 1.2),
                     border_mode=cv2.BORDER_REPLICATE, p=1),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0, hue=0.1, p=1),
        ])  # fmt: skip

    def __len__(self) -> int:
        return COPIES * len(self.files)

    def __getitem__(self, i: int) -> int:
        file = self.files[i // COPIES]
        picture = self.compose(image=np.asarray(Image.open(file).convert("RGB")))["image"]
        Image.fromarray(picture).save(self.out / file.parent.name / f"{file.stem}_{i % COPIES}.png")
        return i


class OpenCvScript(Script):
    """The best of its kind: a file is read once, and OpenCV reads and writes."""

    suffix = ".png"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> int:
        file = self.files[i]
        picture = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        for copy in range(COPIES):
            made = cv2.cvtColor(self.compose(image=picture)["image"], cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(self.out / file.parent.name / f"{file.stem}_{copy}{self.suffix}"), made)
        return i


class OpenCvJpegScript(OpenCvScript):
    """The same, to JPEG, of OpenCV's quality: 95, as ours."""

    suffix = ".jpg"


def script(
    source: Path, out: Path, kind: type[Script] = Script, workers: int = WORKERS, batch: int = 64
) -> Callable[[], object]:
    """Run the script into a fresh folder; with one worker in this process."""

    def run() -> None:
        fresh = Path(tempfile.mkdtemp(dir=out))
        for folder in source.iterdir():
            (fresh / folder.name).mkdir()
        for _ in DataLoader(kind(source, fresh), batch_size=batch, num_workers=workers if workers > 1 else 0):
            pass

    return run


def ours(source: Path, out: Path, sink: dict[str, str], workers: int = WORKERS) -> Callable[[], object]:
    """Run `synth` into a fresh folder."""
    count = len(list(source.glob("*/*"))) // len(list(source.iterdir())) * COPIES
    how = {"encoding": "png"} | sink
    request = Request(Inputs(str(source), settings={"preset": "keras"} | COLOUR), per_class=count, **how)

    def run() -> None:
        synth(request, tempfile.mkdtemp(dir=out), RunOptions(workers=workers))

    return run


def _write(job: tuple[list[Path], Path]) -> None:
    files, out = job
    for i, file in enumerate(files):
        (out / f"{os.getpid()}-{i}.png").write_bytes(file.read_bytes())


def create_files(made: Path, out: Path) -> float:
    """Seconds of only reading the made files and writing them again, in two processes: a floor for any such run."""
    files = sorted(made.glob("*/*.png"))
    out.mkdir()
    with get_context("fork").Pool(WORKERS) as pool:
        start = time.perf_counter()
        pool.map(_write, [(files[i::WORKERS], out) for i in range(WORKERS)])
        return time.perf_counter() - start


def against_opencv(scratch: Path, rounds: int, sides: list[int]) -> list[dict]:
    """The rows of `--opencv`."""
    rows = []
    for side in sides:
        photographs = 25_600 // side
        source = scratch / f"source {side}"
        write_photographs(source, photographs, side)
        count = COPIES * len(list(source.glob("*/*")))
        for workers, (encoding, kind) in itertools.product((1, 2), (("png", OpenCvScript), ("jpeg", OpenCvJpegScript))):
            out, other = (scratch / f"{who} {side} {workers} {encoding}" for who in ("ours", "theirs"))
            out.mkdir(), other.mkdir()
            theirs = script(source, other, kind, workers, batch=8)
            measured = paired(ours(source, out, {"encoding": encoding}, workers), theirs, rounds, time.perf_counter)
            rows.append({"case": f"{side} px, {encoding.upper()} folder, {workers} process{'es' * (workers > 1)}",
                         "peer": "albumentations + OpenCV", **measured,
                         "images_per_second": round(count / measured["seconds"]),
                         "peer_images_per_second": round(count / measured["peer_seconds"])})  # fmt: skip
    return rows


def main() -> None:
    """Measure both sizes, and the other sinks."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--opencv", action="store_true", help="against the best script alone")
    arguments.add_argument("--side", type=int, action="append", help="of --opencv's pictures; 64 and 224")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        if options.opencv:
            show(against_opencv(Path(scratch), options.rounds, options.side or [64, 224]), options.json)
            return
        for case, write in (("32 px", write_cifar), ("224 px", write_photographs)):
            source, out, other = (Path(scratch) / f"{kind} {case}" for kind in ("source", "ours", "theirs"))
            write(source)
            out.mkdir()
            other.mkdir()
            count = COPIES * len(list(source.glob("*/*")))
            theirs = script(source, other)
            for name, sink in (("PNG folder", {}), ("JPEG folder", {"encoding": "jpeg"}),
                               ("PNG shards", {"format": "webdataset"})):  # fmt: skip
                rounds = options.rounds if not sink else 3
                measured = paired(ours(source, out, sink), theirs, rounds, time.perf_counter)
                rows.append({"case": f"{case}, {name}", "peer": "albumentations + Pillow PNG", **measured,
                             "images_per_second": round(count / measured["seconds"]),
                             "peer_images_per_second": round(count / measured["peer_seconds"])})  # fmt: skip
                if not sink:
                    made = next(out.iterdir())
                    floor = sorted(create_files(made, Path(scratch) / f"floor {case} {i}") for i in range(3))[1]
                    rows[-1]["share_of_creating_files"] = round(floor / measured["seconds"], 3)
    show(rows, options.json)


if __name__ == "__main__":
    main()
