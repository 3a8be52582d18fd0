"""Multinomial logistic regression by the products of its rows with each other alone.

At the minimum W is a sum of support rows, W = A x, and so is every step towards it: all of Newton's method can be done
on A [way, n] with the matrix K [n, n] of the rows' products. No axes are looked for, which takes longer than the rest
where rows are many, and nothing brings the Hessian nearer to its diagonal: this is for problems where the penalty
says so much that conjugate gradients need no help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KernelProblem:
    """b problems, as `softmax_newton.Problem` of rows whose products are `kernel` [b, n, n]; `member` [b, way, n].

    A layer is [b, 2 way, n + 1]: A beside the bias, and below it A K beside the bias, so that the product of two
    layers W and V, W V^T + b c, is the sum of the upper half of one times the lower half of the other. Products with
    `kernel` are taken in its own dtype.
    """

    kernel: Tensor
    member: Tensor

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
