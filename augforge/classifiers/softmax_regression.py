"""Newton's method for multinomial logistic regression, on many problems at once.

The problem of one episode, with classes one-hot in y and p = softmax(W z + c):
    minimise  ||W||^2 / 2 + C sum_i w_i CE(y_i, p_i)
over W [way, r] and the bias c [way], which is not penalised. It is convex, and strictly so but for a constant that
may be added to c. Steps are solved by conjugate gradients with the diagonal of the Hessian as preconditioner, in
float32 where its rounding is small beside the penalty's curvature of 1: a step need not be exact, and the gradient that
says where the minimum lies stays in float64. (Boehning's bound as preconditioner takes 2 to 10 times the products.)

Written by hand because scikit-learn's LogisticRegression solves one episode at a time: on one core, in 5-way episodes
of 64 features it takes 26 times as long at 1 shot and 15 times at 5 shots, in episodes of 640 features with 5 shots 4.9
times as long at 5-way and 2.2 times at 20-way, for the same minimum (`benchmarks/speed/logistic.py`, scikit-learn 1.9).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NEWTON_STEPS = 50
_ROUGH = 1.0  # float32's rounding of the Hessian up to which steps are solved in it
_HALVINGS = 30
_PRODUCTS = 200  # Hessian-vector products for one step at most
_ASK_EVERY = 4  # iterations between two questions to a device whether all problems are solved; each waits for it


@dataclass(frozen=True)
class Problem:
    """b problems, by their rows. A layer is [b, way, r + 1], the bias last; its logits are [b, way, n]."""

    z: Tensor  # rows [b, n, r + 1], whose last column is 1
    member: Tensor  # [b, way, n], C times the weight of a row where the class is its own, else 0
    penalty: Tensor  # [r + 1]: 1 for a weight, 0 for the bias

    def start(self) -> Tensor:
        """A layer of zeros."""
        return self.z.new_zeros(len(self.z), self.member.shape[1], self.z.shape[2])

    def longest(self) -> Tensor:
        """The length [b] of the longest row, with the 1 that the bias multiplies."""
        return torch.linalg.vector_norm(self.z, dim=-1).amax(1)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """The product [b] of two layers."""
        return (a * b).sum((1, 2))

    def logits(self, w: Tensor) -> Tensor:
        """W z + c of every row."""
        return w @ self.z.mT

    def loss(self, w: Tensor, logits: Tensor) -> Tensor:
        """The objective [b] at a layer with these logits."""
        cross_entropy = -(self.member * torch.log_softmax(logits, 1)).sum((1, 2))
        return cross_entropy + (self.penalty * w.square()).sum((1, 2)) / 2

    def gradient(self, w: Tensor, p: Tensor) -> Tensor:
        """Its gradient [b, way, r + 1] at a layer that gives probabilities p [b, way, n]."""
        return (self.member.sum(1, keepdim=True) * p - self.member) @ self.z + self.penalty * w

    def curvature(self, p: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> H v at probabilities p [b, way, n], both [b, way, r + 1]."""
        weighted = self.member.sum(1, keepdim=True) * p

        def product(v: Tensor) -> Tensor:
            u = self.logits(v)
            return (weighted * (u - (p * u).sum(1, keepdim=True))) @ self.z + self.penalty * v

        return product

    def inverse_diagonal(self, p: Tensor) -> Tensor:
        """One over the diagonal of H, [b, way, r + 1], which is held above a millionth of its largest value."""
        diagonal = (self.member.sum(1, keepdim=True) * p * (1 - p)) @ self.z.square() + self.penalty
        return 1 / diagonal.clamp(min=1e-6 * diagonal.amax((1, 2), keepdim=True)).clamp(min=1e-30)

    def to(self, dtype: torch.dtype) -> Problem:
        """The same in another dtype."""
        return Problem(self.z.to(dtype), self.member.to(dtype), self.penalty.to(dtype))


