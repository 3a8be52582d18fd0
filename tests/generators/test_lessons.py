import torch

from augforge.classifiers.feature_transforms import TRANSFORMS, centre_of, transformed
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import FeatureBank
from augforge.generators.shared.posterior.held_out import (
    SHOTS,
    draw_lessons,
    folds_of,
    is_sure,
    moved,
    nearest_shot,
    right_by_means,
)
from augforge.types import Examples


def bank(classes=40, each=30, d=6, seed=0):
    y = torch.arange(classes).repeat_interleave(each)
    generator = rng(seed)
    x = torch.randn(classes, d, generator=generator)[y] + torch.randn(len(y), d, generator=generator)
    return FeatureBank(x, y, tuple(f"{seed}-{k}" for k in range(classes)))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_folds_judge_what_their_side_does_not_know():
    base = bank(classes=23)
    folds = folds_of(base, None, rng(), "posterior", halves=False)
    assert len(folds.parts) == folds.of_base == len(folds.sides) == 5
    assert sum(len(y) for _, y in folds.parts) == len(base.y)
    for known, (x, y) in folds.sides:
        others = torch.cat([folds.parts[i][1] for i in known])
        assert not torch.isin(y, others).any()
        assert torch.equal(torch.cat([y, others]).unique(), torch.arange(23))
        for row, label in zip(x[:3], y[:3], strict=True):
            assert base.y[(base.x == row).all(1)].tolist() == [int(label)]


def test_halves_of_validation_classes_judge_each_other():
    folds = folds_of(bank(), bank(classes=11, seed=1), rng(), "hallucinator", halves=True)
    assert [known for known, _ in folds.sides] == [[0, 2], [0, 1]]
    for known, (_, y) in folds.sides:
        assert not torch.isin(y, folds.parts[known[1]][1]).any()


def test_only_some_rows_of_large_classes_are_judged():
    folds = folds_of(bank(), bank(classes=2, each=9000, seed=1), rng(), "posterior", halves=False)
    x, y = folds.sides[0][1]
    assert torch.bincount(y).tolist() == [4096, 4096]
    assert len(x.unique(dim=0)) == 8192


def test_every_part_is_transformed_by_the_centre_of_all_base_rows():
    base, val = bank(), bank(seed=1, classes=12)
    for known in (None, val):
        folds = folds_of(base, known, rng(), "posterior", halves=True)
        for (transform, centre, rows), expected in zip(moved(folds, TRANSFORMS), TRANSFORMS, strict=True):
            assert transform == expected
            torch.testing.assert_close(centre, centre_of(base.x, transform), atol=1e-6, rtol=1e-5)
            for part, (x, _) in zip(rows, folds.parts, strict=True):
                torch.testing.assert_close(part, transformed(x, transform, centre))


def test_lessons_hold_what_the_classes_have_rows_for():
    lessons = draw_lessons(bank(classes=25, each=12).y, 0, 30, 0)
    assert [(lesson.shot, lesson.way, len(lesson.support)) for lesson in lessons] == [
        (1, 20, 30),
        (2, 20, 30),
        (5, 20, 30),
    ]
    assert [lesson.way for lesson in draw_lessons(bank(classes=8).y, 0, 3, 0)] == [5] * len(SHOTS)
    assert [lesson.way for lesson in draw_lessons(bank(classes=8).y, 20, 3, 0)] == [8] * len(SHOTS)
    y = bank(classes=25).y
    for lesson in draw_lessons(y, 7, 30, 0):
        assert (y[lesson.support] == y[lesson.query][..., :1]).all()
        both = torch.cat([lesson.support, lesson.query], 2).flatten(1)
        assert all(len(rows.unique()) == len(rows) for rows in both)
        assert len(lesson.first(140).support) == 20


def test_nearest_means_are_those_of_the_classifier():
    known = bank(classes=12)
    lesson = draw_lessons(known.y, 4, 25, 0)[1]
    found = right_by_means(known.x, lesson)
    for e in range(25):
        support = Examples(known.x[lesson.support[e].flatten()], torch.arange(4).repeat_interleave(2))
        said = Prototype().scores(support, known.x[lesson.query[e].flatten()]).argmax(1)
        assert float((said == lesson.target(4)).float().mean()) == float(found[e])


def test_the_nearest_number_of_shots_is_so_by_ratio():
    counts = torch.tensor([0.1, 1.0, 1.4, 1.5, 3.1, 3.2, 7.0, 7.2, 14.1, 14.2, 500.0])
    assert [SHOTS[i] for i in nearest_shot(counts).tolist()] == [1, 1, 1, 2, 2, 5, 5, 10, 10, 20, 20]


def test_a_gain_is_sure_beyond_chance():
    gain = torch.randn(100, generator=rng())
    gain = (gain - gain.mean()) / gain.std()
    assert not is_sure(gain + 0.25)
    assert is_sure(gain + 0.27)
    assert not is_sure(gain - 1)
