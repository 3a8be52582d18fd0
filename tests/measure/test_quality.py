import json

import pytest
import torch

from augforge.measure.quality import BY_CLASS, Sets, compute_quality
from augforge.measure.report import table
from augforge.metrics.coverage import density_coverage
from augforge.metrics.frechet import frechet_distance
from augforge.metrics.kid import kid
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
        assert lines["kid"][side] == pytest.approx(kid(sets.real.x, rows.x))
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
