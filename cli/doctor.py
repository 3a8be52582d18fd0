"""The command `doctor` (a file for each command)."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from augforge.cli import options

# What must lie under the data root for a named source.
_DATA_FILES = {
    "omniglot": ("omniglot.npz", "omniglot_splits.json"),
    "cifar-fs": ("cifar-fs.zip",),
    "fc100": ("cifar-fs.zip", "cifar100_splits.json"),
    "orl-faces": ("orl_faces.npz",),
}


@click.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Say what this machine has - versions, devices, optional packages, data, weights - and what that rules out."""
    import torch

    from augforge.machine import OPTIONAL, machine, version_of, versions

    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if _cuda(torch) else []
    optional = {name: version_of(name) for name in OPTIONAL}
    root = os.environ.get("AUGFORGE_DATA")
    sources = {name: bool(root) and all((Path(root or "") / f).exists() for f in files)
               for name, files in _DATA_FILES.items()}  # fmt: skip
    built_in = {"glyphs": True, "scenes": bool(optional["scikit-image"])}
    ruled_out = [f"{name}: {why}" for name, why in OPTIONAL.items() if not optional[name]]
    ruled_out += [] if cuda else ["cuda: there is no CUDA device, so everything runs on the CPU"]
    ruled_out += [f"{name}: {', '.join(_DATA_FILES[name])} not found under AUGFORGE_DATA ({root or 'not set'})"
                  for name, there in sources.items() if not there]  # fmt: skip
    found = {
        "versions": versions(), "machine": machine(), "cuda": cuda, "optional": optional,
        "data_root": root, "sources": built_in | sources, "weights": _weights(), "ruled_out": ruled_out,
    }  # fmt: skip
    click.echo(json.dumps(found) if as_json else _as_text(found))


def _cuda(torch: Any) -> bool:
    """Whether CUDA works; a driver that is too old only warns, and that is not our affair here."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(torch.cuda.is_available())


def _as_text(found: dict[str, Any]) -> str:
    machine = found["machine"]
    there = [name for name, yes in found["sources"].items() if yes]
    lines = [
        "versions:  " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        f"machine:   {machine['processor']}, {machine['cores']} cores, {machine['system']} {machine['machine']}",
        "devices:   " + ", ".join(["cpu", *found["cuda"]]),
        "optional:  " + ", ".join(f"{name} {version or 'absent'}" for name, version in found["optional"].items()),
        f"data root: {found['data_root'] or 'AUGFORGE_DATA is not set'}",
        "sources:   " + ", ".join(there) + " (and any folder, zip or tar, and files of embeddings)",
        "weights:   " + (", ".join(found["weights"]) or "none are shipped with this version"),
    ]
    return "\n".join(lines + [f"ruled out: {line}" for line in found["ruled_out"]])


def _weights() -> list[str]:
    """The names of the fitted parts that are shipped."""
    spec = find_spec("augforge")
    folder = Path(spec.origin if spec and spec.origin else "").parent / "weights"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
