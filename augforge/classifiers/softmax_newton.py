"""Newton's method for multinomial logistic regression, on many problems at once.

The problem of one episode, with classes one-hot in y and p = softmax(z W + c):
    minimise  ||W||^2 / 2 + C sum_i w_i CE(y_i, p_i)
over W [r, way] and the bias c [way], which is not penalised. It is convex, and strictly so but for a constant that
may be added to c. Steps are solved by conjugate gradients with the diagonal of Boehning's bound as preconditioner
(Boehning, "Multinomial logistic regression algorithm", 1992: diag(p) - p p^T is at most (I - 11^T / way) / 2).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NEWTON_STEPS = 50
_HALVINGS = 30
_PRODUCTS = 200  # Hessian-vector products for one step at most


@dataclass(frozen=True)
class Problem:
    """b problems: rows `z` [b, n, r + 1] whose last column is 1, `member` [b, n, way] (C times the weight of row i
    where its class is k, else 0), and `penalty` [r + 1, 1]: 1 for a weight, 0 for the bias.
    """

    z: Tensor
    member: Tensor
    penalty: Tensor

    def loss(self, w: Tensor) -> Tensor:
        """The objective [b] at w [b, r + 1, way]."""
        cross_entropy = -(self.member * torch.log_softmax(self.z @ w, -1)).sum((1, 2))
        return cross_entropy + (self.penalty * w.square()).sum((1, 2)) / 2

    def gradient(self, w: Tensor) -> Tensor:
        """Its gradient [b, r + 1, way] at w [b, r + 1, way]."""
        p = torch.softmax(self.z @ w, -1)
        return self.z.mT @ (self.member.sum(-1, keepdim=True) * p - self.member) + self.penalty * w

    def curvature(self, w: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> H v at w, both [b, r + 1, way]."""
        p = torch.softmax(self.z @ w, -1)
        weighted = self.member.sum(-1, keepdim=True) * p

        def product(v: Tensor) -> Tensor:
            u = self.z @ v
            return self.z.mT @ (weighted * (u - (p * u).sum(-1, keepdim=True))) + self.penalty * v

        return product

    def bound(self) -> Tensor:
        """The diagonal [b, r + 1, 1] of Boehning's bound of H, for each class alike."""
        squares = (self.member.sum(-1, keepdim=True) * self.z.square()).sum(1)[..., None]
        return self.penalty + squares / 2


def minimise(problem: Problem, tolerance: float) -> Tensor:
    """The minimum w [b, r + 1, way], to a gradient within `tolerance` of the total weight times the longest row.

    Each problem stops when it is there, and what it gives does not depend on the others. A warning says how many
    were not there after 50 steps.
    """
    z, member = problem.z, problem.member
    w = z.new_zeros(len(z), z.shape[2], member.shape[2])
    scale = member.sum((1, 2)) * torch.linalg.vector_norm(z, dim=-1).amax(1).clamp(min=1e-30)
    inverse = 1 / problem.bound().clamp(min=1e-30)
    for _ in range(_NEWTON_STEPS):
        gradient = problem.gradient(w)
        size = _norm(gradient)
        busy = size > tolerance * scale
        if not bool(busy.any()):
            return w
        exact = (size / scale).sqrt().clamp(max=0.1) * size  # superlinear: Nocedal & Wright 2006, equation 7.3
        step = solve(problem.curvature(w), -gradient, inverse, torch.where(busy, exact, torch.inf))
        w = _descend(problem, w, step, (gradient * step).sum((1, 2)))
    warnings.warn(f"logistic: {int(busy.sum())} of {len(z)} episodes did not converge", RuntimeWarning, stacklevel=2)
    return w


def solve(product: Callable[[Tensor], Tensor], right: Tensor, inverse: Tensor, enough: Tensor) -> Tensor:
    """x with H x = right [b, r + 1, way], by conjugate gradients, to a residual of `enough` [b].

    `inverse` [b, r + 1, 1] is the preconditioner; a problem that is there moves no further.
    """
    x, residual = torch.zeros_like(right), right
    z = inverse * residual
    direction, energy = z, (residual * z).sum((1, 2), keepdim=True)
    for _ in range(_PRODUCTS):
        busy = (_norm(residual) > enough)[:, None, None]
        if not bool(busy.any()):
            break
        moved = product(direction)
        length = torch.where(busy, energy / (direction * moved).sum((1, 2), keepdim=True).clamp(min=1e-300), 0)
        x, residual = x + length * direction, residual - length * moved
        z = inverse * residual
        new = (residual * z).sum((1, 2), keepdim=True)
        direction = torch.where(busy, z + new / energy.clamp(min=1e-300) * direction, direction)
        energy = torch.where(busy, new, energy)
    return x


def _descend(problem: Problem, w: Tensor, step: Tensor, slope: Tensor) -> Tensor:
    """w + t step with the first t of 1, 1/2, 1/4, ... that lowers the objective enough (Armijo); each has its own."""
    start = problem.loss(w)
    slack = 1e-14 * start.abs()  # near the minimum the objective's rounding is larger than its fall
    t = torch.ones_like(start)
    for _ in range(_HALVINGS):
        high = problem.loss(w + t[:, None, None] * step) > start + 1e-4 * t * slope + slack
        if not bool(high.any()):
            break
        t = torch.where(high, t / 2, t)
    return w + t[:, None, None] * step


def _norm(a: Tensor) -> Tensor:
    """The length of each [r + 1, way] of [b, r + 1, way]: [b]."""
    return a.square().sum((1, 2)).sqrt()
