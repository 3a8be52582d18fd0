"""Prototypical networks: Snell, Swersky & Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from augforge.classifiers.base_statistics import check_positive, check_range, fitted, learn_whitening
from augforge.classifiers.weighted import Distance, as_rows, class_means, cosines, like_query, squared_distances
from augforge.types import Bank, Examples, Family


@dataclass
class Prototype:
    """The nearest class mean (Snell et al. 2017).

    c_k is the mean of the support rows of class k (equation 1); the score of a query is -||f(x) - c_k||^2 over
    `temperature`, so that its softmax is equation 2. `distance` "cosine" scores by the cosine with c_k instead, and
    "mahalanobis" by the squared distance in the metric of the pooled within-class covariance of base features, which
    `fit` learns.

    Differs from the paper: rows have weights; cosine and Mahalanobis and the temperature are additions.
    """

    family: ClassVar[Family] = "means"

    distance: Distance = "squared-euclidean"  # between query and class mean
    temperature: float = 1.0  # what scores are divided by, > 0
    shrinkage: float = 0.1  # how far the covariance is drawn towards a sphere, 0..1, for "mahalanobis"
    whitening_: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_positive(self, "temperature")
        check_range(self, "shrinkage", 0, 1)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn Mahalanobis' metric [d, d] from base features; for the other distances there is nothing to learn."""
        if self.distance == "mahalanobis":
            self.whitening_ = learn_whitening(base, self.shrinkage, "prototype")
        return self

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of queries [q, d], or [b, q, way] for b episodes; higher is likelier.

        Raises InputError for Mahalanobis before `fit`, and for rows that do not go together.
        """
        rows = as_rows(support, query)
        means, queries = class_means(rows.x, rows.member), rows.query
        if self.distance == "cosine":
            return like_query(cosines(queries, means) / self.temperature, query)
        if self.distance == "mahalanobis":
            whiten = fitted(self.whitening_, queries, "prototype")
            means, queries = means @ whiten, queries @ whiten
        return like_query(-squared_distances(queries, means) / self.temperature, query)
