import json

import pytest
import torch
from safetensors.torch import save_file

from augforge.data.banks import FeatureBank
from augforge.generators.classical import Classical
from augforge.generators.noise import Noise
from augforge.saving import is_fitted, load_part, part_digest, save_part
from augforge.types import InputError


@pytest.fixture
def noise():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    bank = FeatureBank(x, torch.arange(20) % 4, tuple("abcd"))
    return Noise(scale=0.5).fit(bank, torch.Generator())


@pytest.fixture
def folder(noise, tmp_path):
    save_part(noise, tmp_path / "deep" / "part")
    return tmp_path / "deep" / "part"


def _edit(folder, **changes):
    record = json.loads((folder / "part.json").read_text())
    (folder / "part.json").write_text(json.dumps(record | changes))


def test_a_part_comes_back(noise, folder):
    loaded = load_part(folder)
    assert loaded.scale == 0.5
    assert torch.equal(loaded.factor_, noise.factor_)
    assert part_digest(loaded) == part_digest(noise)
    assert sorted(path.name for path in folder.iterdir()) == ["fitted.safetensors", "part.json"]


def test_saving_again_replaces(noise, folder):
    save_part(Noise(scale=2), folder)
    assert load_part(folder).scale == 2
    assert load_part(folder).factor_ is None


def test_parts_that_learn_nothing_are_saved_too(tmp_path):
    part = Classical(preset="strong", rotate=3)
    save_part(part, tmp_path)
    assert load_part(tmp_path) == part


def test_the_digest_follows_settings_and_numbers(noise):
    digests = {part_digest(noise), part_digest(Noise(scale=0.5)), part_digest(Noise(scale=0.25))}
    changed = Noise(scale=0.5)
    changed.factor_ = noise.factor_ + 1e-6
    digests.add(part_digest(changed))
    assert len(digests) == 4
    assert all(len(digest) == 16 for digest in digests)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"name": "noise"}', b"\xff\xfe"])
def test_a_damaged_record_is_refused(folder, text):
    (folder / "part.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=r"part\.json' is damaged"):
        load_part(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no part\.json"):
        load_part(tmp_path / "none")


def test_damaged_or_missing_tensors_are_refused(folder):
    (folder / "fitted.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"fitted\.safetensors' cannot be read"):
        load_part(folder)
    (folder / "fitted.safetensors").unlink()
    with pytest.raises(InputError, match=r"fitted\.safetensors' cannot be read"):
        load_part(folder)


@pytest.mark.parametrize("name", ["other_", "scale", "synthesize", "_pipelines"])
def test_tensors_that_the_record_does_not_name_are_refused(folder, name):
    save_file({"factor_": torch.eye(4), name: torch.ones(1)}, folder / "fitted.safetensors")
    with pytest.raises(InputError, match=f"holds '{name}'"):
        load_part(folder)
    if not is_fitted(name):
        _edit(folder, fitted=["factor_", name])
        with pytest.raises(InputError, match=f"holds '{name}'"):
            load_part(folder)


def test_tensors_that_the_record_names_but_are_not_there_are_refused(folder):
    save_file({}, folder / "fitted.safetensors")
    with pytest.raises(InputError, match="factor_"):
        load_part(folder)


def test_wrong_kinds_names_and_settings_are_refused(folder):
    with pytest.raises(InputError, match="holds a synthesizer; expected a classifier"):
        load_part(folder, "classifier")
    _edit(folder, settings={"scael": 1})
    with pytest.raises(InputError, match="no setting 'scael'; the nearest is 'scale'"):
        load_part(folder)
    _edit(folder, settings={}, name="os:system")
    with pytest.raises(InputError, match="no synthesizer 'os:system'"):
        load_part(folder)


@pytest.mark.parametrize("changes", [{"settings": [1]}, {"settings": "x"}, {"name": ["noise"]}, {"fitted": 3}])
def test_records_of_a_wrong_shape_are_refused(folder, changes):
    _edit(folder, **changes)
    with pytest.raises(InputError, match=r"part\.json' is damaged"):
        load_part(folder)


def test_a_folder_that_cannot_be_written_is_refused(noise, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_part(noise, tmp_path / "file" / "part")
