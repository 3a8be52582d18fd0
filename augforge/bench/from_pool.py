"""`bench --pool`: unlabelled rows as a recipe beside the others, on the same episodes, and never the queries.

A row of the pool that is also one of the task, byte for byte or by its group of near-copies, may be a query of some
episode and is left out. Only where it is asked for (`transductive`) are the queries of an episode in its pool.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from augforge.bench.features import Features, preset_views
from augforge.bench.recipes import Recipe
from augforge.classifiers.pool import label_pool
from augforge.classifiers.pool_rows import PoolRows, Retrieved
from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank, FilePictures, keep_rows, row_digests
from augforge.data.selection import GROUP
from augforge.episodes.batch import MadeRows, RowMaker, Trials
from augforge.episodes.tasks import Task
from augforge.parts.learning import fitted
from augforge.representations.bank import embed_bank, normalised_rows
from augforge.types import Examples, InputError, NothingToLearn, capabilities

_NO_PICTURES = ArrayPictures(torch.zeros(0, dtype=torch.int64), (), np.zeros((0, 1, 1, 3), np.uint8), "no base classes")


def without_queries(task: Task, pool: AnyBank, group_by: str | None = None) -> tuple[AnyBank, str]:
    """The pool without rows that the task has too, or whose group `group_by` it has; and one line that counts them.

    Raises InputError where nothing is left, and where one holds pictures and the other features.
    """
    bank = task.novel
    if pool.space != bank.space:
        raise InputError(f"--pool {pool.origin!r} holds {pool.space}s, and {task.name!r} {bank.space}s; expected "
                         "the same kind")  # fmt: skip
    encoded = isinstance(bank, FilePictures) and isinstance(pool, FilePictures)
    known = set(row_digests(bank, encoded))
    copies = [digest in known for digest in row_digests(pool, encoded)]
    near = [False] * len(pool)
    if group_by is not None and GROUP in bank.groups:
        groups = {str(group) for group in bank.groups[GROUP]}
        near = [_group(group_by, pool.name(row)) in groups for row in range(len(pool))]
    kept = torch.tensor([not (a or b) for a, b in zip(copies, near, strict=True)], dtype=torch.bool)
    said = f"{int(kept.sum())} rows of the pool {pool.origin!r}"
    if not bool(kept.any()):
        raise InputError(f"all {len(pool)} rows of the pool {pool.origin!r} are rows of {task.name!r} or of their "
                         "groups, which may be queries; expected other pictures, or --transductive")  # fmt: skip
    if not bool(kept.all()):
        alone = sum(b and not a for a, b in zip(copies, near, strict=True))
        said += f"; left out, since they may be queries: {sum(copies)} that {task.name} has too"
        said += f", {alone} of the same groups" if alone else ""
    return keep_rows(pool, kept.nonzero()[:, 0]), said  # type: ignore[type-var]


def _group(pattern: str, name: str) -> str | None:
    found = re.search(pattern, name)
    return None if found is None else next((text for text in found.groups() if text is not None), found.group())


def with_pool_recipes(
    recipes: Sequence[Recipe],
    pool: AnyBank,
    made: int,
    transductive: bool = False,
    cache: Path | None = None,
    device: str = "cpu",
) -> list[Recipe]:
    """The recipes, and for each representation and classifier among them "pool" and "retrieved" on the pool's rows.

    `made` is how many rows of each class are retrieved; the pool gives all that it has. Raises InputError for a
    classifier that counts no weights, and a representation that would have to be fitted first.
    """
    found, seen = list(recipes), set[tuple]()
    features: dict[tuple, Tensor] = {}
    for recipe in recipes:
        key = (id(recipe.representation), recipe.options, recipe.shown()["classifier"])
        if key in seen:
            continue
        seen.add(key)
        if not capabilities(recipe.classifier).counts_weights:
            raise InputError(f"--pool was given with {recipe.shown()['classifier']}, which counts no weights; expected "
                             "a classifier that does, as logistic")  # fmt: skip
        if key[:2] not in features:
            features[key[:2]] = _embedded(recipe, pool, cache, device)
        x = features[key[:2]]
        part = PoolRows(transductive).over(x)
        name = "pool, transductive" if transductive else "pool"
        names = recipe.names[0], name, recipe.names[2]
        of_pool = replace(
            recipe, synthesizer=part, made=len(x), weights="each", share=None, names=names, of_pool="pool"
        )
        near = replace(of_pool, synthesizer=Retrieved().over(x), made=made, names=(names[0], "retrieved", names[2]),
                       of_pool="control")  # fmt: skip
        found += [of_pool, near]
    return found


def _embedded(recipe: Recipe, pool: AnyBank, cache: Path | None, device: str) -> Tensor:
    """The features [m, d] of a pool, made as the recipe makes those of the support."""
    options = recipe.options
    if options.normalise == "centred-l2":
        raise InputError("--normalise centred-l2 was given with --pool; expected none, l2 or power")
    if isinstance(pool, FeatureBank):
        return normalised_rows(pool.x, options.normalise).to(device)
    if recipe.representation is None:
        raise InputError(f"the pool {pool.origin!r} holds pictures; expected a representation, or features")
    try:
        representation = fitted(recipe.representation, "representation", _NO_PICTURES, 0, None)
    except NothingToLearn as error:
        name = recipe.shown()["representation"]
        raise InputError(f"--pool was given with {name}, which is fitted in the run; expected a folder that `augforge "
                         f"fit` made of it, or a representation that comes fitted, as photos") from error  # fmt: skip
    of_support = options if options.sides != "query" else replace(options, views="none")
    folder = None if cache is None else cache / "features"
    made = embed_bank(representation, pool, of_support, folder, device, preset_views(of_support))
    return normalised_rows(made.x, options.normalise).to(device)


def from_pool(part: PoolRows, features: Features) -> RowMaker:
    """The rows of a pool with the labels and weights of `label_pool`, episode by episode, padded by weight 0.

    A transductive part has the queries of an episode in its pool.
    """
    x = part.x_
    assert x is not None

    def rows(start: int, trials: Trials) -> MadeRows:
        del start
        of_class: list[list[tuple[Tensor, Tensor]]] = []
        for support, query in zip(trials.rows.support, trials.rows.query, strict=True):
            used = support >= 0
            labels = torch.arange(len(support), device=x.device)[:, None].expand_as(support)[used]
            pool = torch.cat([x, features.query.x[query.flatten()]]) if part.transductive else x
            found = label_pool(Examples(features.support.x[support[used]], labels), pool)
            weight = found.weight.to(pool)
            of_class.append([(pool[found.y == k], weight[found.y == k]) for k in range(len(support))])
        most = max(1, *(len(w) for classes in of_class for _, w in classes))
        b, way = trials.rows.support.shape[:2]
        made, weights = x.new_zeros(b, way, most, x.shape[1]), torch.zeros(b, way, most)
        for i, classes in enumerate(of_class):
            for k, (own, weight) in enumerate(classes):
                made[i, k, : len(own)] = own
                weights[i, k, : len(own)] = weight.cpu()
        return made, weights

    return rows
