import json
import os
import pickle
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from augforge.generators.albumentations import AlbumentationsCompose, _albumentations
from augforge.parts import catalog
from augforge.types import Examples, InputError

A = _albumentations()


def _flips():
    return A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])


def _pipeline():
    return A.Compose([A.HorizontalFlip(p=0.5), A.Affine(rotate=(-30, 30), p=1), A.GaussNoise(p=0.5)], seed=7)


def _support(dtype=torch.uint8, channels=3, size=16):
    x = torch.randint(0, 256, (4, channels, size, size), generator=torch.Generator().manual_seed(1))
    return Examples(x.to(dtype) if dtype == torch.uint8 else (x / 255).to(dtype), torch.arange(4))


def _make(part, keys, **kwargs):
    keys = torch.as_tensor(keys)
    return part.synthesize(_support(**kwargs), torch.zeros(len(keys), dtype=torch.int64), keys)


def test_a_row_is_a_function_of_its_key_alone():
    part = AlbumentationsCompose.of(_pipeline())
    together = _make(part, range(20)).x
    assert len({picture.numpy().tobytes() for picture in together}) == 20
    assert torch.equal(_make(part, [7, 3]).x, together[[7, 3]])
    assert torch.equal(_make(AlbumentationsCompose.of(_pipeline()), range(20)).x, together)


def test_transforms_of_one_pipeline_draw_independently():
    # compose.set_random_seed would make both flips draw the same number: only two of the four outcomes
    made = _make(AlbumentationsCompose.of(_flips()), range(400)).x
    _, counts = torch.unique(made.flatten(1), dim=0, return_counts=True)
    assert len(counts) == 4
    assert ((counts - 100.0) ** 2 / 100).sum() < 21.1  # chi-square, 3 degrees of freedom, p = 1e-4


