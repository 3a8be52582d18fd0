"""Episodes: the only place that draws rows, each episode a pure function of (seed, index)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from augforge import chance
from augforge.types import Episode, InputError


def draw_episodes(
    y: Tensor, *, way: int, shot: int, n_query: int, trials: int, seed: int = 0, start: int = 0
) -> list[Episode]:
    """Draw `trials` episodes from the labels `y` [n] int64: N-way K-shot as in Vinyals et al. (2016).

    Episode i has `way` classes and, of each, `shot` support and `n_query` query rows, all drawn without replacement
    and none both; it depends on (y, way, shot, n_query, seed, start + i) alone, not on `trials`. A class with fewer
    than shot + n_query rows is never drawn. Raises InputError where fewer than `way` classes have enough rows.
    """
    if min(way, shot, trials) < 1 or n_query < 0:
        raise InputError(f"way={way}, shot={shot}, n_query={n_query}, trials={trials} was given; expected at least 1")
    counts = torch.bincount(y) if len(y) else torch.zeros(0, dtype=torch.int64)
    eligible = (counts >= shot + n_query).nonzero(as_tuple=True)[0]
    if len(eligible) < way:
        raise InputError(
            f"{way}-way episodes need {way} classes with at least {shot + n_query} rows each; there are {len(eligible)}"
        )
    keys = chance.row_keys(seed, "episode", torch.arange(start, start + trials))
    classes = eligible[_without_replacement(keys, torch.full((trials,), len(eligible)), way)]  # [trials, way]
    rows_by_class = torch.argsort(y, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    slot_keys = chance.integers(chance.fork(keys, "rows"), way).reshape(-1)  # [trials * way]
    flat = classes.reshape(-1)
    within = _without_replacement(slot_keys, counts[flat], shot + n_query)
    rows = rows_by_class[starts[flat][:, None] + within].reshape(trials, way, shot + n_query)
    return [Episode(c, r[:, :shot], r[:, shot:]) for c, r in zip(classes, rows, strict=True)]


def draw_within_groups(
    y: Tensor, group: Tensor, form: tuple[int, int, int], trials: int, seed: int = 0
) -> list[Episode]:
    """Episodes of `form` (way, shot, n_query), each within one of the groups that `group` [n] int64 numbers from 0.

    The group of an episode is drawn first, evenly among those with `way` classes of shot + n_query rows. Episode i
    depends on (y, group, form, seed, i) alone. Raises InputError where no group has enough.
    """
    way, shot, n_query = form
    if trials < 1 or n_query < 0:
        raise InputError(f"n_query={n_query}, trials={trials} was given; expected at least 0 and 1")
    rows_of = [(group == g).nonzero(as_tuple=True)[0] for g in range(int(group.max()) + 1)]
    enough = [rows for rows in rows_of if int((torch.bincount(y[rows]) >= shot + n_query).sum()) >= way]
    if not enough:
        raise InputError(
            f"{way}-way episodes within one group need {way} classes with at least {shot + n_query} rows each; "
            f"none of the {len(rows_of)} groups has them"
        )
    keys = chance.fork(chance.row_keys(seed, "episode", torch.arange(trials)), "group")
    episodes = []
    for i, g in enumerate(chance.choice(keys, len(enough)).tolist()):
        rows = enough[g]
        (drawn,) = draw_episodes(y[rows], way=way, shot=shot, n_query=n_query, trials=1, seed=seed, start=i)
        episodes.append(Episode(drawn.classes, rows[drawn.support], rows[drawn.query]))
    return episodes


def with_shots(episode: Episode, shots: Sequence[int]) -> Episode:
    """The episode with `shots` [way] support rows for its classes: the first of each, and -1 in place of the others."""
    unused = torch.arange(episode.support.shape[1]) >= torch.tensor(shots)[:, None]  # [way, shot]
    return Episode(episode.classes, episode.support.masked_fill(unused, -1), episode.query)


def check_episode(episode: Episode, y: Tensor) -> None:
    """Raise InputError where an episode is not one of a bank with labels `y` [n]; the sentence says what is wrong.

    Checked are the form, that classes and rows are there and used once, that support and query rows are of their
    class, that every class has a support row, -1 only behind the rows of a line, and that no query is in the support.
    """
    classes, support, query = episode.classes, episode.support, episode.query
    way = len(classes)
    if support.shape != (way, support.shape[-1]) or query.ndim != 2 or len(query) not in (1, way):
        shapes = ", ".join(str(list(t.shape)) for t in (classes, support, query))
        raise InputError(f"an episode has shapes {shapes}; expected classes [way], support [way, shot], query [way, q]")
    used = support >= 0  # [way, shot]
    rows, queries = support[used], query.reshape(-1)
    wrong = torch.cat([rows, queries, support[~used] + 1])  # padding is -1, so 0 here
    if bool((wrong < 0).any()) or bool((torch.cat([rows, queries]) >= len(y)).any()):
        raise InputError(f"an episode has rows that are not among the {len(y)} of the bank")
    if len(torch.unique(classes)) < way or len(torch.unique(rows)) < len(rows):
        raise InputError("an episode has a class or a support row twice")
    if not bool(used[:, 0].all()) or bool((used[:, 1:] & ~used[:, :-1]).any()):
        raise InputError(
            "an episode has a class without a support row, or -1 before a row; expected -1 at the end only"
        )
    leaked = queries[torch.isin(queries, rows)]
    if len(leaked) or len(torch.unique(queries)) < len(queries):
        what = f"the query row {int(leaked[0])} in its support" if len(leaked) else "a query row twice"
        raise InputError(f"an episode has {what}; expected queries that nothing was learnt from")
    lines = classes[:, None].expand_as(support)[used]
    of_query = classes[:, None] if len(query) == way else classes[None, :]  # [way, 1] or [1, way]
    seen = y[query] == of_query if len(query) == way else (y[queries][:, None] == of_query).any(1)
    if not torch.equal(y[rows], lines) or not bool(seen.all()):
        raise InputError(
            "an episode has a row that is not of its class in the bank; was the episode drawn from another?"
        )


def _without_replacement(keys: Tensor, n: Tensor, count: int) -> Tensor:
    """`count` distinct integers of 0..n[i]-1 for each key, in random order: [m, count] int64.

    The first steps of Fisher and Yates' shuffle on a virtual array 0..n-1: step j swaps place j with a place from
    j on, and only the places that were swapped are kept.
    """
    numbers = chance.integers(keys, count)
    high = (numbers >> 32) & 0xFFFFFFFF
    places = torch.empty(len(keys), count, dtype=torch.int64)
    values = torch.empty_like(places)
    drawn = torch.empty_like(places)
    for j in range(count):
        place = j + ((high[:, j] * (n - j)) >> 32)
        here, there = torch.full_like(place, j), place.clone()
        for earlier in range(j):  # what lies at places j and `place` after the earlier swaps
            here = torch.where(places[:, earlier] == j, values[:, earlier], here)
            there = torch.where(places[:, earlier] == place, values[:, earlier], there)
        drawn[:, j], places[:, j], values[:, j] = there, place, here
    return drawn
