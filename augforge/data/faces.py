"""The ORL database of faces (Samaria and Harter, 1994; Olivetti Research Laboratory): 40 people x 10 pictures.

A module of its own because each named source is one, opened only where its name is asked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from augforge.data.banks import ArrayPictures
from augforge.data.files import find_file, read_arrays


def open_orl_faces(root: Path) -> dict[str, ArrayPictures]:
    """{"all": bank}: grey pictures [112, 92, 1], classes "person-01" to "person-40".

    Raises LackError where `orl_faces.npz` is not in `root`, InputError where it is damaged.
    """
    path = find_file(root, "orl_faces.npz", "orl-faces")
    arrays = read_arrays(path, ("images", "labels", "pose"))
    labels = arrays["labels"].astype(np.int64)
    people = tuple(f"person-{i + 1:02d}" for i in range(int(labels.max()) + 1))
    names = tuple(f"{people[y]}/{pose:02d}" for y, pose in zip(labels.tolist(), arrays["pose"].tolist(), strict=True))
    bank = ArrayPictures(torch.from_numpy(labels), people, arrays["images"][:, :, :, None], str(path), names)
    return {"all": bank}
