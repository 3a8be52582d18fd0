"""Batches for GANs of pictures: rows of classes drawn alike often, symmetries, and classes that are held out."""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from augforge import chance
from augforge.networks.pixels import Pixels

Symmetry = Literal["none", "mirror", "turns"]
_COMPARED = 1024  # training pictures that an evaluation compares with


def rows_of_classes(data: Pixels, classes: Tensor, each: int, rng: torch.Generator) -> Tensor:
    """Rows [p, each] of classes [p], none twice where a class has enough; a smaller class begins again."""
    most = data.table.shape[1]
    order = torch.rand(len(classes), most, generator=rng, device=classes.device)
    order = order - (torch.arange(most, device=classes.device) >= data.counts[classes][:, None]).float()
    ranked = order.argsort(1, descending=True)  # [p, most], the rows that are there first
    place = torch.arange(each, device=classes.device)[None, :] % data.counts[classes][:, None]
    return data.table[classes].gather(1, ranked.gather(1, place))


def pictures(data: Pixels, rows: Tensor) -> Tensor:
    """The pictures of rows [p, k] as floats [p, k, c, h, w] in [0, 1]."""
    return rearrange(data.x[rows], "p k h w c -> p k c h w").float() / 255


def spread(n: int, most: int, device: torch.device) -> Tensor:
    """At most `most` of the numbers 0..n-1, evenly spread."""
    return torch.linspace(0, n - 1, min(n, most)).long().to(device)


def some_pictures(data: Pixels) -> Tensor:
    """Up to 1,024 pictures [n, c, h, w], evenly spread over all there are, for an evaluation to compare with."""
    return pictures(data, spread(len(data.y), _COMPARED, data.x.device)[:, None])[:, 0]


def draw_shots(shots: tuple[int, ...], rng: torch.Generator) -> int:
    """One of `shots`, by chance.

    It is drawn on the CPU by the seed of `rng`: a number drawn on another device would have to be waited for.
    """
    if rng.device.type != "cpu":
        rng = torch.Generator().manual_seed(rng.initial_seed())
    return shots[int(torch.randint(len(shots), (1,), generator=rng))]


def symmetric(x: Tensor, symmetry: Symmetry, u: Tensor) -> Tensor:
    """Pictures [p, k, c, h, w] by one of the symmetries for each p, by uniform numbers u [p, 3].

    "mirror" turns left to right with probability a half; "turns" is each of the eight symmetries of the square.
    """
    chosen = rearrange(u < 0.5, "p three -> three p 1 1 1 1")
    if symmetry == "none":
        return x
    x = torch.where(chosen[0], x.flip(4), x)
    if symmetry == "turns":
        x = torch.where(chosen[1], x.flip(3), x)
        x = torch.where(chosen[2], x.transpose(3, 4), x)
    return x


def split_classes(data: Pixels, share: float, seed: int) -> tuple[Pixels, Pixels]:
    """The classes of `data`, and a share of them held out: at least one, drawn by `seed`."""
    draw = chance.uniform(chance.row_keys(seed, "held-out classes", torch.arange(data.classes)))
    order = torch.argsort(draw, stable=True).to(data.x.device)
    out = max(1, round(share * data.classes))
    return only_classes(data, order[out:].sort().values), only_classes(data, order[:out].sort().values)


def only_classes(data: Pixels, classes: Tensor) -> Pixels:
    """The rows of some classes [k], which are numbered anew in that order."""
    number = torch.full((data.classes,), -1, device=data.x.device)
    number[classes] = torch.arange(len(classes), device=data.x.device)
    kept = (number[data.y] >= 0).nonzero()[:, 0]
    place = torch.zeros(len(data.y), dtype=torch.int64, device=data.x.device)
    place[kept] = torch.arange(len(kept), device=data.x.device)
    return Pixels(data.x[kept], number[data.y[kept]], place[data.table[classes]], data.counts[classes],
                  data.groups[classes])  # fmt: skip
