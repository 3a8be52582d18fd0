"""Rows made for episodes: of features, episode by episode, or of pictures, once for each real row and embedded.

A made row depends on the seed, the episode, the class, its index and the support alone, or, where it is a picture
with one parent, on the seed, the parent and its index among that parent's; never on the batch that it is made in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from augforge import chance
from augforge.data.banks import AnyBank
from augforge.imagine import more_of_each
from augforge.trials import Trials
from augforge.types import Examples, InputError, Synthesizer

Rows = Callable[[int, Trials], Tensor]  # (number of the first episode, b episodes) -> [b, way, made, d]
Embed = Callable[[Tensor | list[Tensor]], Tensor]
_PICTURES_AT_ONCE = 2048


def made_keys(seed: int, start: int, shape: tuple[int, int, int]) -> Tensor:
    """Keys [b, way, made] of the rows of the episodes from number `start` on; `shape` is (b, way, made)."""
    count, way, made = shape
    episodes = chance.row_keys(seed, "made rows", torch.arange(start, start + count))
    return chance.integers(chance.integers(episodes, way).reshape(-1), made).reshape(shape)


def parent_slots(trials: Trials, made: int) -> tuple[Tensor, Tensor]:
    """Which support row of its class each made row comes from, and its index among that row's, both [n, way, made].

    Row i of a class with s real rows is number i // s of row i mod s, so that all are used alike.
    """
    index, counts = torch.arange(made), trials.counts()[:, :, None]
    return index % counts, torch.div(index, counts, rounding_mode="floor")


def check_support(synthesizer: Synthesizer, trials: Trials) -> None:
    """Raise InputError where a class has fewer support rows than the method needs."""
    fewest = int(trials.counts().min())
    if fewest < synthesizer.support_needed:
        raise InputError(
            f"a class of an episode has {fewest} support rows; {type(synthesizer).__name__} needs at least "
            f"{synthesizer.support_needed}"
        )


def from_features(synthesizer: Synthesizer, x: Tensor, made: int, seed: int) -> Rows:
    """Rows made from the features `x` [n, d] of a bank by a method that makes features."""

    def rows(start: int, trials: Trials) -> Tensor:
        b, way, shot = trials.rows.support.shape
        keys = made_keys(seed, start, (b, way, made))
        if synthesizer.one_parent:  # every support row a class of its own: no episode can see another
            slots = parent_slots(trials, made)[0]
            want = (torch.arange(b * way).view(b, way, 1) * shot + slots).reshape(-1)
            support = Examples(x[trials.rows.support.reshape(-1).clamp(min=0)], torch.arange(b * way * shot))
            return _made(synthesizer, support, want, keys.reshape(-1)).view(b, way, made, -1)
        return torch.stack([
            _made(synthesizer, _support(x, trials, i), more_of_each(way, made), keys[i].reshape(-1))
            for i in range(b)
        ]).view(b, way, made, -1)  # fmt: skip

    return rows


def _support(x: Tensor, trials: Trials, i: int) -> Examples:
    """The real support rows of episode i, class by class."""
    rows = trials.rows.support[i]  # [way, shot]
    used = rows >= 0
    labels = torch.arange(len(rows))[:, None].expand_as(rows)
    return Examples(x[rows[used]], labels[used])


def _made(synthesizer: Synthesizer, support: Examples, want: Tensor, keys: Tensor) -> Tensor:
    found = synthesizer.synthesize(support, want, keys)
    if len(found) != len(want) or not torch.equal(found.y, want):
        raise InputError(f"{type(synthesizer).__name__} made other classes than it was asked for")
    assert isinstance(found.x, Tensor)
    return found.x


def from_pictures(synthesizer: Synthesizer, bank: AnyBank, embed: Embed, made: int, seed: int) -> Rows:
    """Rows made from the pictures of an episode together, and embedded by `embed`."""

    def rows(start: int, trials: Trials) -> Tensor:
        b, way, _ = trials.rows.support.shape
        keys, pictures = made_keys(seed, start, (b, way, made)), []
        for i in range(b):
            real = trials.rows.support[i]
            used = real >= 0
            labels = torch.arange(way)[:, None].expand_as(real)[used]
            support = Examples(bank.examples(real[used]).x, labels)
            pictures += list(synthesizer.synthesize(support, more_of_each(way, made), keys[i].reshape(-1)).x)
        return embed(pictures).view(b, way, made, -1)

    return rows


def from_parents(synthesizer: Synthesizer, bank: AnyBank, embed: Embed, trials: Trials, made: int, seed: int) -> Rows:
    """Rows made from one picture each: every one that any of `trials` needs is made and embedded once, here."""
    slots, index = parent_slots(trials, made)
    parents = trials.rows.support.gather(2, slots)  # [n, way, made]
    each = int(index.max()) + 1
    known = torch.unique(parents)
    features = torch.cat(
        [
            _children(synthesizer, bank, embed, part, (each, seed))
            for part in known.split(max(1, _PICTURES_AT_ONCE // each))
        ]
    )  # fmt: skip - [parents * each, d]
    place = torch.zeros(len(bank.y), dtype=torch.int64)
    place[known] = torch.arange(len(known))

    def rows(start: int, part: Trials) -> Tensor:
        del start
        slots, index = parent_slots(part, made)
        return features[place[part.rows.support.gather(2, slots)] * each + index]

    return rows


def _children(synthesizer: Synthesizer, bank: AnyBank, embed: Embed, parents: Tensor, form: tuple[int, int]) -> Tensor:
    """The features [m * each, d] of `each` pictures made from each of the rows `parents` [m]; form is (each, seed)."""
    each, seed = form
    keys = torch.cat([chance.row_keys(seed, bank.name(row), torch.arange(each)) for row in parents.tolist()])
    support = Examples(bank.examples(parents).x, torch.arange(len(parents)))
    made = synthesizer.synthesize(support, torch.arange(len(parents)).repeat_interleave(each), keys)
    return embed(made.x)
