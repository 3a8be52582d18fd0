"""Cut a large file into parts that a narrow channel carries, and join them again, byte for byte.

    python benchmarks/pack_cifar.py cut ../shared/data/cifar-fs.zip parts/      # three parts under 40 MiB
    python benchmarks/pack_cifar.py join parts/ /tmp/data/cifar-fs.zip          # checked against its SHA-256

The pictures stay coded as they are, losslessly.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

PARTS = 3


def cut(path: Path, folder: Path) -> None:
    """Write NAME.part0 and so on, and NAME.sha256, into a folder."""
    data = path.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(data) // PARTS)
    for i in range(PARTS):
        (folder / f"{path.name}.part{i}").write_bytes(data[i * size : (i + 1) * size])
    (folder / f"{path.name}.sha256").write_text(hashlib.sha256(data).hexdigest() + "\n")


def join(folder: Path, path: Path) -> None:
    """Write the file that the parts in a folder were cut from; a SystemExit says that it is not whole."""
    data = b"".join((folder / f"{path.name}.part{i}").read_bytes() for i in range(PARTS))
    expected = (folder / f"{path.name}.sha256").read_text().strip()
    if hashlib.sha256(data).hexdigest() != expected:
        sys.exit(f"the parts of {path.name} in {folder} do not make the file that was cut")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("cut", "join"):
        sys.exit(__doc__)
    {"cut": cut, "join": join}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
