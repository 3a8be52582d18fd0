import json

import pytest
import torch

from augforge.measure.quality import BY_CLASS, Sets, compute_quality
from augforge.measure.report import table
from augforge.metrics.coverage import density_coverage
from augforge.metrics.frechet import frechet_distance
from augforge.metrics.kid import kid, kid_of_classes
from augforge.metrics.rows import TooFewRows
from augforge.types import Examples

CLASSES = tuple("abc")


def _draw(each, seed, spread=1.0, shift=0.0):
    centres = 3 * torch.randn(len(CLASSES), 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(len(CLASSES)).repeat_interleave(each)
    noise = torch.randn(len(y), 4, generator=torch.Generator().manual_seed(seed))
    return Examples(centres[y] + spread * noise + shift, y)


def _sets(made, held_out=None, real=None):
    return Sets(real or _draw(40, 1), made, held_out or _draw(40, 2), CLASSES)


def _lines(report):
    return {line["metric"]: line for line in report["metrics"]}


def test_at_equal_count_the_numbers_are_those_of_the_metrics():
    sets = _sets(_draw(40, 3, shift=0.5))
    lines = _lines(compute_quality(sets))
    for side, rows in (("made", sets.made), ("held_out", sets.held_out)):
        assert lines["frechet"][side] == pytest.approx(frechet_distance(sets.real.x, rows.x))
        assert lines["kid"][side] == pytest.approx(kid_of_classes((sets.real.x, sets.real.y), (rows.x, rows.y)))
        assert lines["coverage"][side] == pytest.approx(density_coverage(sets.real.x, rows.x).coverage)
    assert lines["frechet"]["note"] == ""
    assert set(lines) == {"frechet", *BY_CLASS, "diversity_within_classes"}


def test_more_made_rows_do_not_buy_coverage():
    few, many = compute_quality(_sets(_draw(40, 3))), compute_quality(_sets(_draw(400, 3)))
    assert many["rows"] == {"real": 120, "made": 1200, "held_out": 120, "equal_count": 120}
    assert _lines(many)["coverage"]["made"] == pytest.approx(_lines(few)["coverage"]["made"], abs=0.06)


def test_counts_are_made_equal_class_by_class():
    made = _draw(40, 3).take(torch.cat([torch.arange(40), torch.arange(40, 50), torch.arange(80, 95)]))
    assert compute_quality(_sets(made))["rows"]["equal_count"] == 40 + 10 + 15


def test_a_collapse_is_seen_within_classes():
    lines = _lines(compute_quality(_sets(_draw(40, 3, spread=0.01))))
    assert lines["diversity_within_classes"]["made"] < 0.02
    assert lines["diversity_within_classes"]["held_out"] == pytest.approx(1, abs=0.1)
    assert lines["diversity"]["made"] > 0.5


def test_copies_are_seen():
    real = _draw(40, 1)
    report = compute_quality(_sets(real, real=real))
    assert report["memorisation"]["mean"]["high"] == 0
    assert report["memorisation"]["nearer"] == 1
    assert _lines(report)["frechet"]["made"] == pytest.approx(0, abs=1e-9)


def test_both_columns_of_the_kernel_distance_have_equal_counts():
    real = _draw(30, 1)
    many = _draw(200, 3)
    few = many.take(torch.cat([torch.arange(200 * i, 200 * i + 6) for i in range(3)]))
    line = _lines(compute_quality(_sets(many, held_out=_draw(6, 2), real=real)))["kid"]
    assert line["subset_size"] == 9
    assert 0.1 < line["spread"]["made"] / line["spread"]["held_out"] < 10
    assert _lines(compute_quality(_sets(few, held_out=_draw(6, 2), real=real)))["kid"]["held_out"] == line["held_out"]


@pytest.mark.parametrize(("way", "each"), [(2, 5), (5, 5), (20, 5), (20, 12)])
def test_held_out_rows_of_balanced_classes_are_no_distance_away(way, each):
    found, spreads = [], []
    names = tuple(map(str, range(way)))
    for i in range(200):
        rng = torch.Generator().manual_seed(i)
        centres = 2 * torch.randn(way, 4, generator=rng)
        y = torch.arange(way).repeat_interleave(each)
        sides = [Examples(centres[y] + torch.randn(len(y), 4, generator=rng), y) for _ in range(3)]
        real, made, held_out = ((rows.x, rows.y) for rows in sides)
        found.append(kid_of_classes(real, held_out))
        if i < 1:
            line = _lines(compute_quality(Sets(*sides, names)))["kid"]
            assert line["made"] == pytest.approx(kid_of_classes(real, made))
            assert line["held_out"] == pytest.approx(found[-1])
            spreads += line["spread"].values()
    values = torch.tensor(found)
    assert abs(float(values.mean())) < 3 * float(values.std()) / len(values) ** 0.5
    assert min(spreads) > 1e-3 * float(values.std())


def test_the_spread_of_few_rows_is_not_shown():
    line = _lines(compute_quality(_sets(_draw(3, 3), held_out=_draw(3, 2))))["kid"]
    assert "too few rows for a spread: a class has 3 rows" in line["note"]
    assert "spread" not in line
    assert line["made"] is not None
    one = _draw(5, 3).take(torch.tensor([0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]))
    assert (
        _lines(compute_quality(_sets(one)))["kid"]["note"] == "without 1 classes that have fewer than 2 rows on a side"
    )


def test_classes_are_those_with_rows_on_every_side():
    some = _draw(40, 2).take(torch.arange(80))
    assert compute_quality(_sets(_draw(40, 3), held_out=some))["classes"] == 2


def test_too_few_rows_are_said():
    report = compute_quality(_sets(_draw(1, 3), held_out=_draw(4, 2)))
    lines = _lines(report)
    assert "too few rows: 3 for 4 dimensions" in lines["frechet"]["note"]
    assert lines["recall"]["made"] is None
    assert "there are 3 made rows" in lines["recall"]["note"]
    assert lines["diversity_within_classes"]["note"] == "too few rows in 3 classes"
    assert report["per_class"]["a"]["too_few"]["kid"] == "there is 1 made row; the kernel distance needs at least 2"
    assert report["per_class"]["a"]["kid"]["made"] is None
    alone = compute_quality(_sets(_draw(5, 3).take(torch.arange(1))))
    assert "too few rows: there is 1 made row" in alone["memorisation"]["note"]


def test_classes_have_their_own_numbers():
    made = _draw(40, 3)
    sets = _sets(made)
    found = compute_quality(sets)["per_class"]
    assert list(found) == list(CLASSES)
    assert found["b"]["kid"]["made"] == pytest.approx(kid(sets.real.x[40:80], made.x[40:80]))
    assert found["b"]["rows"] == {"real": 40, "made": 40, "held_out": 40}
    assert not found["b"]["too_few"]


def test_one_seed_gives_one_report_and_json_holds_it():
    sets = _sets(_draw(60, 3))
    first, again, other = (compute_quality(sets, seed) for seed in (0, 0, 1))
    assert json.loads(json.dumps(first, allow_nan=False)) == again
    assert first != other


def test_a_person_reads_every_number():
    report = compute_quality(_sets(_draw(2, 3))) | {
        "representation": {"name": "means", "dimensions": 4}, "notes": ["half is held out"], "usefulness": None,
    }  # fmt: skip
    text = table(report)
    assert "representation: means, 4 dimensions" in text
    assert "note: half is held out" in text
    for line in report["metrics"]:
        assert line["note"] in text
    assert "nan" not in text


def test_empty_sets_are_refused():
    with pytest.raises(TooFewRows, match="no made rows"):
        _sets(_draw(0, 3))
