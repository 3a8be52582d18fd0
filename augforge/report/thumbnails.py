"""Small pictures for a report page: JPEG in data URIs, of what a run wrote as files, in tars or in an `.npz`."""

from __future__ import annotations

import base64
import io
import re
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from PIL import Image

from augforge.data.banks import AnyBank, FeatureBank
from augforge.data.decode import decode
from augforge.data.durable import read_file
from augforge.data.layout import MAX_BYTES
from augforge.data.source import open_source
from augforge.report.parts import Thumbnail
from augforge.synth.manifest import ManifestRow
from augforge.types import InputError, UnreadablePicture

SIDE = 96  # pixels of the longer side on the page
_ENLARGED, _QUALITY = 48, 82  # pixels of the longer side up to which a picture is shown at twice its size; of JPEG
_IMAGE = re.compile(r"images\[(\d+)\]")


def thumbnail(
    picture: np.ndarray, alt: str, real: bool = False, caption: str = "", side: int = SIDE
) -> Thumbnail:  # fmt: skip
    """A picture [h, w, c] uint8, c 1 or 3, as a JPEG whose longer side has at most `side` pixels."""
    height, width = picture.shape[:2]
    part = side / max(height, width)
    if part < 1:
        size = (max(1, round(width * part)), max(1, round(height * part)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        picture = picture if picture.ndim == 3 else picture[:, :, None]
    data = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture[:, :, :3]).save(
        data, "JPEG", quality=_QUALITY
    )
    height, width = picture.shape[:2]
    enlarged = max(height, width) <= _ENLARGED
    times = 2 if enlarged else 1
    uri = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return Thumbnail(uri, width * times, height * times, alt, real, caption, enlarged)


class Written:
    """The pictures that a run wrote into a folder; used in a `with`. `lost`: how many could not be read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lost = folder, 0
        self._open, self._tars, self._banks = ExitStack(), dict[str, tarfile.TarFile](), dict[str, AnyBank]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def picture(self, row: ManifestRow) -> np.ndarray | None:
        """The picture [h, w, c] of a row; None where it is not there, or cannot be read."""
        try:
            return self._picture(row)
        except (OSError, KeyError, IndexError, tarfile.TarError, InputError, UnreadablePicture):
            self.lost += 1
            return None

    def _picture(self, row: ManifestRow) -> np.ndarray:
        path = self.folder / row.file
        if not path.resolve().is_relative_to(self.folder.resolve()):  # a manifest is no reason to read other files
            raise KeyError(row.file)
        if not row.member:
            return decode(read_file(path, MAX_BYTES), row.file, at_least=SIDE)
        if found := _IMAGE.fullmatch(row.member):
            if row.file not in self._banks:
                self._banks[row.file] = next(iter(open_source(path).values()))
            bank = self._banks[row.file]
            if isinstance(bank, FeatureBank):
                raise KeyError(row.member)
            return bank.load(int(found[1]))[0]
        if row.file not in self._tars:
            self._tars[row.file] = tar = tarfile.TarFile(path)
            self._open.enter_context(tar)
        member = self._tars[row.file].extractfile(row.member)
        if member is None:
            raise KeyError(row.member)
        return decode(member.read(), row.file, at_least=SIDE)
