"""The bits of made rows and of scores: the same in any order and batch, saved or pickled, at any width of features.

`test_with_another_library` repeats it all in processes whose matrix library was set to other code paths, and every law
is checked under the hostile product of tests/hostile.py too.
"""

import contextlib
import functools
import importlib.util
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from augforge import chance
from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.networks.products import in_tiles, row_product
from augforge.parts import catalog
from augforge.parts.saving import load_part, save_part
from augforge.types import Examples


def _hostile():
    """tests/hostile.py, which is no installed module."""
    spec = importlib.util.spec_from_file_location("hostile", Path(__file__).parent.parent / "hostile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HostileProducts


AGAIN = "AUGFORGE_SAME_BITS" in os.environ  # this is a process of `test_with_another_library`
WIDTHS = (3, 10, 33) if AGAIN else (2, 3, 5, 6, 7, 10, 16, 33, 512)
LIBRARIES = ("MKL_CBWR=COMPATIBLE", "MKL_CBWR=AVX2", "MKL_CBWR=AVX512", "ATEN_CPU_CAPABILITY=default")
PRODUCTS = {"as it is": contextlib.nullcontext, "rounding by place": _hostile()}
Y = torch.tensor([0, 2, 1, 2, 0, 2])
N = 84  # rows: more than a tile
WANT = torch.tensor([2, 0, 0, 1, 2, 1, 0, 2, 2, 1, 0, 2]).repeat(N // 12)
KEYS = chance.row_keys(0, "bits", torch.arange(N))
_NETS = {"size": 16, "width": 8, "steps": 2}
_HALVES = {"domain": "half", "source": "left", "target": "right"}
SMALL = {
    "posterior": {"transform": "sqrt", "shrinkage": 0.4, "between_scale": 1.0, "prior": "mixture", "way": 2, "made": 1},
    "hallucinator": {"steps": 1, "way": 2, "made": 1},
    "analogies": {"steps": 5},
    "wang-hallucinator": {"steps": 2, "way": 3, "queries": 2, "episodes": 2, "fill": 6},
    "delta-encoder": {"steps": 2, "batch": 8, "codes": 16},
    "feature-gan": {"steps": 2, "way": 3, "shots": "1,2", "episodes": 2},
    "feature-vae": {"steps": 2, "batch": 8},
    "conditional-gan": {**_NETS, "judge_width": 4, "batch": 8},
    "image-gan": {**_NETS, "judge_width": 8, "batch": 4, "noise": 4, "code": 4},
    "translation": {**_NETS, "judge_width": 4, "batch": 4, "noise": 4, **_HALVES},
    "prototype": {"distance": "mahalanobis"},
    "knn": {"k": 2, "distance": "mahalanobis"},
    "logistic": {"normalise": "spread"},
    "matching": {"full_context": True, "train_steps": 2, "context_steps": 2, "train_way": 3, "train_shot": 2},
    "pmn": {"train_steps": 2, "context_steps": 2, "train_way": 3, "train_shot": 2},
    "mlp": {"hidden": 17, "steps": 10},
    "cosine": {"steps": 10},
}
PICTURE_METHODS = ("conditional-gan", "image-gan", "translation")
FEATURE_METHODS = tuple(
    name for name in catalog.SYNTHESIZERS if catalog.part_class(name).space != "image" and name != "nothing"
)
SLOW = {"hallucinator": (), "posterior": (3,)}  # widths tried there; both draw by the same code
every_product = pytest.mark.parametrize("product", ["as it is"] if AGAIN else PRODUCTS)


def _at_widths(names):
    return [(name, d) for name in names for d in (SLOW.get(name, WIDTHS) if AGAIN else WIDTHS)]


@functools.cache
def _features(d):
    rng = np.random.default_rng(d)
    y = torch.arange(6).repeat_interleave(8)
    x = torch.from_numpy(rng.normal(size=(48, d)).astype(np.float32)) + y[:, None] / 3
    return FeatureBank(x.relu(), y, tuple("abcdef"))


@functools.cache
def _pictures():
    pixels = np.random.default_rng(1).integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
    y = torch.arange(6).repeat_interleave(8)
    return ArrayPictures(y, tuple("abcdef"), pixels, "base", groups={"half": ("left", "right") * 24})


@functools.cache
def _fitted(name, d):
    """A fitted part: on features of width `d`, or on pictures where that is 0."""
    kind = catalog.kind_of(name)
    part = catalog.make(name, dict(SMALL.get(name, {})), kind)
    return part.fit(_features(d) if d else _pictures(), torch.Generator().manual_seed(0))


def _support(d):
    rng = torch.Generator().manual_seed(11)
    if d:
        return Examples(torch.randn(len(Y), d, generator=rng).relu(), Y)
    return Examples(torch.rand(len(Y), 3, 16, 16, generator=rng), Y)


def _copies(part, kind, folder):
    save_part(part, folder, kind)
    return load_part(folder, kind), pickle.load(io.BytesIO(pickle.dumps(part)))


def _check_made_rows(name, d, product, tmp_path):
    part, support = _fitted(name, d), _support(d)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    with PRODUCTS[product](), torch.no_grad():
        whole = part.synthesize(support, WANT, KEYS).x
        assert torch.equal(part.synthesize(support, WANT[order], KEYS[order]).x, whole[order])
        for some in (slice(0, 1), slice(5, 6), slice(70, 84), slice(3, 67)):
            assert torch.equal(part.synthesize(support, WANT[some], KEYS[some]).x, whole[some])
        for other in _copies(part, "synthesizer", tmp_path / "part"):
            assert torch.equal(other.synthesize(support, WANT, KEYS).x, whole)
        if getattr(part, "one_parent", False):
            made = part.synthesize(support, WANT, KEYS)
            for i in (0, 41, 83):
                alone = Examples(support.x[made.parent[i]][None], torch.zeros(1, dtype=torch.int64))
                assert torch.equal(part.synthesize(alone, alone.y, KEYS[i : i + 1]).x[0], whole[i])


@every_product
@pytest.mark.parametrize(("name", "d"), _at_widths(FEATURE_METHODS))
def test_made_features(name, d, product, tmp_path):
    _check_made_rows(name, d, product, tmp_path)


@every_product
@pytest.mark.parametrize("name", PICTURE_METHODS)
def test_made_pictures(name, product, tmp_path):
    _check_made_rows(name, 0, product, tmp_path)


@every_product
@pytest.mark.parametrize(("name", "d"), _at_widths(catalog.CLASSIFIERS))
def test_scores_of_a_saved_and_a_pickled_classifier(name, d, product, tmp_path):
    part, support = _fitted(name, d), _support(d)
    query = torch.randn(7, d, generator=torch.Generator().manual_seed(3)).relu()
    with PRODUCTS[product](), torch.no_grad():
        scores = part.scores(support, query)
        for other in _copies(part, "classifier", tmp_path / "part"):
            assert torch.equal(other.scores(support, query), scores)


@pytest.mark.parametrize("d", range(2, 41))
def test_a_saved_copy_of_noise_differs_in_no_number(d, tmp_path):
    part, support = _fitted("noise", d), _support(d)
    made = part.synthesize(support, WANT, KEYS).x
    for other in _copies(part, "synthesizer", tmp_path / "part"):
        assert int((other.synthesize(support, WANT, KEYS).x != made).sum()) == 0


@pytest.mark.parametrize(("name", "d"), _at_widths([*FEATURE_METHODS, *catalog.CLASSIFIERS]))
def test_fitted_tensors_lie_row_by_row(name, d):
    part = _fitted(name, d)
    for key, value in vars(part).items():
        if key.endswith("_") and isinstance(value, torch.Tensor):
            assert value.is_contiguous(), key
        if key.endswith("_") and isinstance(value, nn.Module):
            assert [k for k, v in value.state_dict().items() if not v.is_contiguous()] == [], key


@every_product
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", WIDTHS)
def test_products_of_rows(d, dtype, product):
    rng = torch.Generator().manual_seed(0)
    x, matrix = torch.randn(200, d, generator=rng, dtype=dtype), torch.randn(d, d + 1, generator=rng, dtype=dtype)
    net = nn.Sequential(nn.Linear(d, 37, dtype=dtype), nn.LeakyReLU(0.2), nn.Linear(37, d, dtype=dtype))
    order = torch.randperm(200, generator=rng)
    by_columns = matrix.T.contiguous().T
    with PRODUCTS[product](), torch.no_grad():
        for function in (lambda x: row_product(x, matrix), lambda x: in_tiles(net, x), lambda x: in_tiles(_square, x)):
            whole = function(x)
            assert torch.equal(function(x[order]), whole[order])
            assert torch.equal(function(x[17:18]), whole[17:18])
        assert torch.equal(row_product(x, by_columns), row_product(x, matrix))
    torch.testing.assert_close(row_product(x, matrix), x @ matrix)
    torch.testing.assert_close(in_tiles(net, x), net(x))


def _square(x):
    return x @ torch.ones(x.shape[1], x.shape[1] + 2, dtype=x.dtype)


def test_the_hostile_product_is_hostile():
    rng = torch.Generator().manual_seed(0)
    x, order = torch.randn(64, 7, generator=rng), torch.randperm(64, generator=rng)
    for width in (3, 16):
        matrix = torch.randn(7, width, generator=rng)
        with PRODUCTS["rounding by place"]():
            assert not torch.equal(x[order] @ matrix, (x @ matrix)[order])
            assert not torch.equal(x @ matrix.T.contiguous().T, x @ matrix)


@pytest.mark.skipif(AGAIN, reason="this is such a process")
@pytest.mark.parametrize("library", LIBRARIES)
def test_with_another_library(library):
    key, _, value = library.partition("=")
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(Path(__file__)), "-k", "not lie_row_by_row"]
    environment = {**os.environ, key: value, "AUGFORGE_SAME_BITS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
