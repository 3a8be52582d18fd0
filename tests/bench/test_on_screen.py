import csv
import io
import re

import pytest
from rich.console import Console

from augforge.bench.columns import sorted_rows, within_most
from augforge.bench.exports import csv_text, flat, frame, tex_text
from augforge.bench.on_screen import as_text, show
from augforge.bench.verdict import verdict, verdicts
from augforge.types import LackError


def row(synthesizer, gain, shot=1, *, control=False, classifier="logistic", half=0.4, **more):
    plain = synthesizer == "nothing"
    found = {
        "task": "toy", "part": "novel", "representation": "conv4", "synthesizer": synthesizer, "classifier": classifier,
        "made": 0 if plain else 20, "weights": "constant", "way": 5, "shot": shot, "query": 15, "trials": 600,
        "control": control or plain, "accuracy": 60.0 + gain, "ci95": [59.5 + gain, 60.5 + gain], "gain": gain,
        "gain_ci95": [gain - half, gain + half], "gain_over_best": gain,
        "gain_over_best_ci95": [gain - half, gain + half], "p": None if plain else 0.01,
        "win_rate": None if plain else 61.0, "f1": 60.0, "shot_worth_says": "1.2 (1.1 to 1.3)",
        "verdict": None if plain else "helps" if gain > half else "no evidence", "versions": {"torch": "2"},
    }  # fmt: skip
    return found | more


TABLE = [
    row("nothing", 0.0), row("copies", 0.1, control=True), row("classical", -0.3, control=True), row("mixing", 1.5),
    row("hallucinator", 2.5), row("posterior", -1.0),
]  # fmt: skip


def many(count, shots=(1, 5), width=12):
    names = [f"method-{i}" + "x" * (width - 8) for i in range(count)]
    return [row(name, 0.1 * i - 1, shot, control=i % 2 == 1) for shot in shots for i, name in enumerate(names)] + [
        row("nothing", 0.0, shot) for shot in shots
    ]


