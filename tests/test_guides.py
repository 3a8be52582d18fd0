"""README and guides: their commands print what they say, their code runs after them, and their links resolve."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from augforge.cli.main import main
from augforge.parts import catalog
from augforge.types import capabilities

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page for folder in (ROOT, DOCS, DOCS / "decisions") for page in folder.glob("*.md"))
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the guides are not beside the tests")


def _without_times(text: str) -> str:
    """Text without what differs from machine to machine: sizes, times, shares and digests."""
    text = re.sub(r"[\d.,]+ (kB|MB|s\b|a second|%)", r"N \1", text)
    return re.sub(r"N (kB|MB)", "N bytes", re.sub(r"\([0-9a-f]{16}\)", "(digest)", text))


def _without_numbers(text: str) -> str:
    """Text without its numbers, where all of them are measured and differ a little."""
    return re.sub(r"\s+", " ", re.sub(r"[+-]?\d[\d.,e+-]*(?: [kM]B)?", "N", text))


def _steps(block: str) -> Iterator[tuple[list[str], str]]:
    """The arguments of each command of a console block, and the output that stands below it."""
    for step in filter(None, re.split(r"^\$ ", block, flags=re.MULTILINE)):
        command, _, expected = step.partition("\n")
        program, *arguments = shlex.split(command)
        assert program == "augforge"
        yield arguments, expected


def _run(page: str, masked: Callable[[str], str], capsys, **names) -> dict:
    """Run the console and python blocks of a page, its code with `names`; the names that the code left."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for kind, block in re.findall(r"```(console|python)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            exec(compile(block, page, "exec"), names)
            continue
        for arguments, expected in _steps(block):
            code = 2 if expected.startswith("augforge: ") else 3 if re.search(r"^leaks .*: \d", expected, re.M) else 0
            if code:
                with pytest.raises(SystemExit) as stopped:
                    main(arguments)
                assert stopped.value.code == code
            else:
                main(arguments)
            printed = capsys.readouterr()
            shown = printed.out + (printed.err if expected.startswith("augforge: ") else "")
            assert masked(shown) == masked(expected), arguments
    return names


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def dataset() -> TensorDataset:
    """What a user of `Augmented` has: pictures and labels."""
    return TensorDataset(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4))


def test_readme(capsys, tmp_path, dataset):
    names = _run("README.md", _without_times, capsys, dataset=dataset)
    assert len(list((tmp_path / "more").glob("*/*.jpg"))) == 400
    assert len(names["loader"].dataset) == 4


def test_the_readme_is_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_commands(capsys):
    _run("docs/commands.md", _without_times, capsys)


def test_imagine(capsys):
    pytest.importorskip("sklearn", "1.6")
    names = _run("docs/imagine.md", _without_times, capsys)
    assert names["loss"].isfinite()
    assert names["y_more"].tolist().count("georgian-an") == 100


def test_measure(capsys):
    names = _run("docs/measure.md", _without_numbers, capsys)
    assert names["report"]["rows"] == {"real": 820, "made": 820, "held_out": 820, "equal_count": 820}
    assert len(names["of_each"].values) == 82


def test_gan(capsys, tmp_path):
    names = _run("docs/gan.md", _without_numbers, capsys)
    assert len(list((tmp_path / "more/georgian-an").glob("*.png"))) == 50
    assert names["more"].x.shape == (60, 1, 28, 28)
    assert names["way"].shape == (7, 1, 28, 28)


def test_classical(capsys, dataset):
    names = _run("docs/classical.md", _without_times, capsys, dataset=dataset)
    assert names["made"].dtype == torch.uint8
    assert (names["made"].float() / 255 - names["again"]).abs().mean() < 2 / 255


def test_online(capsys, dataset):
    names = _run("docs/online.md", _without_times, capsys, dataset=dataset)
    assert names["batches"].step == 2 * len(names["loader"])


def test_metric(capsys):
    pytest.importorskip("pytorch_metric_learning")
    names = _run("docs/metric.md", _without_times, capsys)
    assert names["rows"].grad.isfinite().all()


def test_rare(capsys, tmp_path):
    _run("docs/rare.md", _without_times, capsys)
    for name in ("coffee", "rocket", "retina"):
        assert len(list((tmp_path / "even" / name).glob("*.jpg"))) == 20


def test_report(capsys, tmp_path):
    _run("docs/report.md", _without_times, capsys)
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "page.html").read_bytes()


def test_reproduce(capsys):
    _run("docs/reproduce.md", _without_times, capsys, RESULTS=ROOT / "benchmarks" / "results")
    printed = capsys.readouterr().out
    assert printed.strip() in (DOCS / "reproduce.md").read_text(encoding="utf-8")


def test_synth(capsys, tmp_path):
    main(["synth", "glyphs", "--split", "test", "--class", "georgian-an", "--per-class", "3", "--out", "pets"])
    capsys.readouterr()
    names = _run("docs/synth.md", _without_times, capsys)
    assert names["report"].made == 50
    assert len(list((tmp_path / "more-pets").glob("*/*.png"))) == 50


def test_predict(capsys):
    pytest.importorskip("skimage")
    names = _run("docs/predict.md", _without_times, capsys)
    assert len(names["ranking"]) == 3


def test_curate(capsys):
    pytest.importorskip("skimage")
    names = _run("docs/curate.md", _without_times, capsys)
    assert names["reasons"] == {0: "copy of a real row"}
    assert not names["audit"].leaks


def test_auto(capsys):
    pytest.importorskip("skimage")
    _run("docs/auto.md", _without_times, capsys)


def test_sources(capsys, tmp_path):
    for name in ("vehicles/train/steam/1", "vehicles/bus/1", *(f"signs/{sign}/{i // 2:05d}_{i:05d}"
                 for sign in ("stop", "yield") for i in range(5))):  # fmt: skip
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    some = _run("docs/sources.md", lambda text: text.replace(f"{tmp_path}/", ""), capsys)["some"]
    assert some.counts().tolist() == [3, 3]
    assert set(some.groups["group"]) <= {f"{sign}/{track:05d}" for sign in ("stop", "yield") for track in range(3)}


def test_embeddings(capsys, tmp_path):
    pytest.importorskip("timm")
    colours = {"red": (220, 30, 30), "green": (20, 180, 40), "blue": (30, 50, 210)}
    pictures = {f"photos/{name}/{i}": colour for name, colour in colours.items() for i in range(2)}
    for name, colour in (pictures | {"new/unsorted/1": colours["blue"], "new/unsorted/2": colours["red"]}).items():
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + 8 * len(path.stem), 32), colour).save(path)
    names = _run("docs/embeddings.md", _without_times, capsys, pretrained=False)
    assert names["bank"].x.shape == (6, 384)
    assert names["x"].shape == (6, 256)


def test_smote(capsys):
    pytest.importorskip("skimage")
    names = _run("docs/smote.md", _without_times, capsys)
    assert names["x_more"].shape == (36, 1280)
    assert sorted(set(names["y_more"].tolist())) == sorted(set(names["y"].tolist()))


def test_finetuning(capsys):
    pytest.importorskip("timm")
    pytest.importorskip("skimage")
    assert _run("docs/finetuning.md", _without_times, capsys)["features"].shape == (3, 1280)


def test_bench(capsys):
    names = _run("docs/bench.md", _without_numbers, capsys)
    assert 60 < names["results"].rows[0]["accuracy"] <= 100
    assert names["own"].rows[0]["accuracy"] > 50


def test_extend(capsys, tmp_path, monkeypatch):
    text = (DOCS / "extend.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(# my_parts.py\n.*?)```", text, re.DOTALL)
    assert block is not None
    (tmp_path / "my_parts.py").write_text(block[1])
    monkeypatch.syspath_prepend(tmp_path)
    names = _run("docs/extend.md", _without_times, capsys)
    assert names["Jitter"].__module__ == "my_parts"


def test_every_method_is_in_a_guide():
    listed = {guide: set(re.findall(r"^- `([a-z-]+)`", (DOCS / guide).read_text(encoding="utf-8"), re.MULTILINE))
              for guide in ("imagine.md", "gan.md")}  # fmt: skip
    parts = {name: catalog.part_class(name) for name in catalog.SYNTHESIZERS}
    assert listed["imagine.md"] >= {name for name, part in parts.items() if part.space == "feature"}
    assert listed["imagine.md"] >= {"nothing", "copies", "noise"}
    assert listed["gan.md"] >= {name for name, part in parts.items() if capabilities(part).trains}


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = link.partition("#")
        if place.startswith("http"):
            continue
        target = page.parent / place if place else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link
