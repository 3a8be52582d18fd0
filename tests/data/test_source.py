"""A SOURCE is a path or a name; each wrong one says what to do."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augforge.data.source import SOURCE_NAMES, open_source
from augforge.types import InputError, LackError


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 3), 1).save(path, "PNG")
    return path


def test_every_kind_of_path(tmp_path):
    picture = put(tmp_path / "folder" / "cat" / "1.png")
    with zipfile.ZipFile(tmp_path / "a.ZIP", "w") as archive:
        archive.write(picture, "cat/1.png")
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 3, 3), np.uint8), labels=np.array(["cat"]))
    for name in ("folder", "a.ZIP", "a.npz"):
        for source in (tmp_path / name, str(tmp_path / name)):
            assert open_source(source)["all"].classes == ("cat",)


def test_a_name_goes_before_a_folder_that_is_called_alike(tmp_path, monkeypatch):
    put(tmp_path / "orl-faces" / "cat" / "1.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUGFORGE_DATA", raising=False)
    with pytest.raises(LackError):
        open_source("orl-faces")
    for source in ("./orl-faces", Path("orl-faces")):
        assert open_source(source)["all"].classes == ("cat",)


def test_neither_path_nor_name(tmp_path):
    with pytest.raises(InputError, match="no file, folder or source 'omniglott'; did you mean 'omniglot'"):
        open_source("omniglott")
    (tmp_path / "a.rar").write_bytes(b"x")
    with pytest.raises(InputError, match=r"is none of: a folder, \.zip"):
        open_source(tmp_path / "a.rar")
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="decompress"):
        open_source(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("name", [name for name in SOURCE_NAMES[2:] if ":" not in name])
def test_a_name_without_its_file_says_where_it_was_looked_for(tmp_path, monkeypatch, name):
    monkeypatch.setenv("AUGFORGE_DATA", str(tmp_path))
    with pytest.raises(LackError, match=r"is not in '.*'; --data-root or AUGFORGE_DATA") as caught:
        open_source(name)
    assert repr(name) in str(caught.value)
    assert repr(str(tmp_path)) in str(caught.value)
    monkeypatch.delenv("AUGFORGE_DATA")
    with pytest.raises(LackError, match="--data-root or AUGFORGE_DATA"):
        open_source(name)


def test_the_argument_goes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("AUGFORGE_DATA", "/nowhere")
    with pytest.raises(LackError, match=str(tmp_path)):
        open_source("omniglot", tmp_path)


def test_opening_a_folder_imports_neither_torchvision_nor_matplotlib(tmp_path):
    put(tmp_path / "cat" / "1.png")
    code = (
        "import sys; from augforge.data.source import open_source; open_source(sys.argv[1])['all'].load(0);"
        "sys.exit(any(name in sys.modules for name in ('torchvision', 'matplotlib', 'albumentations')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=tmp_path).returncode == 0
