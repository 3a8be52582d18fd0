"""Products as this machine rounds them, and as the worst one may (tests/hostile.py, which is no installed module)."""

import contextlib
import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(params=["as it is", "rounding by place"])
def products(request):
    """A context that products are made in."""
    if request.param == "as it is":
        return contextlib.nullcontext
    spec = importlib.util.spec_from_file_location("hostile", Path(__file__).parent.parent / "hostile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HostileProducts
