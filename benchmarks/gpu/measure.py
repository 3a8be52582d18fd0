"""One part of `benchmarks/gpu/run.py`, in a process of its own: what the machine is, or rows of measurements.

    python benchmarks/gpu/measure.py image-gan --device cuda --out FILE [--smoke]

The rows written so far are in FILE at any time. `share_of_peak` is the floating-point operations of matrix products and
convolutions (`torch.utils.flop_counter`) done in a second, over those of the fastest bfloat16 product of two large
square matrices on the same device.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from steps import measured_training
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from augforge.data.glyphs import open_glyphs
from augforge.machine import machine, versions
from augforge.parts import catalog
from augforge.parts.saving import open_part
from augforge.training.loop import Run

LARGEST = 3  # items of a profile that are kept


def main() -> None:
    """Run the part, and write its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", choices=["facts", *PARTS])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.part == "facts":
        print(json.dumps(facts(options.device)))
        return
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        options.out.write_text(json.dumps(rows) + "\n")
        print(json.dumps(row), flush=True)

    PARTS[options.part](options.device, options.smoke, add)


Add = Callable[[dict[str, Any]], None]


def facts(device: str) -> dict[str, Any]:
    """The device, versions and machine; `cuda` says whether there is a CUDA device."""
    cuda = torch.cuda.is_available()
    described: dict[str, Any] = {"name": "cpu", "torch": torch.__version__, "why": _why_no_cuda()}
    if cuda and device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(0)
        described = {
            "name": torch.cuda.get_device_name(), "capability": ".".join(map(str, torch.cuda.get_device_capability())),
            "memory_gib": round(properties.total_memory / 2**30, 1), "driver": _driver(), "torch": torch.__version__,
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    return {"cuda": cuda, "device": described, "versions": versions(), "machine": machine()}


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "it is built without CUDA"
    return f"it is built for CUDA {torch.version.cuda}, and the driver is {_driver() or 'not found'}"


def _driver() -> str:
    """The driver's version as nvidia-smi says it, or nothing."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return run.stdout.splitlines()[0].strip() if run.returncode == 0 and run.stdout else ""


def synchronise(device: str) -> None:
    """Wait for all that was launched on the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak(device: str, smoke: bool) -> float:
    """Floating-point operations a second of the fastest of ten rounds of bfloat16 products [n, n] @ [n, n]."""
    n, times = (256, 2) if smoke else (8192, 10)
    a, b = (torch.randn(n, n, device=device).to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    best = 0.0
    for _ in range(11):  # the first warms up
        synchronise(device)
        started = time.perf_counter()
        for _ in range(times):
            torch.mm(a, b, out=out)
        synchronise(device)
        best = max(best, times * 2 * n**3 / (time.perf_counter() - started))
    return best


def profiler(device: str) -> profile:
    """A profile of kernels on CUDA, of operations elsewhere."""
    return profile(activities=[ProfilerActivity.CUDA if device.startswith("cuda") else ProfilerActivity.CPU])


def largest(found: profile, device: str) -> list[dict[str, Any]]:
    """The items that took most of the time of a profile: name, share in percent, and calls."""
    column = "self_device_time_total" if device.startswith("cuda") else "self_cpu_time_total"
    items = sorted(found.key_averages(), key=lambda item: -getattr(item, column))
    total = sum(getattr(item, column) for item in items) or 1
    return [
        {"item": item.key[:120], "percent": round(100 * getattr(item, column) / total, 1), "calls": item.count}
        for item in items[:LARGEST]
    ]


# Parts


def image_gan(device: str, smoke: bool, add: Add) -> None:
    """Training of `image-gan` on the built-in letters, with its own batch and a large one."""
    bank, fastest = open_glyphs()["train"], peak(device, smoke)
    sizes = {"width": 8, "judge_width": 8, "noise": 4, "code": 8} if smoke else {"symmetry": "turns"}
    for batch in (4,) if smoke else (64, 512):
        part = catalog.make("image-gan", {**sizes, "batch": batch, "steps": 10**6})
        _train(f"image-gan training, batch {batch}", part, bank, batch, (device, smoke, fastest), add)


def conditional_gan(device: str, smoke: bool, add: Add) -> None:
    """Training of `conditional-gan` on the built-in letters, by class, with its own batch and a large one."""
    bank, fastest = open_glyphs()["train"], peak(device, smoke)
    sizes = {"width": 8, "judge_width": 8, "noise": 4, "code": 8} if smoke else {}
    for batch in (4,) if smoke else (64, 512):
        part = catalog.make("conditional-gan", {**sizes, "batch": batch, "steps": 10**6})
        _train(f"conditional-gan training, batch {batch}", part, bank, batch, (device, smoke, fastest), add)


def conv4(device: str, smoke: bool, add: Add) -> None:
    """Episodic training of Conv4 on the built-in letters, as the shipped weights were trained, and 8 a step."""
    bank, fastest = open_glyphs()["train"], peak(device, smoke)
    way, shot, query = (5, 2, 2) if smoke else (60, 5, 5)
    for episodes in (1,) if smoke else (1, 8):
        settings = {"method": "episodic", "augment": "strokes", "steps": 10**6, "way": way, "shot": shot,
                    "query": query, "episodes": episodes}  # fmt: skip
        part = catalog.make("conv4", settings, "representation")
        pictures = episodes * way * (shot + query)
        name = f"conv4 meta-training, {episodes} x {way}-way {shot}-shot"
        _train(name, part, bank, pictures, (device, smoke, fastest), add)


def _train(name: str, part: Any, bank: Any, pictures: int, place: tuple[str, bool, float], add: Add) -> None:
    device, smoke, fastest = place
    seconds, warm_up = (0.5, 2) if smoke else (6.0, 60)
    found = measured_training(
        lambda: part.fit(bank, torch.Generator().manual_seed(0), None, Run(device)),
        (warm_up, seconds), lambda: synchronise(device), lambda: profiler(device),
    )  # fmt: skip
    add(_row(name, found.steps / found.seconds, pictures, (found.flops, fastest), largest(found.profile, device)))


def _row(name: str, rate: float, pictures: int, flops: tuple[float, float], items: list[dict]) -> dict[str, Any]:
    of_step, fastest = flops
    return {
        "case": name, "steps_per_second": round(rate, 2), "images_per_second": round(rate * pictures),
        "gflop_per_step": round(of_step / 1e9, 3), "share_of_peak": round(rate * of_step / fastest, 4),
        "peak_tflops": round(fastest / 1e12, 2), "largest": items,
    }  # fmt: skip


def embedding(device: str, smoke: bool, add: Add) -> None:
    """Embedding uint8 pictures that lie on the device or beside it, under autocast to bfloat16."""
    fastest = peak(device, smoke)
    glyphs = open_part("conv4-glyphs", None, "representation")
    resnet = catalog.make("resnet12", {}, "representation")
    side = 32 if smoke else 84
    resnet.build({"channels": 3, "height": side, "width": side})
    counts = (64, 8) if smoke else (32768, 4096)
    cases = (("conv4-glyphs, 28 px", glyphs, (counts[0], 1, 28, 28)),
             (f"resnet12, {side} px", resnet, (counts[1], 3, side, side)))  # fmt: skip
    for name, part, shape in cases:
        x = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        for where, given in (("from the device", x.to(device)), ("from the CPU and back", x)):
            _embed(f"embedding {name}, {where}", part, given, (device, smoke, fastest), add)


def _embed(name: str, part: Any, given: Tensor, place: tuple[str, bool, float], add: Add) -> None:
    device, smoke, fastest = place

    def once() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            features = part.embed(given.to(device))
        if given.device.type == "cpu":
            features.cpu()
        synchronise(device)

    once()
    with FlopCounterMode(display=False) as counter:
        once()
    rounds, started = 0, time.perf_counter()
    while rounds < 1 or time.perf_counter() - started < (0.2 if smoke else 3.0):
        once()
        rounds += 1
    rate = rounds / (time.perf_counter() - started)
    with profiler(device) as found:
        once()
    add(_row(name, rate, len(given), (counter.get_total_flops(), fastest), largest(found, device)))


def classical(device: str, smoke: bool, add: Add) -> None:
    """The tensor engine of classical augmentation against kornia and torchvision v2, on the same device."""
    from peers import compare  # torchvision's and kornia's own imports take seconds

    compare(device, smoke, lambda: synchronise(device), add)


PARTS = {"image-gan": image_gan, "conditional-gan": conditional_gan, "conv4": conv4, "embedding": embedding,
         "classical": classical}  # fmt: skip


if __name__ == "__main__":
    main()
