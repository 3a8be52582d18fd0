"""Other people's parts: named as module:Class or by an entry point, and never imported because a file says so."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from augforge.cli.list import _names
from augforge.cli.main import main
from augforge.data.banks import FeatureBank
from augforge.parts import catalog, plugins
from augforge.parts.saving import load_part, made_by, open_part, save_part
from augforge.types import InputError

SOURCE = """
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
import torch
from augforge.types import Examples

Path("imported").touch()


@dataclass
class Shift:
    "Moves a row by the mean of the base features."
    space: ClassVar[str] = "feature"
    one_parent: ClassVar[bool] = True
    size: float = 1.0
    mean_: torch.Tensor | None = field(default=None, init=False, repr=False)

    def fit(self, base, rng):
        self.mean_ = base.x.mean(0)
        return self

    def synthesize(self, support, want, keys):
        parent = torch.searchsorted(support.y, want)
        return Examples(support.x[parent] + self.size * self.mean_, want, parent)


@dataclass
class Same:
    "The inner product with each class's first row."
    def fit(self, base, rng):
        return self

    def scores(self, support, query):
        return query @ support.x[torch.searchsorted(support.y, torch.arange(int(support.y.max()) + 1))].T


text = "no class"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the working folder that was never imported; importing it makes a file."""
    monkeypatch.chdir(tmp_path)
    name = f"strange_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def bank(tmp_path):
    y = torch.tensor([0] * 4 + [1] * 4)
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    save_file({"features": x, "labels": y}, tmp_path / "bank.safetensors", {"classes": json.dumps(["ant", "bee"])})
    return FeatureBank(x, y, ("ant", "bee"))


def _folder(path, name, kind="synthesizer"):
    """A folder as a stranger could write it."""
    path.mkdir()
    record = {"augforge": "0", "kind": kind, "name": name, "settings": {}, "fitted": []}
    (path / "part.json").write_text(json.dumps(record))
    save_file({}, path / "fitted.safetensors")
    return path


@pytest.mark.parametrize(("text", "is_one"), [("a:B", True), ("a.b_c:D.E", True), ("torch", False), ("a:b:c", False),
                                              ("C:/x", False), ("./a:B", False), (":B", False), ("a:", False),
                                              ("1a:B", False)])  # fmt: skip
def test_what_reads_as_a_class(text, is_one):
    assert plugins.is_place(text) == is_one


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "builtins:eval", "MODULE:Shift"])
def test_a_folder_never_causes_an_import(module, tmp_path, name):
    name = name.replace("MODULE", module)
    folder = _folder(tmp_path / "part", name)
    with pytest.raises(InputError, match=f"type --trust {name}"):
        load_part(folder)
    assert not (tmp_path / "imported").exists()
    assert module not in sys.modules


def test_trust_is_for_what_was_named_and_ends(module, tmp_path):
    folder = _folder(tmp_path / "part", f"{module}:Shift")
    with plugins.trusting(f"{module}:Same", "not a class"), pytest.raises(InputError, match="--trust"):
        load_part(folder)
    assert not (tmp_path / "imported").exists()
    with plugins.trusting(f"{module}:Shift"):
        assert type(load_part(folder)).__name__ == "Shift"
    assert (tmp_path / "imported").exists()
    with pytest.raises(InputError, match="--trust"):
        load_part(folder)
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("os:system", "has no class 'system'"),
        ("MODULE:text", "has no class 'text'"),
        ("MODULE:Nobody", "has no class 'Nobody'"),
        ("no_such_module_at_all:Part", "cannot be imported"),
        ("pathlib:Path", "is not a synthesizer"),
        ("MODULE:Same", "is not a synthesizer"),
    ],
)
def test_what_is_no_part_is_refused_where_it_is_trusted(module, name, found):
    name = name.replace("MODULE", module)
    with plugins.trusting(name), pytest.raises(InputError, match=found):
        open_part(name)


def test_a_part_is_made_described_saved_and_loaded(module, bank, tmp_path):
    name = f"{module}:Shift"
    with plugins.trusting(name):
        assert catalog.kind_of(name) == "synthesizer"
        part = catalog.make(name, {"size": "2"}).fit(bank, torch.Generator())
        assert catalog.describe(part) == {"name": name, "settings": {"size": 2.0}}
        save_part(part, tmp_path / "saved")
        again = load_part(tmp_path / "saved")
        assert made_by(again) == made_by(part)
        assert catalog.kind_of(f"{module}:Shift") == "synthesizer"
    with plugins.trusting(f"{module}:Same"):
        assert catalog.kind_of(f"{module}:Same") == "classifier"


def test_the_working_folder_stands_in_for_nothing_that_is_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('the wrong one')")
    sys.modules.pop("colorsys", None)
    with plugins.trusting("colorsys:Nothing"), pytest.raises(InputError, match="has no class 'Nothing'"):
        plugins.load_class("colorsys:Nothing")


def test_an_entry_point_needs_no_trust_and_gives_the_name(module, bank, tmp_path, monkeypatch):
    dist = tmp_path / "site" / "strange-1.2.dist-info"
    dist.mkdir(parents=True)
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.2\n")
    (dist / "entry_points.txt").write_text(f"[augforge.synthesizers]\nshift = {module}:Shift\nclassical = os:system\n")
    (tmp_path / f"{module}.py").rename(tmp_path / "site" / f"{module}.py")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert plugins.installed("synthesizer")["shift"] == f"{module}:Shift"
    assert plugins.origin("synthesizer", "shift") == "strange 1.2"
    listed = _names()["synthesizers"]
    assert listed["shift"] == f"{module}:Shift, of the installed package strange 1.2."
    assert "strange" not in listed["classical"]
    assert not (tmp_path / "imported").exists()
    assert catalog.part_class("classical").__module__ == "augforge.generators.classical"
    part = catalog.make("shift").fit(bank, torch.Generator())
    assert catalog.describe(part)["name"] == "shift"
    save_part(part, tmp_path / "saved")
    assert type(load_part(tmp_path / "saved")) is type(part)
    assert catalog.kind_of("shift") == "synthesizer"
    with pytest.raises(InputError, match="the nearest is 'shift'"):
        catalog.make("shiftt")


def _run(capsys, *words):
    """The exit code and stderr of the command line."""
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


def test_a_command_imports_what_it_names_and_no_more(module, bank, tmp_path, capsys):
    name = f"{module}:Shift"
    assert _run(capsys, "fit", name, "bank.safetensors", "--out", "fitted") == (0, "")
    (tmp_path / "imported").unlink()
    del sys.modules[module]
    synth = ("synth", "bank.safetensors", "--per-class", 2)
    code, error = _run(capsys, *synth, "--with", "fitted", "--out", "refused")
    assert code == 2
    assert f"type --trust {name}" in error
    assert not (tmp_path / "imported").exists()
    assert not (tmp_path / "refused").exists()
    assert _run(capsys, *synth, "--with", "fitted", "--trust", name, "--out", "one")[0] == 0
    assert _run(capsys, *synth, "--with", name, "--out", "two")[0] == 0
    rows = [json.loads((tmp_path / out / "manifest.jsonl").read_text().splitlines()[0]) for out in ("one", "two")]
    assert rows[0] == rows[1]
    assert rows[0]["method"] == name
