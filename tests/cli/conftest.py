"""A tiny source of pictures, the command line in this process, and the digests of what it wrote."""

import contextlib
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from augforge.cli.main import main

COUNTS = {"cat": 4, "dog": 3}


@dataclass
class Result:
    code: int
    out: str
    err: str

    def error(self, code: int = 2) -> str:
        """The one sentence of an error, checked to be that and nothing else."""
        assert self.code == code, (self.code, self.out, self.err)
        assert self.err.startswith("augforge: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.out == ""
        return self.err.removeprefix("augforge: ").rstrip("\n")

    def json(self) -> dict:
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


def call(*arguments: object) -> Result:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
    return Result(code, out.getvalue(), err.getvalue())


def draw(seed: int, size: tuple[int, int] = (20, 24), channels: int = 3) -> np.ndarray:
    """Soft blobs [h, w, c] with a little noise, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, channels), dtype=np.uint8)
    soft = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).reshape(*size, channels)
    return np.clip(soft.astype(int) + rng.integers(-6, 7, (*size, channels)), 0, 255).astype(np.uint8)


def make_folder(
    root: Path, counts: Mapping[str, int] = COUNTS, size: tuple[int, int] = (20, 24), suffix: str = ".png"
) -> Path:
    number = 0
    for name, count in counts.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(draw(number, size)).save(folder / f"{name[:3]}_{i}{suffix}")
            number += 1
    return root


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, hidden ones too; a link by its target. That of a run's page is taken
    without the folder's name and the time, which are on it.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            data = _anywhere(path.read_text(), folder) if name == "report.html" else path.read_bytes()
            found[name] = hashlib.sha256(data).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "special"
    return found


def _anywhere(text: str, folder: Path) -> bytes:
    """The page of a run as it would be of any other folder at any other time."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME", text.replace(str(folder), "OUT"))
    return re.sub(rf"(Report: |synth: |sheet of ){re.escape(folder.name)}\b", r"\1OUT", text).encode()


def read_manifest(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def pack_zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.fixture(scope="session")
def augforge() -> Callable[..., Result]:
    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "source")


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Grey pictures of 28 px: 4 classes of 6 rows."""
    for i in range(24):
        folder = tmp_path / "letters" / "abcd"[i % 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(i, (28, 28), 1)[..., 0]).save(folder / f"{i}.png")
    return tmp_path / "letters"


@pytest.fixture(scope="session")
def folder_of() -> Callable[..., Path]:
    return make_folder


@pytest.fixture(scope="session")
def zip_of() -> Callable[[Path, Path], Path]:
    return pack_zip


@pytest.fixture(scope="session")
def picture_of() -> Callable[..., np.ndarray]:
    return draw


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, str]]:
    return digests


@pytest.fixture(scope="session")
def manifest_of() -> Callable[[Path], list[dict]]:
    return read_manifest