def test_it_does_what_the_pipeline_does():
    part = AlbumentationsCompose.of(A.Compose([A.HorizontalFlip(p=1), A.InvertImg(p=1)]))
    assert torch.equal(_make(part, [1]).x[0], 255 - _support().x[0].flip(-1))
    single = AlbumentationsCompose.of(A.VerticalFlip(p=1))
    assert torch.equal(_make(single, [1]).x[0], _support().x[0].flip(-2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_floats_stay_in_their_type_and_range(dtype, channels):
    made = _make(AlbumentationsCompose.of(_pipeline()), range(5), dtype=dtype, channels=channels).x
    assert made.dtype == dtype
    assert made.shape == (5, channels, 16, 16)
    assert made.min() >= 0
    assert made.max() <= 1


def test_sizes_that_change_come_back_as_they_are():
    resized = AlbumentationsCompose.of(A.Compose([A.Resize(5, 6)]))
    assert _make(resized, range(3)).x.shape == (3, 3, 5, 6)
    padded = AlbumentationsCompose.of(A.Compose([A.OneOf([A.Resize(5, 6), A.Resize(7, 6)], p=1)]))
    made = _make(padded, range(20)).x
    assert isinstance(made, list)
    assert {tuple(picture.shape) for picture in made} == {(3, 5, 6), (3, 7, 6)}


def test_pickling_forking_and_threads_keep_the_rows():
    part = AlbumentationsCompose.of(_pipeline())
    expected = _make(part, range(40)).x
    pickled = pickle.dumps(part)
    assert b"albumentations.augmentations" not in pickled  # some live ones cannot be pickled
    copy = pickle.loads(pickled)
    assert copy == part
    assert torch.equal(_make(copy, range(40)).x, expected)
    with get_context("fork").Pool(1) as pool:
        assert np.array_equal(pool.apply(_make_numpy, (part, 40)), expected.numpy())
    with ThreadPoolExecutor(4) as threads:
        for made in threads.map(lambda key: _make(part, [key]).x[0], range(40)):
            assert any(torch.equal(made, row) for row in expected)


def _make_numpy(part, count):
    return _make(part, range(count)).x.numpy()


def test_settings_survive_json_and_files(tmp_path):
    A.save(_pipeline(), tmp_path / "p.json")
    from_file = catalog.make("albumentations", {"compose": str(tmp_path / "p.json")})
    assert from_file == AlbumentationsCompose.of(_pipeline())
    (tmp_path / "p.json").unlink()
    described = json.loads(json.dumps(catalog.describe(from_file)))
    again = catalog.make(described["name"], described["settings"])
    assert torch.equal(_make(again, range(9)).x, _make(from_file, range(9)).x)


def test_every_transform_that_pictures_alone_suffice_for_can_be_saved():
    # to_dict names arguments of some that their classes do not take, and from_dict warns of them
    for transform in (A.RGBShift(p=1), A.SafeRotate(p=1), A.PadIfNeeded(20, 20, p=1), A.SomeOf([A.Blur()], n=1)):
        part = AlbumentationsCompose.of(A.Compose([transform]))
        assert torch.equal(_make(part, [4, 5]).x[1], _make(part, [5]).x[0])


FLIP = {"__class_fullname__": "HorizontalFlip", "p": 1.0}


def _compose(*transforms, **settings):
    return {"transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": list(transforms), **settings}}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("", "needs compose"),
        ("no/such\nfile.json", r"'no/such\\nfile.json' cannot be read"),
        ({"a": 1}, "not an albumentations pipeline"),
        ({"transform": 3}, "not an albumentations pipeline"),
        (_compose({"__class_fullname__": "os.system", "p": 1}), "'os.system'"),
        (_compose({"__class_fullname__": "NoSuchThing", "p": 1}), "'NoSuchThing'"),
        (_compose({"__class_fullname__": "Lambda", "__name__": "x", "p": 1}), "'Lambda'"),
        (_compose({"__class_fullname__": "to_dict", "p": 1}), "'to_dict'"),
        (_compose(3), "names 3"),
        (_compose({"__class_fullname__": "Sequential", "p": 1, "transforms": [{"__class_fullname__": "a.B"}]}), "a.B"),
        (_compose({"__class_fullname__": "HorizontalFlip"}), "no probability"),
        (_compose({**FLIP, "q": 2}), "no argument 'q'"),
        (_compose({**FLIP, "p": 2}), "cannot build|can build"),
        (_compose(FLIP, nonsense=2), "no argument 'nonsense'"),
    ],
)
def test_what_is_no_pipeline_is_refused(recipe, message):
    with pytest.raises(InputError, match=message) as caught:
        AlbumentationsCompose(recipe)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff{")
    with pytest.raises(InputError, match="is not JSON"):
        AlbumentationsCompose(str(tmp_path / "x.json"))


def _same(image, **_):
    return image


class _Foreign(A.ImageOnlyTransform):
    def apply(self, img, **params):
        return img


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(InputError, match="cannot be written as JSON"):
        AlbumentationsCompose.of(A.Compose([A.Lambda(image=_same)]))
    with pytest.raises(InputError, match="'Lambda'"):
        AlbumentationsCompose.of(A.Compose([A.Lambda(image=_same, name="same")]))
    with pytest.raises(InputError, match="_Foreign"):
        AlbumentationsCompose.of(A.Compose([_Foreign(p=1.0)]))
    with pytest.raises(InputError, match=r"expected an albumentations\.Compose"):
        AlbumentationsCompose.of([A.HorizontalFlip()])


def test_pipelines_that_fail_or_make_something_else_are_refused():
    with pytest.raises(InputError, match=r"failed on a picture \[3, 16, 16\]"):
        _make(AlbumentationsCompose.of(A.Compose([A.RandomCrop(64, 64)])), [1])
    with pytest.raises(InputError, match="made float32 of uint8"):
        _make(AlbumentationsCompose.of(A.Compose([A.Normalize()])), [1])
    with pytest.raises(InputError, match="ToTensorV2"):
        _make(AlbumentationsCompose.of(A.Compose([A.ToTensorV2()])), [1])


def test_global_random_state_does_not_move():
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    _make(AlbumentationsCompose.of(_pipeline()), range(5))
    after = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("setting", [None, "0"])
def test_the_environment_is_quiet_during_the_import_alone(setting, monkeypatch, tmp_path):
    (tmp_path / "albumentations.py").write_text("import os\nseen = os.environ['NO_ALBUMENTATIONS_UPDATE']\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "albumentations")
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    if setting is not None:
        monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", setting)
    assert _albumentations().seen == "1"
    assert os.environ.get("NO_ALBUMENTATIONS_UPDATE") == setting


def test_the_import_asks_nobody(monkeypatch):
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    monkeypatch.setattr("albumentations.check_version.check_for_updates", lambda: pytest.fail("PyPI was asked"))
    monkeypatch.delitem(sys.modules, "albumentations")
    assert _albumentations().__version__ == A.__version__
