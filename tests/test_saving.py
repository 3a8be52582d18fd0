import json

import pytest
import torch
from safetensors.torch import save_file

from augforge.data.banks import FeatureBank
from augforge.generators.classical import Classical
from augforge.generators.noise import Noise
from augforge.parts.saving import is_fitted, load_part, open_part, part_digest, save_part
from augforge.representations.convnet import ConvNet
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
    with pytest.raises(InputError, match="type --trust os:system"):
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


@pytest.fixture
def net(tmp_path):
    part = ConvNet()
    part.build({"channels": 1, "height": 16, "width": 16})
    for tensor in part.net_.state_dict().values():
        tensor.fill_(1)
    save_part(part, tmp_path / "net", "representation")
    return tmp_path / "net"


def test_networks_are_built_from_their_facts_and_filled(net):
    part = load_part(net, "representation")
    assert part.facts_ == {"channels": 1, "height": 16, "width": 16}
    assert all(bool((tensor == 1).all()) for tensor in part.net_.state_dict().values())
    digest = part_digest(part, "representation")
    part.net_.net.blocks[2].conv.weight[3, 4, 0, 0] += 1e-6
    assert part_digest(part, "representation") != digest


@pytest.mark.parametrize(
    "facts", [None, 3, {}, {"channels": 1}, {"channels": "1"}, {"channels": 0}, {"channels": 2**40}]
)
def test_facts_that_describe_no_network_are_refused(net, facts):
    _edit(net, facts=facts)
    with pytest.raises(InputError, match="its facts do not describe a network"):
        load_part(net, "representation")


def test_numbers_of_another_network_are_refused(net):
    _edit(net, facts={"channels": 3, "height": 16, "width": 16})
    with pytest.raises(InputError, match="does not fit the network"):
        load_part(net, "representation")


def test_a_part_is_opened_by_name_folder_or_shipped_name(folder, monkeypatch, tmp_path):
    assert open_part("noise", {"scale": 3}).scale == 3
    assert open_part(str(folder)).scale == 0.5
    with pytest.raises(InputError, match="was fitted with settings of its own"):
        open_part(str(folder), {"scale": 3})
    (tmp_path / "noise").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_part("noise").factor_ is None
    shipped = open_part("conv4-glyphs", kind="representation")
    assert shipped.embed(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape == (2, 64)
