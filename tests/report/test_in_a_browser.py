"""The page in headless Chromium: no error, nothing fetched, it sorts, filters, and fits a telephone."""

import json
import os
import shutil

import pytest

from augforge.report import page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


def row(name, gain, shot):
    plain = name == "nothing"
    ends = [gain - 0.5, gain + 0.5]
    return {
        "task": "toy", "part": "novel", "representation": "conv4-with-a-long-name", "synthesizer": name, "made": 20,
        "classifier": "logistic", "way": 5, "shot": shot, "query": 15, "trials": 600, "accuracy": 60.0 + gain + shot,
        "ci95": [59.0 + gain, 61.0 + gain], "gain": gain, "gain_ci95": ends, "gain_over_best": gain,
        "gain_over_best_ci95": ends, "p": None if plain else 0.01, "control": plain, "f1": 60.0, "win_rate": 60.0,
        "verdict": "helps", "weights": "constant", "digest": f"{name}{shot}",
    }  # fmt: skip


NAMES = {"nothing": 0.0, "gan": 2.0, "mixing": 10.0, "vae": -1.0}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    rows = [row(name, gain, shot) for shot in (1, 5) for name, gain in NAMES.items()]
    (folder / "bench.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    return page([folder], folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, file):
    """A function that opens the page at a width; whatever goes wrong in it fails the test."""
    wrong, contexts = [], []

    def open_at(width, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: wrong.append(message.text))
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("request", lambda request: request.url.startswith(("file:", "data:")) or wrong.append(request.url))
        shown.goto(file)
        return shown

    yield open_at
    for context in contexts:
        context.close()
    assert not wrong


def column(shown, number):
    return shown.locator("table").first.locator(f"tbody tr:visible td:nth-child({number + 1})").all_inner_texts()


@pytest.mark.parametrize("width", [380, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_scrolls_sideways(opened, width, scheme):
    shown = opened(width, scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = (shown.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    assert (sum(eval(paper[3:])) < sum(eval(ink[3:]))) == (scheme == "dark")


def test_a_table_sorts_by_numbers_and_by_names(opened):
    shown = opened(1280)
    head = shown.locator("table").first.locator("th")
    names = [text.strip() for text in head.all_inner_texts()]
    gain = next(i for i, name in enumerate(names) if name.startswith("gain"))
    assert column(shown, 0) == ["mixing x 20", "gan x 20", "vae x 20", "nothing x 20 (control)"]
    head.nth(gain).locator("button").click()
    assert head.nth(gain).get_attribute("aria-sort") == "descending"
    assert column(shown, 0)[:2] == ["mixing x 20", "gan x 20"]
    assert column(shown, 0)[-1] == "nothing x 20 (control)"  # it has no gain: what is empty comes last
    head.nth(gain).locator("button").focus()
    shown.keyboard.press("Enter")
    assert head.nth(gain).get_attribute("aria-sort") == "ascending"
    assert column(shown, 0) == ["vae x 20", "gan x 20", "mixing x 20", "nothing x 20 (control)"]
    head.nth(0).locator("button").click()
    assert head.nth(gain).get_attribute("aria-sort") is None
    assert column(shown, 0) == sorted(column(shown, 0))


def test_a_table_filters(opened):
    shown = opened(380)
    shown.locator("input").first.fill("MIX log")
    assert column(shown, 0) == ["mixing x 20"]
    assert shown.locator("output").first.inner_text() == "1 of 4 rows"
    shown.locator("input").first.fill("")
    assert len(column(shown, 0)) == 4
    assert len(shown.locator("table").nth(1).locator("tbody tr:visible").all()) == 4


def test_every_part_is_reached_by_the_keyboard(opened):
    shown = opened(1280)
    reached = set()
    for _ in range(80):
        shown.keyboard.press("Tab")
        reached.add(shown.evaluate("document.activeElement.tagName"))
    assert {"BUTTON", "INPUT", "DIV"} <= reached


@pytest.mark.parametrize(("width", "shown_one"), [(380, "narrow"), (1280, "wide")])
def test_a_chart_fits_a_telephone(opened, width, shown_one):
    shown = opened(width)
    for kind in ("narrow", "wide"):
        assert shown.locator(f"figure.{kind}").first.is_visible() == (kind == shown_one)
    box = shown.locator(f"figure.{shown_one} svg").first.bounding_box()
    assert 300 < box["width"] <= width
