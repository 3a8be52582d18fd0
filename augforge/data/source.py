"""Opens any SOURCE: a folder, an archive, a file of arrays or features, or a name."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from augforge.data.archive import COMPRESSED_TARS, open_archive
from augforge.data.banks import AnyBank
from augforge.data.embeddings import (
    SUFFIXES,
    is_embeddings_folder,
    is_renamed,
    open_embeddings,
    open_embeddings_folder,
)
from augforge.data.folder import open_folder
from augforge.data.selection import Selection
from augforge.types import InputError, LackError

SOURCE_NAMES = (
    "glyphs", "scenes", "omniglot", "omniglot-alphabet", "cifar-fs", "fc100", "orl-faces", "torchvision:NAME",
)  # fmt: skip
_TORCHVISION = "torchvision:"


def open_source(
    source: str | Path, data_root: Path | None = None, selection: Selection | None = None
) -> dict[str, AnyBank]:
    """The banks of a source by split: {"all": ...}, or some of "train", "val" and "test"; of each what is selected.

    `source` is a name of SOURCE_NAMES, or the path of a folder, `.zip`, `.tar`, or a file of SUFFIXES; a folder
    that is called like a name is opened as "./name". `data_root` is where the files of names lie, by default the
    environment variable AUGFORGE_DATA. Raises InputError for what is neither or cannot be read, and LackError for
    a name whose files are not there.
    """
    banks = _open(source, data_root)
    return banks if selection is None else {split: selection.of(bank) for split, bank in banks.items()}


def _open(source: str | Path, data_root: Path | None) -> dict[str, AnyBank]:
    if isinstance(source, str) and (source in SOURCE_NAMES[:-1] or source.startswith(_TORCHVISION)):
        return _open_name(source, data_root)
    if not os.path.lexists(source):
        near = difflib.get_close_matches(str(source), SOURCE_NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; named sources are {', '.join(SOURCE_NAMES)}"
        raise InputError(f"there is no file, folder or source {str(source)!r}{hint}")
    return _open_path(source)


def _open_path(path: str | Path) -> dict[str, AnyBank]:
    lower = os.fspath(path).lower()
    if os.path.isdir(path):
        return {**(open_embeddings_folder(path) if is_embeddings_folder(path) else open_folder(path))}
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device, which would be waited for
        raise InputError(f"{str(path)!r} is no regular file")
    if lower.endswith((".zip", ".tar", *COMPRESSED_TARS)):
        return {**open_archive(path)}
    if lower.endswith((".npy", ".csv", ".parquet")) or (lower.endswith((".npz", ".safetensors")) and is_renamed(path)):
        return {**open_embeddings(path)}
    if lower.endswith(".npz"):
        from augforge.data.npz import open_npz

        return {**open_npz(path)}
    if lower.endswith(".safetensors"):
        from augforge.data.features import open_features

        return {**open_features(path)}
    raise InputError(f"{str(path)!r} is none of: a folder, .zip, .tar, {', '.join(SUFFIXES)}")


def _open_name(name: str, data_root: Path | None) -> dict[str, AnyBank]:
    if name == "glyphs":
        from augforge.data.glyphs import open_glyphs

        return {**open_glyphs()}
    if name == "scenes":
        from augforge.data.scenes import open_scenes

        return {**open_scenes()}
    root = _data_root(name, data_root)
    if name.startswith(_TORCHVISION):
        from augforge.data.torchvision_sets import open_torchvision

        return {**open_torchvision(name.removeprefix(_TORCHVISION), root)}
    if name.startswith("omniglot"):
        from augforge.data.omniglot import open_omniglot, open_omniglot_alphabet

        return {**(open_omniglot(root) if name == "omniglot" else open_omniglot_alphabet(root))}
    if name == "orl-faces":
        from augforge.data.faces import open_orl_faces

        return {**open_orl_faces(root)}
    from augforge.data.cifar import open_cifar_fs, open_fc100

    return {**(open_cifar_fs(root) if name == "cifar-fs" else open_fc100(root))}


def _data_root(name: str, data_root: Path | None) -> Path:
    given = data_root or os.environ.get("AUGFORGE_DATA")
    if not given:
        raise LackError(f"the source {name!r} needs its data: --data-root or AUGFORGE_DATA says where it lies")
    return Path(given)
