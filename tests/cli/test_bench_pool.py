"""`bench FOLDER --pool`: a pool of pictures and of rows, what is left out of it, and what the table says."""

import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.data.features import write_features

MEANS = ("--representation", "means")


@pytest.fixture
def rows(tmp_path):
    """Files of features: "mine" with labels, and "pool"."""
    rng = torch.Generator().manual_seed(0)
    means = torch.randn(4, 24, generator=rng)
    for name, each in (("mine", 9), ("pool", 15)):
        y = torch.arange(4).repeat_interleave(each)
        bank = FeatureBank(means[y] + 1.2 * torch.randn(len(y), 24, generator=rng), y, ("a", "b", "c", "d"))
        write_features(tmp_path / f"{name}.safetensors", bank)
    return tmp_path


def test_rows_of_a_pool_are_a_recipe(augforge, rows):
    command = ("bench", rows / "mine.safetensors", "--pool", rows / "pool.safetensors", "--shot", 1, "--trials", 10)
    found = augforge(*command, "--classifier", "logistic", "--json")
    table = {row["synthesizer"]: row for row in found.json()["rows"]}
    assert list(table) == ["nothing", "pool", "retrieved"]
    assert table["pool"]["gain"] > 0
    assert "bench: 60 rows of the pool" in found.err
    named = augforge(*command, "--transductive")
    assert "| pool, transductive x 60 |" in named.out
    assert "| pool x" not in named.out


def test_pictures_that_are_in_both_are_left_out(augforge, folder_of, tmp_path, means):
    for i in range(4):
        folder_of(tmp_path / "mine", {"cat": 1, "dog": 1}, (20 + i, 24), f"_{i}.png")
    folder_of(tmp_path / "pool", {"any": 3}, (30, 22), "_p.png")
    (tmp_path / "pool" / "any" / "copy.png").write_bytes(next((tmp_path / "mine" / "cat").iterdir()).read_bytes())
    command = ("bench", tmp_path / "mine", *MEANS, "--shot", 1, "--trials", 3)
    found = augforge(*command, "--pool", tmp_path / "pool", "--out", tmp_path / "out")
    assert found.code == 0, found.err
    assert "bench: 3 rows of the pool" in found.err
    assert f"left out, since they may be queries: 1 that {tmp_path / 'mine'} has too" in found.err
    assert "| pool x 3 |" in found.out
    again = augforge(*command, "--pool", tmp_path / "pool", "--out", tmp_path / "out")
    assert again.out == found.out
    refused = augforge(*command, "--pool", tmp_path / "mine").error()
    assert "all 8 rows of the pool" in refused


def test_what_has_no_use_for_a_pool_says_so(augforge, rows):
    mine = rows / "mine.safetensors"
    assert "--transductive was given without --pool" in augforge("bench", mine, "--transductive").error()
    low = augforge("bench", mine, "--protocol", "low-shot", "--pool", rows / "pool.safetensors").error()
    assert "--pool was given with --protocol low-shot" in low
