"""What this machine is and has: for `run.json`, for results, and for `augforge doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "torchvision", "numpy", "opencv-python-headless", "Pillow", "albumentations", "safetensors", "einops",
    "click", "matplotlib", "tqdm",
)  # fmt: skip
OPTIONAL = {
    "isal": "PNG files are deflated by zlib, about two to four times as slow (install augforge[fast])",
    "scikit-image": "the source `scenes` cannot be opened (install augforge[scenes])",
    "ray": "`--engine ray` has no workers (install augforge[ray])",
    "webdataset": "WebDataset shards are written all the same; reading them needs the package",
    "datasets": "Hugging Face's imagefolder is not at hand; torchvision's ImageFolder reads the output as well",
}


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change what is made."""
    found = {"python": platform.python_version()}
    return found | {name: version for name in PACKAGES if (version := version_of(name))}


def machine() -> dict[str, Any]:
    """The processor, its cores that this process may use, and the system."""
    return {"system": platform.system(), "machine": platform.machine(), "processor": _processor(), "cores": cores()}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
