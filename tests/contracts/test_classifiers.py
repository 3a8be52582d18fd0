"""What every classifier of the catalog promises. A new entry is tested without a line here.

`SETTINGS` are settings that make an entry small enough to test, or reach another of its forms.
"""

import functools
import json
import pickle
import random

import numpy as np
import pytest
import torch

from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.parts import catalog
from augforge.parts.saving import load_part, part_digest, save_part
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
D, WAY, SHOT, N_QUERY, B = 8, 3, 3, 7, 4
FLOATS = (torch.float32, torch.float64, torch.bfloat16)


def _cases():
    for name in catalog.CLASSIFIERS:
        for settings in SETTINGS.get(name, ({},)):
            yield pytest.param(name, json.dumps(settings), id=" ".join([name, *map(str, settings.values())]))


every_case = pytest.mark.parametrize(("name", "settings"), list(_cases()))
every_name = pytest.mark.parametrize("name", catalog.CLASSIFIERS)


def _part(name, settings):
    return catalog.make(name, json.loads(settings), "classifier")


@functools.cache
def _base():
    rng = torch.Generator().manual_seed(3)
    y = torch.arange(6).repeat_interleave(9)
    return FeatureBank(torch.randn(6, D, generator=rng)[y] + torch.randn(54, D, generator=rng) / 2, y, tuple("abcdef"))


@functools.cache
def _fitted(name, settings):
    return _part(name, settings).fit(_base(), torch.Generator().manual_seed(0))


def _episodes(dtype=torch.float64):
    rng = torch.Generator().manual_seed(8)
    y = torch.stack([torch.arange(WAY).repeat(SHOT)[torch.randperm(WAY * SHOT, generator=rng)] for _ in range(B)])
    centres = torch.randn(B, WAY, D, generator=rng, dtype=torch.float64)
    x = centres.gather(1, y[..., None].expand(-1, -1, D)) + torch.randn(B, WAY * SHOT, D, generator=rng) / 2
    return Examples(x.to(dtype), y), torch.randn(B, N_QUERY, D, generator=rng, dtype=torch.float64).to(dtype)


def _scores(name, settings, support, query):
    with torch.no_grad():
        return _fitted(name, settings).scores(support, query)


