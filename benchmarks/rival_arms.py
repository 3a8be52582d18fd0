"""What rivals.py compares, and the grid that every arm is given: two settings, WEIGHTS and COUNTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WEIGHTS = (0.1, 0.4, 1.0, 4.0)  # what the made rows of a class weigh together, in real rows
COUNTS = (20, 60)  # rows made of each class
_LOGISTIC = {"C": 5.0, "normalise": "spread"}
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "prototype": ("prototype", {}),
    "prototype-cosine": ("prototype", {"distance": "cosine"}),
    "simpleshot": ("simpleshot", {}),
    "logistic": ("logistic", _LOGISTIC),
}


@dataclass(frozen=True)
class Arm:
    """A method, its settings to choose from, and who reads its rows."""

    name: str
    method: str
    settings: tuple[dict[str, Any], ...] = ({},)
    classifier: str = "prototype"  # of PLAIN; own: the scores of the part itself, and no rows
    powered: bool = False  # all features are raised to the power of 1/2 first
    ours: bool = False  # is shown the validation classes when it is fitted, and chooses by itself
    learns: bool = True  # whether another seed gives another part
    long: bool = False  # takes minutes to fit: on letters alone, with the first seed, in one setting

    @property
    def trials(self) -> int:
        """How many trials there are on validation classes."""
        if self.ours or self.method == "nothing":
            return 0
        return len(self.settings) * (1 if self.classifier == "own" else len(WEIGHTS) * len(COUNTS))


_WANG = ({"rate": 1e-3, "steps": 400}, {"rate": 1e-3, "steps": 400, "embedding": False})
_LONG = ({"rate": 1e-3, "steps": 7500},)
_PLAIN = {"power": 1.0, "alpha": 0.0}
_PUBLISHED = {"given": "powered", "alpha": 0.21}
ARMS = (
    Arm("feature-vae", "feature-vae", ({}, {"code_width": 4})),
    Arm("wang-hallucinator", "wang-hallucinator", _WANG),
    Arm("wang-hallucinator, own classifier", "wang-hallucinator", _WANG, classifier="own"),
    Arm("wang-hallucinator, 60,000 episodes", "wang-hallucinator", _LONG, long=True),
    Arm("wang-hallucinator, 60,000 episodes, own classifier", "wang-hallucinator", _LONG, classifier="own", long=True),
    Arm("noise", "noise", ({"scale": 1.0}, {"scale": 0.5}), learns=False),
    Arm("mixup", "mixing", ({"how": "mixup"}, {"how": "mixup", "alpha": 0.3}), learns=False),
    Arm("SMOTE", "mixing", ({"how": "smote"}, {"how": "smote", "neighbours": 1}), learns=False),
    Arm("extrapolation", "mixing", ({"how": "extrapolate"}, {"how": "extrapolate", "degree": 0.2}), learns=False),
    Arm("base differences", "mixing", ({"how": "base"}, {"how": "base", "base_classes": 1}), learns=False),
    Arm("calibration", "calibration", ({**_PLAIN, "k": 2}, {**_PLAIN, "k": 5}), learns=False),
    Arm("posterior, own scores", "posterior", classifier="own", ours=True),
    Arm("posterior", "posterior", ours=True),
    Arm("hallucinator, own scores", "hallucinator", classifier="own", ours=True),
    Arm("hallucinator", "hallucinator", ours=True),
    Arm("delta-encoder", "delta-encoder", ({}, {"code_width": 8})),
    Arm("analogies", "analogies", ({"steps": 400}, {"steps": 400, "error_weight": 1.0})),
    Arm("feature-gan", "feature-gan", ({"steps": 200}, {"steps": 200, "spread": 0.1})),
    Arm("power transform, nothing made", "nothing", classifier="logistic", powered=True, learns=False),
    Arm("calibration, as published", "calibration", (_PUBLISHED, {**_PUBLISHED, "alpha": 0.0}), "logistic",
        powered=True, learns=False),
    Arm("calibration, base rows too", "calibration", ({"power": 1.0}, {"power": 1.0, "alpha": 0.0}), "logistic",
        powered=True, learns=False),
)  # fmt: skip
