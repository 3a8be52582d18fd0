"""What every synthesizer of the catalog promises. A new entry is tested without a line here.

`SETTINGS` says what an entry cannot do without: the settings, made when the test runs, that make it small or whole.
"""

import functools
import json
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.imagine import check_space
from augforge.parts import catalog
from augforge.parts.saving import load_part, part_digest, save_part
from augforge.types import Examples, InputError


def _pipeline():
    from augforge.generators.albumentations import AlbumentationsCompose, _albumentations

    library = _albumentations()
    transforms = [library.HorizontalFlip(), library.Affine(rotate=(-20, 20), p=0.9), library.GaussNoise()]
    return AlbumentationsCompose.of(library.Compose(transforms)).compose


SETTINGS: dict[str, Callable[[], dict]] = {
    "albumentations": lambda: {"compose": _pipeline()},
    "analogies": lambda: {"steps": 20},
    "wang-hallucinator": lambda: {"steps": 2, "way": 3, "queries": 2, "episodes": 2, "fill": 6},
    "delta-encoder": lambda: {"steps": 2, "batch": 8, "codes": 16},
    "feature-gan": lambda: {"steps": 2, "way": 3, "shots": "1,2", "episodes": 2},
    "feature-vae": lambda: {"steps": 2, "batch": 8},
    "conditional-gan": lambda: {**NETS, "judge_width": 4, "batch": 8},
    "image-gan": lambda: {**NETS, "judge_width": 8, "batch": 4, "noise": 4, "code": 4},
    "translation": lambda: {**NETS, "judge_width": 4, "batch": 4, "noise": 4, **HALVES},
}
NETS = {"size": 16, "width": 8, "steps": 2}
HALVES = {"domain": "half", "source": "left", "target": "right"}
MAKES_NO_ROWS = {"nothing"}  # the documented exception to "exactly what is wanted"
N, DIMENSIONS, SIZE = 12, 16, 16
Y = torch.tensor([0, 2, 1, 2, 0, 2])
WANT = torch.tensor([2, 0, 0, 1, 2, 1, 0, 2, 2, 1, 0, 2])
KEYS = chance.row_keys(0, "contract", torch.arange(N))


@dataclass(frozen=True)
class Case:
    """One kind of input: features, or pictures of a type, a number of channels, and one or several sizes."""

    space: str
    dtype: torch.dtype
    channels: int = 0
    sizes: tuple[int, ...] = (SIZE,)

    def __str__(self):
        several = "-sizes" if len(self.sizes) > 1 else ""
        return f"{self.space}{self.channels or ''}-{str(self.dtype).removeprefix('torch.')}{several}"

    def support(self):
        rng = torch.Generator().manual_seed(11)
        if self.space == "feature":
            return Examples(torch.randn(len(Y), DIMENSIONS, generator=rng).relu().to(self.dtype), Y)
        sizes = [self.sizes[i % len(self.sizes)] for i in range(len(Y))]
        pictures = [torch.randint(0, 256, (self.channels, size, size), generator=rng) for size in sizes]
        whole = self.dtype == torch.uint8
        pictures = [p.to(self.dtype) if whole else (p / 255).to(self.dtype) for p in pictures]
        return Examples(pictures if len(self.sizes) > 1 else torch.stack(pictures), Y)


FLOATS = (torch.float32, torch.float64, torch.bfloat16)
CASES = (
    *(Case("feature", dtype) for dtype in FLOATS),
    *(Case("image", dtype, channels) for dtype in (torch.uint8, *FLOATS) for channels in (1, 3)),
    *(Case("image", dtype, 3, (16, 12, 9)) for dtype in (torch.uint8, torch.float32)),
)


def _cases():
    for name in catalog.SYNTHESIZERS:
        space = catalog.part_class(name).space
        for case in CASES:
            if space in ("any", case.space):
                yield pytest.param(name, case, id=f"{name}-{case}")


every_case = pytest.mark.parametrize(("name", "case"), list(_cases()))
every_name = pytest.mark.parametrize("name", catalog.SYNTHESIZERS)


@functools.cache
def _new(name):
    return json.dumps(SETTINGS.get(name, dict)())


def _part(name):
    return catalog.make(name, json.loads(_new(name)))


@functools.cache
def _base(space, channels):
    rng = np.random.default_rng(3)
    y = torch.arange(6).repeat_interleave(8)
    classes = tuple("abcdef")
    if space == "feature":
        x = torch.from_numpy(rng.normal(size=(48, DIMENSIONS)).astype(np.float32)) + y[:, None] / 3
        return FeatureBank(x.relu(), y, classes)
    pixels = rng.integers(0, 256, (48, SIZE, SIZE, channels), dtype=np.uint8)
    return ArrayPictures(y, classes, pixels, "base", groups={"half": ("left", "right") * 24})


@functools.cache
def _fitted(name, space, channels):
    return _part(name).fit(_base(space, channels), torch.Generator().manual_seed(0))


def _make(name, case, rows=None):
    rows = torch.arange(N) if rows is None else rows
    part = _fitted(name, case.space, case.channels)
    return part.synthesize(case.support(), WANT[rows], KEYS[rows])


