"""Features written and opened again are the same, also with splits and columns; what is not finite is refused."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from augforge.data.banks import FeatureBank
from augforge.data.features import open_features, write_features
from augforge.types import InputError


def bank(n=6, classes=("cat", "dog", "eel"), seed=0, **columns):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return FeatureBank(x, torch.arange(n) % len(classes), tuple(classes), **columns)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_round_trip(tmp_path, dtype):
    given = bank(attributes=torch.eye(3), parent=torch.arange(6) - 1, weight=torch.rand(6), names=tuple("abcdef"))
    given = replace(given, x=given.x.to(dtype))
    write_features(tmp_path / "a.safetensors", given)
    again = open_features(tmp_path / "a.safetensors")["all"]
    for key in ("x", "y", "attributes", "parent", "weight"):
        assert torch.equal(getattr(again, key), getattr(given, key))
    assert (again.x.dtype, again.classes, again.names) == (dtype, given.classes, given.names)
    assert again.origin == str(tmp_path / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_plain_bank_has_no_columns(tmp_path):
    write_features(tmp_path / "a.safetensors", bank(classes=("new\nline", "é", "empty"), n=2))
    again = open_features(tmp_path / "a.safetensors")["all"]
    assert again.classes == ("new\nline", "é", "empty")
    assert (again.attributes, again.parent, again.weight, again.names) == (None, None, None, None)
    assert again.name(1) == "features[1]"


def test_splits_keep_their_classes(tmp_path):
    given = {
        "train": bank(weight=torch.rand(6), attributes=torch.eye(3)),
        "test": bank(4, ("fox", "dog"), 1, attributes=torch.tensor([[1.0, 2, 3], [0, 1, 0]])),
    }
    write_features(tmp_path / "a.safetensors", given)
    again = open_features(tmp_path / "a.safetensors")
    assert list(again) == ["train", "test"]
    for split in given:
        one, two = given[split], again[split]
        assert torch.equal(one.x, two.x)
        assert [one.classes[i] for i in one.y] == [two.classes[i] for i in two.y]
        assert torch.equal(one.attributes[one.y], two.attributes[two.y])
    assert again["test"].weight.tolist() == [1.0] * 4


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    bad = bank()
    bad.x[3, 1] = float("nan")
    for given in (bad, {}, {"dev": bank()}, {"train": bank(), "test": replace(bank(), x=torch.zeros(6, 3))}):
        with pytest.raises(InputError):
            write_features(tmp_path / "a.safetensors", given)
    assert list(tmp_path.iterdir()) == []


X, LABELS = torch.zeros(4, 2), torch.tensor([0, 1, 1, 0])
CLASSES = {"classes": json.dumps(["a", "b"])}
NAN = torch.tensor([[0.0, 0], [0, 0], [0, float("inf")], [float("nan"), 0]])


@pytest.mark.parametrize(
    ("tensors", "metadata", "text"),
    [
        ({"features": X}, CLASSES, r"has the tensors \['features'\]; expected features and labels"),
        ({"features": NAN, "labels": LABELS}, CLASSES, r"features\[2\] is not finite"),
        ({"features": X.long(), "labels": LABELS}, CLASSES, "expected floats"),
        ({"features": X[0], "labels": LABELS}, CLASSES, "expected floats"),
        ({"features": X, "labels": LABELS.float()}, CLASSES, "expected integers"),
        ({"features": X, "labels": LABELS[:3].clone()}, CLASSES, r"labels is \[3\]; expected \[4\]"),
        ({"features": X, "labels": LABELS + 1}, CLASSES, "there are 2 classes"),
        ({"features": X, "labels": LABELS, "attributes": torch.zeros(3, 5)}, CLASSES, r"expected \[2, a\]"),
        ({"features": X, "labels": LABELS, "weight": torch.ones(3)}, CLASSES, r"weight is \[3\]"),
        ({"features": X, "labels": LABELS, "split": torch.full((4,), 3)}, CLASSES, "split has numbers other"),
        (
            {"features": X, "labels": LABELS, "split": torch.zeros(4)},
            CLASSES,
            "split is torch.float32; expected integers",
        ),
        (
            {"features": X, "labels": LABELS, "parent": torch.ones(4)},
            CLASSES,
            "parent is torch.float32; expected integers",
        ),
        ({"features": X, "labels": LABELS}, {"classes": "{"}, "cannot be read"),
        ({"features": X, "labels": LABELS}, {"classes": "[1, 2]"}, "JSON list of strings"),
        ({"features": X, "labels": LABELS}, {**CLASSES, "names": '["a"]'}, "1 names and 4 labels"),
    ],
)
def test_mistakes(tmp_path, tensors, metadata, text):
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    with pytest.raises(InputError, match=text):
        open_features(tmp_path / "a.safetensors")


def test_without_metadata_classes_are_the_labels(tmp_path):
    save_file({"features": X, "labels": LABELS + 5}, tmp_path / "a.safetensors")
    assert open_features(tmp_path / "a.safetensors")["all"].classes == ("5", "6")


def test_damage(tmp_path):
    for data in (b"", b"no tensors here", b"\xff" * 64):
        (tmp_path / "a.safetensors").write_bytes(data)
        with pytest.raises(InputError, match="cannot be read as features"):
            open_features(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="cannot be read as features"):
        open_features(tmp_path / "missing.safetensors")
