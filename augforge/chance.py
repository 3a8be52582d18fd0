"""Keyed random numbers: every number of a made row is a pure function of that row's key.

A counter-based generator in integer tensor arithmetic: number j of key k is the SplitMix64 output function
(Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17) of
mix(k) + (j + 1) * golden gamma. Only additions, multiplications, shifts and exclusive-ors of int64 are used,
which wrap alike on every device, so the integers are the same everywhere; nothing touches a global generator.

Two draws for different purposes from one key must not share numbers: `fork` the key first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

_ROWS_AT_ONCE = 256  # rows drawn at a time on a CPU, so that the intermediate integers stay in the cache
_INTEGERS_AT_ONCE = 1 << 24  # on other devices, where every part of a batch costs a dozen launches: 128 MiB of them


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number."""
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >> 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift of int64, a new tensor: torch's own shift copies the sign."""
    shifted = z >> bits
    shifted &= (1 << (64 - bits)) - 1
    return shifted


def mix(z: Tensor) -> Tensor:
    """A bijection of int64 [...] in which every input bit moves about half of the output bits."""
    z = z ^ _shift_right(z, 30)
    z *= _MIX_1  # in place: new memory for each step would cost more than the step
    z ^= _shift_right(z, 27)
    z *= _MIX_2
    z ^= _shift_right(z, 31)
    return z


def name_key(name: str) -> int:
    """A stable int64 for a string: the first eight bytes of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big", signed=True)


def fork(keys: Tensor, purpose: str) -> Tensor:
    """New keys [n] for another purpose; draws from them are independent of draws from `keys` [n]."""
    return mix(mix(keys + _GAMMA) ^ name_key(purpose))


def row_keys(seed: int, name: str, index: Tensor) -> Tensor:
    """The keys [n] of a command's rows: seed, class name, and `index` [n] of the row within its class."""
    start = mix(torch.tensor(_signed(seed), dtype=torch.int64) + _GAMMA)
    start = mix((start ^ name_key(name)) + _GAMMA)
    return mix((start.to(index.device) + index.to(torch.int64) * _GAMMA) ^ _MIX_2)


def draw_keys(n: int, rng: torch.Generator) -> Tensor:
    """`n` fresh keys for a training loop, drawn on the generator's device."""
    low, high = -(1 << 63), (1 << 63) - 1
    return torch.randint(low, high, (n,), generator=rng, dtype=torch.int64, device=rng.device)


def pair_keys(seed: int, name: str, index: Tensor, step: int = 1) -> Tensor:
    """The keys [n] of a command's rows of features, in pairs: see `in_pairs`."""
    return in_pairs(lambda place: row_keys(seed, name, place), index, step)


def draw_pairs(n: int, rng: torch.Generator) -> Tensor:
    """`n` fresh keys for a training loop, in pairs: keys 2j and 2j + 1 are partners (`in_pairs`)."""
    return in_pairs(draw_keys((n + 1) // 2 * 2, rng).__getitem__, torch.arange(n, device=rng.device))


def in_pairs(keys_of: Callable[[Tensor], Tensor], index: Tensor, step: int | Tensor = 1) -> Tensor:
    """Keys for rows `index` [...] of a class, in pairs whose noise is opposite (`paired_noise`).

    With `step` 1 rows 2j and 2j + 1 are partners; with a step of s, where row i is number i // s of parent i mod s,
    numbers 2j and 2j + 1 of each parent are. Partners have the key of the first of them by `keys_of` (indices to keys),
    the first with its lowest bit 0 and the second with 1, so that a key tells its partner with nothing else known.
    """
    copy = torch.div(index, step, rounding_mode="floor")
    return keys_of(index - (copy & 1) * step) & -2 | (copy & 1)


def paired_noise(keys: Tensor, purpose: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Standard normal numbers for a purpose, float32: keys [n] -> [n, *shape], opposite for the two keys of a pair.

    A mean of both then has no noise left, which is the antithetic variates of Hammersley & Morton (1956). Any keys will
    do: those that are in no pair have noise of their own.
    """
    noise = normal(fork(pair_of(keys), purpose), shape)
    sign = 1 - 2 * (keys & 1).to(noise.dtype)
    return noise.mul_(sign.view(-1, *(1,) * len(shape)))


def pair_of(keys: Tensor) -> Tensor:
    """What the two keys of a pair share, [n]: what is drawn from it, as a parent, both have."""
    return keys & -2


def integers(keys: Tensor, count: int) -> Tensor:
    """`count` 64-bit integers for each key: [n] -> [n, count] int64, uniform over all 2^64."""
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device) * _GAMMA
    return mix(mix(keys + _GAMMA)[:, None] + counter)


def uniform(keys: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Numbers in [0, 1), float32: keys [n] -> [n, *shape], multiples of 2^-24."""
    bits = _shift_right(integers(keys, math.prod(shape)), 40)
    return (bits.to(torch.float32) * 2.0**-24).reshape(len(keys), *shape)


def uniform64(keys: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Numbers in [0, 1), float64: keys [n] -> [n, *shape], multiples of 2^-53."""
    bits = _shift_right(integers(keys, math.prod(shape)), 11)
    return (bits.to(torch.float64) * 2.0**-53).reshape(len(keys), *shape)


def normal(keys: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Standard normal numbers, float32: keys [n] -> [n, *shape].

    Box and Muller (1958): one 64-bit integer gives two normals. The largest possible size is 6.76.
    """
    count = math.prod(shape)
    out = torch.empty(len(keys), count, dtype=torch.float32, device=keys.device)
    half = (count + 1) // 2
    on_cpu = keys.device.type == "cpu"
    at_once = _ROWS_AT_ONCE if on_cpu else max(_ROWS_AT_ONCE, _INTEGERS_AT_ONCE // max(1, half))
    for start in range(0, len(keys), at_once):
        rows = out[start : start + at_once]
        bits = integers(keys[start : start + at_once], half)
        radius = (_shift_right(bits, 32).to(torch.float32) + 0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
        angle = (bits & 0xFFFFFFFF).to(torch.float32).mul_(2.0**-31 * math.pi)
        torch.mul(radius, angle.cos(), out=rows[:, :half])
        torch.mul(radius[:, : count - half], angle.sin_()[:, : count - half], out=rows[:, half:])
    return out.reshape(len(keys), *shape)


def choice(keys: Tensor, n: int | Tensor) -> Tensor:
    """An integer in 0..n-1 for each key: [n_keys] int64. `n` is one number or a tensor [n_keys], under 2^31.

    Raises ValueError where `n` is not positive: there is nothing to choose from.
    """
    if bool((torch.as_tensor(n) < 1).any()):
        raise ValueError("chance.choice was asked to choose from nothing")
    return _shift_right(_shift_right(integers(keys, 1)[:, 0], 32) * n, 32)
