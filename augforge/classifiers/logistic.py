"""Multinomial logistic regression with an L2 penalty on the support of an episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from augforge.classifiers.base_statistics import check_positive
from augforge.classifiers.softmax_newton import Problem, minimise, solve
from augforge.classifiers.span import span
from augforge.classifiers.weighted import Rows, as_given, as_rows
from augforge.types import Bank, Examples

_TOLERANCE = 1e-9


@dataclass
class Logistic:
    """Logistic regression (as in Tian et al., "Rethinking few-shot image classification", ECCV 2020).

    It minimises ||W||^2 / 2 + C sum_i w_i CE(y_i, softmax(W x_i + b)) over W [way, d] and b [way], which has the
    same minimum as scikit-learn's LogisticRegression(C) with its sample weights; the scores are W x + b.
    `normalise` "l2" brings every row to length 1 first.

    All episodes of a batch are one tensor problem in float64, solved in the span of the support rows by Newton's
    method to a relative gradient of 1e-9. Derivatives with respect to rows, weights and queries are those of the
    minimum (implicit function theorem), not of the steps that led there.
    """

    C: float = 1.0
    normalise: Literal["none", "l2"] = "none"

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_positive(self, "C")

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Learn nothing: every episode is solved on its own support."""
        return self

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of queries [q, d], or [b, q, way] for b episodes; higher is likelier.

        Raises InputError for rows that do not go together.
        """
        rows = as_rows(support, query)
        if self.normalise == "l2":
            rows = Rows(F.normalize(rows.x, dim=-1), F.normalize(rows.query, dim=-1), rows.member)
        x, member = rows.x.to(torch.float64), rows.member.to(torch.float64) * self.C
        with torch.no_grad():
            layer = _minimum(x, member)
        if rows.needs_grad():
            layer = _with_derivatives(x, member, layer)
        layer = layer.to(rows.query.dtype)
        return as_given(torch.baddbmm(layer[:, -1:], rows.query, layer[:, :-1]), query)


def _problem(x: Tensor, member: Tensor) -> Problem:
    """The problem of rows [b, n, d] and C times their membership [b, n, way]."""
    one = x.new_ones(1)
    penalty = torch.cat([one.expand(x.shape[2]), one * 0])[:, None]
    return Problem(torch.cat([x, one.expand(*x.shape[:2], 1)], -1), member, penalty)


def _minimum(x: Tensor, member: Tensor) -> Tensor:
    """W^T above b, [b, d + 1, way], for x [b, n, d], member [b, n, way].

    The rows are centred, which only moves the bias and makes it independent of W in Boehning's bound.
    """
    weight = member.sum(-1)
    mean = (weight[:, None] @ x) / weight.sum(1)[:, None, None]  # [b, 1, d]
    axes = span(x - mean, weight)
    found = minimise(_problem(axes.z, member), _TOLERANCE)
    layer = axes.basis @ found[:, :-1]
    bias = found[:, -1:] - mean @ layer
    return torch.cat([layer, bias - bias.mean(-1, keepdim=True)], 1)


def _with_derivatives(x: Tensor, member: Tensor, layer: Tensor) -> Tensor:
    """The same layer, with the derivatives of the minimum: w - H^-1 g(x, member), where g is 0 and H is held fixed."""
    gradient = _problem(x, member).gradient(layer)
    solved = _Solve.apply(gradient, x.detach(), member.detach(), layer)
    assert isinstance(solved, Tensor)
    return layer - (solved - solved.detach())


class _Solve(torch.autograd.Function):
    """H^-1 of a gradient [b, d + 1, way]. H is symmetric, so its derivative is another solution."""

    @staticmethod
    def forward(ctx, gradient, x, member, layer):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, member, layer)
        return gradient  # at the minimum both are 0; only the derivative is wanted

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        x, member, layer = ctx.saved_tensors
        problem = _problem(x, member)
        upstream = upstream.clone()
        upstream[:, -1] -= upstream[:, -1].mean(-1, keepdim=True)  # the bias's free constant is held at mean 0
        enough = 1e-12 * upstream.square().sum((1, 2)).sqrt()
        inverse = 1 / problem.bound().clamp(min=1e-30)
        return solve(problem.curvature(layer), upstream, inverse, enough), None, None, None
