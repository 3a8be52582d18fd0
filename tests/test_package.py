"""The names that `augforge` itself offers, each imported when it is used."""

import subprocess
import sys
import tempfile
import types

import pytest

import augforge


@pytest.mark.parametrize("name", augforge.__all__)
def test_every_name_is_there(name):
    assert name in dir(augforge)
    found = getattr(augforge, name)
    assert isinstance(found, types.ModuleType) or callable(found)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = augforge.nonsense


def test_importing_it_imports_nothing_slow():
    code = "import sys, augforge; print(*{'torch', 'numpy', 'cv2', 'click'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         cwd=tempfile.gettempdir())  # fmt: skip
    assert run.stdout.strip() == ""


def test_making_pictures_imports_what_that_needs():
    slow = "{'scipy', 'matplotlib', 'sklearn', 'torchvision', 'timm', 'pandas', 'h5py'}"
    code = f"import sys, augforge.synth.run; print(*{slow} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         cwd=tempfile.gettempdir())  # fmt: skip
    assert run.stdout.strip() == ""
