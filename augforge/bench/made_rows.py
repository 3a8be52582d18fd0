"""Rows made for episodes: of features, episode by episode, or of pictures, once for each real row and embedded.

A made row depends on the seed, the episode, the class, its index and the support alone, or, where it is a picture
with one parent, on the seed, the parent and its index among that parent's; never on the batch that it is made in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from augforge import chance
from augforge.bench.place import HERE, Place
from augforge.data.banks import AnyBank
from augforge.episodes.batch import MadeRows, RowMaker, Trials
from augforge.imagine import FREE_SPREAD, more_of_each, share_factor, share_of, weight_of_each, within_reach
from augforge.types import Doubting, Examples, Family, InputError, Synthesizer, Weighing, capabilities

Embed = Callable[[Tensor | list[Tensor]], Tensor]
Weigher = Callable[[MadeRows, Trials], MadeRows]  # gives the made rows of b episodes other weights
PICTURES_AT_ONCE = 2048


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
    needed = capabilities(synthesizer).support_needed
    if fewest < needed:
        raise InputError(
            f"a class of an episode has {fewest} support rows; {type(synthesizer).__name__} needs at least {needed}"
        )


def from_features(synthesizer: Synthesizer, x: Tensor, made: int, seed: int) -> RowMaker:
    """Rows made from the features `x` [n, d] of a bank by a method that makes features.

    One call of the method serves all episodes of a batch where a row depends on one support row (`one_parent`) or on
    those of its own class (`one_class`) alone: each row, or class, then has a label of its own.
    """

    def rows(start: int, trials: Trials) -> MadeRows:
        support = trials.rows.support
        b, way, shot = support.shape
        one_parent = capabilities(synthesizer).one_parent
        keys, index = made_keys(seed, start, (b, way, made)), torch.arange(made).expand(b, way, made)
        step = trials.counts()[:, :, None] if one_parent else 1
        keys = chance.in_pairs(partial(torch.gather, keys, 2), index, step)
        if one_parent:
            slots = parent_slots(trials, made)[0]
            want = (torch.arange(b * way).view(b, way, 1) * shot + slots).reshape(-1)
            known = Examples(x[support.reshape(-1).clamp(min=0)], torch.arange(b * way * shot))
            parts = [_made(synthesizer, known, want, keys)]
        elif capabilities(synthesizer).one_class:
            known = _support(x, support.flatten(0, 1))
            parts = [_made(synthesizer, known, more_of_each(b * way, made), keys)]
        else:
            want = more_of_each(way, made)
            parts = [_made(synthesizer, _support(x, support[i]), want, keys[i]) for i in range(b)]
        return _concatenate(parts).view(b, way, made, -1), _weights(parts, (b, way, made))

    return rows


def sharing(rows: RowMaker, share: float | None) -> RowMaker:
    """The same rows, with weights: those of a class are together `share` times its number of real rows.

    They keep their proportions, as in `imagine.with_share`. None: the rows as they are.
    """
    if share is None:
        return rows

    def shared(start: int, trials: Trials) -> MadeRows:
        x, weight = rows(start, trials)
        given = torch.ones(x.shape[:3]) if weight is None else weight  # [b, way, made]
        return x, given * share_factor(given.sum(2), trials.counts().float(), share)[:, :, None]

    return shared


def weighing(synthesizer: Synthesizer, family: Family, features: Tensor | None = None) -> Weigher:
    """What gives made rows the weights that suit classifiers of a family, as `imagine.weighed` does.

    `features` [n, d] are those of all real rows: a method that learnt from other classes is tested on them, and rows of
    one that did not choose its shares weigh less where they lie farther out than other classes do.
    """

    def weighed(rows: MadeRows, trials: Trials) -> MadeRows:
        x, weight = rows
        relative = capabilities(synthesizer).relative_weights
        if weight is not None and not isinstance(synthesizer, Weighing) and not relative:
            return rows
        real = trials.counts().float()  # [b, way]
        share = share_of(synthesizer, family, real)
        if features is not None and isinstance(synthesizer, Doubting):
            share = share * synthesizer.believed(_supports(features, trials.rows.support)).to(share)[:, None]
        if features is not None and not isinstance(synthesizer, Weighing):
            share = share * _reach(x, features, trials.rows.support).to(share)
        own = torch.ones(x.shape[:3]) if weight is None or not relative else weight
        return x, own * weight_of_each(share, real, own.sum(2))[:, :, None]

    return weighed


def _reach(made: Tensor, features: Tensor, rows: Tensor) -> Tensor:
    """`within_reach` [b, way] of made rows [b, way, made, d] beside real ones [b, way, shot], where -1 is padding."""
    there = (rows >= 0).to(features)[..., None]
    real = features[rows.clamp(min=0)]
    means = (real * there).sum(2) / there.sum(2)  # [b, way, d]
    between = (means - means.mean(1, keepdim=True)).square().sum((1, 2)) / max(1, rows.shape[1] - 1)
    within = ((real - means[:, :, None]).square() * there).sum((2, 3)) / there.sum((2, 3))
    far = (made.to(means) - means[:, :, None]).square().sum(3).mean(2)
    whole = (between + within.mean(1))[:, None]
    return within_reach(far.sqrt(), torch.maximum(whole, FREE_SPREAD**2 * within).sqrt())


def _supports(x: Tensor, rows: Tensor) -> Examples:
    """The supports [b, way * shot, d] of episodes, from their rows [b, way, shot], where -1 is padding."""
    labels = torch.arange(rows.shape[1], device=x.device)[:, None].expand_as(rows)
    return Examples(x[rows.clamp(min=0)].flatten(1, 2), labels.flatten(1), weight=(rows >= 0).to(x).flatten(1))


def _concatenate(parts: list[Examples]) -> Tensor:
    """The features of made rows in one tensor [n, d]."""
    return torch.cat([torch.as_tensor(part.x) for part in parts])


def _support(x: Tensor, rows: Tensor) -> Examples:
    """The real ones of support rows [classes, shot], class by class, where -1 is padding."""
    used = rows >= 0
    labels = torch.arange(len(rows))[:, None].expand_as(rows)
    return Examples(x[rows[used]], labels[used])


def _made(synthesizer: Synthesizer, support: Examples, want: Tensor, keys: Tensor) -> Examples:
    """Rows as wanted; labels and keys go to where the features are."""
    place = support.x.device if isinstance(support.x, Tensor) else support.x[0].device if support.x else keys.device
    known, want = Examples(support.x, support.y.to(place)), want.to(place)
    found = synthesizer.synthesize(known, want, keys.reshape(-1).to(place))
    if len(found) != len(want) or not torch.equal(found.y, want):
        raise InputError(f"{type(synthesizer).__name__} made other classes than it was asked for")
    return found


def _weights(parts: list[Examples], shape: tuple[int, ...]) -> Tensor | None:
    """The weights of made rows in one tensor of `shape`, on the CPU; None where no row has one."""
    if all(part.weight is None for part in parts):
        return None
    each = [torch.ones(len(part)) if part.weight is None else part.weight.float().cpu() for part in parts]
    return torch.cat(each).view(shape)


def from_pictures(
    synthesizer: Synthesizer, bank: AnyBank, embed: Embed, made: int, seed: int, device: str = "cpu"
) -> RowMaker:
    """Rows made from the pictures of an episode together, on `device`, and embedded by `embed`.

    A row is a function of its episode's number, its class and its index; where it depends on the support of its own
    class alone (`one_class`), one call of the method serves several episodes. So many pictures are held at once.
    """

    def rows(start: int, trials: Trials) -> MadeRows:
        b, way, _ = trials.rows.support.shape
        keys, parts = made_keys(seed, start, (b, way, made)), []
        step = max(1, PICTURES_AT_ONCE // (way * made))
        for first in range(0, b, step):
            some = range(first, min(first + step, b))
            groups = [list(some)] if capabilities(synthesizer).one_class else [[i] for i in some]
            new = [_of_episodes(synthesizer, bank, trials, group, keys[group].to(device)) for group in groups]
            pictures = [picture for part in new for picture in part.x]
            parts.append(Examples(embed(pictures), torch.cat([part.y for part in new]), weight=_weights(new, (-1,))))
        return _concatenate(parts).view(b, way, made, -1), _weights(parts, (b, way, made))

    return rows


def _of_episodes(synthesizer: Synthesizer, bank: AnyBank, trials: Trials, group: list[int], keys: Tensor) -> Examples:
    """Pictures by keys [e, way, made] for each class of e episodes, every one of which has labels of its own."""
    rows = trials.rows.support[group].flatten(0, 1)  # [e * way, shot]
    used = rows >= 0
    labels = torch.arange(len(rows))[:, None].expand_as(rows)[used]
    support = Examples(_on(bank.examples(rows[used]).x, keys.device), labels)
    return _made(synthesizer, support, more_of_each(len(rows), keys.shape[2]), keys)


def _on(x: Tensor | list[Tensor], device: torch.device | str) -> Tensor | list[Tensor]:
    """Pictures on a device."""
    return [picture.to(device) for picture in x] if isinstance(x, list) else x.to(device)


def from_parents(
    synthesizer: Synthesizer,
    bank: AnyBank,
    embed: Embed,
    trials: Trials,
    made: int,
    seed: int,
    place: Place = HERE,
) -> RowMaker:
    """Rows made from one picture each, at a place: every one that any of `trials` needs is made and embedded once."""
    slots, index = parent_slots(trials, made)
    parents = trials.rows.support.gather(2, slots)  # [n, way, made]
    each = int(index.max()) + 1
    known = torch.unique(parents)
    job = synthesizer, bank, embed, each, (seed, place.device)
    parts = list(place.each(_embedded_children, job, known.split(max(1, PICTURES_AT_ONCE // each))))
    x, weight = _concatenate(parts), _weights(parts, (len(known) * each,))  # [parents * each, d]
    among = torch.zeros(len(bank.y), dtype=torch.int64)
    among[known] = torch.arange(len(known))

    def rows(start: int, part: Trials) -> MadeRows:
        del start
        slots, index = parent_slots(part, made)
        at = among[part.rows.support.gather(2, slots)] * each + index
        return x[at], None if weight is None else weight[at]

    return rows


def _embedded_children(job: tuple[Synthesizer, AnyBank, Embed, int, tuple[int, str]], parents: Tensor) -> Examples:
    """As `_children`, embedded."""
    synthesizer, bank, embed, each, how = job
    children = _children(synthesizer, bank, parents, each, how)
    return replace(children, x=embed(children.x))


def _children(synthesizer: Synthesizer, bank: AnyBank, parents: Tensor, each: int, how: tuple[int, str]) -> Examples:
    """`each` pictures made from each of the rows `parents` [m], parent by parent, by a seed and on a device."""
    seed, device = how
    keys = torch.cat([chance.row_keys(seed, bank.name(row), torch.arange(each)) for row in parents.tolist()])
    support = Examples(_on(bank.examples(parents).x, device), torch.arange(len(parents)))
    return _made(synthesizer, support, more_of_each(len(parents), each), keys)
