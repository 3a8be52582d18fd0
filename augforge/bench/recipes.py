"""What is compared: a recipe is a representation, a synthesizer and a classifier; and the controls of every table."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal

from augforge.classifiers.gaussian import Gaussian
from augforge.data.banks import AnyBank
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.generators.nothing import Nothing
from augforge.parts import catalog
from augforge.representations.options import BankOptions
from augforge.types import Classifier, InputError, Named, Representation, Synthesizer, capabilities

_NOISE_SETTINGS = ("noise_scale", "scale")  # what a learnt generator calls the size of its noise


@dataclass(frozen=True, eq=False)
class Recipe:
    """One of the things that are compared.

    With `weights` "constant" the rows of a class, real and made, weigh as much together as the real ones alone, so that
    no gain comes from mere weight. Either way a made row counts by its weight, a real row being 1: by the `share` that
    is given, else by what suits the classifier (`imagine.weighed`). A part with learnt tensors is used as it is; any
    other is fitted on the base classes.
    """

    representation: Representation | None  # None where the task holds features already
    synthesizer: Synthesizer
    classifier: Classifier
    made: int = 0  # rows made of each class of an episode
    weights: Literal["constant", "each"] = "constant"  # each: every row weighs 1
    options: BankOptions = field(default_factory=BankOptions)  # how the feature bank is made
    names: tuple[str | None, str | None, str | None] = (None, None, None)  # shown for the parts; None: the catalog's
    share: float | None = None  # weight of a class's made rows together beside its real ones; None: by the classifier
    of_pool: Literal["", "pool", "control"] = ""  # rows of a pool have no other controls

    def __post_init__(self) -> None:
        """Raise InputError for a negative number of made rows, or none for a method that makes some.

        And for a share that is negative or not finite, or for a method that makes nothing; and for a method that knows
        classes by name alone: those of an episode are new to it.
        """
        if isinstance(self.synthesizer, Named) and capabilities(self.synthesizer).support_needed == 0:
            raise InputError(
                f"{self.shown()['synthesizer']} makes pictures of the classes that it was trained on and of no other, "
                f"and a benchmark is about novel classes; expected a method that makes them from their support"
            )
        if self.made < 0 or self.weights not in ("constant", "each"):
            raise InputError(
                f"made={self.made}, weights={self.weights!r} was given; expected at least 0, constant or each"
            )
        if self.share is not None and not 0 <= self.share < math.inf:
            raise InputError(f"share={self.share!r} was given; expected a number of at least 0, or None")
        if self.share is not None and self.plain:
            raise InputError(f"share={self.share!r} was given for {self.shown()['synthesizer']}, which makes no rows")
        if self.made == 0 and not self.plain:
            raise InputError(f"made=0 was given for {self.shown()['synthesizer']}; expected 1 or more of each class")

    @property
    def plain(self) -> bool:
        """Whether nothing is made."""
        return isinstance(self.synthesizer, Nothing)

    @property
    def exact(self) -> bool:
        """Whether the synthesizer's own `scores` are used, under a Gaussian classifier.

        They are those of infinitely many made rows, or of the classifier that the method was trained through.
        Then no rows are made, and the number of made rows, their weights and their noise make no difference.
        """
        own = isinstance(self.synthesizer, Classifier) and capabilities(self.synthesizer).space != "image"
        return own and type(self.classifier) is Gaussian

    def shown(self) -> dict[str, str]:
        """The three names, as {"representation": ..., "synthesizer": ..., "classifier": ...}."""
        return dict(self._shown)

    @functools.cached_property
    def _shown(self) -> dict[str, str]:
        parts = (self.representation, self.synthesizer, self.classifier)
        kinds = ("representation", "synthesizer", "classifier")
        triples = zip(kinds, parts, self.names, strict=True)
        return {kind: name or part_name(part, kind) for kind, part, name in triples}


def part_name(part: Any, kind: str) -> str:
    """The catalog's name of a part, with its settings that are not the default: "prototype(distance=cosine)".

    "features" for no representation, and the class's name for a part that is not in the catalog.
    """
    if part is None:
        return "features"
    if catalog.known_name(part, kind) is None:
        return type(part).__name__
    described = catalog.describe(part, kind)
    name, settings = described["name"], described["settings"]
    if not _has_defaults(part):
        return name
    for key in reversed(settings):  # a preset comes first, and what follows from it is left out
        fewer = {k: v for k, v in settings.items() if k != key}
        if catalog.describe(catalog.make(name, fewer, kind), kind) == described:
            settings = fewer
    other = [f"{key}={_short(value)}" for key, value in settings.items()]
    return f"{name}({', '.join(other)})" if other else name


def _has_defaults(part: Any) -> bool:
    return all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(part) if f.init)


def _short(value: Any) -> str:
    return "..".join(f"{v:g}" for v in value) if isinstance(value, list) else str(value)


def with_controls(
    recipes: Iterable[Recipe], bank: AnyBank, has_base: bool = True, more: bool = True
) -> list[tuple[Recipe, bool]]:
    """The recipes with the controls that every table has, each once, and whether it is a control.

    For each representation, classifier, number made and share: nothing, copies, noise, classical augmentation of the
    support where `bank` (the one episodes are of) holds pictures, and every other method that has a size of noise with
    that size at zero, unless it is exact; without `more` nothing alone. Noise has the spread of base classes, and is
    left out where there are none (`has_base`), unless it was asked for. An exact recipe stands once, for any number
    made. Nothing comes first, as gains are measured against it. Nothing, copies and noise are controls even where they
    were asked for, and classical augmentation that was asked for is none.
    """
    asked = list(recipes)
    wanted = [(recipe, _is_control(recipe)) for recipe in asked]
    for recipe in asked:
        plain = replace(recipe, synthesizer=Nothing(), made=0, weights="constant", share=None)
        wanted.append((replace(plain, names=_names(recipe, None)), True))
        if recipe.plain or recipe.of_pool or not more:
            continue
        controls: list[Synthesizer] = [Copies(), *([Noise()] if has_base else [])]
        if bank.space == "image":
            controls.append(Classical(preset=_preset(bank)))
        wanted += [(replace(recipe, synthesizer=control, names=_names(recipe, None)), True) for control in controls]
        quiet = _quiet(recipe)
        wanted += [] if quiet is None else [(quiet, True)]
    return sorted(_once(wanted), key=lambda pair: not pair[0].plain)


def _is_control(recipe: Recipe) -> bool:
    return recipe.of_pool == "control" or isinstance(recipe.synthesizer, Nothing | Copies | Noise)


def _once(recipes: list[tuple[Recipe, bool]]) -> list[tuple[Recipe, bool]]:
    """Without those that are the same as an earlier one."""
    found: dict[tuple, tuple[Recipe, bool]] = {}
    for recipe, control in recipes:
        made = (0, "", None) if recipe.exact else (recipe.made, recipe.weights, recipe.share)
        key = (id(recipe.representation), *recipe.shown().values(), *made, recipe.options)
        found.setdefault(key, (recipe, control))
    return list(found.values())


def _names(recipe: Recipe, synthesizer: str | None) -> tuple[str | None, str | None, str | None]:
    return recipe.names[0], synthesizer, recipe.names[2]


def _preset(bank: AnyBank) -> str:
    """Gentle ranges for colour pictures, those of handwriting for grey ones, which are letters in all our tasks."""
    first = bank.examples(bank.rows_of(int(bank.y[0]))[:1]).x[0]
    return "handwriting" if len(first) == 1 else "gentle"


def without_noise(part: Synthesizer) -> Synthesizer | None:
    """A copy of a method whose noise is at zero, with all that it has learnt; None where it has no noise."""
    known = {f.name for f in fields(part) if f.init}  # type: ignore[arg-type]
    setting = next((name for name in _NOISE_SETTINGS if name in known), None)
    if setting is None or getattr(part, setting) == 0:
        return None
    quiet = copy.copy(part)
    setattr(quiet, setting, 0.0)
    return quiet


def _quiet(recipe: Recipe) -> Recipe | None:
    """The recipe with its synthesizer's noise at zero; None where it has none or is exact, or is the control itself."""
    quiet = None if recipe.exact or isinstance(recipe.synthesizer, Noise) else without_noise(recipe.synthesizer)
    if quiet is None:
        return None
    return replace(recipe, synthesizer=quiet, names=_names(recipe, f"{recipe.shown()['synthesizer']}, no noise"))
