"""What is read as a file is one: pipes, devices and folders that stand in its place are refused at once."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from augforge.data.durable import check_regular, read_file, write_file
from augforge.data.source import open_source
from augforge.parts import catalog
from augforge.parts.saving import load_part, save_part
from augforge.protocols.low_shot_files import open_low_shot_folder
from augforge.types import InputError


def test_a_file_is_read_whole_up_to_its_limit(tmp_path):
    write_file(tmp_path / "a", b"12345")
    assert read_file(tmp_path / "a") == b"12345"
    assert read_file(str(tmp_path / "a"), 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes; expected at most 4"):
        read_file(tmp_path / "a", 4)


@pytest.fixture(params=["pipe", "device", "folder"])
def odd(request, tmp_path):
    """Something that has a name and is no file; a pipe is waited for by whoever opens it."""
    path = tmp_path / "odd"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")  # it never ends
    return path


def test_what_is_no_file_is_refused(odd):
    with pytest.raises(OSError, match=r"it is no regular file|Is a directory"):
        read_file(odd)
    with pytest.raises(OSError, match="it is no regular file"):
        check_regular(odd)


@pytest.mark.parametrize("name", ["part.json", "fitted.safetensors"])
def test_a_part_with_something_else_in_place_of_a_file_is_refused(odd, tmp_path, name):
    save_part(catalog.make("noise", {}), tmp_path / "part")
    (tmp_path / "part" / name).unlink()
    odd.rename(tmp_path / "part" / name)
    with pytest.raises(InputError, match=name):
        load_part(tmp_path / "part")


@pytest.mark.parametrize("name", ["rows.safetensors", "rows.npz", "rows.npy", "rows.csv", "rows.zip", "labels.csv"])
def test_a_source_with_something_else_in_place_of_a_file_is_refused(odd, tmp_path, name):
    np.save(tmp_path / "some.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    odd.rename(tmp_path / name)
    if name == "labels.csv" and (tmp_path / name).is_dir():
        name = "none"  # a folder is none of labels
    with pytest.raises(InputError):
        open_source(tmp_path / ("some.npy" if name == "labels.csv" else name))


def test_a_low_shot_folder_with_something_else_in_place_of_a_file_is_refused(odd, tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "label_idx.json").write_text(json.dumps({"base_classes_1": [0]}))
    odd.rename(tmp_path / "low" / "train.hdf5")
    with pytest.raises(InputError):
        open_low_shot_folder(tmp_path / "low")


def test_a_feature_bank_beside_it_is_read(tmp_path):
    save_file({"features": torch.eye(3), "labels": torch.arange(3)}, tmp_path / "rows.safetensors")
    assert len(open_source(tmp_path / "rows.safetensors")["all"]) == 3
