"""k nearest neighbours: Cover & Hart, "Nearest neighbor pattern classification", 1967."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from augforge.classifiers.base_statistics import check_range, fitted, learn_whitening
from augforge.classifiers.weighted import Rows, as_rows, cosines, like_query, squared_distances
from augforge.types import Bank, Examples, Family, InputError

_TIE = 1e-3  # shares of the vote that differ by less than this over k are a tie


@dataclass
class Neighbours:
    """The vote of the k nearest support rows (Cover & Hart 1967).

    A row of weight w is w copies of itself: it takes w of the k places and casts w votes. The score is the logarithm
    of a class's share of the k votes; classes with equal votes, or none, are ranked by their nearest row.
    "mahalanobis" is the metric of the pooled within-class covariance of base features, which `fit` learns. A vote
    is a step function, so there are no derivatives.
    """

    family: ClassVar[Family] = "neighbours"

    k: int = 1  # votes of a query, >= 1
    distance: Literal["euclidean", "cosine", "manhattan", "mahalanobis"] = "euclidean"  # between query and support row
    shrinkage: float = 0.1  # how far the covariance is drawn towards a sphere, 0..1, for "mahalanobis"
    whitening_: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        if self.k < 1:
            raise InputError(f"k={self.k} was given; expected at least 1")
        check_range(self, "shrinkage", 0, 1)

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn Mahalanobis' metric [d, d] from base features; for the other distances there is nothing to learn."""
        if self.distance == "mahalanobis":
            self.whitening_ = learn_whitening(base, self.shrinkage, "knn")
        return self

    @torch.no_grad()
    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of queries [q, d], or [b, q, way] for b episodes; higher is likelier.

        Raises InputError for Mahalanobis before `fit`, and for rows that do not go together.
        """
        rows = as_rows(support, query)
        distance = self._distances(rows)  # [b, q, n]
        weight = rows.weight[:, None].expand_as(distance)
        distance = torch.where(weight > 0, distance, torch.inf)
        order = distance.argsort(stable=True, dim=-1)
        weight = weight.gather(-1, order)
        before = weight.cumsum(-1) - weight
        votes = torch.minimum((self.k - before).clamp(min=0), weight)  # the places that are left
        cast = torch.zeros_like(votes).scatter(-1, order, votes)  # each vote back at its row, [b, q, n]
        share = cast @ (rows.member > 0).to(cast.dtype) / self.k
        return like_query(torch.log(share + _TIE / self.k * _nearness(distance, rows)), query)

    def _distances(self, rows: Rows) -> Tensor:
        """The distance, or what ranks as it does, of every query to every support row: [b, q, n]."""
        if self.distance == "cosine":
            return -cosines(rows.query, rows.x)
        if self.distance == "manhattan":
            return torch.cdist(rows.query, rows.x, p=1)
        if self.distance == "euclidean":
            return squared_distances(rows.query, rows.x)
        whiten = fitted(self.whitening_, rows.x, "knn")
        return squared_distances(rows.query @ whiten, rows.x @ whiten)


def _nearness(distance: Tensor, rows: Rows) -> Tensor:
    """1 for the class whose row is nearest, down to 1 / way: distance [b, q, n] -> [b, q, way]."""
    label = rows.member.argmax(-1)[:, None].expand_as(distance)  # a row of weight 0 is infinitely far
    nearest = distance.new_full((*distance.shape[:2], rows.way), torch.inf)
    nearest = nearest.scatter_reduce(-1, label, distance, "amin")
    rank = nearest.argsort(stable=True, dim=-1).argsort(-1)
    return (rows.way - rank).to(distance.dtype) / rows.way
