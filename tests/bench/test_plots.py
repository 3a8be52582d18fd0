import itertools
import re

import pytest
from matplotlib.text import Text

from augforge.bench.plots import gain_chart, labels_of, made_chart, shots_chart
from augforge.figures import COLOURS, GREY, as_bytes

BASE = {"task": "toy", "part": "novel", "representation": "conv4", "weights": "constant", "way": 5, "query": 15,
        "trials": 600, "f1": 60.0, "verdict": "helps", "win_rate": 60.0}  # fmt: skip


def row(synthesizer, gain, shot=1, *, half=0.4, made=20, control=False, classifier="logistic"):
    plain = synthesizer == "nothing"
    interval = [gain - half, gain + half]
    return BASE | {
        "synthesizer": synthesizer, "classifier": classifier, "made": 0 if plain else made, "shot": shot,
        "control": control or plain, "accuracy": 60.0 + gain + shot, "ci95": [59.0 + gain, 61.0 + gain], "gain": gain,
        "gain_ci95": interval, "gain_over_best": gain, "gain_over_best_ci95": interval, "p": None if plain else 0.01,
        "shot_worth": 1.5, "shot_worth_says": "1.5",
    }  # fmt: skip


TABLE = [row("nothing", 0.0, half=0), row("copies", 0.1, control=True), row("mixing", 1.5), row("gan", 2.5)]


def words(figure):
    return [re.sub(r"<[^>]*>", "", text) for text in re.findall(r"<text.*?</text>", as_bytes(figure, "svg").decode())]


def dots(axes):
    return [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]


def test_gains_are_in_order_controls_last_and_grey():
    figure = gain_chart(TABLE)
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "gan x\u00a020", "mixing x\u00a020", "copies x\u00a020", "nothing"
    ]  # fmt: skip
    shown = dots(axes)
    assert [line.get_xdata()[0] for line in shown] == [2.5, 1.5, 0.1, 0.0]
    assert [line.get_color() for line in shown] == [COLOURS[0]] * 2 + [GREY] * 2
    assert [line.get_markerfacecolor() == "white" for line in shown] == [False, False, True, True]
    places = [line.get_ydata()[0] for line in shown]
    assert places == sorted(places)
    assert axes.yaxis_inverted()


def test_the_title_says_task_way_shots_and_episodes():
    assert words(gain_chart(TABLE))[-3] == "toy: 5-way 1-shot, 600 episodes, 15 queries; logistic; conv4"


def test_an_outlier_lies_beyond_a_break():
    rows = [*TABLE, *(row(f"m{i}", 0.1 * i) for i in range(6)), row("bad", -30.0)]
    left, right = gain_chart(rows).axes
    assert left.get_xlim()[0] < -30 < left.get_xlim()[1] <= right.get_xlim()[0] < 0
    assert right.get_xlim()[1] - right.get_xlim()[0] < 5
    both = [*rows, row("good", 40.0)]
    assert len(gain_chart(both).axes) == 3


@pytest.mark.parametrize("count", [2, 12, 30])
def test_all_arms_are_in_the_chart(count):
    rows = [row(f"method-{i}(with=a,long=name,of={i})" * (1 + i % 3), 0.1 * i) for i in range(count)]
    figure = gain_chart(rows)
    assert len(dots(figure.axes[0])) == count
    assert figure.get_figheight() < 1.5 + 0.6 * count


def test_what_all_have_alike_is_no_part_of_a_label():
    assert labels_of(TABLE)[0] == "nothing"
    assert labels_of([*TABLE, row("mixing", 1.0, classifier="knn")])[-1] == "mixing x\u00a020, knn"


def test_what_a_shot_is_worth_is_drawn_and_said():
    rows = [r for shot in (1, 5) for r in (row("nothing", 0.0, shot), row("mixing", 1.5, shot), row("gan", 2.5, shot))]
    said = words(shots_chart(rows))
    assert "with gan 1 real shot is worth 1.5" in said
    assert {"gan x\u00a020", "mixing x\u00a020", "nothing made, best classifier"} <= set(said)


def test_methods_that_are_left_out_are_counted():
    rows = [r for shot in (1, 5) for r in (row("nothing", 0.0, shot), *(row(f"m{i}", i, shot) for i in range(9)))]
    said = words(shots_chart(rows))
    assert "4 more methods in the table" in said
    assert {f"m{i} x\u00a020" for i in (4, 5, 6, 7, 8)} <= set(said)


def test_names_at_the_ends_do_not_lie_on_each_other():
    methods = [row(f"m{i}", 0.01 * i, shot) for shot in (1, 5) for i in range(5)]
    figure = shots_chart([row("nothing", 0.0, 1), row("nothing", 0.0, 5), *methods])
    figure.draw_without_rendering()
    names = [text for text in figure.axes[0].texts if text.get_text().startswith(("m", "nothing"))]
    boxes = sorted((box.y0, box.y1) for box in map(Text.get_window_extent, names))
    assert len(boxes) == 6
    assert all(lower[1] <= upper[0] + 1 for lower, upper in itertools.pairwise(boxes))


def test_rows_made_are_an_axis():
    rows = [row("nothing", 0.0), *(row("mixing", 0.1 * m, made=m) for m in (5, 20, 80))]
    (axes,) = made_chart(rows).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "20", "80"]


def test_dollars_are_no_formulas():
    assert any("$x$_y" in word for word in words(gain_chart([row("$x$_y", 1.0), row("nothing", 0.0)])))
