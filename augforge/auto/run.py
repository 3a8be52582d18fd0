"""`auto` on a user's pictures: embed them once, choose, and make what names new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from augforge.auto.candidates import Candidate, Kind, candidates, networks_of
from augforge.auto.choice import Choice, Shown, beside, choose, open_classifier
from augforge.auto.recipe_file import RecipeFile, read_recipe
from augforge.data.banks import AnyBank, FeatureBank
from augforge.data.selection import group_numbers
from augforge.inputs import default_representation, default_views
from augforge.parts.saving import open_part
from augforge.predict import Predictor, features_of, make_predictor
from augforge.types import InputError, Representation

VIEWS = ("none", "crops-4", "crops")  # of which each network's features stay as they are beside others


@dataclass(frozen=True)
class Asked:
    """What was asked for beside the pictures; None where `auto` decides."""

    representation: str | None = None
    views: str | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Decided:
    """The choice, what it was made by, and the views that are averaged."""

    choice: Choice
    shown: Shown
    views: str

    @property
    def recipe(self) -> RecipeFile:
        """As it is written down."""
        return RecipeFile(self.choice.candidate, self.views, says=self.choice.says())


def decide(bank: AnyBank, pool: AnyBank | None = None, asked: Asked | None = None) -> Decided:
    """Look at the rows of a bank, and of a pool of unlabelled ones, and choose.

    Raises InputError for fewer than two classes, a class without rows, and views that are not of VIEWS.
    """
    asked = asked or Asked()
    _check(bank, pool)
    kind, networks = ways(bank, asked)
    views = asked.views or views_of(networks)
    shown = look(bank, pool, networks, views)
    return Decided(choose(shown, candidates(kind, networks), asked.seed), shown, views)


def ways(bank: AnyBank, asked: Asked) -> tuple[Kind, tuple[str, ...]]:
    """What a bank holds, and the networks that may embed it."""
    if isinstance(bank, FeatureBank):
        if asked.representation is not None or asked.views is not None:
            raise InputError(f"--representation or --views was given, and {bank.origin!r} holds features already")
        return "features", ()
    usual = default_representation(bank)
    networks = networks_of(usual) if asked.representation is None else tuple(asked.representation.split("+"))
    return ("letters" if networks == ("conv4-glyphs",) else "photographs"), networks


def views_of(networks: Sequence[str]) -> str:
    """The views of a picture that are averaged where none were asked for; "none" for features.

    Four, as without `auto`: eight gain up to 1.7 points on traffic signs and lose up to 2.1 on faces.
    """
    return default_views(open_part("+".join(networks), None, "representation")) if networks else "none"


def look(bank: AnyBank, pool: AnyBank | None, networks: Sequence[str], views: str) -> Shown:
    """The features of a bank and of a pool by each network."""
    if views not in VIEWS:
        raise InputError(f"--views {views!r} was given with --with auto; expected one of {', '.join(VIEWS)}")
    x, unlabelled = {}, {}
    for name in networks or ("",):
        part = _network(name)
        x[name] = features_of(bank, part, views)
        if pool is not None:
            unlabelled[name] = features_of(pool, part, views)
    return Shown(x, bank.y, unlabelled, group_numbers(bank))


def predictor_of(bank: AnyBank, recipe: RecipeFile, shown: Shown) -> Predictor:
    """What names pictures as a recipe says, shown these features of the bank."""
    one = recipe.candidate
    support = FeatureBank(beside(shown.x, one.networks), bank.y, tuple(bank.classes), bank.origin)
    pool = None
    if one.pool and shown.pool:
        rows = beside(shown.pool, one.networks)
        pool = FeatureBank(rows, torch.zeros(len(rows), dtype=torch.int64), ("",), "the pool")
    representation = None if one.representation is None else _network(one.representation)
    return make_predictor(support, open_classifier(one), representation, views=recipe.views, pool=pool)


def made(bank: AnyBank, pool: AnyBank | None, name: str, asked: Asked) -> tuple[Predictor, RecipeFile]:
    """What names pictures, and the recipe that it follows: of a file, or with the name "auto" chosen here."""
    if name != "auto":
        recipe = read_recipe(Path(name))
        return follow(bank, pool, recipe), recipe
    found = decide(bank, pool, asked)
    return predictor_of(bank, found.recipe, found.shown), found.recipe


def follow(bank: AnyBank, pool: AnyBank | None, recipe: RecipeFile) -> Predictor:
    """What names pictures as a recipe file says, with the rows of a bank, and of a pool where the recipe uses one."""
    one: Candidate = recipe.candidate
    if bool(one.networks) == isinstance(bank, FeatureBank):
        holds = "features" if isinstance(bank, FeatureBank) else "pictures"
        raise InputError(f"the recipe is of {one.representation or 'features'}, and {bank.origin!r} holds {holds}")
    _check(bank, pool)
    return predictor_of(bank, recipe, look(bank, pool if one.pool else None, one.networks, recipe.views))


def _network(name: str) -> Representation | None:
    return open_part(name, None, "representation") if name else None


def _check(bank: AnyBank, pool: AnyBank | None) -> None:
    empty = (bank.counts() == 0).nonzero()
    if len(empty) or len(bank.classes) < 2:
        what = (
            f"class {bank.classes[int(empty[0])]!r} has no row" if len(empty) else f"it has {len(bank.classes)} class"
        )
        raise InputError(f"--with auto: {what} in {bank.origin!r}; expected two classes or more, with a row each")
    if pool is not None and pool.space != bank.space:
        raise InputError(f"the pool {pool.origin!r} holds {pool.space}s, and {bank.origin!r} {bank.space}s")