def shown(rows, width=120, full=False, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding, errors="replace")
    show(rows, full, Console(file=file, force_terminal=True, width=width, color_system="standard"))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def plain_text(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_methods_are_sorted_by_gain_and_controls_come_last():
    assert [r["synthesizer"] for r in sorted_rows(TABLE)] == [
        "hallucinator", "mixing", "posterior", "copies", "nothing", "classical"
    ]  # fmt: skip
    by_validation = [r | {"gain_best": -r["gain"], "gain_best_ci95": [0, 0]} for r in TABLE]
    assert [r["synthesizer"] for r in sorted_rows(by_validation)][:2] == ["posterior", "mixing"]


def test_the_verdict_names_the_best_its_gain_and_what_a_shot_is_worth():
    assert verdict(TABLE) == (
        "hallucinator x 20 with logistic (best of 5): 62.50 %, +2.50 (+2.10 to +2.90) over plain logistic; one shot is "
        "worth 1.2 (1.1 to 1.3)"
    )
    assert verdicts([*TABLE, row("nothing", 0.0, 5)])[1] == "5 shots: nothing with logistic is best, 60.00 %"


def test_the_verdict_of_a_table_where_nothing_helps_says_so():
    said = verdict([row("nothing", 0.0), row("mixing", 0.2), row("noise", -2.0, control=True)])
    assert (
        said
        == "no sure gain; mixing x 20 with logistic (best of 2): 60.20 %, +0.20 (-0.20 to +0.60) over plain logistic"
    )


def test_a_control_that_wins_is_said_to_be_one_beside_the_best_method():
    said = verdict([row("nothing", 0.0), row("classical", 3.0, control=True), row("mixing", 1.0)])
    assert said.startswith("classical x 20 (control) with logistic (best of 2): 63.00 %")
    assert said.endswith("; best that is no control: mixing x 20 with logistic, +1.00 (+0.60 to +1.40)")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_table_is_as_wide_as_the_terminal(width):
    text = plain_text(shown(many(12, width=40), width))
    assert max(map(len, text.splitlines())) <= width
    lines = text.splitlines()
    assert not any(re.search(r"[.+-]\d*…|\(…", line) for line in lines)  # no number is cut
    assert lines[0].startswith("1 shot:")
    assert ("worth in shots" in text) == (width >= 120)
    assert ("●" in text) == (width >= 80)


def test_what_all_rows_share_has_no_column_and_full_has_them_all():
    text = plain_text(shown(TABLE, 160))
    assert "classifier" not in text.replace("best plain classifier", "")
    full = plain_text(shown(TABLE, 220, full=True))
    for name in ("representation", "classifier", "gain over classes", "wins", "F1", "verdict"):
        assert name in full


def test_controls_are_grey_and_verdicts_coloured():
    lines = [line for line in shown(TABLE).splitlines() if "(control)" in line]
    assert len(lines) == 3
    assert all("\x1b[90m" in line for line in lines)
    assert "\x1b[32mhelps" in shown(TABLE)


@pytest.mark.parametrize(("encoding", "marks"), [("utf-8", "─●┊"), ("ascii", "-*|")])
def test_intervals_are_bars_on_one_scale(encoding, marks):
    text = plain_text(shown(TABLE, encoding=encoding))
    line, middle, zero = marks
    bars = {r["synthesizer"]: next(part for part in text.splitlines() if part.startswith(r["synthesizer"] + " ")
                                   and "points" not in part) for r in TABLE}  # fmt: skip
    places = {name: bar.rindex(middle) for name, bar in bars.items()}
    assert sorted(places, key=places.get) == ["posterior", "classical", "nothing", "copies", "mixing", "hallucinator"]
    assert bars["hallucinator"].index(zero) < places["hallucinator"]
    assert line * 3 in bars["mixing"]


def test_odd_names_are_shown_as_text():
    text = plain_text(shown([row("nothing", 0.0), row("[red]a\x1b[31m\nb", 1.0)]))
    assert "[red]a" in text
    assert "\x1b" not in text


def test_the_scale_leaves_out_what_would_flatten_the_rest():
    assert within_most([(-1, 1), (0, 2)]) == (-1, 2)
    assert within_most([(-1, 1), (0, 2), (1, 2), (-30, -28)]) == (-1, 2)
    assert within_most([(-1, 1), (0, 2), (1, 2), (2, 30)]) == (-1, 2)
    assert within_most([(-1, 1), (0, 2), (-4, -3), (-3, -2)]) == (-4, 2)
    assert within_most([]) == (0, 0)


@pytest.mark.parametrize("rows", [TABLE, many(31), many(31, (1, 2, 5, 10, 20)), many(31, width=90), TABLE[:1]])
def test_a_screen_holds_what_a_table_comes_to(rows):
    lines = as_text(rows).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("1 shot:")


# For other programs


def test_csv_has_every_row_and_number():
    lines = list(csv.DictReader(io.StringIO(csv_text([r | {"fit_seed": [0, 1]} for r in TABLE]))))
    assert [line["synthesizer"] for line in lines] == [r["synthesizer"] for r in TABLE]
    assert float(lines[4]["gain_ci95_low"]) == TABLE[4]["gain_ci95"][0]
    assert (lines[0]["p"], lines[0]["fit_seed"], lines[0]["versions.torch"]) == ("", "[0, 1]", "2")


def test_a_frame_has_a_line_for_each_row():
    pytest.importorskip("pandas")
    found = frame(TABLE)
    assert found["synthesizer"].tolist() == [r["synthesizer"] for r in TABLE]
    assert found["gain_over_best_ci95_high"].tolist() == [r["gain_over_best_ci95"][1] for r in TABLE]
    assert set(found.columns) == set(flat(TABLE[0]))


def test_without_pandas_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(LackError, match="pip install pandas"):
        frame(TABLE)


def test_latex_has_a_line_for_each_recipe_and_a_column_for_each_shot():
    rows = [*TABLE, *(r | {"shot": 5, "accuracy": r["accuracy"] + 10} for r in TABLE), row("a_b & 50%", 0.3)]
    text = tex_text(rows)
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert all(line.count("&") - line.count(r"\&") == 5 for line in body[1:])
    assert body[0].count(r"\multicolumn{2}{c}") == 2
    assert [line.split(" & ")[0] for line in body[2:6]] == ["hallucinator x 20", "mixing x 20", r"a\_b \& 50\% x 20",
                                                           "posterior x 20"]  # fmt: skip
    assert r"$\mathbf{62.50} \pm 0.50$" in body[2]
    assert text.count(r"\midrule") == 2
