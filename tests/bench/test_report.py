import re

import matplotlib
import pytest

from augforge.bench.report import markdown, write_report
from augforge.types import InputError

BASE = {
    "task": "toy", "part": "novel", "representation": "conv4", "classifier": "prototype", "weights": "constant",
    "way": 5, "query": 15, "trials": 600, "seed": 0, "f1": 60.0, "control": False,
}  # fmt: skip


def row(synthesizer, made, shot, accuracy, gain, **more):
    plain = made == 0
    found = {
        "synthesizer": synthesizer, "made": made, "shot": shot, "accuracy": accuracy,
        "ci95": [accuracy - 0.5, accuracy + 0.5], "gain": gain, "gain_ci95": [gain - 0.4, gain + 0.4],
        "gain_over_best": gain - 1, "gain_over_best_ci95": [gain - 1.5, gain - 0.5],
        "p": None if plain else 0.01, "win_rate": None if plain else 61.0,
        "shot_worth_says": "1.2 (1.1 to 1.3)", "verdict": None if plain else "helps",
    }  # fmt: skip
    return BASE | found | more


ROWS = [row("nothing", 0, s, 50.0 + s, 0.0) for s in (1, 5)] + [
    row("mixing", m, s, 52.0 + s, 2.0) for m in (5, 20) for s in (1, 5)
]


TABLES = ["table.md", "table.csv", "table.tex"]


def _figures(stem):
    return [f"{stem}.{kind}" for kind in ("png", "svg", "pdf")]


def test_a_table_for_each_number_of_shots_with_all_its_arms():
    text = markdown(ROWS)
    assert re.findall(r"## (.*)", text) == [f"toy: 5-way {s}-shot, 600 episodes, 15 queries" for s in (1, 5)]
    lines = [line for line in text.splitlines() if line.startswith("| conv4")]
    assert len(lines) == 6
    assert "53.00 ± 0.50 | +2.00 (+1.60 to +2.40) | +1.00 (+0.50 to +1.50) | 61 % | 60.0 | 1.2" in lines[0]
    assert ["nothing" in line for line in lines] == [False, False, True] * 2
    assert text.startswith(
        "- 1 shot: mixing x 5 with prototype (best of 2): 53.00 %, +1.00 (+0.50 to +1.50) over plain prototype;"
    )
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_a_row_says_what_was_done_to_its_features():
    rows = [row("nothing", 0, 1, 50.0, 0.0), row("nothing", 0, 1, 52.0, 0.0, views="flip", normalise="none"),
            row("nothing", 0, 1, 53.0, 0.0, views="flip", normalise="l2")]  # fmt: skip
    reply = [line.split(" | ")[0] for line in markdown(rows).splitlines() if line.startswith("| conv4")]
    assert reply == ["| conv4", "| conv4, views flip", "| conv4, views flip, l2"]


def test_a_name_cannot_break_the_table():
    odd = row("a|b\nc", 5, 1, 50.0, 0.0, gain_ci95=[None, None])
    line = next(line for line in markdown([odd]).splitlines() if line.startswith("| conv4"))
    assert "a\\|b c x 5" in line
    assert "(? to ?)" in line


def test_a_share_is_part_of_a_line_and_explained(tmp_path):
    shared = [found | {"share": 0.5 if found["made"] else None} for found in ROWS]
    assert "| mixing x 5, share 0.5 |" in markdown(shared)
    assert markdown(shared).count('"Share 0.5"') == 1
    assert "hare" not in markdown(ROWS)
    both = [*ROWS, *(found for found in shared if found["made"])]
    assert [path.name for path in write_report(both, tmp_path)][-3:] == _figures("made")


def test_columns_that_are_not_filled_are_left_out():
    assert "by validation |" not in markdown(ROWS)
    asked = [found | {"best_plain": "logistic", "gain_best": 0.5, "gain_best_ci95": [0.1, 0.9], "seeds": 3,
                      "gain_sd": 0.25, "exact": bool(found["made"])} for found in ROWS]  # fmt: skip
    text = markdown(asked)
    assert "600 episodes, 15 queries, mean over 3 training seeds" in text
    assert "| mixing, exact |" in text
    assert "| +0.50 (+0.10 to +0.90) logistic | 0.25 |" in text


def test_ranges_of_shots_lie_at_their_middle(tmp_path):
    rows = [row("nothing", 0, shot, 50.0, 0.0) for shot in (1, "1-5", 5)]
    assert [path.name for path in write_report(rows, tmp_path)] == [
        *TABLES, *_figures("gain-1-shot"), *_figures("gain-1-5-shot"), *_figures("gain-5-shot"), *_figures("accuracy")
    ]  # fmt: skip
    assert "5-way 1-5-shot" in (tmp_path / "table.md").read_text()


def test_files_are_written_and_no_global_setting_of_the_plots_moves(tmp_path):
    before = matplotlib.get_backend(), dict(matplotlib.rcParams)
    files = write_report(ROWS, tmp_path / "new" / "folder")
    assert [path.name for path in files] == [
        *TABLES, *_figures("gain-1-shot"), *_figures("gain-5-shot"), *_figures("accuracy"), *_figures("made")
    ]  # fmt: skip
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    for path in files[len(TABLES) :]:
        assert path.read_bytes().startswith(starts[path.suffix])
    assert (matplotlib.get_backend(), dict(matplotlib.rcParams)) == before
    again = write_report(ROWS, tmp_path / "again")
    assert [a.read_bytes() for a in again] == [b.read_bytes() for b in files]


def test_plain_rows_alone_are_compared(tmp_path):
    odd = row("$x$_nothing", 0, 1, 50.0, 0.0)
    assert [path.name for path in write_report([odd], tmp_path)] == [*TABLES, *_figures("gain-1-shot")]


def test_nothing_to_report_and_nowhere_to_write_are_refused(tmp_path):
    with pytest.raises(InputError, match="no rows"):
        write_report([], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(ROWS, tmp_path / "file")
