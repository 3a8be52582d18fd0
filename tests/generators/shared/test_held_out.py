import torch

from augforge.classifiers.feature_transforms import TRANSFORMS, centre_of, transformed
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import FeatureBank
from augforge.generators.shared.posterior.held_out import (
    SHOTS,
    draw_episode_batches,
    nearest_shot,
    split_classes,
    transformed_parts,
)
from augforge.types import Examples


def bank(classes=40, each=30, d=6, seed=0):
    y = torch.arange(classes).repeat_interleave(each)
    generator = rng(seed)
    x = torch.randn(classes, d, generator=generator)[y] + torch.randn(len(y), d, generator=generator)
    return FeatureBank(x, y, tuple(f"{seed}-{k}" for k in range(classes)))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_fold_knows_no_class_that_it_holds_out():
    base = bank(classes=23)
    split = split_classes(base, None, rng(), "posterior", halves=False)
    assert len(split.parts) == split.of_base == len(split.folds) == 5
    assert sum(len(y) for _, y in split.parts) == len(base.y)
    for fold in split.folds:
        x, y = fold.held_out
        others = torch.cat([split.parts[i][1] for i in fold.known])
        assert not torch.isin(y, others).any()
        assert torch.equal(torch.cat([y, others]).unique(), torch.arange(23))
        for row, label in zip(x[:3], y[:3], strict=True):
            assert base.y[(base.x == row).all(1)].tolist() == [int(label)]


def test_each_half_of_the_validation_classes_is_held_out_once():
    split = split_classes(bank(), bank(classes=11, seed=1), rng(), "hallucinator", halves=True)
    assert [fold.known for fold in split.folds] == [[0, 2], [0, 1]]
    for fold in split.folds:
        assert not torch.isin(fold.held_out[1], split.parts[fold.known[1]][1]).any()
    labels = torch.cat([fold.held_out[1] for fold in split.folds])
    assert torch.equal(labels.unique(), torch.arange(11))


def test_only_some_rows_of_large_classes_are_held_out():
    split = split_classes(bank(), bank(classes=2, each=9000, seed=1), rng(), "posterior", halves=False)
    x, y = split.folds[0].held_out
    assert torch.bincount(y).tolist() == [4096, 4096]
    assert len(x.unique(dim=0)) == 8192


def test_every_part_is_transformed_by_the_centre_of_all_base_rows():
    base, val = bank(), bank(seed=1, classes=12)
    for known in (None, val):
        split = split_classes(base, known, rng(), "posterior", halves=True)
        for (transform, centre, rows), expected in zip(transformed_parts(split, TRANSFORMS), TRANSFORMS, strict=True):
            assert transform == expected
            torch.testing.assert_close(centre, centre_of(base.x, transform), atol=1e-6, rtol=1e-5)
            for part, (x, _) in zip(rows, split.parts, strict=True):
                torch.testing.assert_close(part, transformed(x, transform, centre))


def test_batches_hold_what_the_classes_have_rows_for():
    batches = draw_episode_batches(bank(classes=25, each=12).y, 0, 30, 0)
    assert [(batch.shot, batch.way, len(batch.support)) for batch in batches] == [
        (1, 20, 30),
        (2, 20, 30),
        (5, 20, 30),
    ]
    assert [batch.way for batch in draw_episode_batches(bank(classes=8).y, 0, 3, 0)] == [5] * len(SHOTS)
    assert [batch.way for batch in draw_episode_batches(bank(classes=8).y, 20, 3, 0)] == [8] * len(SHOTS)
    y = bank(classes=25).y
    for batch in draw_episode_batches(y, 7, 30, 0):
        assert (y[batch.support] == y[batch.query][..., :1]).all()
        both = torch.cat([batch.support, batch.query], 2).flatten(1)
        assert all(len(rows.unique()) == len(rows) for rows in both)
        assert len(batch.first(140).support) == 20


def test_nearest_means_are_those_of_the_classifier():
    known = bank(classes=12)
    batch, episodes = draw_episode_batches(known.y, 4, 25, 0)[1], torch.arange(25)
    means, query = (part(known.x[None], episodes, 4)[0] for part in (batch.means, batch.queries))
    for e in range(25):
        support = Examples(known.x[batch.support[e].flatten()], torch.arange(4).repeat_interleave(2))
        expected = Prototype().scores(support, known.x[batch.query[e].flatten()])
        torch.testing.assert_close(-torch.cdist(query[e], means[e]).square(), expected, atol=1e-4, rtol=1e-4)


def test_the_nearest_number_of_shots_is_so_by_ratio():
    counts = torch.tensor([0.1, 1.0, 1.4, 1.5, 3.1, 3.2, 7.0, 7.2, 14.1, 14.2, 500.0])
    assert [SHOTS[i] for i in nearest_shot(counts).tolist()] == [1, 1, 1, 2, 2, 5, 5, 10, 10, 20, 20]
