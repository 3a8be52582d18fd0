"""Rows of parts that generate pictures: reading a support, latents, networks in tiles, scores as shares."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from augforge import chance
from augforge.networks import products
from augforge.networks.pixels import Pixels, prepared
from augforge.types import Examples, InputError

_TILE = 16  # rows that go through a network at a time
_QUANTILES = 201


def net_pictures(support: Examples, size: int, facts: dict[str, int] | None, who: str) -> Tensor:
    """The pictures of a support as floats [m, c, side, side] in [0, 1], made square at `size` px (0: as they are).

    Raises InputError for features, before `fit` (no facts), and for pictures of another shape than was trained on.
    """
    if isinstance(support.x, Tensor) and support.x.ndim != 4:
        raise InputError(f"{who} makes pictures, and these rows are features")
    if facts is None:
        raise InputError(f"{who} is not fitted yet; expected fit(base, rng) or a folder that it was saved in")
    x = prepared(support.x, size)
    wanted = [facts["channels"], facts["side"], facts["side"]]
    if len(x) and list(x.shape[1:]) != wanted:
        hint = "" if x.shape[1] != wanted[0] else f"; --size {wanted[1]} makes them so"
        raise InputError(f"{who} was trained on pictures {wanted} and got {list(x.shape[1:])}{hint}")
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    return x.reshape(-1, *wanted)


def net_facts(data: Pixels, who: str) -> dict[str, int]:
    """Channels and side of the pictures; InputError where they are not square, small or odd."""
    height, width, channels = data.x.shape[1:]
    if height != width or height < 8 or height % 2:
        raise InputError(f"{who} needs square pictures of an even side from 8 px on, and these are {width}x{height}; "
                         "expected the setting size=PX, which makes them so")  # fmt: skip
    return {"channels": channels, "side": height}


def like_support(made: Tensor, support: Examples) -> Tensor | list[Tensor]:
    """Pictures [n, c, h, w] in [0, 1] as the support's are: of its type, and a list where it is one."""
    like = support.x if isinstance(support.x, Tensor) else next(iter(support.x), torch.empty(0))
    made = (made * 255).round().to(torch.uint8) if like.dtype == torch.uint8 else made.to(like.dtype)
    return list(made) if isinstance(support.x, list) else made


def latents(keys: Tensor, noise: int, truncation: float, device: torch.device) -> Tensor:
    """Standard normal latents [n, noise] by keys; with `truncation` over 0 no number is larger than that.

    Truncated by inverting the distribution function, so that one key has latents that move together for all bounds
    (Brock, Donahue & Simonyan, ICLR 2019, section 3.1, draw again instead).
    """
    keys = chance.fork(keys, "latent")
    if truncation == 0:
        return chance.normal(keys, (noise,)).to(device)
    u = 2 * chance.uniform(keys, (noise,)) - 1 + 2.0**-24
    bound = math.erf(truncation / 2**0.5)
    return (2**0.5 * torch.erfinv(u * bound)).clamp(-truncation, truncation).to(device)


def in_tiles(network: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """`products.in_tiles` of 16 pictures, in float32 with channels last: no row depends on the others by a bit."""
    with torch.no_grad(), torch.autocast(rows[0].device.type, enabled=False):
        return products.in_tiles(lambda *tile: network(*map(_last, tile)), *rows, size=_TILE)


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def score_quantiles(scores: Tensor) -> Tensor:
    """201 quantiles [201] of scores [n], ascending: what `share_below` reads."""
    return torch.quantile(scores.float().cpu(), torch.linspace(0, 1, _QUANTILES))


def share_below(scores: Tensor, quantiles: Tensor) -> Tensor:
    """The share [n] of the scores behind `quantiles` that lie below each of `scores` [n], 0 to 1."""
    place = torch.searchsorted(quantiles.to(scores), scores.contiguous())
    return place.to(torch.float32) / len(quantiles)