@dataclass(frozen=True)
class KernelProblem:
    """b problems, as `Problem`, by the products of their rows with each other alone.

    At the minimum W is a sum of support rows, W = A x, and so is every step towards it: all of Newton's method can be
    done on A [way, n]. No axes are looked for, which takes longer than the rest where rows are many, and nothing brings
    the Hessian nearer to its diagonal: this is for problems where the penalty says so much that conjugate gradients
    need no help.

    A layer is [b, 2 way, n + 1]: A beside the bias, and below it A K beside the bias, so that the product of two
    layers W and V, W V^T + b c, is the sum of the upper half of one times the lower half of the other. Products with
    `kernel` are taken in its own dtype.
    """

    kernel: Tensor  # [b, n, n], the products of the rows
    member: Tensor  # [b, way, n], as in `Problem`

    def start(self) -> Tensor:
        """A layer of zeros."""
        b, way, n = self.member.shape
        return self.member.new_zeros(b, 2 * way, n + 1)

    def longest(self) -> Tensor:
        """The length [b] of the longest row, with the 1 that the bias multiplies."""
        return (self.kernel.diagonal(dim1=1, dim2=2).amax(1) + 1).sqrt().to(self.member.dtype)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """The product [b] of two layers."""
        way = self.member.shape[1]
        return (a[:, :way] * b[:, way:]).sum((1, 2))

    def logits(self, w: Tensor) -> Tensor:
        """W x + b of every row, [b, way, n], taken anew from the upper half."""
        upper = w[:, : self.member.shape[1]]
        return self._products(upper[..., :-1]) + upper[..., -1:]

    def loss(self, w: Tensor, logits: Tensor) -> Tensor:
        """The objective [b] at a layer with these logits."""
        upper = w[:, : self.member.shape[1]]
        cross_entropy = -(self.member * torch.log_softmax(logits, 1)).sum((1, 2))
        return cross_entropy + (upper[..., :-1] * (logits - upper[..., -1:])).sum((1, 2)) / 2

    def gradient(self, w: Tensor, p: Tensor) -> Tensor:
        """Its gradient, a layer, at one that gives probabilities p [b, way, n]."""
        return self._layer(self.member.sum(1, keepdim=True) * p - self.member, w)

    def curvature(self, p: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> H v at probabilities p [b, way, n], both layers."""
        weighted = self.member.sum(1, keepdim=True) * p

        def product(v: Tensor) -> Tensor:
            lower = v[:, self.member.shape[1] :]
            u = lower[..., :-1] + lower[..., -1:]
            return self._layer(weighted * (u - (p * u).sum(1, keepdim=True)), v)

        return product

    def inverse_diagonal(self, p: Tensor) -> Tensor:
        """A preconditioner [b, 2 way, n + 1]: one over the bias's part of the diagonal of H, and 1 for all else."""
        of_bias = (self.member.sum(1, keepdim=True) * p * (1 - p)).sum(-1)  # [b, way]
        inverse = 1 / of_bias.clamp(min=1e-6 * of_bias.amax(1, keepdim=True)).clamp(min=1e-30)
        found = self.member.new_ones(len(p), 2 * p.shape[1], p.shape[2] + 1)
        found[..., -1] = inverse.repeat(1, 2)
        return found

    def to(self, dtype: torch.dtype) -> KernelProblem:
        """The same in another dtype."""
        return KernelProblem(self.kernel.to(dtype), self.member.to(dtype))

    def _layer(self, of_rows: Tensor, penalised: Tensor) -> Tensor:
        """The layer of a sum of rows with factors [b, way, n] and of another, of which the bias is left out."""
        way = of_rows.shape[1]
        found = torch.empty_like(penalised)
        upper = found[:, :way, :-1].copy_(of_rows).add_(penalised[:, :way, :-1])
        found[:, way:, :-1] = self._products(upper)
        found[..., -1] = of_rows.sum(-1).repeat(1, 2)
        return found

    def _products(self, factors: Tensor) -> Tensor:
        return (factors.to(self.kernel.dtype) @ self.kernel).to(factors.dtype)


def minimise(problem: Problem | KernelProblem, tolerance: float, near: float = 0.0) -> Tensor:
    """The minimum, a layer, to a gradient within `tolerance` of the total weight times the longest row.

    A gradient of up to 1000 times that is enough where W z is off by no more than `near` for any row: the penalty's
    curvature is 1, so W is off by at most the length of the gradient.

    Each problem stops when it is there, and what it gives does not depend on the others but within the tolerance. A
    warning says how many were not there after 50 steps.
    """
    w = problem.start()
    logits = problem.logits(w)
    loss = problem.loss(w, logits)
    total, longest = problem.member.sum((1, 2)), problem.longest().clamp(min=1e-30)
    scale = total * longest
    enough = (near / longest).clamp(max=1000 * tolerance * scale).maximum(tolerance * scale)
    rounding = float((scale * longest).amax()) * torch.finfo(torch.float32).eps
    rough = problem.to(torch.float32) if rounding < _ROUGH else problem
    for i in range(_NEWTON_STEPS):
        p = torch.softmax(logits, 1)
        gradient = problem.gradient(w, p)
        size = _norm(problem, gradient)
        busy = size > enough
        if _is_asked(i, busy) and not bool(busy.any()):
            return w
        exact = (size / scale).sqrt().clamp(max=0.1)  # superlinear: Nocedal & Wright 2006, equation 7.3
        step = _step(rough, gradient, p, torch.where(busy, exact, torch.inf))
        w, logits, loss = _descend(problem, (w, logits, loss), step, problem.dot(gradient, step))
    if left := int(busy.sum()):
        warnings.warn(f"logistic: {left} of {len(w)} episodes did not converge", RuntimeWarning, stacklevel=2)
    return w


def _step(problem: Problem | KernelProblem, gradient: Tensor, p: Tensor, exact: Tensor) -> Tensor:
    """-H^-1 g, a layer, to a residual of `exact` [b] times g, in the dtype of `problem`.

    The gradient is brought to length 1 first, so that its squares stay within float32's range.
    """
    length = _norm(problem, gradient)[:, None, None].clamp(min=1e-300)
    right = (-gradient / length).to(problem.member.dtype)
    found = solve(problem, p.to(right.dtype), right, exact.to(right.dtype))
    return length * found.to(gradient.dtype)


def solve(problem: Problem | KernelProblem, p: Tensor, right: Tensor, enough: Tensor) -> Tensor:
    """x with H x = right, both layers, at probabilities p [b, way, n], by conjugate gradients, to a residual of
    `enough` [b]; a problem that is there moves no further.
    """
    product, inverse = problem.curvature(p), problem.inverse_diagonal(p)
    x, residual = torch.zeros_like(right), right
    z = inverse * residual
    direction, energy = z, problem.dot(residual, z)[:, None, None]
    tiny = torch.finfo(right.dtype).tiny
    busy = torch.ones_like(energy, dtype=torch.bool)
    for i in range(_PRODUCTS):
        busy &= (_norm(problem, residual) > enough)[:, None, None]
        if _is_asked(i, busy) and not bool(busy.any()):
            break
        moved = product(direction)
        curved = problem.dot(direction, moved)[:, None, None]
        busy &= curved > tiny  # by rounding alone
        length = torch.where(busy, energy / curved.clamp(min=tiny), 0)
        x += length * direction
        residual = residual - length * moved
        z = inverse * residual
        new = problem.dot(residual, z)[:, None, None]
        direction = z.add_(new / energy.clamp(min=tiny) * direction)
        energy = new
    return x


def _descend(
    problem: Problem | KernelProblem, at: tuple[Tensor, Tensor, Tensor], step: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """w + t step, its logits and its loss, with the first t of 1, 1/2, 1/4, ... that lowers the objective enough
    (Armijo); each has its own. `at` are w, its logits and its loss.
    """
    w, logits, start = at
    along = problem.logits(step)
    slack = 1e-14 * start.abs()  # near the minimum the objective's rounding is larger than its fall
    t = torch.ones_like(start)
    for _ in range(_HALVINGS):
        part = t[:, None, None]
        new, found = w + part * step, logits + part * along
        loss = problem.loss(new, found)
        high = loss > start + 1e-4 * t * slope + slack
        if not bool(high.any()):
            break
        t = torch.where(high, t / 2, t)
    return new, found, loss


def _is_asked(iteration: int, busy: Tensor) -> bool:
    """Whether an iteration asks if all is solved: each on a CPU, every few on devices. What is solved stays so."""
    return busy.device.type == "cpu" or iteration % _ASK_EVERY == _ASK_EVERY - 1


def _norm(problem: Problem | KernelProblem, layer: Tensor) -> Tensor:
    """The length [b] of a layer; rounding may take its square below 0."""
    return problem.dot(layer, layer).clamp(min=0).sqrt()
