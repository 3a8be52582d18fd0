"""SimpleShot: Wang, Chao, Weinberger & van der Maaten, "SimpleShot: revisiting nearest-neighbor classification for
few-shot learning", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.base_statistics import base_mean, base_rows, fitted
from augforge.classifiers.weighted import along, as_rows, class_means, cosines, like_query, squared_distances
from augforge.types import Bank, Examples, Family


@dataclass
class SimpleShot:
    """The nearest centroid of transformed features (Wang et al. 2019).

    `normalise` is the paper's UN ("none"), L2N ("l2": x / ||x||) or CL2N ("centred-l2": the mean of the base
    features is taken away first, then L2N). The score is minus the squared Euclidean distance to the centroid of
    the transformed rows, which ranks as the paper's distance does.

    Differs from the paper: rows have weights; `distance` "cosine" divides by the centroid's length as well, as some
    public implementations do (the same at one shot).
    """

    family: ClassVar[Family] = "means"

    normalise: Literal["none", "l2", "centred-l2"] = "centred-l2"  # of rows: the paper's UN, L2N or CL2N
    distance: Literal["euclidean", "cosine"] = "euclidean"  # between query and centroid
    mean_: Tensor | None = field(default=None, init=False, repr=False)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn the mean [d] of the base features for "centred-l2"; otherwise there is nothing to learn."""
        if self.normalise == "centred-l2":
            self.mean_ = base_mean(base_rows(base, "simpleshot"))
        return self

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of queries [q, d], or [b, q, way] for b episodes; higher is likelier.

        Raises InputError for "centred-l2" before `fit`, and for rows that do not go together.
        """
        rows = as_rows(support, query)
        x, queries = rows.x, rows.query
        if self.normalise == "centred-l2":
            mean = fitted(self.mean_, x, "simpleshot")
            x, queries = x - mean, queries - mean
        if self.normalise != "none":
            x = F.normalize(x, dim=-1)
        centroids = class_means(x, rows.member)
        if self.distance == "cosine":
            return like_query(cosines(queries, centroids), query)
        if self.normalise == "none":
            return like_query(-squared_distances(queries, centroids), query)
        # ||q - c||^2 with ||q|| = 1, so that the queries need not be written anew
        return like_query(2 * along(queries, centroids) - centroids.square().sum(-1)[:, None] - 1, query)
