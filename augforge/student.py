"""Student's t distribution in plain Python, so that an interval needs no further package.

The tail is the regularised incomplete beta function, by the continued fraction of Abramowitz & Stegun 26.5.8,
evaluated with Lentz's method; the quantile by bisection of it.
"""

from __future__ import annotations

import functools
import math

_TINY = 1e-300


def student_tail(t: float, free: float) -> float:
    """P(T > t) for t >= 0 and `free` > 0 degrees of freedom, to about 1e-12 of itself."""
    return _beta(free / (free + t * t), free / 2, 0.5) / 2


@functools.lru_cache(maxsize=256)
def student_quantile(level: float, free: float) -> float:
    """The t with P(T <= t) = `level`, for a level from 0.5 up to but not 1."""
    low, high = 0.0, 1.0
    while student_tail(high, free) > 1 - level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, free) > 1 - level else (low, middle)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 300):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _away(z: float) -> float:
    return z if abs(z) > _TINY else _TINY
