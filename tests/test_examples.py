"""The examples of the docs run."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def test_the_training_loop_learns_letters(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    example = runpy.run_path(str(EXAMPLES / "training_loop.py"))
    example["main"].__globals__["EPOCHS"] = 12
    plain, augmented = example["main"]()
    assert 0.1 < plain <= 1  # ten classes: chance is 0.1
    assert 0.1 < augmented <= 1
    assert "real pictures each" in capsys.readouterr().out
