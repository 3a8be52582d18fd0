"""The commands that only look: `list` and `doctor`."""

from __future__ import annotations

import ast
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
# What must lie under the data root for a named source.
_DATA_FILES = {
    "omniglot": ("omniglot.npz", "omniglot_splits.json"),
    "cifar-fs": ("cifar-fs.zip",),
    "fc100": ("cifar-fs.zip", "cifar100_splits.json"),
    "orl-faces": ("orl_faces.npz",),
}


@click.command("list")
@_json
def list_parts(as_json: bool) -> None:
    """List the methods, classifiers, representations and named sources."""
    from augforge.data.source import SOURCE_NAMES
    from augforge.parts.catalog import PREFIXES, SHIPPED, TABLES

    found: dict[str, Any] = {f"{kind}s": {n: _first_line(p) for n, p in t.items()} for kind, t in TABLES.items()}
    for kind, table in PREFIXES.items():
        found[f"{kind}s"] |= {f"{prefix}NAME": _first_line(place) for prefix, place in table.items()}
    for name, kind in SHIPPED.items():
        found[f"{kind}s"][name] = "Shipped with its weights; part.json beside them says how they were made."
    found["sources"] = list(SOURCE_NAMES)
    if as_json:
        click.echo(json.dumps(found))
        return
    for kind, table in found.items():
        if table:
            click.echo(f"{kind}:")
        for name in table:
            click.echo(f"  {name:19s} {table[name]}" if isinstance(table, dict) else f"  {name}")


@click.command()
@_json
def doctor(as_json: bool) -> None:
    """Say what this machine has - versions, devices, optional packages, data, weights - and what that rules out."""
    import torch

    from augforge.machine import OPTIONAL, machine, version_of, versions

    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if _cuda(torch) else []
    optional = {name: version_of(name) for name in OPTIONAL}
    root = os.environ.get("AUGFORGE_DATA")
    sources = {name: bool(root) and all((Path(root or "") / f).exists() for f in files)
               for name, files in _DATA_FILES.items()}  # fmt: skip
    ruled_out = [f"{name}: {why}" for name, why in OPTIONAL.items() if not optional[name]]
    ruled_out += [] if cuda else ["cuda: there is no CUDA device, so everything runs on the CPU"]
    ruled_out += [f"{name}: {', '.join(_DATA_FILES[name])} not found under AUGFORGE_DATA ({root or 'not set'})"
                  for name, there in sources.items() if not there]  # fmt: skip
    found = {
        "versions": versions(), "machine": machine(), "cuda": cuda, "optional": optional,
        "data_root": root, "sources": {"glyphs": True, **sources}, "weights": _weights(), "ruled_out": ruled_out,
    }  # fmt: skip
    click.echo(json.dumps(found) if as_json else _told(found))


def _cuda(torch: Any) -> bool:
    """Whether CUDA works; a driver that is too old only warns, and that is not our affair here."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(torch.cuda.is_available())


def _told(found: dict[str, Any]) -> str:
    machine = found["machine"]
    there = [name for name, yes in found["sources"].items() if yes]
    lines = [
        "versions:  " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        f"machine:   {machine['processor']}, {machine['cores']} cores, {machine['system']} {machine['machine']}",
        "devices:   " + ", ".join(["cpu", *found["cuda"]]),
        "optional:  " + ", ".join(f"{name} {version or 'absent'}" for name, version in found["optional"].items()),
        f"data root: {found['data_root'] or 'AUGFORGE_DATA is not set'}",
        "sources:   " + ", ".join(there) + " (and any folder, zip, tar, npz or safetensors)",
        "weights:   " + (", ".join(found["weights"]) or "none are shipped with this version"),
    ]
    return "\n".join(lines + [f"ruled out: {line}" for line in found["ruled_out"]])


def _weights() -> list[str]:
    """The names of the fitted parts that are shipped."""
    spec = find_spec("augforge")
    folder = Path(spec.origin if spec and spec.origin else "").parent / "weights"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _first_line(place: str) -> str:
    """The first line of what a catalog entry's class says of itself, read without importing it."""
    module, _, name = place.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return (ast.get_docstring(classes[0]) or "").splitlines()[0] if classes else ""
