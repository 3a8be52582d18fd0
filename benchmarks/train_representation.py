"""Train a backbone on a task's base classes, score it on its validation classes, and keep what evaluation needs.

    python benchmarks/train_representation.py --task cifar-fs --arch conv4 --method episodic \
        --device cuda --minutes 4 --data-root /tmp/data --out /tmp/runs/cifar-fs-conv4-episodic

OUT gets part/ (the fitted representation; --half stores its weights in float16), val.safetensors and test.safetensors
(features in float16, in the order of the task's rows; with --train train.safetensors too), the same averaged over
ten views (val-views.safetensors ...) where pictures are in colour, base.safetensors (the mean of the base features
and of each class, plain and over views), score.json (validation accuracy; the test classes are not looked at), and
run/ (log.jsonl and checkpoints: the same command goes on where it stopped). `--set k=v` changes a setting.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank, FilePictures
from augforge.data.features import write_features
from augforge.episodes.named_tasks import open_task, rotated
from augforge.episodes.tasks import Task
from augforge.machine import machine, versions
from augforge.networks.pixels import Pixels, load_pixels
from augforge.parts import catalog
from augforge.parts.saving import made_by, save_part
from augforge.representations.bank import MADE_BY, embed_bank, normalised_rows
from augforge.representations.convnet import ConvNet
from augforge.representations.episodic import nearest_mean_score
from augforge.representations.options import BankOptions
from augforge.training.loop import Run

GLYPHS = {"augment": "strokes", "way": 60, "shot": 5, "query": 5, "episodes": 2, "steps": 12000, "episodic_lr": 2e-3,
          "weight_decay": 5e-4, "batch_size": 512, "epochs": 60}  # fmt: skip
COLOURS = {"augment": "crop", "way": 20, "shot": 5, "query": 15, "episodes": 2, "steps": 15000, "epochs": 120,
           "batch_size": 256, "temperature": 8.0}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "glyphs": {**GLYPHS, "steps": 6000},
    "omniglot": GLYPHS,
    "omniglot-alphabet": {**GLYPHS, "within": "alphabet+rotation"},
    "cifar-fs": COLOURS,
    "fc100": COLOURS,
}
FOR_ARCH: dict[str, dict[str, Any]] = {
    "conv4": {},
    "resnet10": {"augment": "colour", "turns": True},
    "resnet18": {"augment": "colour", "turns": True},
    "resnet12": {"augment": "colour", "turns": True, "drop": 0.1},
}


def open_banks(name: str, data_root: Path | None, small: int) -> Task:
    """The task; the base characters of omniglot-alphabet are turned into four classes each, as Omniglot's are.

    `small` limits every part to so many classes, to try the script out (0: all).
    """
    task = open_task(name, data_root)
    if name == "omniglot-alphabet":
        assert isinstance(task.base, ArrayPictures)
        task = replace(task, base=rotated(task.base))
    task = replace(task, base=in_memory(task.base), novel=in_memory(task.novel),
                   val=None if task.val is None else in_memory(task.val))  # fmt: skip
    if small:
        base, val, novel = (b.only(b.classes[:small]) for b in (task.base, task.val or task.novel, task.novel))
        task = replace(task, base=base, val=None if task.val is None else val, novel=novel)
    return task


def in_memory(bank: AnyBank) -> AnyBank:
    """The bank with its pictures decoded once: they are asked for several times here."""
    if not isinstance(bank, FilePictures):
        return bank
    x = bank.examples(torch.arange(len(bank))).x
    assert isinstance(x, torch.Tensor)
    return ArrayPictures(bank.y, bank.classes, x.permute(0, 2, 3, 1).contiguous().numpy(), bank.origin, bank.names,
                         bank.skipped, bank.groups, bank.attributes)  # fmt: skip


def representation(options: argparse.Namespace) -> ConvNet:
    """The part, with the settings of its task and backbone and those given by --set."""
    colours = SETTINGS[options.task] is COLOURS
    settings = {**SETTINGS[options.task], **(FOR_ARCH[options.arch] if colours else {}), "method": options.method}
    if options.method == "both":
        settings["episodic_lr"] = 5e-4
    settings |= dict(map(catalog.read_assignment, options.set))
    return catalog.make(options.arch, settings, "representation")


def save_features(part: ConvNet, task: Task, options: argparse.Namespace) -> dict[str, FeatureBank]:
    """Embed all rows, write them, and return the banks by file name."""
    banks, base = {}, {}
    views = ("none", "flip-shift") if SETTINGS[options.task] is COLOURS else ("none",)
    for view in views:
        suffix = "" if view == "none" else "-views"
        for split, bank in (("train", task.base), ("val", task.val), ("test", task.novel)):
            if bank is None:
                continue
            features = embed_bank(part, bank, BankOptions(views=view), device=options.device)
            banks[split + suffix] = features
            if split != "train" or options.train:
                write_features(options.out / f"{split}{suffix}.safetensors", replace(features, x=features.x.half()))
        train = banks[f"train{suffix}"]
        sums = torch.zeros(len(train.classes), train.x.shape[1]).index_add_(0, train.y, train.x)
        base[f"mean{suffix}"] = train.x.mean(0)
        base[f"class_means{suffix}"] = sums / train.counts()[:, None]
    made_by = banks["test"].groups[MADE_BY][0]
    save_file(base, options.out / "base.safetensors", {MADE_BY: str(made_by)})
    return banks


def scores(banks: dict[str, FeatureBank], data: Pixels) -> dict[str, tuple[float, float]]:
    """1-shot and 5-shot accuracy of nearest means on the validation classes, for each view and normalisation."""
    found = {}
    for suffix in ("", "-views"):
        if f"val{suffix}" in banks:
            x, mean = banks[f"val{suffix}"].x, banks[f"train{suffix}"].x.mean(0)
            for how in ("none", "l2", "centred-l2"):
                found[how + suffix] = nearest_mean_score(normalised_rows(x, how, mean), data)
    return found


def save_half(part: ConvNet, folder: Path, half: bool) -> None:
    """Save the part, with its weights rounded to float16 if asked: loading makes float32 of them."""
    if half and part.net_ is not None:
        part.net_.half()
    save_part(part, folder, "representation")
    if half and part.net_ is not None:
        part.net_.float()


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--task", choices=SETTINGS, required=True)
    parser.add_argument("--arch", choices=FOR_ARCH, default="conv4")
    parser.add_argument("--method", choices=("supervised", "episodic", "both"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="ends each stage of training after so long")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="K=V")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU")
    parser.add_argument("--small", type=int, default=0, help="use so many classes of each part only")
    parser.add_argument("--half", action="store_true", help="save the weights in float16")
    parser.add_argument("--train", action="store_true", help="write the features of the base classes too")
    parser.add_argument("--no-judge", action="store_true", help="keep the last weights, not the best of ten looks")
    return parser.parse_args()


def main() -> None:
    """Train, embed, score, and write it all."""
    options = read_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    options.out.mkdir(parents=True, exist_ok=True)
    task, part, begun = open_banks(options.task, options.data_root, options.small), representation(options), time.time()
    run = Run(options.device, options.out / "run", options.minutes, 60.0, _tell)
    part.fit(task.base, torch.Generator().manual_seed(options.seed), None if options.no_judge else task.val, run)
    trained = time.time()
    save_half(part, options.out / "part", options.half)
    banks = save_features(part, task, options)
    found = {} if task.val is None else scores(banks, load_pixels(task.val, part.size, "cpu"))
    record = {"task": options.task, "seed": options.seed, **catalog.describe(part, "representation"),
              MADE_BY: made_by(part), "val": found,
              "seconds": round(trained - begun), "embedding_seconds": round(time.time() - trained),
              "command": " ".join(["python", *sys.argv]), "device": _device(options.device), "machine": machine(),
              "versions": versions()}  # fmt: skip
    (options.out / "score.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps({key: record[key] for key in ("task", "val", "seconds", "embedding_seconds")}), flush=True)


def _device(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def _tell(stage: str, fraction: float, loss: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{stage} {100 * fraction:5.1f} %  loss {loss:.4f}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
