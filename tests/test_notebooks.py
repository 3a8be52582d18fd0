"""The notebooks of the docs run, each in seconds, and are linked and small."""

import json
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="the notebooks are not beside the tests")


@pytest.fixture
def names_of(tmp_path, monkeypatch):
    """A function that runs a notebook: the names that its cells left, and what is printed and drawn."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = runpy.run_path(str(FOLDER / "run.py"))["run"]

    def of(name):
        outputs, names = run(FOLDER / name)
        kinds = [one["output_type"] for found in outputs for one in found]
        assert {"stream", "display_data"} <= set(kinds), kinds
        return names

    return of


def test_one_picture_is_augmented(names_of):
    pytest.importorskip("skimage")
    names = names_of("augment.ipynb")
    assert names["same"]
    assert names["different"]
    assert names["made"].shape == (6, *names["picture"].shape)


def test_a_small_network_has_learning_curves(names_of):
    names = names_of("convnet.ipynb")
    for found in (names["plain"], names["augmented"]):
        assert found["loss"][-1] < found["loss"][0] / 2
        assert {len(values) for values in found.values()} == {names["EPOCHS"]}
        assert 2 / 6 < found["test"][-1] <= 1  # six letters
    assert names["augmented"]["loss"][-1] > names["plain"]["loss"][-1]  # its pictures are other ones in every epoch


def test_bottleneck_features_name_photographs(names_of):
    pytest.importorskip("skimage")
    names = names_of("bottleneck.ipynb")
    assert names["accuracy"] > 0.8
    assert names["support"].x.shape == (18, 1280)
    assert names["counts"].sum(1).tolist() == [4] * 6


def test_embeddings_are_laid_out_in_a_plane(names_of):
    pytest.importorskip("sklearn")
    names = names_of("tsne.ipynb")
    assert names["plane"].shape == (192, 2)
    assert names["share"] > 0.5  # eight letters
    assert torch.equal(names["made"].y, names["want"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_small_says_where_to_go_on_and_is_linked(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert path.stat().st_size < 150_000
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] is None for cell in code)
    assert any(cell["outputs"] for cell in code)  # of docs/notebooks/run.py
    for cell in notebook["cells"]:
        for link in "".join(cell["source"]).split("](../")[1:]:
            assert (ROOT / "docs" / link.partition(")")[0]).exists()
    assert f"notebooks/{path.name}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"notebooks/{path.stem}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
