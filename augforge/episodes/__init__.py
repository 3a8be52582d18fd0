"""Episodes: the only place that draws rows, each episode a pure function of (seed, index)."""

from __future__ import annotations

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
