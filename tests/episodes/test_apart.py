import pytest
import torch

from augforge.episodes import check_episode
from augforge.episodes.apart import draw_apart, sides
from augforge.types import InputError

Y = torch.arange(6).repeat_interleave(20)
TRACKS = torch.arange(120) // 5  # four of five rows in each class
DAYS = torch.arange(120) % 7  # of which every class has some


def _groups_of(group, rows):
    return set(group[rows].flatten().tolist())


@pytest.mark.parametrize("group", [TRACKS, DAYS, TRACKS * 1000 - 5], ids=["tracks", "days", "any numbers"])
@pytest.mark.parametrize("form", [(6, 5, 5), (3, 1, 1), (6, 8, 3), (2, 10, 5)])
def test_a_group_is_never_on_both_sides_and_rows_are_of_their_class(group, form):
    way, shot, n_query = form
    for episode in draw_apart(Y, form, 60, group=group):
        check_episode(episode, Y)
        assert episode.support.shape == (way, shot)
        assert episode.query.shape == (way, n_query)
        assert not _groups_of(group, episode.support) & _groups_of(group, episode.query)


def test_both_sides_hold_several_groups_where_there_are():
    episodes = draw_apart(Y, (6, 5, 5), 100, group=TRACKS)
    for side in ("support", "query"):
        of_class = [len(_groups_of(TRACKS, getattr(e, side)[k])) for e in episodes for k in range(6)]
        assert sum(of_class) / len(of_class) > 1.8  # of two: tracks are cut in the middle
    used = torch.bincount(torch.cat([e.support for e in episodes]).flatten(), minlength=120)
    assert int(used.min()) > 0


def test_rows_of_the_two_sides_never_change_places():
    side = (torch.arange(120) % 20 >= 12).long()
    for episode in draw_apart(Y, (6, 12, 8), 20, side=side):
        check_episode(episode, Y)
        assert not bool(side[episode.support].any())
        assert bool(side[episode.query].all())
    for episode in draw_apart(Y, (6, 2, 2), 20, side=side, group=TRACKS):
        assert not bool(side[episode.support].any())
        assert bool(side[episode.query].all())
        assert not _groups_of(TRACKS, episode.support) & _groups_of(TRACKS, episode.query)


def test_an_episode_depends_on_its_seed_and_index_alone():
    many, few, other = (draw_apart(Y, (3, 2, 2), n, seed, group=TRACKS) for n, seed in ((9, 1), (4, 1), (4, 2)))
    assert all(torch.equal(a.support, b.support) for a, b in zip(many, few, strict=False))
    assert all(torch.equal(a.query, b.query) for a, b in zip(many, few, strict=False))
    assert not all(torch.equal(a.support, b.support) for a, b in zip(few, other, strict=True))
    assert not torch.equal(many[0].support, many[1].support)


def test_classes_without_enough_groups_are_not_drawn_and_too_few_are_an_error():
    group = torch.where(Y == 2, 0, TRACKS)  # all rows of class 2 are near-copies of each other
    assert all(2 not in e.classes.tolist() for e in draw_apart(Y, (5, 2, 2), 20, group=group))
    with pytest.raises(InputError, match=r"6 classes with 2 support and 2 .* in different groups; there are 5"):
        draw_apart(Y, (6, 2, 2), 1, group=group)
    with pytest.raises(InputError, match="there are 0"):
        draw_apart(Y, (2, 16, 5), 1, group=TRACKS)
    with pytest.raises(InputError, match="expected at least 1"):
        draw_apart(Y, (2, 0, 5), 1, group=TRACKS)


def test_groups_that_bind_classes_together_may_leave_no_way():
    y, group = torch.arange(2).repeat_interleave(2), torch.tensor([0, 1, 1, 0])
    for episode in draw_apart(y, (2, 1, 1), 10, group=group):
        assert not _groups_of(group, episode.support) & _groups_of(group, episode.query)
    y, group = torch.arange(2).repeat_interleave(4), torch.tensor([0, 1, 1, 1, 0, 0, 0, 1])
    with pytest.raises(InputError, match="cannot be dealt out"):
        draw_apart(y, (2, 3, 1), 1, group=group)


def test_sides_deal_groups_out_evenly():
    y = torch.tensor([0] * 7 + [1] * 3 + [2])
    group = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 4])
    assert sides(y, group) == ([4, 3, 1], [3, 0, 0])