def _assert_same(x, y):
    assert isinstance(x, list) == isinstance(y, list)
    assert len(x) == len(y)
    for a, b in zip(x, y, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@every_case
def test_it_makes_what_is_wanted(name, case):
    made, support = _make(name, case), case.support()
    assert torch.equal(made.y, WANT[:0] if name in MAKES_NO_ROWS else WANT)
    assert isinstance(made.x, list) == isinstance(support.x, list)
    if not isinstance(made.x, list) and case.space == "feature":
        assert made.x.shape[1:] == support.x.shape[1:]
    for row in made.x:
        assert row.dtype == case.dtype
        assert row.device == support.x[0].device
        assert torch.isfinite(row.to(torch.float64)).all()
        if case.space == "image" and case.dtype != torch.uint8:
            assert row.min() >= 0
            assert row.max() <= 1


@every_case
def test_parents_are_of_the_class(name, case):
    made = _make(name, case)
    part = _fitted(name, case.space, case.channels)
    if made.parent is None:
        assert not part.one_parent
        return
    assert made.parent.shape == made.y.shape
    assert (made.parent >= (0 if part.one_parent else -1)).all()
    known = made.parent >= 0
    assert torch.equal(Y[made.parent[known]], made.y[known])


@every_case
def test_rows_do_not_depend_on_their_batch(name, case):
    whole = _make(name, case)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    if name in MAKES_NO_ROWS:
        return
    shuffled = _make(name, case, order)
    _assert_same(shuffled.x, whole.take(order).x)
    for i in range(N):
        _assert_same(_make(name, case, torch.tensor([i])).x, whole.take(torch.tensor([i])).x)
    assert made_parents(shuffled) == made_parents(whole.take(order))


def made_parents(made):
    return None if made.parent is None else made.parent.tolist()


@every_case
def test_one_parent_parts_need_that_parent_alone(name, case):
    part, support = _fitted(name, case.space, case.channels), case.support()
    if not part.one_parent:
        pytest.skip(f"{name} makes rows from several parents")
    made = _make(name, case)
    zero = torch.zeros(1, dtype=torch.int64)
    for i in range(len(made)):
        alone = Examples(support.take(made.parent[i : i + 1]).x, zero)
        _assert_same(part.synthesize(alone, zero, KEYS[i : i + 1]).x, made.take(torch.tensor([i])).x)


@every_case
def test_the_support_is_untouched(name, case):
    support, part = case.support(), _fitted(name, case.space, case.channels)
    want, keys = WANT.clone(), KEYS.clone()
    made = part.synthesize(support, want, keys)
    for row in made.x.detach() if isinstance(made.x, torch.Tensor) else made.x:
        row.zero_()  # nor does a made row share memory with it
    _assert_same(support.x, case.support().x)
    assert torch.equal(support.y, Y)
    assert torch.equal(want, WANT)
    assert torch.equal(keys, KEYS)


def _random_state():
    numpy_state = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy_state[1].tobytes(), numpy_state[2:], torch.get_rng_state().numpy().tobytes()


@every_case
def test_global_random_state_stays(name, case):
    before = _random_state()
    part = _part(name).fit(_base(case.space, case.channels), torch.Generator().manual_seed(0))
    part.synthesize(case.support(), WANT, KEYS)
    assert _random_state() == before


@every_case
def test_wanting_nothing_makes_nothing(name, case):
    support = case.support()
    none = torch.zeros(0, dtype=torch.int64)
    made = _fitted(name, case.space, case.channels).synthesize(support, none, none)
    assert len(made) == 0
    assert torch.equal((support + made).y, Y)
    if not isinstance(support.x, list):
        assert made.x.dtype == case.dtype
        assert made.x.ndim == support.x.ndim


@every_case
def test_a_class_without_support_is_refused(name, case):
    part = _fitted(name, case.space, case.channels)
    if part.support_needed == 0:
        pytest.skip(f"{name} needs no support")
    with pytest.raises(InputError):
        part.synthesize(case.support(), torch.tensor([3]), KEYS[:1])


@every_case
def test_saving_loading_and_pickling_go_on(name, case, tmp_path):
    part = _fitted(name, case.space, case.channels)
    made = _make(name, case)
    save_part(part, tmp_path / "part")
    loaded, copy = load_part(tmp_path / "part"), pickle.loads(pickle.dumps(part))
    for other in (loaded, copy):
        assert part_digest(other) == part_digest(part)
        _assert_same(other.synthesize(case.support(), WANT, KEYS).x, made.x)


@every_case
def test_fitting_again_gives_the_same(name, case):
    again = _part(name).fit(_base(case.space, case.channels), torch.Generator().manual_seed(0))
    assert part_digest(again) == part_digest(_fitted(name, case.space, case.channels))


@every_name
def test_description_makes_the_same_part(name):
    described = json.loads(json.dumps(catalog.describe(_part(name))))
    assert described["name"] == name
    assert catalog.describe(catalog.make(**described)) == described


@every_name
def test_unknown_settings_are_refused(name):
    with pytest.raises(InputError, match="no setting 'nonsense'"):
        catalog.make(name, {**json.loads(_new(name)), "nonsense": 1})


@every_name
def test_rows_of_the_other_space_are_refused(name):
    part = _part(name)
    if part.space == "any":
        pytest.skip(f"{name} takes pictures and features")
    other = Case("feature", torch.float32) if part.space == "image" else Case("image", torch.uint8, 3)
    with pytest.raises(InputError):
        check_space(part, other.support(), name)
    with pytest.raises(InputError):
        part.synthesize(other.support(), WANT, KEYS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@every_case
def test_rows_stay_on_the_device(name, case):
    support = case.support()
    x = [p.cuda() for p in support.x] if isinstance(support.x, list) else support.x.cuda()
    part = _fitted(name, case.space, case.channels)
    made = part.synthesize(Examples(x, Y.cuda()), WANT.cuda(), KEYS.cuda())
    assert made.y.is_cuda
    on_cpu = _make(name, case)
    assert torch.equal(made.y.cpu(), on_cpu.y)
    assert made_parents(made) == made_parents(on_cpu)
    for row, cpu_row in zip(made.x, on_cpu.x, strict=True):
        assert row.is_cuda
        assert row.dtype == case.dtype
        assert row.shape == cpu_row.shape
