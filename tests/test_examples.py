"""The examples of the docs run."""

import functools
import runpy
from pathlib import Path

import pytest
import torch

_cached = {}  # the features that several tests use
EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A place of its own for what glyphs keep."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_training_loop_learns_letters(cache, capsys):
    example = runpy.run_path(str(EXAMPLES / "training_loop.py"))
    example["main"].__globals__["EPOCHS"] = 12
    plain, augmented = example["main"]()
    assert 0.1 < plain <= 1  # ten classes: chance is 0.1
    assert 0.1 < augmented <= 1
    assert "real pictures each" in capsys.readouterr().out


@pytest.mark.data
def test_signs_are_learnt_with_made_ones_among_them(data_root, capsys):
    example = runpy.run_path(str(EXAMPLES / "signs_online.py"))
    example["main"].__globals__.update(EPOCHS=3, CLASSES=4)
    plain, made = example["main"](str(data_root / "gtsrb_small.tar"))
    assert 0.25 < plain <= 1  # four classes
    assert 0.25 < made <= 1
    assert "4 signs, 10 pictures each, made ones among them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("synthesizer", "settings"),
    [("wang-hallucinator", {"steps": 1, "embedding": False}), ("noise", {"scale": 0.5}), ("mixing", {})],
)
def test_hallucination_in_the_loop_trains_both(cache, capsys, synthesizer, settings):
    example = runpy.run_path(str(EXAMPLES / "hallucinate_in_loop.py"))
    names = example["main"].__globals__
    _cached.setdefault("features", functools.cache(example["features"]))
    names["features"] = _cached["features"]
    names |= {"SYNTHESIZER": synthesizer, "SETTINGS": settings, "STEPS": 3, "TRIALS": 20}
    seen = []
    names["train"] = _spied(example["train"], example["weights_of"], seen)
    untrained, plain, filled = example["main"]()
    assert min(untrained, plain, filled) > 0.3  # twenty classes: chance is 0.05
    assert f"with {synthesizer} in the loop" in capsys.readouterr().out
    (_, none), (net, moved) = seen
    assert not none
    assert not torch.equal(net.weight, torch.eye(len(net.weight)))
    assert bool(moved) == (synthesizer == "wang-hallucinator")
    assert all(moved)


def _spied(train, weights_of, seen):
    """`train`, which also notes the map and, for each weight of the synthesizer, whether training moved it."""

    def spied(base, synthesizer):
        weights = weights_of(synthesizer) if synthesizer else []
        before = [weight.detach().clone() for weight in weights]
        net = train(base, synthesizer)
        moved = [not torch.equal(a, b) for a, b in zip(before, weights, strict=True)]
        seen.append((net, moved))
        return net

    return spied


def test_a_pipeline_of_scikit_learn_takes_a_synthesizer(cache, capsys):
    pytest.importorskip("imblearn")
    plain, resampled = runpy.run_path(str(EXAMPLES / "sklearn_pipeline.py"))["main"]()
    assert 0.2 < plain < resampled <= 1  # twenty classes: chance is 0.05
    assert "2 rows of most" in capsys.readouterr().out
