import pytest
import torch

from augforge.episodes import draw_episodes
from augforge.types import InputError

Y = torch.arange(12).repeat_interleave(9)[torch.randperm(108, generator=torch.Generator().manual_seed(1))]
SHAPE = {"way": 5, "shot": 2, "n_query": 3}


def _rows(episode):
    return torch.cat([episode.support, episode.query], 1)


def _same(a, b):
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("classes", "support", "query"))


def test_rows_are_of_their_class_and_none_is_used_twice():
    for episode in draw_episodes(Y, **SHAPE, trials=200):
        assert episode.classes.shape == (5,)
        assert episode.support.shape == (5, 2)
        assert episode.query.shape == (5, 3)
        assert len(torch.unique(episode.classes)) == 5
        assert len(torch.unique(_rows(episode))) == 25
        assert torch.equal(Y[_rows(episode)], episode.classes[:, None].expand(5, 5))


def test_all_rows_and_classes_can_be_used_up():
    (episode,) = draw_episodes(Y, way=12, shot=4, n_query=5, trials=1)
    assert sorted(_rows(episode).flatten().tolist()) == list(range(108))


def test_an_episode_depends_on_its_seed_and_index_alone():
    ten = draw_episodes(Y, **SHAPE, trials=10, seed=3)
    last = draw_episodes(Y, **SHAPE, trials=5, seed=3, start=5)
    assert all(_same(a, b) for a, b in zip(ten[5:], last, strict=True))
    other = draw_episodes(Y, **SHAPE, trials=10, seed=4)
    assert not any(_same(a, b) for a in ten for b in other)
    assert not any(_same(a, b) for a, b in zip(ten[1:], ten, strict=False))


def test_classes_and_rows_are_drawn_evenly():
    episodes = draw_episodes(Y, **SHAPE, trials=3000)
    classes = torch.bincount(torch.cat([e.classes for e in episodes]), minlength=12).double()
    assert ((classes - 1250) ** 2 / 1250).sum() < 35  # 11 degrees of freedom; less, as none is drawn twice
    for rows in ([e.support for e in episodes], [e.query for e in episodes]):
        counts = torch.bincount(torch.cat(rows).flatten(), minlength=108).double()
        expected = counts.sum() / 108
        assert ((counts - expected) ** 2 / expected).sum() < 165  # 107 degrees of freedom, p = 3e-4


def test_order_within_an_episode_is_random():
    first = torch.stack([e.classes for e in draw_episodes(Y, way=12, shot=1, n_query=0, trials=1200)])
    for place in (0, 5, 11):
        counts = torch.bincount(first[:, place], minlength=12).double()
        assert ((counts - 100) ** 2 / 100).sum() < 35


def test_small_classes_are_never_drawn():
    y = torch.cat([Y, torch.full((4,), 12), torch.full((5,), 13)])
    drawn = torch.cat([e.classes for e in draw_episodes(y, **SHAPE, trials=200)]).unique().tolist()
    assert 12 not in drawn
    assert 13 in drawn


def test_gaps_in_the_class_ids_are_no_matter():
    drawn = torch.cat([e.classes for e in draw_episodes(Y * 7 + 3, **SHAPE, trials=100)]).unique()
    assert torch.equal(drawn, torch.arange(12) * 7 + 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"way": 13}, "need 13 classes with at least 5 rows each; there are 12"),
        ({"shot": 9}, "at least 12 rows each; there are 0"),
        ({"way": 0}, "way=0"),
        ({"shot": 0}, "shot=0"),
        ({"n_query": -1}, "n_query=-1"),
        ({"trials": 0}, "trials=0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        draw_episodes(Y, **(SHAPE | {"trials": 1} | changes))


def test_no_rows_are_refused():
    with pytest.raises(InputError, match="there are 0"):
        draw_episodes(torch.zeros(0, dtype=torch.int64), **SHAPE, trials=1)
