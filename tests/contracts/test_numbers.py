"""Features that no method can use are an error that names the row; what can be used gives finite numbers."""

import dataclasses

import pytest
import torch

from augforge.classifiers.base_statistics import symmetric_eigen
from augforge.data.banks import FeatureBank
from augforge.parts import catalog
from augforge.parts.learning import learn
from augforge.training.loop import Run
from augforge.types import Examples, InputError, capabilities

QUICK = {"steps": 3, "epochs": 1, "train_steps": 3}
CLASSES = tuple(f"c{i}" for i in range(8))
SYNTHESIZERS = [name for name in catalog.SYNTHESIZERS if name not in ("albumentations", "nothing")]
Y = torch.arange(8).repeat_interleave(12)


def _x(seed):
    rng = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(8, 8, generator=rng)[Y] + torch.randn(len(Y), 8, generator=rng)


def _part(name, kind):
    fields = {field.name for field in dataclasses.fields(catalog.part_class(name, kind)) if field.init}
    return catalog.make(name, {key: value for key, value in QUICK.items() if key in fields}, kind)


def _fitted(name, kind, x=None, val=None):
    part = _part(name, kind)
    if capabilities(part).space == "image":
        pytest.skip("a method of pictures")
    base, val = (FeatureBank(found, Y, CLASSES) for found in (_x(0) if x is None else x, _x(1) if val is None else val))
    return learn(part, base, torch.Generator().manual_seed(0), val, Run())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e20, -1e37])
def test_a_bank_names_the_row(value):
    x = _x(0)
    x[5, 2] = value
    with pytest.raises(InputError, match=r"row 5 of 'a file' holds .*; expected finite numbers"):
        FeatureBank(x, Y, CLASSES, "a file")
    FeatureBank(_x(0) * 1e14, Y, CLASSES)


@pytest.mark.parametrize("name", [name for name in SYNTHESIZERS if name not in ("hallucinator", "posterior")])
def test_methods_name_the_row_of_the_support(name):
    part = _fitted(name, "synthesizer")
    want, keys = torch.tensor([0, 1] * 4), torch.arange(8)
    for value in (float("nan"), float("inf"), 1e20):
        x = _x(2)[:24]
        x[5, 2] = value
        with pytest.raises(InputError, match="row 5 of the support holds"):
            part.synthesize(Examples(x, Y[:24]), want, keys)
    half = (_x(2)[:24] * 1e4).clamp(-65504, 65504).half()
    made = torch.as_tensor(part.synthesize(Examples(half, Y[:24]), want, keys).x)
    assert made.dtype == torch.float16
    assert bool(made.isfinite().all())


@pytest.mark.parametrize("name", ["prototype", "simpleshot", "logistic", "knn", "cosine", "gaussian"])
def test_classifiers_name_the_row(name):
    part = _fitted(name, "classifier")
    x, y = _x(2)[:24], Y[:24]
    for value in (float("nan"), float("inf"), 1e20):
        bad = x.clone()
        bad[5, 2] = value
        with pytest.raises(InputError, match="row 5 of the support holds"):
            part.scores(Examples(bad, y), x)
        with pytest.raises(InputError, match="row 5 of the queries holds"):
            part.scores(Examples(x, y), bad)
    half = (x * 1e4).clamp(-65504, 65504).half()
    scores = part.scores(Examples(half, y), half)
    assert scores.dtype == torch.float32
    assert bool(scores.isfinite().all())


@pytest.mark.parametrize("name", ["noise", "calibration", "mixing", "wang-hallucinator"])
def test_features_of_any_size_that_is_allowed_give_finite_rows(name):
    for size in (1e-20, 1e14):
        part = _fitted(name, "synthesizer", _x(0) * size, _x(1) * size)
        made = part.synthesize(Examples(_x(2)[:24] * size, Y[:24]), torch.tensor([0, 1] * 4), torch.arange(8))
        assert bool(torch.as_tensor(made.x).isfinite().all())


def test_constant_features_do_not_end_a_fit(monkeypatch):
    matrix = torch.diag(torch.tensor([3.0, 2.0] + [0.0] * 300))
    values, vectors = symmetric_eigen(matrix)
    driver, calls = torch.linalg.eigh, []

    def failing(given):
        calls.append(given.dtype)
        if given.dtype == torch.float32:
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return driver(given)

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    found, turned = symmetric_eigen(matrix)
    assert calls == [torch.float32, torch.float64]
    assert found.dtype == torch.float32
    assert torch.allclose(found, values, atol=1e-6)
    assert torch.allclose((turned * found) @ turned.mT, (vectors * values) @ vectors.mT, atol=1e-5)
    monkeypatch.setattr(torch.linalg, "eigh", lambda given: (_ for _ in ()).throw(torch.linalg.LinAlgError("no")))
    with pytest.raises(InputError, match="the covariance of 302 features"):
        symmetric_eigen(matrix)
