"""JSON from files of somebody else's, and what is wrong with them in a few words; knows nothing of augforge."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_JSON = 1 << 28  # bytes of a file of JSON, which takes ten times as many in memory


def parse_json(text: str | bytes) -> Any:
    """What a JSON text of somebody else's holds; raises ValueError, also where json alone takes what is no JSON.

    That is NaN and Infinity, a number too large for a float, and lists in lists so deep that Python's stack ends.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return _JSON.decode(text)
    except RecursionError:
        raise ValueError("it has too many lists or objects inside of each other") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number that a float can hold")
    return number


_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def brief(error: object) -> str:
    """The words of an error in one line of at most 200 characters, for a sentence of ours."""
    words = " ".join(str(error).split())
    return words if len(words) <= 200 else f"{words[:160]} ... {words[-30:]}"
