"""What every test shares. Threads are kept at one: the pictures here are small, and starting threads costs more."""

import os
from pathlib import Path

import cv2
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets."""
    root = os.environ.get("AUGFORGE_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("AUGFORGE_DATA does not name a folder with the real data sets")
    return Path(root)
