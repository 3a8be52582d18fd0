"""The page of `augforge report`: whole, safe, small, and with the numbers that it was drawn from."""

import base64
import io
import json
import re
import sys
import time
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from augforge.bench.files import write_per_class
from augforge.inputs import Inputs
from augforge.parts import saving
from augforge.report import page
from augforge.report.synth_run import PICTURES, command_of
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.synth.run_folder import RunOptions
from augforge.types import InputError

VOID = {"meta", "img", "input", "br", "link", "hr", "use", "path", "rect"}
NASTY = "<script>alert('x')</script> \"q\" & {{ 7 * 7 }}"
BASE = {"task": "toy", "part": "novel", "representation": "conv4", "weights": "constant", "way": 5, "query": 15,
        "trials": 600, "f1": 60.0, "verdict": "helps", "win_rate": 60.0, "shot": 1}  # fmt: skip


class Page(HTMLParser):
    """What the tests ask of a page: its tags balance, its links, the cells of its tables, its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.cells = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def bench_row(synthesizer, gain, digest, **others):
    plain = synthesizer == "nothing"
    interval = [gain - 0.4, gain + 0.4]
    return BASE | {
        "synthesizer": synthesizer, "classifier": "logistic", "made": 0 if plain else 20, "control": plain,
        "accuracy": 61.2345 + gain, "ci95": [60.0 + gain, 62.0 + gain], "gain": gain, "gain_ci95": interval,
        "gain_over_best": gain, "gain_over_best_ci95": interval, "p": None if plain else 0.01, "shot_worth": 1.5,
        "shot_worth_says": "1.5", "digest": digest, "seed": 7, "fit_seed": 8, "episodes": "aabbccdd",
        "versions": {"augforge": "9.9.9"},
    } | others  # fmt: skip


def bench_folder(folder, rows, classes=("cat", "dog")):
    folder.mkdir()
    (folder / "bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = [(np.array([[8 + i, 2], [1, 9]]), np.array([0, 1])) for i in range(len(rows))]
    write_per_class([row | {"share": None, "seeds": 1} for row in rows], counts, classes, folder)
    return folder


@pytest.fixture
def letters(tmp_path):
    rows = [bench_row("nothing", 0.0, "d0"), bench_row("gan", 1.2345, "d1"), bench_row("mixing", 0.4321, "d2")]
    return bench_folder(tmp_path / "letters", rows)


def pictures(folder, classes, each=3, side=20):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            corners = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
            picture = np.asarray(Image.fromarray(corners).resize((side + 4, side), Image.Resampling.BILINEAR))
            Image.fromarray(picture).save(folder / name / f"{i}.png")
    return folder


def made(source, out, per_class=6, **others):
    inputs = {"method": "noise"} | {name: others.pop(name) for name in ("method", "seed") if name in others}
    synth(Request(Inputs(str(source), **inputs), per_class=per_class, **others), out, RunOptions(workers=1))
    return out


def drawn(runs, out):
    return Page(page(runs, out).read_text(encoding="utf-8"))


def test_numbers_are_those_of_the_rows(letters, tmp_path):
    text = page([letters], tmp_path / "page.html").read_text()
    sorted_by = set(re.findall(r'data-v="([^"]*)"', text))
    rows = [json.loads(line) for line in (letters / "bench.jsonl").read_text().splitlines()]
    classes = [json.loads(line) for line in (letters / "per_class.jsonl").read_text().splitlines()]
    for row in rows:
        assert {str(row["accuracy"]), str(row["gain"]), str(row["gain_over_best"]), str(row["f1"])} <= sorted_by
        assert f"{row['accuracy']:.2f} ± 1.00" in text
    for line in classes:
        if line["digest"] in ("d0", "d1"):  # the best with nothing made, and the best
            assert {str(line["precision"]), str(line["recall"]), str(line["f1"])} <= sorted_by
    found = Page(text)
    assert "gan x 20 with logistic (best of 2): 62.47 %, +1.23 (+0.83 to +1.63) over plain logistic" in found.text
    assert text.index("over plain logistic") < text.index("<svg") < text.index("<table")  # the verdict is first
    assert {"aabbccdd", "7", "8", "augforge 9.9.9"} <= {word.strip() for word in found.words}


def test_a_page_is_whole_and_fetches_nothing(letters, tmp_path):
    run = made(pictures(tmp_path / "source", ["cat", "dog"]), tmp_path / "run")
    text = page([letters, run], tmp_path / "page.html").read_text()
    found = Page(text)
    assert text.lstrip().startswith("<!DOCTYPE html>")
    assert [one["lang"] for one in found.all("html")] == ["en"]
    assert len(found.all("h1")) == 1
    assert all(one["alt"] for one in found.all("img"))
    assert not found.all("link")
    for tag, attributes in found.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,")), (tag, attributes)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', text))
    assert used <= set(ids)
    assert "prefers-color-scheme: dark" in text


def test_tables_sort_and_filter_by_one_small_script(letters, tmp_path):
    found = drawn([letters], tmp_path / "page.html")
    assert len(found.all("script")) == 1
    tables = len(found.all("table"))
    assert tables == 3  # arms, classes, confusions
    assert len(found.all("button")) == len(found.all("th"))
    labels = {one["for"] for one in found.all("label")}
    assert {one["id"] for one in found.all("input")} == labels
    assert len(labels) == tables


def test_names_from_data_are_escaped(tmp_path):
    rows = [bench_row("nothing", 0.0, "d0", task=NASTY), bench_row(NASTY, 2.0, "d1", task=NASTY)]
    folder = bench_folder(tmp_path / "a<b>&", rows, (NASTY, 'quo"te'))
    source = pictures(tmp_path / "source", ["<img src=x onerror=alert(1)>", 'quo"te'])
    run = made(source, tmp_path / "<i>run")
    text = page([folder, run], tmp_path / "page.html").read_text()
    found = Page(text)
    assert len(found.all("script")) == 1
    assert not found.all("i")
    assert not any("onerror" in attributes for _, attributes in found.tags)
    assert "alert('x')" in found.text.replace("\u2019", "'")
    assert "{{ 7 * 7 }}" in found.text
    assert all(one["alt"] and one["src"].startswith("data:") for one in found.all("img"))
    assert 'quo"te' in found.text


def test_a_run_shows_counts_shares_and_real_pictures_beside_made_ones(tmp_path):
    source = pictures(tmp_path / "source", ["cat", "dog"])
    run = made(source, tmp_path / "run", seed=5)
    found = drawn([run], tmp_path / "page.html")
    assert "12 examples of 2 classes made with noise from 6 real ones: 67 % of all" in found.text
    assert "cat 3 6 66.7 %" in found.text
    images = found.all("img")
    assert [one["alt"] for one in images][:3] == [
        "cat: the real picture cat/0.png", "cat: made from cat/0.png by noise", "cat: made from cat/0.png by noise"
    ]  # fmt: skip
    assert sum("real" in one["class"].split() for one in images) == 6
    assert sum("made" in one["class"].split() for one in images) == 12
    data = base64.b64decode(images[0]["src"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as shown, Image.open(source / "cat" / "0.png") as real:
        assert shown.format == "JPEG"
        assert shown.size == real.size
        assert np.abs(np.asarray(shown, float) - np.asarray(real.convert("RGB"), float)).mean() < 4
    assert "augforge synth" in found.text
    assert "--with noise --seed 5 " in found.text
    record = json.loads((run / "run.json").read_text())
    assert record["method"]["digest"] in found.text
    assert record["versions"]["numpy"] in found.text


def test_what_filters_refused_is_shown_with_the_contact_sheet(tmp_path):
    source = pictures(tmp_path / "source", ["cat", "dog"])
    run = made(source, tmp_path / "run", keep=("sound",))
    found = drawn([run], tmp_path / "page.html")
    (sheet,) = [one for one in found.all("img") if one["alt"].startswith("contact sheet")]
    with Image.open(run / ".contact_sheet.png") as drawn_before:
        assert (int(sheet["width"]), int(sheet["height"])) == drawn_before.size
    assert "what filters refused, with the reasons" in found.text


def test_a_map_has_a_dot_for_each_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)  # which takes long to import, as networks do
    pixels = SimpleNamespace(embed=lambda x: x.flatten(1))
    monkeypatch.setattr(saving, "open_part", lambda name, _settings, _kind: pixels)
    source = pictures(tmp_path / "source", ["cat", "dog"], side=24)
    for file in source.glob("*/*.png"):
        Image.open(file).convert("L").resize((28, 28)).save(file)  # a letter, which a small network embeds
    run = made(source, tmp_path / "run")
    text = page([run], tmp_path / "page.html", map_rows=True).read_text()
    found = Page(text)
    assert len(found.all("circle")) == len(found.all("img")) == 18
    assert sum(one.get("class") == "real" for one in found.all("circle")) == 6
    assert all(0 < float(one["cx"]) < 700 and 0 < float(one["cy"]) < 460 for one in found.all("circle"))
    assert all(one["href"].startswith("data:image/jpeg;base64,") for one in found.all("image"))
    assert "18 pictures of this page in features of conv4-glyphs" in found.text
    assert "principal components" in found.text
    assert not drawn([run], tmp_path / "without.html").all("circle")


def test_the_pairs_that_are_confused_are_named(letters, tmp_path):
    found = drawn([letters], tmp_path / "page.html")
    assert "cat dog 20.00 18.18" in found.text  # 2 of 10 with nothing made, 2 of 11 with the best
    assert "dog cat 10.00 10.00" in found.text


@pytest.mark.parametrize("sink", ["webdataset", "npz"])
def test_pictures_in_tars_and_arrays_are_shown(tmp_path, sink):
    run = made(pictures(tmp_path / "source", ["cat", "dog"]), tmp_path / "run", format=sink)
    found = drawn([run], tmp_path / "page.html")
    assert len(found.all("img")) == 18
    assert "cannot be read" not in found.text


def test_a_source_that_is_gone_and_lost_files_are_said(tmp_path):
    source = pictures(tmp_path / "source", ["cat", "dog"])
    run = made(source, tmp_path / "run")
    source.rename(tmp_path / "elsewhere")
    next((run / "cat").glob("*.png")).unlink()
    found = drawn([run], tmp_path / "page.html")
    assert "Real pictures are not shown" in found.text
    assert "1 of the pictures on this page cannot be read any more" in found.text
    assert len(found.all("img")) == 11


def test_a_manifest_cannot_name_files_outside_of_its_run(tmp_path):
    run = made(pictures(tmp_path / "source", ["cat"]), tmp_path / "run")
    lines = (run / "manifest.jsonl").read_text().splitlines()
    first = json.loads(lines[0]) | {"file": "../source/cat/0.png"}
    (run / "manifest.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    found = drawn([run], tmp_path / "page.html")
    assert "1 of the pictures on this page cannot be read any more" in found.text


def test_a_page_of_ten_thousand_pictures_is_small(tmp_path):
    names = [f"class {i:03d}" for i in range(100)]
    run = made(pictures(tmp_path / "source", names, each=1, side=128), tmp_path / "run", per_class=1)
    lines = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    many = [line | {"index": i} for line in lines for i in range(100)]
    (run / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in many))
    start = time.process_time()
    found = drawn([run], tmp_path / "page.html")
    print(f"page of 10,000 lines: {time.process_time() - start:.1f} s of CPU")
    assert "10,000 examples of 100 classes" in found.text
    assert "48 of 100 classes" in found.text
    assert len(found.all("img")) <= PICTURES
    assert (tmp_path / "page.html").stat().st_size < 5_000_000


def test_what_is_no_run_is_refused_and_nothing_is_half_written(letters, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("before")
    (tmp_path / "empty").mkdir()
    for run, why in ((tmp_path / "empty", "neither"), (tmp_path / "nowhere", "not there"), (out, "a file")):
        with pytest.raises(InputError, match=f"{run.name}.*{why}|{why}.*{run.name}"):
            page([letters, run], out)
    (letters / "bench.jsonl").write_text('{"task": "toy"}\n')
    with pytest.raises(InputError, match=r"line 1 of .*bench.jsonl.* has no 'part'"):
        page([letters], out)
    with pytest.raises(InputError, match="no run"):
        page([], out)
    with pytest.raises(InputError, match="is a folder"):
        page([letters], tmp_path)
    assert out.read_text() == "before"
    assert not list(tmp_path.glob("*.partial"))


def test_an_unfinished_run_is_refused(tmp_path):
    run = made(pictures(tmp_path / "source", ["cat"]), tmp_path / "run")
    (run / "manifest.jsonl").unlink()
    with pytest.raises(InputError, match="not finished"):
        page([run], tmp_path / "page.html")


def test_the_command_of_a_run_makes_it_again(tmp_path):
    import shlex

    from augforge.cli.main import main

    source = pictures(tmp_path / "the source", ["cat", "dog"])
    run = made(source, tmp_path / "run", method="classical", seed=3, size=16, include_real=True, keep=("sound",))
    order = json.loads((run / "run.json").read_text())["order"]
    program, *words = shlex.split(command_of(order, tmp_path / "again"))
    assert program == "augforge"
    main(words)
    assert json.loads((tmp_path / "again" / "run.json").read_text())["order"] == order
    assert (tmp_path / "again" / "manifest.jsonl").read_bytes() == (run / "manifest.jsonl").read_bytes()


def test_the_same_runs_give_the_same_page(letters, tmp_path):
    first, second = page([letters], tmp_path / "1.html"), page([letters], tmp_path / "2.html")
    assert first.read_bytes() == second.read_bytes()
