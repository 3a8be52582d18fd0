"""Episodes with a condition: all classes of one group, or a number of shots for each class.

Both call `augforge.episodes.draw_episodes`, which draws the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from augforge import chance
from augforge.episodes import draw_episodes
from augforge.types import Episode, InputError


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
