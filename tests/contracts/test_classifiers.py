"""What every classifier of the catalog promises. A new entry is tested without a line here.

`SETTINGS` are settings that make an entry small enough to test, or reach another of its forms.
"""

import functools
import json

import pytest
import torch

from augforge.parts import catalog, contracts
from augforge.types import Examples, InputError

_BRIEF = {"train_steps": 3, "context_steps": 2, "train_way": 3, "train_shot": 2}
SETTINGS: dict[str, tuple[dict, ...]] = {
    "prototype": ({}, {"distance": "cosine"}, {"distance": "mahalanobis"}),
    "simpleshot": ({}, {"normalise": "none"}, {"normalise": "l2", "distance": "cosine"}),
    "matching": ({}, {"full_context": True, **_BRIEF}),
    "pmn": ({"full_context": False}, _BRIEF),
    "gaussian": ({}, {"transform": "raw", "spread": "class"}),
    "knn": ({}, {"k": 3, "distance": "cosine"}, {"k": 2, "distance": "mahalanobis"}),
    "logistic": ({}, {"normalise": "l2", "C": 10.0}, {"normalise": "spread"}),
    "cosine": ({"steps": 10},),
    "mlp": ({"hidden": 16, "steps": 20},),
}
WIDTHS = (8,)


@functools.cache
def _case(name, settings, width):
    """One case for all laws, so that it is fitted once."""
    part = catalog.make(name, json.loads(settings), "classifier")
    return contracts.ClassifierCase(part, width=width)


every_case = pytest.mark.parametrize(
    ("name", "settings", "width"),
    [
        pytest.param(name, json.dumps(settings), width, id=" ".join([name, *map(str, settings.values()), str(width)]))
        for name in catalog.CLASSIFIERS
        for settings in SETTINGS.get(name, ({},))
        for width in WIDTHS
    ],
)


@every_case
@pytest.mark.parametrize("law", contracts.LAWS["classifier"])
def test_it_keeps_the_law(law, name, settings, width):
    contracts.LAWS["classifier"][law](_case(name, settings, width))


@pytest.mark.parametrize("name", catalog.CLASSIFIERS)
def test_unknown_settings_are_refused(name):
    with pytest.raises(InputError, match="no setting 'nonsense'"):
        catalog.make(name, {"nonsense": 1}, "classifier")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@every_case
def test_scores_stay_on_the_device(name, settings, width):
    case = _case(name, settings, width)
    support, query = case.episodes()
    weight = torch.ones(support.y.shape).cuda()
    found = case.scores(Examples(support.x.cuda(), support.y.cuda(), weight=weight), query.cuda())
    assert found.is_cuda
    expected = case.scores(support, query)
    # cuDNN multiplies in TF32, with 10 bits behind the point, wherever there is an LSTM
    close = (0.02, 0.02 * float(expected.abs().max())) if name in ("matching", "pmn") else (1e-3, 1e-4)
    torch.testing.assert_close(found.cpu(), expected, rtol=close[0], atol=close[1])
