"""What every synthesizer of the catalog promises. A new entry is tested without a line here.

`SETTINGS` says what an entry cannot do without: the settings, made when the test runs, that make it small or whole.
"""

import functools
import json
from collections.abc import Callable

import pytest
import torch

from augforge.parts import catalog, contracts
from augforge.parts.contracts.cases import KEYS, SUPPORT_Y, WANT
from augforge.types import Examples, InputError, capabilities


def _pipeline():
    from augforge.generators.albumentations import AlbumentationsCompose, _albumentations

    library = _albumentations()
    transforms = [library.HorizontalFlip(), library.Affine(rotate=(-20, 20), p=0.9), library.GaussNoise()]
    return AlbumentationsCompose.of(library.Compose(transforms)).compose


NETS = {"size": 16, "width": 8, "steps": 2}
HALVES = {"domain": "half", "source": "left", "target": "right"}
SETTINGS: dict[str, Callable[[], dict]] = {
    "albumentations": lambda: {"compose": _pipeline()},
    "analogies": lambda: {"steps": 20},
    "hallucinator": lambda: {"steps": 1, "way": 2, "made": 1},
    "posterior": lambda: {"transform": "sqrt", "shrinkage": 0.4, "between_scale": 1.0, "prior": "mixture", "way": 2},
    "wang-hallucinator": lambda: {"steps": 2, "way": 3, "queries": 2, "episodes": 2, "fill": 6},
    "delta-encoder": lambda: {"steps": 2, "batch": 8, "codes": 16},
    "feature-gan": lambda: {"steps": 2, "way": 3, "shots": "1,2", "episodes": 2},
    "feature-vae": lambda: {"steps": 2, "batch": 8},
    "conditional-gan": lambda: {**NETS, "judge_width": 4, "batch": 8},
    "image-gan": lambda: {**NETS, "judge_width": 8, "batch": 4, "noise": 4, "code": 4},
    "translation": lambda: {**NETS, "judge_width": 4, "batch": 4, "noise": 4, **HALVES},
}


@functools.cache
def _settings(name):
    return SETTINGS.get(name, dict)()


@functools.cache
def _cases(name):
    """The cases of an entry by their names; each is fitted once for all laws."""
    part = catalog.make(name, _settings(name))
    return {str(case): case for case in contracts.cases(part, "synthesizer")}


def _names():
    """The name of every entry with the names of its cases, which need no settings."""
    for name in catalog.SYNTHESIZERS:
        try:
            part = catalog.make(name)
        except InputError:  # it has settings that must be given
            part = catalog.make(name, _settings(name))
        for case in contracts.cases(part, "synthesizer"):
            yield pytest.param(name, str(case), id=f"{name}-{case}")


every_case = pytest.mark.parametrize(("name", "case"), list(_names()))


@pytest.mark.parametrize("law", contracts.LAWS["synthesizer"])
@every_case  # varies slowest, so that a worker of pytest-xdist fits few of the cases that another one fits
def test_it_keeps_the_law(law, name, case):
    contracts.LAWS["synthesizer"][law](_cases(name)[case])


@pytest.mark.parametrize("name", catalog.SYNTHESIZERS)
def test_unknown_settings_are_refused(name):
    with pytest.raises(InputError, match="no setting 'nonsense'"):
        catalog.make(name, {**json.loads(json.dumps(_settings(name))), "nonsense": 1})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@every_case
def test_rows_stay_on_the_device(name, case):
    case = _cases(name)[case]
    support, on_cpu = case.support(), case.made()
    x = [p.cuda() for p in support.x] if isinstance(support.x, list) else support.x.cuda()
    made = case.fitted.synthesize(Examples(x, SUPPORT_Y.cuda()), WANT.cuda(), KEYS.cuda())
    assert made.y.is_cuda
    assert torch.equal(made.y.cpu(), on_cpu.y)
    assert (made.parent is None) == (on_cpu.parent is None)
    if made.parent is not None:
        assert made.parent.tolist() == on_cpu.parent.tolist()
    for row, cpu_row in zip(made.x, on_cpu.x, strict=True):
        assert row.is_cuda
        assert row.dtype == case.dtype
        assert row.shape == cpu_row.shape


def test_capabilities_are_declared_as_they_are_read():
    for name in catalog.SYNTHESIZERS:
        says = capabilities(catalog.part_class(name))
        assert says.space in ("image", "feature", "any")
        assert isinstance(says.one_class, bool)
