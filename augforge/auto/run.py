"""`auto` on a user's pictures: embed them once, choose, and make what names new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from augforge import chance
from augforge.auto.candidates import LETTERS, MADE, PARTS, Candidate, Kind, candidates, networks_of, with_means
from augforge.auto.choice import Choice, Shown, beside, choose, open_classifier
from augforge.auto.recipe_file import RecipeFile, read_recipe
from augforge.data.banks import AnyBank, FeatureBank, PictureBank
from augforge.data.selection import group_numbers
from augforge.inputs import PRESETS, default_representation, default_views
from augforge.parts.saving import open_part
from augforge.predict import Predictor, features_of, make_predictor
from augforge.representations.bank import as_seen, averaged_features
from augforge.representations.options import BankOptions
from augforge.types import Examples, InputError, Representation, Synthesizer

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
    options = candidates(kind, networks)
    shown = look(bank, pool, options, views)
    return Decided(choose(shown, options, asked.seed), shown, views)


def ways(bank: AnyBank, asked: Asked) -> tuple[Kind, tuple[str, ...]]:
    """What a bank holds, and the networks that may embed it."""
    if isinstance(bank, FeatureBank):
        if asked.representation is not None or asked.views is not None:
            raise InputError(f"--representation or --views was given, and {bank.origin!r} holds features already")
        return "features", ()
    usual = default_representation(bank)
    networks = networks_of(usual) if asked.representation is None else tuple(asked.representation.split("+"))
    return ("letters" if networks == (LETTERS,) else "photographs"), networks


def views_of(networks: Sequence[str]) -> str:
    """The views of a picture that are averaged where none were asked for; "none" for features.

    Four, as without `auto`: eight gain up to 1.7 points on traffic signs and lose up to 2.1 on faces.
    """
    return default_views(open_part("+".join(networks), None, "representation")) if networks else "none"


def look(bank: AnyBank, pool: AnyBank | None, options: Sequence[Candidate], views: str) -> Shown:
    """The features of a bank and a pool by each network of the candidates, and of what these have made of the bank."""
    if views not in VIEWS:
        raise InputError(f"--views {views!r} was given with --with auto; expected one of {', '.join(VIEWS)}")
    x, unlabelled, made = {}, {}, {}
    for name in embedded_networks(options):
        part = _network(name)
        x[name] = ready(features_of(bank, part, views), name, views)
        if pool is not None:
            unlabelled[name] = ready(features_of(pool, part, pool_views(views)), name, pool_views(views))
    for one in options:
        if one.made and not isinstance(bank, FeatureBank):
            made[one.made, one.networks[0]] = made_rows(bank, one, views)
    return Shown(with_means(x), bank.y, with_means(unlabelled), group_numbers(bank), made)


def embedded_networks(options: Sequence[Candidate]) -> tuple[str, ...]:
    """The networks that candidates need, each once; without those whose features are part of another one's."""
    names = list(dict.fromkeys(name for one in options for name in one.networks or ("",)))
    return tuple(name for name in names if name + PARTS not in names)


def ready(rows: Tensor, network: str, views: str) -> Tensor:
    """Features of a network as `beside` takes them: of photographs, as means of unit rows."""
    return F.normalize(rows, dim=1) if views == "none" and network not in ("", LETTERS) else rows


def pool_views(views: str) -> str:
    """The views of an unlabelled picture: one in place of four or eight, which takes a fraction of the time."""
    return "none" if views.startswith("crops") else views


def made_rows(bank: PictureBank, candidate: Candidate, views: str) -> Tensor:
    """The features [n, MADE, d] of what a candidate's method makes of each picture of a bank, by its name alone."""
    part, network = method_for(candidate), _network(candidate.networks[0])
    assert network is not None
    seen, found = as_seen(network, bank), []
    want = torch.zeros(MADE, dtype=torch.int64)
    for row in range(len(bank)):
        shown = Examples(seen.examples(torch.tensor([row])).x, want[:1])
        made = part.synthesize(shown, want, chance.row_keys(0, bank.name(row), torch.arange(MADE)))
        options = BankOptions(views=views, precision="float32")
        found.append(averaged_features(network, made.x, torch.arange(MADE), options))
    return torch.stack(found)


def method_for(candidate: Candidate) -> Synthesizer:
    """What makes a candidate's rows: pictures of one parent each."""
    return open_part(candidate.made, {"preset": PRESETS["letters"]}, "synthesizer")


def predictor_of(bank: AnyBank, recipe: RecipeFile, shown: Shown, support: Examples | None = None) -> Predictor:
    """What names pictures as a recipe says, shown these features of the bank; `support` is as its candidate sees them,
    where that is known already.
    """
    one = recipe.candidate
    real = FeatureBank(beside(shown.x, one.networks), bank.y, tuple(bank.classes), bank.origin)
    representation = None if one.representation is None else _network(one.representation)
    plain = make_predictor(real, open_classifier(one), representation, views=recipe.views)
    pooled = one.pool and bool(shown.pool)
    if support is None:
        support = shown.with_pool(one)[0] if pooled else shown.support(one)
    return replace(plain, support=support, pool=len(beside(shown.pool, one.networks)) if pooled else 0)


def made(bank: AnyBank, pool: AnyBank | None, name: str, asked: Asked) -> tuple[Predictor, RecipeFile]:
    """What names pictures, and the recipe that it follows: of a file, or with the name "auto" chosen here."""
    if name != "auto":
        recipe = read_recipe(Path(name))
        return follow(bank, pool, recipe), recipe
    found = decide(bank, pool, asked)
    return predictor_of(bank, found.recipe, found.shown, found.choice.support), found.recipe


def follow(bank: AnyBank, pool: AnyBank | None, recipe: RecipeFile) -> Predictor:
    """What names pictures as a recipe file says, with the rows of a bank, and of a pool where the recipe uses one."""
    one: Candidate = recipe.candidate
    if bool(one.networks) == isinstance(bank, FeatureBank):
        holds = "features" if isinstance(bank, FeatureBank) else "pictures"
        raise InputError(f"the recipe is of {one.representation or 'features'}, and {bank.origin!r} holds {holds}")
    _check(bank, pool)
    return predictor_of(bank, recipe, look(bank, pool if one.pool else None, (one,), recipe.views))


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
