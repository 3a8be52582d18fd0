import json
import re

import pytest

from augforge.figures import as_bytes, folded
from augforge.figures.curves import draw_curves, learning_curves


def steps(stage, places, **more):
    return [{"stage": stage, "step": s, "loss": 2.0 / (1 + s), "lr": 0.1, "seconds": 1.0 * s} | more for s in places]


LOG = [
    *steps("training", range(0, 500, 50)),
    *({"stage": "training", "step": s, "score": s / 500, "seconds": 1.0} for s in (250, 500)),
    {"stage": "training", "step": 300, "alarm": "losses were not finite"},
    *steps("second", (0, 50), penalty=0.5),
]


def lines(figure):
    return {(axes.get_title(loc="left"), line.get_label()): line.get_xydata().tolist() for axes in figure.axes
            for line in axes.lines}  # fmt: skip


def test_every_stage_has_losses_scores_and_its_learning_rate():
    found = lines(learning_curves(LOG, "conv4"))
    assert [x for x, _ in found["training: loss", "loss"]] == list(range(0, 500, 50))
    assert found["training: validation", "score"] == [[250, 0.5], [500, 1.0]]
    assert found["second: learning rate", "learning rate"] == [[0, 0.1], [50, 0.1]]
    assert found["second: loss", "penalty"] == [[0, 0.5], [50, 0.5]]


def test_a_step_that_was_taken_again_counts_once_as_it_was_last():
    again = [*steps("a", (0, 50, 100, 150)), *steps("a", (100, 150, 200), loss=9.0)]
    assert lines(learning_curves(again))["a: loss", "loss"] == [[0, 2.0], [50, 2 / 51], [100, 9], [150, 9], [200, 9]]


def test_a_number_of_another_size_is_left_out_of_the_panel_and_said_to_be():
    figure = learning_curves(steps("a", (0, 50), seen=1e6))
    assert [label for title, label in lines(figure) if title == "a: loss"] == ["loss"]
    assert "1 more in the log" in as_bytes(figure, "svg").decode()


def test_losses_that_are_not_finite_leave_a_gap_and_a_log_without_steps_nothing():
    assert lines(learning_curves(steps("a", (0, 50), loss=float("nan")) + steps("a", (100,))))["a: loss", "loss"] == [
        [100, 2 / 101]
    ]
    assert learning_curves([{"kept": "start"}]) is None


def test_a_log_in_a_folder_is_drawn_and_a_damaged_line_left_out(tmp_path):
    assert draw_curves(tmp_path / "log.jsonl") == []
    text = "".join(json.dumps(line) + "\n" for line in LOG)
    (tmp_path / "log.jsonl").write_text(text + '{"stage": "tr')
    files = draw_curves(tmp_path / "log.jsonl")
    assert [path.name for path in files] == ["curves.png", "curves.svg", "curves.pdf"]
    first = [path.read_bytes() for path in files]
    draw_curves(tmp_path / "log.jsonl")
    assert [path.read_bytes() for path in files] == first


def test_svg_has_its_words_as_text():
    assert re.search(r"<text[^>]*>training: loss<", as_bytes(learning_curves(LOG), "svg").decode())


@pytest.mark.parametrize(("text", "lines"), [("a b", ["a b"]), ("mixing(how=smote,alpha=1)", ["mixing(how=smote,",
                                             "alpha=1)"]), ("x" * 50, ["x" * 20, "x" * 20, "x" * 10])])  # fmt: skip
def test_long_names_are_folded_behind_commas(text, lines):
    assert folded(text, 20).split("\n") == lines