def _same(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@every_case
@pytest.mark.parametrize("dtype", FLOATS)
def test_shapes_and_types(name, settings, dtype):
    support, query = _episodes(dtype)
    found = _scores(name, settings, support, query)
    assert found.shape == (B, N_QUERY, WAY)
    assert found.dtype == dtype
    assert torch.isfinite(found).all()
    exact = _scores(name, settings, Examples(support.x.double(), support.y), query.double())
    bfloat16 = {"atol": 0.05, "rtol": 0.02}
    torch.testing.assert_close(
        found.double(), exact, **(bfloat16 if dtype == torch.bfloat16 else {"atol": 2e-3, "rtol": 1e-3})
    )


@every_case
def test_it_knows_what_it_was_shown(name, settings):
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(WAY).repeat_interleave(5)
    x = 4 * torch.eye(WAY, D)[y] + torch.randn(WAY * 5, D, generator=rng) / 20
    assert torch.equal(_scores(name, settings, Examples(x, y), x + 0.01).argmax(-1), y)


@every_case
def test_a_batch_is_its_episodes(name, settings):
    support, query = _episodes()
    batch = _scores(name, settings, support, query)
    for e in range(B):
        _same(_scores(name, settings, Examples(support.x[e], support.y[e]), query[e]), batch[e])


@every_case
def test_queries_do_not_see_each_other(name, settings):
    support, query = _episodes()
    whole = _scores(name, settings, support, query)
    order = torch.randperm(N_QUERY, generator=torch.Generator().manual_seed(2))
    _same(_scores(name, settings, support, query[:, order]), whole[:, order])
    for q in range(N_QUERY):
        _same(_scores(name, settings, support, query[:, q : q + 1]), whole[:, q : q + 1])
    assert _scores(name, settings, support, query[:, :0]).shape == (B, 0, WAY)


@every_case
def test_the_order_of_the_support_does_not_matter(name, settings):
    support, query = _episodes()
    order = torch.randperm(WAY * SHOT, generator=torch.Generator().manual_seed(2))
    weight = torch.linspace(0.5, 2, WAY * SHOT, dtype=torch.float64).expand(B, -1)
    found = _scores(name, settings, Examples(support.x, support.y, weight=weight), query)
    shuffled = Examples(support.x[:, order], support.y[:, order], weight=weight[:, order])
    _same(_scores(name, settings, shuffled, query), found)


@every_case
def test_class_numbers_are_only_names(name, settings):
    support, query = _episodes()
    rename = torch.tensor([2, 0, 1])
    found = _scores(name, settings, Examples(support.x, rename[support.y]), query)
    _same(found[..., rename], _scores(name, settings, support, query))


@every_case
def test_a_weight_is_that_many_copies(name, settings):
    if getattr(_fitted(name, settings), "full_context", False):
        pytest.skip("the LSTM reads each row once, as the class says")
    support, query = _episodes()
    weight = torch.tensor([1, 2, 3, 1, 1, 2, 1, 1, 2])
    copies = torch.arange(WAY * SHOT).repeat_interleave(weight)
    found = _scores(name, settings, Examples(support.x, support.y, weight=weight.expand(B, -1).double()), query)
    _same(found, _scores(name, settings, Examples(support.x[:, copies], support.y[:, copies]), query))


@every_case
def test_rows_of_no_weight_are_padding(name, settings):
    support, query = _episodes()
    pad = torch.full((B, 2, D), 9.0, dtype=torch.float64)
    x = torch.cat([pad[:, :1], support.x, pad[:, 1:]], 1)
    y = torch.cat([torch.ones(B, 1), support.y, -torch.ones(B, 1)], 1).long()
    weight = torch.cat([torch.zeros(B, 1), torch.ones(B, WAY * SHOT), torch.zeros(B, 1)], 1)
    found = _scores(name, settings, Examples(x, y, weight=weight), query)
    _same(found, _scores(name, settings, support, query))


@every_case
def test_shots_may_differ(name, settings):
    support, query = _episodes()
    for e, kept in enumerate(([0, 1, 1], [2, 1, 3], [3, 3, 1], [1, 1, 1])):
        rows = torch.cat([(support.y[e] == k).nonzero()[: max(1, n), 0] for k, n in enumerate(kept)])
        alone = Examples(support.x[e][rows], support.y[e][rows])
        weight = torch.zeros(WAY * SHOT).index_fill(0, rows, 1)
        padded = Examples(support.x[e], support.y[e], weight=weight)
        _same(_scores(name, settings, padded, query[e]), _scores(name, settings, alone, query[e]))


@every_case
def test_one_row_and_one_class_will_do(name, settings):
    support, query = _episodes()
    alone = Examples(support.x[0, :1], torch.zeros(1, dtype=torch.int64))
    assert torch.isfinite(_scores(name, settings, alone, query[0])).all()


@every_case
def test_the_support_and_the_part_are_untouched(name, settings):
    (support, query), part = _episodes(), _fitted(name, settings)
    weight = torch.ones(B, WAY * SHOT, dtype=torch.float64)
    before = part_digest(part, "classifier")
    first = _scores(name, settings, Examples(support.x, support.y, weight=weight), query)
    _scores(name, settings, Examples(support.x.flip(0) + 1, support.y.flip(0)), query)
    again = _episodes()
    assert torch.equal(support.x, again[0].x)
    assert torch.equal(support.y, again[0].y)
    assert torch.equal(query, again[1])
    assert torch.equal(weight, torch.ones_like(weight))
    assert part_digest(part, "classifier") == before
    assert torch.equal(_scores(name, settings, support, query), first)


def _random_state():
    numpy_state = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy_state[1].tobytes(), numpy_state[2:], torch.get_rng_state().numpy().tobytes()


@every_case
def test_global_random_state_stays_and_fitting_again_gives_the_same(name, settings):
    support, query = _episodes()
    before = _random_state()
    again = _part(name, settings).fit(_base(), torch.Generator().manual_seed(0))
    again.scores(support, query)
    assert _random_state() == before
    assert part_digest(again, "classifier") == part_digest(_fitted(name, settings), "classifier")


@every_case
def test_saving_loading_and_pickling_go_on(name, settings, tmp_path):
    part, (support, query) = _fitted(name, settings), _episodes()
    save_part(part, tmp_path / "part", "classifier")
    for other in (load_part(tmp_path / "part", "classifier"), pickle.loads(pickle.dumps(part))):
        assert part_digest(other, "classifier") == part_digest(part, "classifier")
        with torch.no_grad():
            assert torch.equal(other.scores(support, query), _scores(name, settings, support, query))


@every_case
def test_description_makes_the_same_part(name, settings):
    described = json.loads(json.dumps(catalog.describe(_part(name, settings), "classifier")))
    assert described["name"] == name
    assert catalog.describe(catalog.make(**described, kind="classifier"), "classifier") == described


@every_case
def test_pictures_are_refused(name, settings):
    pictures = Examples(torch.zeros(2, 3, 4, 4), torch.arange(2))
    with pytest.raises(InputError, match="a classifier takes features"):
        _fitted(name, settings).scores(pictures, torch.zeros(1, 3, 4, 4))
    bank = ArrayPictures(torch.arange(2), tuple("ab"), np.zeros((2, 4, 4, 3), np.uint8), "base")
    if vars(_part(name, settings)) != vars(_fitted(name, settings)):  # it learns something
        with pytest.raises(InputError, match="embed them first"):
            _part(name, settings).fit(bank, torch.Generator())


@every_name
def test_unknown_settings_are_refused(name):
    with pytest.raises(InputError, match="no setting 'nonsense'"):
        catalog.make(name, {"nonsense": 1}, "classifier")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@every_case
def test_scores_stay_on_the_device(name, settings):
    support, query = _episodes()
    weight = torch.ones(B, WAY * SHOT).cuda()
    found = _scores(name, settings, Examples(support.x.cuda(), support.y.cuda(), weight=weight), query.cuda())
    assert found.is_cuda
    _same(found.cpu(), _scores(name, settings, support, query))
