"""Tasks: a source with its protocol. Base classes to learn from, validation classes to choose by, novel ones to judge.

An episode is rows of one of the three banks, so the same episodes serve the pictures and every feature bank that is
made from them, and all comparisons are paired.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from augforge.data.banks import AnyBank
from augforge.data.source import open_source
from augforge.episodes import draw_episodes
from augforge.episodes.named_tasks import alphabet_parts, face_parts, lake_episodes, omniglot_parts
from augforge.group_episodes import draw_within_groups, with_shots
from augforge.parts.saving import digest
from augforge.types import Episode, Examples, InputError

TASK_NAMES = ("glyphs", "omniglot", "omniglot-alphabet", "lake-runs", "cifar-fs", "fc100", "orl-faces")
Part = Literal["base", "val", "novel"]


@dataclass(frozen=True)
class Task:
    """What is compared on: `base` to learn from, `val` to choose by (or None), `novel` to judge on.

    `groups` names a column of the banks ("alphabet"): an episode then stays within one group of classes; None means
    that it may take any. `fixed` are episodes of `novel` that the protocol prescribes, or None where they are drawn.
    Raises InputError where a class is in two of the parts, and for a fixed episode that is none.
    """

    name: str
    base: AnyBank
    val: AnyBank | None
    novel: AnyBank
    groups: str | None = None
    fixed: Sequence[Episode] | None = None

    def __post_init__(self) -> None:
        """Refuse leakage: no class is in two parts, and no query is in its support."""
        parts = {"base": self.base, "val": self.val, "novel": self.novel}
        known = {part: set(bank.classes) for part, bank in parts.items() if bank is not None}
        for one, other in itertools.combinations(known, 2):
            both = sorted(known[one] & known[other])
            if both:
                raise InputError(
                    f"the class {both[0]!r} of the task {self.name!r} is among its {one} classes and its {other} "
                    f"classes; expected no class in both ({len(both)} of them are)"
                )
        for episode in self.fixed or ():
            check_episode(episode, self.novel.y)


def open_task(name: str | Path, data_root: Path | None = None) -> Task:
    """A task of TASK_NAMES, or any source with the splits train, test and, if there is one, val.

    omniglot: Vinyals' split, characters in four rotations. omniglot-alphabet: episodes within one alphabet, 25
    background alphabets as base, 5 as validation (task_sets.VAL_ALPHABETS), the 20 evaluation alphabets as novel.
    lake-runs: the same, with Lake's 400 one-shot trials as fixed episodes. orl-faces: 20, 8 and 12 people.
    The files of names lie in `data_root`, by default in AUGFORGE_DATA. Raises InputError for a source without
    splits or with a class in two of them, and what `open_source` raises.
    """
    groups = "alphabet" if name in ("omniglot-alphabet", "lake-runs") else None
    if name == "omniglot":
        splits = omniglot_parts(data_root)
    elif groups is not None:
        splits = alphabet_parts(data_root)
    elif name == "orl-faces":
        splits = face_parts(data_root)
    else:
        splits = open_source(name, data_root)
    if not {"train", "test"} <= splits.keys():
        raise InputError(
            f"{str(name)!r} cannot be a task: it has {', '.join(sorted(splits))}; expected the splits train (base "
            "classes), test (novel classes) and, if there is one, val"
        )
    fixed = lake_episodes(splits["test"], data_root) if name == "lake-runs" else None
    return Task(str(name), splits["train"], splits.get("val"), splits["test"], groups, fixed)


def task_episodes(
    task: Task,
    *,
    way: int,
    shot: int | Sequence[int],
    n_query: int,
    trials: int,
    seed: int = 0,
    part: Part = "novel",
) -> list[Episode]:
    """The episodes of a part of a task: rows of `task.novel`, `task.val` or `task.base`.

    `shot` may be a sequence of length `way`: class i then has shot[i] support rows, and `support` is
    [way, max(shot)] with -1 behind the rows of the smaller ones. Episode i depends on (labels, way, max(shot),
    n_query, seed, i) alone. Its classes and the first support row of each are the same for every shot and n_query,
    as long as all classes have enough rows. Within groups, each episode's group is drawn first, evenly among those
    with enough classes. Fixed episodes are given in their order. Raises InputError where the part lacks the
    classes or rows, and where fixed episodes have another form or are fewer.
    """
    shots = (shot,) * way if isinstance(shot, int) else tuple(shot)
    if len(shots) != way or min(shots, default=0) < 1:
        raise InputError(f"shot={shot} was given for {way}-way episodes; expected 1 or more, or {way} such numbers")
    if part == "novel" and task.fixed is not None:
        return _fixed(task, (way, max(shots), n_query), trials)
    bank = {"base": task.base, "val": task.val, "novel": task.novel}[part]
    if bank is None:
        raise InputError(f"the task {task.name!r} has no validation classes")
    if task.groups is None:
        drawn = draw_episodes(bank.y, way=way, shot=max(shots), n_query=n_query, trials=trials, seed=seed)
    else:
        column = bank.groups.get(task.groups)
        if column is None:
            raise InputError(f"the {part} bank of {task.name!r} has no column {task.groups!r} to keep episodes within")
        drawn = draw_within_groups(bank.y, _numbered(column), (way, max(shots), n_query), trials, seed)
    return drawn if isinstance(shot, int) else [with_shots(episode, shots) for episode in drawn]


def _fixed(task: Task, form: tuple[int, int, int], trials: int) -> list[Episode]:
    """The first `trials` of the fixed episodes; raises InputError where they are not (way, shot, queries) `form`."""
    fixed = list(task.fixed or ())
    found = (*fixed[0].support.shape, fixed[0].query.shape[1])
    if found != form or not 1 <= trials <= len(fixed):
        raise InputError(
            f"the task {task.name!r} is {len(fixed)} fixed episodes of way {found[0]}, shot {found[1]} and query "
            f"{found[2]}; {trials} of way {form[0]}, shot {form[1]} and query {form[2]} were asked for"
        )
    return fixed[:trials]


def _numbered(column: Tensor | tuple[str, ...]) -> Tensor:
    """A column [n] of numbers or names as group numbers [n] int64."""
    if isinstance(column, Tensor):
        return torch.unique(column, return_inverse=True)[1]
    ids = {name: i for i, name in enumerate(dict.fromkeys(column))}
    return torch.tensor([ids[name] for name in column], dtype=torch.int64)


def query_target(episode: Episode, y: Tensor | None = None) -> Tensor:
    """The position in `episode.classes` of each query's class, in the order of `query` row by row: [m] int64.

    `y` [n] are the labels of the bank. Without it line i of the queries is taken to be of class i, and InputError is
    raised where there are not as many lines as classes.
    """
    return _targets(episode.classes[None], episode.query[None], y)[0]


def _targets(classes: Tensor, query: Tensor, y: Tensor | None) -> Tensor:
    """Positions [b, lines * q] in `classes` [b, way] of the classes of `query` [b, lines, q]."""
    episodes, lines, each = query.shape
    way = classes.shape[1]
    if y is not None:
        labels = y.to(query.device)[query.reshape(episodes, lines * each)]
        return (labels[:, :, None] == classes[:, None, :]).to(torch.int8).argmax(2)  # [b, lines * q, way] -> [b, m]
    if lines != way:
        raise InputError(
            f"an episode of {way} classes has {lines} lines of queries, so the labels of the bank are needed to tell "
            "their classes; expected y"
        )
    return torch.arange(way, device=query.device).repeat_interleave(each).expand(episodes, -1)


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


def gather(features: Tensor, episodes: Sequence[Episode], y: Tensor | None = None) -> tuple[Examples, Tensor, Tensor]:
    """A batch of b episodes of one form, as what a classifier takes: support, query [b, m, d], target [b, m].

    `features` [n, d] are those of the bank that the episodes index, and `y` [n] its labels, needed where the queries
    are not a line for each class. The support has x [b, way * shot, d], y [b, way * shot] and weight None, or
    [b, way * shot] in the dtype of the features, 0 where a class has fewer rows than `shot` (x is 0 there too).
    A target is a position in `classes` [way]. Raises InputError for episodes of different forms.
    """
    forms = {(e.support.shape, e.query.shape) for e in episodes}
    if len(forms) != 1:
        raise InputError(f"{len(episodes)} episodes of {len(forms)} different forms were given; expected one form")
    (_, shot), _ = forms.pop()
    device = features.device
    rows = torch.stack([e.support for e in episodes]).flatten(1).to(device)  # [b, way * shot]
    query = torch.stack([e.query for e in episodes])  # [b, lines, q]
    target = _targets(torch.stack([e.classes for e in episodes]), query, y).to(device)
    labels = (torch.arange(rows.shape[1], device=device) // shot).expand(rows.shape)
    unused = rows < 0
    x, weight = _rows(features, rows.clamp(min=0)), None
    if bool(unused.any()):
        x = x.masked_fill(unused[:, :, None], 0)
        weight = (~unused).to(features.dtype)
    return Examples(x, labels, weight=weight), _rows(features, query.flatten(1).to(device)), target


def _rows(features: Tensor, rows: Tensor) -> Tensor:
    """features[rows] for rows [b, m] -> [b, m, d]: index_select is a quarter faster than indexing."""
    return features.index_select(0, rows.reshape(-1)).unflatten(0, rows.shape)


def support_examples(features: Tensor, episode: Episode) -> Examples:
    """The support of one episode, class after class: x [way * shot, d], weight 0 for padding, or None."""
    batch = gather(features, [Episode(episode.classes, episode.support, episode.support[:, :0])])[0]
    x, weight = batch.x, batch.weight
    assert isinstance(x, Tensor)
    return Examples(x[0], batch.y[0], weight=None if weight is None else weight[0])


def class_digest(bank: AnyBank) -> str:
    """16 hexadecimal digits for the class names of a bank, in their order."""
    return digest(list(bank.classes))
